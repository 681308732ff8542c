//! `verify` on weights files.

use std::fs;

use tempfile::TempDir;
use tests::{root, trainer};

use crate::support::{only_run, run, small_options, text};

#[test]
fn changed_values_of_a_weights_file_are_found() {
    let folder = TempDir::new().expect("a temporary folder");
    let golden = root().join("tests/golden/network.weights.safetensors");
    for precision in ["f32", "f16"] {
        let path = folder.path().join(precision);
        run(&["export", text(&golden), "--precision", precision, "--output", text(&path)]);
        let said = run(&["verify", text(&path)]);
        assert!(said.starts_with("good ") && said.contains("SHA-256 matches"), "{said}");
        let whole = fs::read(&path).expect("there");
        let first = 8 + u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
        for place in [first, (first + whole.len()) / 8 * 4, whole.len() - 4] {
            let mut bytes = whole.clone();
            // The lowest bit of a value, which stays finite.
            bytes[place] ^= 1;
            fs::write(&path, bytes).expect("written");
            let assert = trainer().args(["verify", text(&path)]).assert().code(1);
            let said = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
            let reason = "their SHA-256 is not the stored one";
            assert!(said.starts_with("DAMAGED ") && said.contains(reason), "{place}: {said}");
        }
    }
}

/// The files of earlier versions are as good as before.
#[test]
fn weights_files_without_a_hash_are_said_to_have_none() {
    for file in [
        "www/weights/tiny-emoji.safetensors",
        "tests/golden/run-0.1.0/weights.safetensors",
        "tests/golden/network.weights.safetensors",
    ] {
        let said = run(&["verify", text(&root().join(file))]);
        assert!(said.starts_with("good ") && said.contains("it has no hash"), "{said}");
    }
}

#[test]
fn every_file_of_a_run_has_a_hash() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let train = ["train", "--options", &options, "--grid", "0", "--duration", "16"];
    run(&[&train[..], &["--ema-profiles", "0.1", "--out", text(&out)]].concat());
    let said = run(&["verify", text(&only_run(&out))]);
    let of = |what: &str| said.lines().filter(|line| line.contains(what)).collect::<Vec<_>>();
    // The result and snapshots.
    assert!(of(": weights file of ").len() >= 2, "{said}");
    for what in [": weights file of ", ": checkpoint after "] {
        let lines = of(what);
        let all = lines.iter().all(|line| line.ends_with(", SHA-256 matches"));
        assert!(!lines.is_empty() && all, "{said}");
    }
}
