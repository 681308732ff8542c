//! `info` on files, of which it reads the header.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tests::{root, trainer};

use crate::support::{fails, run, text, view};

/// Writes a weights file of a preset without values: there is a hole in the file, which is read as
/// zeros.
fn write_hollow(path: &Path, preset: &str) {
    let config = model::preset::by_name(preset).expect("a preset");
    let metadata = json!({ "version": 1, "config": config }).to_string();
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "diffit": metadata }));
    let mut end = 0;
    for spec in model::weights::specs(&config) {
        let start = end;
        end += 4 * spec.len();
        let place = json!({ "dtype": "F32", "shape": spec.shape, "data_offsets": [start, end] });
        header.insert(spec.name, place);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create(path).expect("made");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("written");
    file.write_all(&header).expect("written");
    file.set_len((8 + header.len() + end) as u64).expect("a large file");
}

/// The values take 2.2 GB.
#[cfg(target_os = "linux")]
#[test]
fn the_values_of_a_large_file_are_not_read() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("large.safetensors");
    write_hollow(&path, "latent256");
    let said = run(&["info", text(&path)]);
    assert!(said.contains("561035232") && said.contains("precision       F32"), "{said}");
    let peak = crate::support::peak(&["info", text(&path)]);
    assert!(peak < 300, "{peak} MB");
}

/// The header says everything that is printed; `verify` reads the rest.
#[test]
fn damaged_values_are_for_verify() {
    let folder = TempDir::new().expect("a temporary folder");
    let weights = folder.path().join("w.safetensors");
    write_hollow(&weights, "tiny");
    let checkpoint = folder.path().join("x.ckpt");
    let golden = root().join("tests/golden/run-0.1.0/checkpoints/000001200.ckpt");
    fs::copy(golden, &checkpoint).expect("copied");
    for path in [&weights, &checkpoint] {
        let said = run(&["info", text(path), "--json"]);
        run(&["verify", text(path)]);
        let mut bytes = fs::read(path).expect("there");
        let end = bytes.len() - 4;
        bytes[end..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(path, &bytes).expect("written");
        assert_eq!(run(&["info", text(path), "--json"]), said);
        trainer().args(["verify", text(path)]).assert().code(1);
        // A file that is cut short is not described.
        fs::write(path, &bytes[..end]).expect("written");
        assert!(fails(&["info", text(path)]).contains(text(path)));
    }
}

#[test]
fn five_problems_of_tensors_are_listed_and_the_others_counted() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("w.safetensors");
    let good = fs::read(root().join("tests/golden/network.weights.safetensors")).expect("there");
    let file = SafeTensors::deserialize(&good).expect("good");
    let (_, header) = SafeTensors::read_metadata(&good).expect("good");
    let with = |count: usize| {
        let more = (0..count).map(|i| (format!("x{i}"), view(Dtype::F32, &[2], &[0; 8])));
        let tensors = file.iter().map(|(name, tensor)| (name.to_string(), tensor)).chain(more);
        let bytes = safetensors::serialize(tensors, header.metadata().clone()).expect("it fits");
        fs::write(&path, bytes).expect("written");
        fails(&["info", text(&path)])
    };
    let five = with(5);
    assert!(five.trim_end().ends_with("; `x4` is not part of it"), "{five}");
    let eight = with(8);
    assert!(eight.trim_end().ends_with("; `x4` is not part of it; and 3 more"), "{eight}");
    assert!(!eight.contains("`x5`"), "{eight}");
}
