//! A GPU against the processor: the same program, the same numbers. Ignored unless asked for, since
//! they need a GPU and a program built for it: `cargo xtask device vulkan` (or `cuda`, `wgpu`) sees
//! to the latter.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Tensors, assert_close, root, trainer};

/// The device that is held against the processor.
fn device() -> String {
    std::env::var("DIFFIT_DEVICE").expect("`cargo xtask device` names one")
}

/// Runs the program, which must succeed, and returns what it prints.
fn run(args: &[&str]) -> String {
    let assert = trainer().args(args).assert().success();
    String::from_utf8(assert.get_output().stdout.clone()).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A small network with all that a large one has, for `--options`.
fn options(folder: &Path) -> String {
    let path = folder.join("options.json");
    let options = serde_json::json!({
        "batch": 8,
        "augment": 0.12,
        "lr_ramp": 0,
        "model": {"network": {
            "channels": [32, 32], "blocks": [1, 1], "window": {"size": 8}, "dropout": 0.1,
            "time": {"channels": 8, "width": 16},
        }},
    });
    fs::write(&path, options.to_string()).expect("written");
    text(&path).to_string()
}

/// Trains on a device from random weights, and returns what is printed and the run's folder.
fn train(folder: &Path, device: &str, more: &[&str]) -> (String, PathBuf) {
    let out = folder.join(format!("{device}{}", more.join("")));
    let options = options(folder);
    let args = ["train", "--from", "scratch", "--grid", "0", "--json", "--options", &options];
    let place = ["--device", device, "--out", text(&out)];
    let said = run(&[&args[..], &place, more].concat());
    let run = fs::read_dir(out).expect("a folder").next().expect("a run").expect("an entry");
    (said, run.path())
}

/// All weights of a run.
fn weights(run: &Path) -> Vec<f64> {
    let bytes = fs::read(run.join("weights.safetensors")).expect("weights");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut names: Vec<String> = file.names().into_iter().map(String::from).collect();
    names.sort();
    let values = |name: &String| {
        let view = file.tensor(name).expect("there");
        let values = view.data().chunks_exact(4);
        values
            .map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")).into())
            .collect::<Vec<f64>>()
    };
    names.iter().flat_map(values).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// The shipped network, at low, middle and high noise.
#[test]
#[ignore = "needs a GPU"]
fn denoises_as_the_processor_does() {
    let folder = TempDir::new().expect("a temporary folder");
    let sigma: [f32; 3] = [0.05, 1.0, 40.0];
    let noise = model::noise::start_noise(3, 3 * 3072);
    let x = noise.chunks(3072).zip(sigma).flat_map(|(x, s)| x.iter().map(move |x| x * s.max(0.5)));
    let bytes =
        |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let (x, sigma) = (bytes(x.collect()), bytes(sigma.to_vec()));
    let view = |shape, bytes| TensorView::new(Dtype::F32, shape, bytes).expect("it fits");
    let input = folder.path().join("input.safetensors");
    let tensors = [("x", view(vec![3, 3, 32, 32], &x)), ("sigma", view(vec![3], &sigma))];
    fs::write(&input, safetensors::serialize(tensors, None).expect("plain")).expect("written");
    let weights = root().join("www/weights/tiny-emoji.safetensors");
    let [found, want] = [device().as_str(), "flex"].map(|device| {
        let output = folder.path().join(device);
        let files = ["--weights", text(&weights), "--input", text(&input)];
        run(&[&["denoise", "--device", device, "--output", text(&output)], &files[..]].concat());
        Tensors::open(&output)
    });
    for name in ["denoised", "raw"] {
        assert_close(name, &found.get(name).1, &want.get(name).1, 1e-4);
    }
}

/// Three steps, with augmentation and dropout.
#[test]
#[ignore = "needs a GPU"]
fn learns_as_the_processor_does() {
    let folder = TempDir::new().expect("a temporary folder");
    let steps = ["--duration", "24"];
    let want = weights(&train(folder.path(), "flex", &steps).1);
    let start = {
        // A step so small that nothing moves.
        let nearly = train(folder.path(), "flex", &["--duration", "8", "--lr", "1e-30"]);
        weights(&nearly.1)
    };
    let moved = distance(&start, &want);
    assert!(moved > 0.1, "nothing was learned: {moved}");
    for more in [&[][..], &["--gradient-checkpointing"], &["--micro-batch", "4"]] {
        let found = weights(&train(folder.path(), &device(), &[&steps[..], more].concat()).1);
        let off = distance(&found, &want);
        assert!(off < 0.02 * moved, "{more:?}: off by {off} of {moved}");
    }
}

/// 250 steps: the loss stays a number, and falls as on the processor.
#[test]
#[ignore = "needs a GPU"]
fn goes_on_learning() {
    let folder = TempDir::new().expect("a temporary folder");
    let [found, want] = [device().as_str(), "flex"].map(|device| {
        let (said, _) = train(folder.path(), device, &["--duration", "2k"]);
        let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter_map(|line| line["loss"].as_f64()).collect::<Vec<f64>>()
    });
    assert_eq!([found.len(), want.len()], [2, 2], "{found:?}, {want:?}");
    assert!(want[1] < want[0], "{want:?}");
    for (found, want) in found.iter().zip(&want) {
        assert!((found / want - 1.0).abs() < 0.02, "{found}, not {want}");
    }
}

/// A picture of a seed is the processor's.
#[test]
#[ignore = "needs a GPU"]
fn draws_as_the_processor_does() {
    let folder = TempDir::new().expect("a temporary folder");
    let [found, want] = [device().as_str(), "flex"].map(|device| {
        let output = folder.path().join(format!("{device}.png"));
        let more = ["--steps", "6", "--seeds", "5", "-o", text(&output)];
        run(&[&["sample", "--device", device], &more[..]].concat());
        image::open(&output).expect("a picture").into_rgb8()
    });
    assert_eq!(found.dimensions(), want.dimensions());
    let off = found.iter().zip(want.iter()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off.is_some_and(|off| off <= 2), "off by {off:?} levels");
}
