//! Weights files: `denoise`, `info`, and invalid files.

use std::fs;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Tensors, assert_close, root};

use crate::support::{fails, run, text, view, write_noisy};

#[test]
fn denoise_is_the_door_for_other_implementations() {
    let folder = TempDir::new().expect("a temporary folder");
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    let weights = root().join("tests/golden/network.weights.safetensors");
    let golden = Tensors::golden("network.expected.safetensors");
    let values =
        |name: &str| -> Vec<f32> { golden.get(name).1.iter().map(|value| *value as f32).collect() };
    let (x, sigma) = (values("x"), values("sigma"));
    let write = |x_shape: &[usize], sigma: &[f32]| write_noisy(&input, (x_shape, &x), sigma);
    let args = [
        "denoise",
        "--weights",
        text(&weights),
        "--input",
        text(&input),
        "--output",
        text(&output),
        "--batch",
        "3",
    ];
    write(&[4, 3, 8, 8], &sigma);
    run(&args);
    let found = Tensors::open(&output);
    for name in ["denoised", "raw"] {
        assert_eq!(found.get(name).0, [4, 3, 8, 8]);
        assert_close(name, &found.get(name).1, &golden.get(name).1, 1e-5);
    }
    write(&[4, 3, 4, 16], &sigma);
    assert!(fails(&args).contains("takes [B, 3, 8, 8] and [B]"));
    write(&[4, 3, 8, 8], &[0.0, 1.0, 1.0, 1.0]);
    assert!(fails(&args).contains("`sigma` contains 0, which is not above 0"));
    fs::write(&input, b"nonsense").expect("written");
    let error = fails(&args);
    assert!(error.contains(text(&input)) && error.contains("header"), "{error}");
}

#[test]
fn info_counts_presets_and_lists_tensors() {
    for preset in [
        "tiny",
        "cifar10",
        "cifar10-i",
        "cifar10-256",
        "ffhq64",
        "ffhq64-i",
        "latent256",
        "latent512",
        "latent-tiny",
    ] {
        let info: Value =
            serde_json::from_str(&run(&["info", preset, "--json", "--tensors"])).expect("JSON");
        let listed: u64 = info["tensors"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|t| {
                t[1].as_array()
                    .expect("a shape")
                    .iter()
                    .map(|n| n.as_u64().expect("a number"))
                    .product::<u64>()
            })
            .sum();
        assert_eq!(info["parameters"], listed, "{preset}");
    }
    assert!(run(&["info", "cifar10"]).contains("28702339"));
    let latent = run(&["info", "latent256"]);
    assert!(latent.contains("561035232") && latent.contains("blocks 0-27"), "{latent}");
    assert!(run(&["info", "tiny"]).contains("blocks 0-1 "));
    assert!(run(&["info"]).starts_with("shipped\n"));
    let error = fails(&["info", "cifar11"]);
    assert!(error.contains("no such file or preset") && error.contains("cifar10-256"), "{error}");
}

/// Returns a file of the preset latent-tiny in the layout of the official release. All weights are
/// zero; position embeddings and indices are computed.
fn official_file() -> Vec<u8> {
    let config = model::preset::by_name("latent-tiny").expect("a preset");
    let specs = model::weights::specs(&config);
    let learned = specs.into_iter().map(|s| {
        let bytes = vec![0; 2 * s.len()];
        (s.name, Dtype::BF16, s.shape, bytes)
    });
    // Tokens of 192 values: 48 sines and 48 cosines of the column, and as many of the row.
    let (side, n) = (8, 48);
    let angle = |place: usize, i: usize| place as f64 / 1e4f64.powf(i as f64 / n as f64);
    let wave = |place| {
        let sines = (0..n).map(move |i| angle(place, i).sin());
        sines.chain((0..n).map(move |i| angle(place, i).cos()))
    };
    let positions = (0..side * side).flat_map(|token| wave(token % side).chain(wave(token / side)));
    let positions = positions.flat_map(|value| (value as f32).to_le_bytes()).collect();
    let mut tensors = vec![("pos_embed".to_string(), Dtype::F32, vec![1, 64, 192], positions)];
    tensors.extend(learned);
    for block in 0..8 {
        let index = model::window::relative_position_index(side);
        let bytes = index.into_iter().flat_map(|i| (i as i64).to_le_bytes()).collect();
        let name = format!("blocks.{block}.attn.relative_position_index");
        tensors.push((name, Dtype::I64, vec![64, 64], bytes));
    }
    let views =
        tensors.iter().map(|(name, dtype, shape, bytes)| (name, view(*dtype, shape, bytes)));
    safetensors::serialize(views, None).expect("it fits")
}

#[test]
fn an_official_file_is_read_as_it_is() {
    let folder = TempDir::new().expect("a temporary folder");
    let [weights, input, output] =
        ["diffit.safetensors", "input", "output"].map(|name| folder.path().join(name));
    fs::write(&weights, official_file()).expect("written");
    let info: Value =
        serde_json::from_str(&run(&["info", text(&weights), "--json"])).expect("one JSON object");
    assert_eq!(info["precision"], "bf16");
    assert_eq!(info["parameters"], 4_550_864);
    assert_eq!(info["config"]["network"]["space"], "latent");
    assert!(run(&["info", text(&weights)]).contains("official layout"));

    // All weights are zero, and so is the predicted noise: the latent is unchanged.
    let x: Vec<f32> = (0..2 * 4 * 16 * 16).map(|i| i as f32 * 0.01).collect();
    write_noisy(&input, (&[2, 4, 16, 16], &x), &[0.5, 10.0]);
    run(&[
        "denoise",
        "--weights",
        text(&weights),
        "--input",
        text(&input),
        "--output",
        text(&output),
    ]);
    let found = Tensors::open(&output);
    assert_eq!(found.get("denoised").1, Tensors::open(&input).get("x").1);
    assert_eq!(found.get("raw"), (vec![2, 8, 16, 16], vec![0.0; 2 * 8 * 16 * 16]));

    let error = fails(&["sample", "--weights", text(&weights)]);
    assert!(error.contains("images of 4 channels"), "{error}");
}

#[test]
fn what_is_wrong_with_a_weights_file_is_said() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("w.safetensors");
    let good = fs::read(root().join("tests/golden/network.weights.safetensors")).expect("there");
    let says = |bytes: &[u8], message: &str| {
        fs::write(&path, bytes).expect("written");
        let error = fails(&["info", text(&path)]);
        assert!(error.contains(message), "{error:?} does not say {message:?}");
        assert!(error.contains("w.safetensors"), "{error:?} does not name the file");
    };
    let official = root().join("tests/golden/latent.official.safetensors");
    says(
        &fs::read(official).expect("there"),
        "like those of the official release, but its `pos_embed` is [1, 16, 24]",
    );
    says(b"", "only 0 bytes");
    says(b"PK\x03\x04whatever", "PyTorch or pickle");
    says(b"\x80\x02}q\x01.", "PyTorch or pickle");
    says(b"<!DOCTYPE html><html>", "a web page");
    says(&good[..good.len() - 10], "cut short");
    says(&[&good[..], b"more"].concat(), "another number of bytes");
    says(&u64::MAX.to_le_bytes(), "no sensible length");
    // An unknown tensor, a missing one, one of another shape, one of another type, one not finite.
    let file = SafeTensors::deserialize(&good).expect("good");
    let (_, header) = SafeTensors::read_metadata(&good).expect("good");
    let edited = |edit: &dyn Fn(&mut Vec<(String, TensorView)>)| {
        let mut tensors: Vec<_> =
            file.iter().map(|(name, view)| (name.to_string(), view.clone())).collect();
        edit(&mut tensors);
        safetensors::serialize(tensors, header.metadata().clone()).expect("fits")
    };
    let zeros: &'static [u8] = &[0; 4096];
    says(
        &edited(&|t| t.push(("extra".into(), view(Dtype::F32, &[2], &zeros[..8])))),
        "`extra` is not part",
    );
    says(
        &edited(&|t| t.retain(|(name, _)| name != "time.fc1.bias")),
        "`time.fc1.bias` [12] is missing",
    );
    let replace = |name: &'static str, new: TensorView<'static>| {
        move |t: &mut Vec<(String, TensorView)>| {
            t.iter_mut().filter(|(n, _)| n == name).for_each(|(_, view)| *view = new.clone());
        }
    };
    let wrong = view(Dtype::F32, &[13], &zeros[..52]);
    says(&edited(&replace("time.fc1.bias", wrong)), "`time.fc1.bias` is [13], not [12]");
    let wrong = view(Dtype::I64, &[12], &zeros[..96]);
    says(&edited(&replace("time.fc1.bias", wrong)), "`time.fc1.bias` is I64");
    let nan: &'static [u8] = &[0xff; 48];
    let wrong = view(Dtype::F32, &[12], nan);
    // `info` reads the header only.
    fs::write(&path, edited(&replace("time.fc1.bias", wrong))).expect("written");
    let error = fails(&["export", text(&path), "-o", text(&folder.path().join("x"))]);
    let part = "w.safetensors: tensor `time.fc1.bias` holds values that are not finite";
    assert!(error.contains(part), "{error}");
    let metadata = |text: &str| {
        let metadata = std::collections::HashMap::from([("diffit".to_string(), text.to_string())]);
        let tensors: Vec<_> =
            file.iter().map(|(name, view)| (name.to_string(), view.clone())).collect();
        safetensors::serialize(tensors, Some(metadata)).expect("fits")
    };
    says(&metadata("{"), "metadata of this weights file is damaged");
    says(&metadata(r#"{"version": 2}"#), "format version 2");
    says(
        &metadata(r#"{"version": 1, "config": {"network": {"space": "image", "resolution": 31}}}"#),
        "cannot be halved",
    );
    let tensors: Vec<_> =
        file.iter().map(|(name, view)| (name.to_string(), view.clone())).collect();
    says(&safetensors::serialize(tensors, None).expect("fits"), "no DiffiT configuration");
}
