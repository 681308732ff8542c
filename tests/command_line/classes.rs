//! Classes, from training to sampling.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;
use tests::trainer;

use crate::support::{fails, only_run, png, run, small_options, some_pictures, text, weights};

/// Classes of the emoji dataset, from training to samples.
#[test]
fn pictures_are_made_by_name() {
    let folder = TempDir::new().expect("a temporary folder");
    let out = folder.path().join("runs");
    let options = small_options(folder.path());
    let train = |more: &[&str]| {
        let usual = ["train", "--options", &options, "--data", "emoji", "--from", "scratch"];
        let sizes = ["--grid", "2", "--duration", "16", "--out", text(&out)];
        trainer().args(usual).args(sizes).args(more).assert().success()
    };
    train(&["--preset", "tiny-emoji"]);
    let weights_file = only_run(&out).join("weights.safetensors");
    let info: Value =
        serde_json::from_str(&run(&["info", text(&weights_file), "--json"])).expect("JSON");
    assert_eq!(info["card"]["classes"].as_array().map(Vec::len), Some(1911));
    assert_eq!(info["card"]["class_groups"].as_array().map(Vec::len), Some(10));

    // After two steps the samples are noise, so only the stored settings are compared.
    let sample = |name: &str, classes: &str, more: &[&str]| {
        let path = folder.path().join(name);
        let mut args = vec!["sample", "--weights", text(&weights_file), "--steps", "2"];
        args.extend(["--seeds", "0-3", "-o", text(&path)]);
        if !classes.is_empty() {
            args.extend(["--class", classes]);
        }
        args.extend(more);
        run(&args);
        fs::read(&path).expect("a picture")
    };
    let origin = |png: &[u8]| {
        let origin = model::picture::Origin::from_png(png).expect("settings");
        serde_json::to_value(origin.settings.classes).expect("plain data")
    };
    let mixed = sample("mixed.png", "otter=0.6,pizza=0.4;rocket;red heart", &[]);
    let classes =
        [origin(&sample("otter.png", "otter", &[])), origin(&sample("p.png", "pizza", &[]))];
    assert_eq!(origin(&mixed)[0], serde_json::json!([[classes[0][0], 0.6], [classes[1][0], 0.4]]));
    assert_eq!(origin(&mixed).as_array().map(Vec::len), Some(3));
    // A model with classes can be sampled without one.
    assert_eq!(origin(&sample("none.png", "", &[])), serde_json::json!([]));
    // Captions enlarge the images.
    sample("names.png", "otter,pizza", &["--labels"]);
    let names = png(&folder.path().join("names.png"));
    assert_eq!(names.dimensions(), (208, 264));
    let said = fails(&["sample", "--weights", text(&weights_file), "--class", "otter=x"]);
    assert!(said.contains("otter=x"), "{said}");

    // Initial weights with other classes: all tensors except the class embeddings are used.
    fs::remove_dir_all(&out).expect("a folder");
    train(&["--preset", "tiny", "--lr", "1e-12"]);
    let started = only_run(&out).join("weights.safetensors");
    let plain = weights(&started);
    fs::rename(&started, folder.path().join("plain.safetensors")).expect("moved");
    fs::remove_dir_all(&out).expect("a folder");
    let from = folder.path().join("plain.safetensors");
    let usual = ["train", "--options", &options, "--data", "emoji", "--from", text(&from)];
    let more = ["--preset", "tiny-emoji", "--lr", "1e-12", "--grid", "0", "--duration", "16"];
    trainer().args(usual).args(more).args(["--out", text(&out)]).assert().success();
    let (mut kept, mut new) = (0, Vec::new());
    for (name, values) in weights(&only_run(&out).join("weights.safetensors")) {
        match plain.iter().find(|(known, _)| *known == name) {
            Some((_, before)) => {
                let floats = |bytes: &[u8]| -> Vec<f64> {
                    let four = bytes.chunks_exact(4);
                    four.map(|b| f32::from_le_bytes(b.try_into().expect("4")).into()).collect()
                };
                let (values, before) = (floats(&values), floats(before));
                // Updates of at most 1e-12, also of biases, which start at zero.
                let near = values.iter().zip(&before).all(|(a, b)| (a - b).abs() < 1e-9);
                assert!(near && values.len() == before.len(), "{name}");
                kept += 1;
            }
            None => new.push(name),
        }
    }
    assert_eq!((kept, new), (plain.len(), vec!["time.class.weight".to_string()]));
}

#[test]
fn a_model_with_classes_is_not_trained_on_data_without_any() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let pictures = some_pictures(folder.path(), 6);
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--data", &pictures, "--out", text(&out)];
    let error = fails(&[&args[..], &["--preset", "tiny-emoji"]].concat());
    assert!(error.contains("no image has a class, but the model has 1911 classes"), "{error}");
    assert!(error.contains(r#"{"model": {"network": {"classes": 0}}}"#), "{error}");
    assert!(!out.exists());

    // A model without classes is, also if a batch has more images than there are.
    let more = ["--preset", "tiny", "--grid", "0", "--duration", "8"];
    let assert = trainer().args(args).args(more).assert().success();
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(said.contains("6 training images are fewer than a batch of 8"), "{said}");
}
