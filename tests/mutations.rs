//! Files from elsewhere, damaged in thousands of ways: each leads to an error or to valid content, not
//! to a panic, and takes memory in proportion to its size.
//!
//! The formats that only the trainer reads are in `trainer/src/mutations.rs`.

#[path = "support/formats.rs"]
mod formats;

use std::path::Path;

use formats::golden;
use model::weights::Weights;
use tests::mutate::{Reader, mutated, read_all};

const MB: usize = 1_000_000;

/// Returns the memory that a call takes.
fn measure(call: &mut dyn FnMut()) -> u64 {
    allocation_counter::measure(call).bytes_max
}

/// Reads files as [`read_all`] does.
fn check(
    valid: &[Vec<u8>],
    count: u64,
    (times, more): (usize, usize),
    read: fn(&[u8], &Path) -> Result<(), String>,
) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x");
    let read = |bytes: &[u8]| read(bytes, &path);
    read_all(valid, count, Reader { read, measure, times, more });
}

#[test]
fn weights_files() {
    let valid = formats::weights();
    let read = formats::parse_weights;
    read_all(&valid, 3_000, Reader { read, measure, times: 4, more: MB });
    check(&valid, 300, (16, MB), formats::read_weights);
    check(&formats::weights_headers(), 1_000, (256, MB), formats::read_weights_header);
}

#[test]
fn weights_of_the_official_release() {
    let config = model::preset::by_name("latent-tiny").expect("a preset");
    // For another network: all of them are refused, after their names and shapes were compared.
    let valid = [golden("latent.official.safetensors")];
    for number in 0..1_000 {
        let file = mutated(&valid, number);
        let used = measure(&mut || {
            assert!(Weights::parse_official(&file, config.clone()).is_err());
        });
        assert!(used as usize <= 4 * file.len() + MB, "file {number} took {used}");
    }
}

#[test]
fn pictures_with_settings() {
    check(&formats::pictures(), 5_000, (64, MB), formats::read_picture);
}

#[test]
fn links() {
    let (valid, path) = (formats::links(), Path::new("nothing is written"));
    for number in 0..5_000 {
        let link = mutated(&valid, number);
        let used = measure(&mut || formats::read_link(&link, path).expect("any text is a link"));
        assert!(used as usize <= 64 * link.len() + MB, "{link:?}: {used}");
    }
}

#[test]
fn lists_of_models_and_of_classes() {
    check(&formats::manifests(), 3_000, (64, MB), formats::read_manifest);
    check(&formats::class_lists(), 1_000, (64, MB), formats::read_class_list);
}

#[test]
fn arrays_of_numpy() {
    check(&formats::arrays(), 2_000, (32, MB), formats::read_arrays);
}

#[test]
fn weights_of_feature_networks() {
    check(&formats::feature_networks(), 2_000, (64, 4 * MB), formats::read_feature_network);
}
