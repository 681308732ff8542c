//! Runs of earlier versions.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tests::root;

use crate::support::{run, text, weights};

/// A run of version 0.1.0: 1,200 images of the embedded dataset, and the weights after 64 more.
///
/// ```sh
/// trainer train --preset tiny --data emoji --options opts.json --seed 5 --from scratch --batch 16 \
///     --duration 1200 --save-every 400 --keep 1 --grid 4 --sample-every 600
/// ```
///
/// with two stages of 8 and 16 channels, a block in each. These files never change.
const RUN: &str = "tests/golden/run-0.1.0";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// The values of all tensors, which are of 32 bits.
fn values(path: &Path) -> Vec<f32> {
    let value = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    weights(path).iter().flat_map(|(_, bytes)| bytes.chunks_exact(4).map(value)).collect()
}

/// Returns the Euclidean distance, which is NaN if a value is.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

#[test]
fn a_run_of_version_0_1_0_is_read_and_goes_on() {
    let folder = TempDir::new().expect("a temporary folder");
    let old = folder.path().join("run");
    copy(&root().join(RUN), &old);
    let kept = weights(&old.join("weights.safetensors"));

    let verified = run(&["verify", text(&old)]);
    assert_eq!(verified.matches("good").count(), verified.lines().count(), "{verified}");
    let exported = folder.path().join("exported.safetensors");
    run(&["export", text(&old), "--precision", "f32", "--output", text(&exported)]);
    assert_eq!(weights(&exported), kept);

    // It goes on as it did then. On another processor, gradients that are zero but for rounding, such as
    // those of the biases of keys, move by other steps of Adam, hence the distance over all values.
    let (before, after) = (values(&exported), values(&root().join(RUN).join("after.safetensors")));
    run(&["train", "--resume", text(&old), "--duration", "1264", "--grid", "0", "--quiet"]);
    let found = values(&old.join("weights.safetensors"));
    let (moved, off) = (distance(&before, &after), distance(&found, &after));
    assert!(off < 0.2 * moved, "the weights moved by {moved} then, and are {off} off");
}
