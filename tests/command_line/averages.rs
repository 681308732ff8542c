//! Moving averages with power-function profiles, and their reconstruction.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tests::trainer;

use crate::support::{fails, latest, only_run, run, small_options, text, weights};

/// Trains 40 steps with averages of the given standard deviations, and returns the run folder.
fn train(folder: &Path, name: &str, stds: &str, duration: &str) -> std::path::PathBuf {
    let options = small_options(folder);
    let out = folder.join(name);
    let args = ["train", "--options", &options, "--from", "scratch", "--lr", "2e-3"];
    let more = ["--lr-ramp", "0", "--grid", "0", "--duration", duration, "--out", text(&out)];
    let averages = ["--ema-profiles", stds, "--ema-snapshot-every", "16"];
    run(&[&args[..], &more, if stds.is_empty() { &[] } else { &averages }].concat());
    only_run(&out)
}

/// The values of a weights file.
fn values(path: &Path) -> Vec<f64> {
    let four = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes")).into();
    let all = weights(path).into_iter();
    all.flat_map(|(_, bytes)| bytes.chunks_exact(4).map(four).collect::<Vec<f64>>()).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let distance = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    assert!(distance.is_finite(), "{distance}");
    distance
}

#[test]
fn averages_are_reconstructed_after_training() {
    let folder = TempDir::new().expect("a temporary folder");
    let stored = train(folder.path(), "stored", "0.05,0.1", "320");
    let direct = train(folder.path(), "direct", "0.15", "320");
    let plain = train(folder.path(), "plain", "", "320");
    let reconstruct = |std: &str, at: &str| {
        let file = folder.path().join(format!("{std}-{at}.safetensors"));
        let said = run(&["ema", text(&stored), "--std", std, "--at", at, "-o", text(&file)]);
        assert!(said.contains(&format!("after {at} images")), "{said}");
        values(&file)
    };
    let snapshot = |run: &Path, images: &str, std: &str| {
        values(&run.join(format!("ema/000000{images}-{std}.safetensors")))
    };
    // The averages differ from each other by much more than the reconstructions from them.
    let last = [snapshot(&stored, "320", "0.05"), snapshot(&stored, "320", "0.1")];
    let apart = distance(&last[0], &last[1]);
    assert!(apart > 0.01, "{apart}");
    for (std, at) in [("0.05", "320"), ("0.1", "320"), ("0.1", "160"), ("0.05", "16")] {
        let off = distance(&reconstruct(std, at), &snapshot(&stored, &format!("{at:0>3}"), std));
        assert!(off < 1e-4 * apart, "{std} after {at}: {off}, of {apart}");
    }
    let want = snapshot(&direct, "320", "0.15");
    let off = distance(&reconstruct("0.15", "320"), &want);
    assert!(off < 0.05 * distance(&last[1], &want), "{off}, of {}", distance(&last[1], &want));

    // The averages change nothing else, and are kept only when asked for.
    let last = [&stored, &plain].map(|run| weights(&run.join("weights.safetensors")));
    assert!(last[0] == last[1]);
    assert!(!plain.join("ema").exists());
    assert!(latest(&plain).iter().all(|(name, _)| !name.starts_with("average")));
    let options = fs::read_to_string(plain.join("options.json")).expect("the recipe");
    assert!(!options.contains("ema_profiles"), "{options}");
    assert_eq!(fs::read_dir(stored.join("ema")).expect("a folder").count(), 2 * 20);

    // The default is the last snapshot; the file can be used like any other.
    let file = folder.path().join("half.safetensors");
    let args = ["ema", text(&stored), "--std", "0.15", "-o", text(&file), "--precision", "f16"];
    run(&args);
    let info: Value = serde_json::from_str(&run(&["info", text(&file), "--json"])).expect("JSON");
    assert_eq!(info["card"]["images_seen"], 320);
    assert!(
        info["card"]["summary"].as_str().expect("text").contains("deviation of 0.15 after 320")
    );
    assert!(fails(&args).contains("use --overwrite"));
    let picture = folder.path().join("a.png");
    run(&[
        "sample",
        "--weights",
        text(&file),
        "--seeds",
        "1",
        "--steps",
        "2",
        "-o",
        text(&picture),
    ]);
    assert!(run(&["verify", text(&stored)]).contains("000000320-0.1.safetensors: weights file"));

    for (args, message) in [
        (["--std", "0.4", "--at", "320"], "--std 0.4 is not within 0.001 to 0.28"),
        (["--std", "0.1", "--at", "100"], "the nearest was after 96, the last after 320"),
    ] {
        let error = fails(&[&["ema", text(&stored), "-o", "x"], &args[..]].concat());
        assert!(error.contains(message), "{error}");
    }
    let error = fails(&["ema", text(&plain), "--std", "0.1", "-o", "x"]);
    assert!(error.contains("train with --ema-profiles 0.05,0.1"), "{error}");
    fs::rename(
        stored.join("ema/000000016-0.1.safetensors"),
        stored.join("ema/000000032-0.1.safetensors"),
    )
    .expect("renamed");
    let error = fails(&["ema", text(&stored), "--std", "0.1", "-o", "x"]);
    assert!(error.contains("weights after 16 images, which is not what the name says"), "{error}");
}

#[test]
fn averages_go_on_as_if_training_had_not_stopped() {
    let folder = TempDir::new().expect("a temporary folder");
    let whole = train(folder.path(), "whole", "0.05,0.1", "128");
    let parts = train(folder.path(), "parts", "0.05,0.1", "56");
    let resume = ["train", "--resume", text(&parts), "--duration", "128", "--grid", "0"];
    trainer().args(resume).env("RAYON_NUM_THREADS", "3").assert().success();
    let (found, want) = (latest(&parts), latest(&whole));
    assert!(want.iter().any(|(name, _)| name.starts_with("average1.")));
    for (found, want) in found.iter().zip(&want) {
        assert!(found == want, "{} differs", found.0);
    }
    let name = "ema/000000128-0.05.safetensors";
    assert!(weights(&parts.join(name)) == weights(&whole.join(name)));
    let error = fails(&["train", "--resume", text(&parts), "--ema-profiles", "0.2"]);
    assert!(error.contains("cannot be used with"), "{error}");
    // Snapshots of steps that are taken again are set aside.
    let back = parts.join("checkpoints/000000056.ckpt");
    let args = ["train", "--resume", text(&back)];
    run(&[&args[..], &["--lr", "1e-5", "--duration", "64", "--grid", "0"]].concat());
    assert!(parts.join("ema/000000128-0.05.safetensors.aside").exists());
    assert!(parts.join("ema/000000064-0.05.safetensors").exists());
    assert!(!parts.join(name).exists());
}
