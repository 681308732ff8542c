//! Files from elsewhere, damaged in thousands of ways, and those of `tests/corpus`: each leads to an error
//! or to valid content, not to a panic, and takes memory in proportion to its size.
//!
//! The formats that only the trainer reads are in `trainer/src/mutations.rs`.

#[path = "support/formats.rs"]
mod formats;

use std::path::Path;

use formats::golden;
use model::weights::Weights;
use serde_json::json;
use tests::mutate::{Reader, corpus, mutated, read_all};

const MB: usize = 1_000_000;

/// Returns the memory that a call takes.
fn measure(call: &mut dyn FnMut()) -> u64 {
    allocation_counter::measure(call).bytes_max
}

/// Reads files as [`read_all`] does.
fn check(
    format: &str,
    valid: &[Vec<u8>],
    count: u64,
    (times, more): (usize, usize),
    read: fn(&[u8], &Path) -> Result<(), String>,
) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x");
    let read = |bytes: &[u8]| read(bytes, &path);
    read_all(format, valid, count, Reader { read, measure, times, more });
}

#[test]
fn every_fuzz_target_has_a_few_small_crafted_files() {
    let targets = std::fs::read_dir(tests::root().join("fuzz/fuzz_targets")).expect("there");
    for target in targets {
        let path = target.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a plain name");
        let files = corpus(name);
        assert!((3..=10).contains(&files.len()), "{name}: {} files", files.len());
        for (path, file) in files {
            assert!(file.len() < 4096, "{}: {} bytes", path.display(), file.len());
        }
    }
}

#[test]
fn weights_files() {
    let valid = formats::weights();
    let read = formats::parse_weights;
    read_all("weights", &valid, 3_000, Reader { read, measure, times: 4, more: MB });
    check("weights", &valid, 300, (16, MB), formats::read_weights);
    let headers = formats::weights_headers();
    check("weights_header", &headers, 1_000, (256, MB), formats::read_weights_header);
}

/// Returns a weights file with this header, and values of zero.
fn with_header(header: &str, values: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![0; values]].concat()
}

/// Returns the header of a file of `count` tensors without values, which have the names that `name` gives.
fn empty_tensors(count: usize, name: impl Fn(usize) -> String) -> String {
    let tensor = |i| format!(r#""{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#, name(i));
    format!("{{{}}}", (0..count).map(tensor).collect::<Vec<_>>().join(","))
}

/// Returns a text that is nested this deeply, with something inside.
fn nested([open, close]: [&str; 2], depth: usize) -> String {
    format!("{}0{}", open.repeat(depth), close.repeat(depth))
}

/// Returns the header of a file without tensors, whose metadata are this JSON.
fn with_metadata(json: &str) -> String {
    let text = serde_json::to_string(json).expect("text");
    format!(r#"{{"__metadata__":{{"diffit":{text}}}}}"#)
}

/// Of all that is in a file, its header takes the most memory: up to 32 times its size.
#[test]
fn crafted_headers_of_weights_files() {
    const DEPTH: usize = 1_000_000;
    let number = |i: usize| format!("t{i}");
    let lists = nested(["[", "]"], DEPTH);
    let objects = nested([r#"{"a":"#, "}"], DEPTH / 5);
    let ones = "1,".repeat(DEPTH);
    let scalar = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let files = [
        ("many tensors", with_header(&empty_tensors(140_000, number), 0)),
        ("one name for many tensors", with_header(&empty_tensors(140_000, |_| "t".into()), 0)),
        ("two names", with_header(&format!(r#"{{"a":{scalar},"a":{scalar}}}"#), 4)),
        ("two types", with_header(r#"{"a":{"dtype":"F32","dtype":"F16","shape":[0]}}"#, 0)),
        ("two metadata", with_header(r#"{"__metadata__":{},"__metadata__":{}}"#, 0)),
        ("nested lists for a tensor", with_header(&format!(r#"{{"a":{lists}}}"#), 0)),
        ("nested objects for a tensor", with_header(&format!(r#"{{"a":{objects}}}"#), 0)),
        ("nested lists for metadata", with_header(&format!(r#"{{"__metadata__":{lists}}}"#), 0)),
        ("nested lists", with_header(&with_metadata(&lists), 0)),
        ("nested objects", with_header(&with_metadata(&objects), 0)),
        (
            "nested lists for the configuration",
            with_header(&with_metadata(&format!(r#"{{"version":1,"config":{lists}}}"#)), 0),
        ),
        (
            "nested lists that have no meaning",
            with_header(&with_metadata(&format!(r#"{{"version":1,"other":{lists}}}"#)), 0),
        ),
        (
            "a shape of many ones",
            with_header(
                &format!(r#"{{"a":{{"dtype":"F32","shape":[{ones}1],"data_offsets":[0,4]}}}}"#),
                4,
            ),
        ),
        ("a long name", with_header(&empty_tensors(1, |_| "t".repeat(DEPTH)), 0)),
    ];
    for (name, file) in files {
        let used = measure(&mut || assert!(Weights::parse(&file).is_err(), "{name}"));
        let limit = (32 * file.len() + MB) as u64;
        assert!(used <= limit, "{name}: {} bytes took {used}, not {limit}", file.len());
    }
}

/// A header that no model needs is refused before its tensors are listed, and so is a file that is too small
/// for the model that it describes.
#[test]
fn weights_files_of_absurd_sizes_take_no_memory() {
    let million = with_header(&empty_tensors(1_000_000, |i| format!("t{i}")), 0);
    let valid = golden("network_c.weights.safetensors");
    let config = Weights::parse(&valid).expect("a model").config().clone();
    let mut config = serde_json::to_value(config).expect("plain data");
    config["network"]["resolution"] = json!(4_096);
    config["network"]["channels"] = vec![16_384u64; 8].into();
    config["network"]["blocks"] = vec![1_024u64; 8].into();
    let metadata = json!({"version": 1, "config": config}).to_string();
    let large = with_header(&with_metadata(&metadata), 0);
    for (file, reason) in [(million, "header"), (large, "blocks")] {
        let used = measure(&mut || {
            let error = Weights::parse(&file).expect_err("refused");
            assert!(error.to_string().contains(reason), "{error}");
        });
        assert!(used <= MB as u64, "{reason}: {} bytes took {used}", file.len());
    }
}

/// A second tensor of a name does not take the place of the first one.
#[test]
fn tensors_that_are_listed_twice_are_refused() {
    let valid = golden("network_c.weights.safetensors");
    let length = u64::from_le_bytes(valid[..8].try_into().expect("8 bytes")) as usize;
    let (header, values) = valid[8..].split_at(length);
    let header = std::str::from_utf8(header).expect("text").trim_end();
    let tensors: serde_json::Value = serde_json::from_str(header).expect("JSON");
    for (name, tensor) in tensors.as_object().expect("tensors") {
        let Some(offsets) = tensor["data_offsets"].as_array() else { continue };
        let offset = |i: usize| offsets[i].as_u64().expect("a number");
        let size = offset(1) - offset(0);
        let mut second = tensor.clone();
        second["data_offsets"] = vec![values.len() as u64, values.len() as u64 + size].into();
        let start = header.strip_suffix('}').expect("an object");
        let header = format!("{start},{}:{second}}}", json!(name));
        let mut file = with_header(&header, 0);
        file.extend(values);
        file.resize(file.len() + size as usize, 0);
        assert!(Weights::parse(&file).is_err(), "{name} is listed twice");
    }
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
    check("picture", &formats::pictures(), 5_000, (64, MB), formats::read_picture);
}

#[test]
fn links() {
    let (valid, path) = (formats::links(), Path::new("nothing is written"));
    let crafted = corpus("link").into_iter().map(|(_, link)| link);
    for link in crafted.chain((0..5_000).map(|number| mutated(&valid, number))) {
        let used = measure(&mut || formats::read_link(&link, path).expect("any text is a link"));
        assert!(used as usize <= 64 * link.len() + MB, "{link:?}: {used}");
    }
}

#[test]
fn lists_of_models_and_of_classes() {
    check("manifest", &formats::manifests(), 3_000, (64, MB), formats::read_manifest);
    check("classes", &formats::class_lists(), 1_000, (64, MB), formats::read_class_list);
}

#[test]
fn arrays_of_numpy() {
    check("npz", &formats::arrays(), 2_000, (32, MB), formats::read_arrays);
}

#[test]
fn weights_of_feature_networks() {
    let valid = formats::feature_networks();
    check("feature_network", &valid, 2_000, (64, 4 * MB), formats::read_feature_network);
}
