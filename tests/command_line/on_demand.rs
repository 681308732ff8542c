//! Datasets that are not read into memory, and their formats.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use image::{ImageFormat, RgbImage};
use serde_json::json;
use tempfile::TempDir;
use tests::trainer;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

#[cfg(target_os = "linux")]
use crate::support::peak;
use crate::support::{fails, latest, only_run, picture, run, text};

/// A set of names and PNG files of two classes, in the order of their names.
fn pictures(sizes: &[(u32, u32)]) -> Vec<(String, Vec<u8>)> {
    let picture = |i: u32| {
        let (width, height) = sizes[i as usize % sizes.len()];
        let pixel = |x: u32, y: u32| image::Rgb([(x * 8 + i) as u8, (i * 10) as u8, (x * y) as u8]);
        let mut bytes = std::io::Cursor::new(Vec::new());
        let picture = RgbImage::from_fn(width, height, pixel);
        picture.write_to(&mut bytes, ImageFormat::Png).expect("encoded");
        let class = if i < 12 { "cats" } else { "dogs" };
        (format!("{class}/{i:02}.png"), bytes.into_inner())
    };
    (0..24).map(picture).collect()
}

fn write_folder(path: &Path, pictures: &[(String, Vec<u8>)]) {
    for (name, bytes) in pictures {
        let path = path.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }
}

fn write_zip(path: &Path, pictures: &[(String, Vec<u8>)], method: CompressionMethod) {
    let mut zip = zip::ZipWriter::new(std::io::BufWriter::new(File::create(path).expect("made")));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in pictures {
        zip.start_file(name.as_str(), options).expect("started");
        zip.write_all(bytes).expect("written");
    }
    zip.finish().expect("finished").flush().expect("written");
}

/// Returns a member of a tar file: a header of 512 bytes, then its content.
fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![0; 512];
    all[..name.len()].copy_from_slice(name.as_bytes());
    all[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    all[156] = b'0';
    all[257..265].copy_from_slice(b"ustar\x0000");
    all[148..156].fill(b' ');
    let sum: u32 = all.iter().map(|byte| u32::from(*byte)).sum();
    all[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    all.extend(bytes);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

fn write_tar(path: &Path, pictures: &[(String, Vec<u8>)]) {
    let mut tar = Vec::new();
    for (name, bytes) in pictures {
        let (class, _) = name.split_once('/').expect("a folder");
        tar.extend(member(&name.replace("png", "cls"), class.as_bytes()));
        tar.extend(member(name, bytes));
    }
    tar.extend([0; 1024]);
    fs::write(path, tar).expect("written");
}

/// Writes pictures of a class as a Parquet file, with a page for every few of them.
fn write_parquet(path: &Path, pictures: &[(String, Vec<u8>)]) {
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    let schema = "message m {
        optional group image { optional binary bytes; optional binary path (utf8); }
        optional int64 label;
    }";
    let schema = parse_message_type(schema).expect("a schema").into();
    let names = r#"{"info": {"features": {"label": {"names": ["cats", "dogs"]}}}}"#;
    let names = KeyValue::new("huggingface".to_string(), names.to_string());
    let properties = WriterProperties::builder()
        .set_data_page_row_count_limit(5)
        .set_write_batch_size(1)
        .set_dictionary_enabled(false)
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_key_value_metadata(Some(vec![names]))
        .build();
    let file = File::create(path).expect("made");
    let mut file = SerializedFileWriter::new(file, schema, properties.into()).expect("made");
    let files: Vec<ByteArray> = pictures.iter().map(|(_, bytes)| bytes.clone().into()).collect();
    let labels: Vec<i64> =
        pictures.iter().map(|(name, _)| i64::from(name.starts_with("dogs"))).collect();
    let mut group = file.next_row_group().expect("made");
    let levels = |level| vec![level; pictures.len()];
    let mut column = group.next_column().expect("made").expect("the images");
    column.typed::<ByteArrayType>().write_batch(&files, Some(&levels(2)), None).expect("written");
    column.close().expect("written");
    let mut column = group.next_column().expect("made").expect("the paths");
    column.typed::<ByteArrayType>().write_batch(&[], Some(&levels(1)), None).expect("written");
    column.close().expect("written");
    let mut column = group.next_column().expect("made").expect("the classes");
    column.typed::<Int64Type>().write_batch(&labels, Some(&levels(1)), None).expect("written");
    column.close().expect("written");
    group.close().expect("written");
    file.close().expect("written");
}

/// Writes an `--options` file of a very small network of two classes.
fn options(folder: &Path) -> String {
    let path = folder.join("options.json");
    let options = json!({
        "batch": 8,
        "model": {"network": {
            "channels": [32], "blocks": [1], "window": {"size": 8}, "classes": 2,
            "time": {"channels": 8, "width": 8},
        }},
    });
    fs::write(&path, options.to_string()).expect("written");
    text(&path).to_string()
}

/// Memory for a few of the pictures.
const FEW: &str = "20KB";

/// Trains for 40 images, and returns the tensors of the checkpoint.
fn train(folder: &Path, name: &str, data: &Path, more: &[&str]) -> Vec<(String, Vec<u8>)> {
    let out = folder.join("runs").join(name);
    let options = options(folder);
    let args = ["train", "--preset", "tiny", "--options", &options, "--data", text(data)];
    let rest = ["--grid", "0", "--duration", "40", "--out", text(&out)];
    run(&[&args[..], &rest, more].concat());
    latest(&only_run(&out))
}

#[test]
fn every_format_gives_the_same_run_whether_in_memory_or_not() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let pictures = pictures(&[(32, 32)]);
    write_folder(&path("folder"), &pictures);
    write_zip(&path("stored.zip"), &pictures, CompressionMethod::Stored);
    write_zip(&path("deflated.zip"), &pictures, CompressionMethod::Deflated);
    write_tar(&path("one.tar"), &pictures);
    fs::create_dir(path("shards")).expect("made");
    write_tar(&path("shards/000.tar"), &pictures[..10]);
    write_tar(&path("shards/001.tar"), &pictures[10..]);
    write_parquet(&path("one.parquet"), &pictures);
    fs::create_dir_all(path("parquet/data")).expect("made");
    write_parquet(&path("parquet/data/train-00000-of-00002.parquet"), &pictures[..10]);
    write_parquet(&path("parquet/data/train-00001-of-00002.parquet"), &pictures[10..]);
    write_parquet(&path("parquet/data/test-00000-of-00001.parquet"), &pictures[..2]);
    let want = train(folder.path(), "memory", &path("folder"), &[]);
    let formats =
        ["folder", "stored.zip", "deflated.zip", "one.tar", "shards", "one.parquet", "parquet"];
    for name in formats {
        let more = ["--data-memory", FEW, "--validate", "0"];
        let found = train(folder.path(), name, &path(name), &more);
        assert!(found == want, "{name}");
        let said = run(&["data", "check", text(&path(name))]);
        for part in ["images      24", "cats                     12", "all images can be used"] {
            assert!(said.contains(part), "{name}: {said:?} does not say {part:?}");
        }
    }
    for name in ["one.tar", "parquet"] {
        assert!(train(folder.path(), &format!("{name} in memory"), &path(name), &[]) == want);
    }
    let said = run(&["data", "check", text(&path("parquet"))]);
    assert!(said.contains("read        the split `train`; 1 file of test left out"), "{said}");

    // A run can be resumed with more or less memory, but not on other data.
    let resume = |out: &str, duration, memory| -> Vec<String> {
        let run_folder = only_run(&path("runs").join(out));
        let args = ["train", "--resume", text(&run_folder), "--grid", "0", "--duration", duration];
        args.iter().chain(&["--data-memory", memory]).map(ToString::to_string).collect()
    };
    let go_on = |out, duration, memory| {
        trainer().args(resume(out, duration, memory)).assert().success();
        latest(&only_run(&path("runs").join(out)))
    };
    assert!(go_on("memory", "64", "0") == go_on("folder", "64", "1GB"));
    let want = go_on("memory", "80", "1GB");
    assert!(go_on("folder", "80", FEW) == want);
    go_on("parquet", "64", "0");
    assert!(go_on("parquet", "80", FEW) == want);
    fs::rename(path("folder/cats/03.png"), path("folder/cats/3.png")).expect("renamed");
    let args = resume("folder", "96", "0");
    let error = fails(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(error.contains("not the data that this run was trained on so far"), "{error}");
}

/// Images that are not in memory are not read when a run is resumed.
#[test]
fn replaced_images_are_noticed_by_their_sizes() {
    let folder = TempDir::new().expect("a temporary folder");
    let pictures = pictures(&[(32, 32)]);
    let path = |name: &str| folder.path().join(name);
    let mut replaced = pictures.clone();
    replaced[3].1 = picture(32, ImageFormat::Png);
    assert_ne!(replaced[3].1.len(), pictures[3].1.len());
    write_folder(&path("folder"), &pictures);
    write_zip(&path("data.zip"), &pictures, CompressionMethod::Deflated);
    write_parquet(&path("data.parquet"), &pictures);
    for name in ["folder", "data.zip", "data.parquet"] {
        train(folder.path(), name, &path(name), &["--data-memory", "0"]);
    }
    write_folder(&path("folder"), &replaced);
    write_zip(&path("data.zip"), &replaced, CompressionMethod::Deflated);
    write_parquet(&path("data.parquet"), &replaced);
    for name in ["folder", "data.zip", "data.parquet"] {
        let run_folder = only_run(&path("runs").join(name));
        let args = ["train", "--resume", text(&run_folder), "--grid", "0", "--duration", "48"];
        let error = fails(&[&args[..], &["--data-memory", "0"]].concat());
        assert!(error.contains("images were replaced: the sizes or checksums"), "{name}: {error}");
    }
    // The same images in an archive of another format are the same data, whatever is known of them.
    write_zip(&path("same.zip"), &pictures, CompressionMethod::Stored);
    let run_folder = only_run(&path("runs/folder"));
    let args = ["train", "--resume", text(&run_folder), "--grid", "0", "--duration", "48"];
    run(&[&args[..], &["--data-memory", "0", "--data", text(&path("same.zip"))]].concat());
}

/// The images of a CIFAR archive take 31 MB as they are unpacked.
#[cfg(target_os = "linux")]
#[test]
fn archives_of_cifar_take_little_memory() {
    let folder = TempDir::new().expect("a temporary folder");
    let write = |name: &str, batches: usize| {
        let path = folder.path().join(name);
        let file = File::create(&path).expect("made");
        let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        let record = |i: u32| [&[(i % 10) as u8][..], &[7; 3_072]].concat();
        let batch: Vec<u8> = (0..10_000).flat_map(record).collect();
        for number in 1..=batches {
            let name = format!("cifar-10-batches-bin/data_batch_{number}.bin");
            gz.write_all(&member(&name, &batch)).expect("written");
        }
        gz.write_all(&[0; 1_024]).expect("written");
        gz.finish().expect("written");
        path
    };
    let options = options(folder.path());
    let text_of = fs::read_to_string(&options).expect("text");
    fs::write(&options, text_of.replace("\"classes\":2", "\"classes\":10")).expect("written");
    let train = |data: &Path| {
        let out = folder.path().join("runs");
        let args = ["train", "--preset", "tiny", "--options", &options, "--data", text(data)];
        let rest = ["--data-memory", "1MB", "--grid", "0", "--duration", "8", "--out", text(&out)];
        peak(&[&args[..], &rest].concat())
    };
    // Of five batches, 123 MB more would be in memory.
    let [one, five] = [write("one.tar.gz", 1), write("five.tar.gz", 5)].map(|path| train(&path));
    assert!(five < one + 60, "{five} MB, but {one} MB for one batch");
}

#[test]
fn images_of_several_sizes_are_resized_on_demand() {
    let folder = TempDir::new().expect("a temporary folder");
    let data = folder.path().join("data");
    write_folder(&data, &pictures(&[(32, 32), (64, 80), (50, 33), (20, 24)]));
    let few = ["--data-memory", FEW, "--resize"];
    let found = train(folder.path(), "few", &data, &few);
    assert!(found == train(folder.path(), "all", &data, &["--resize"]));
    let out = folder.path().join("others");
    for memory in [FEW, "1GB"] {
        let options = options(folder.path());
        let args = ["train", "--preset", "tiny", "--options", &options, "--data", text(&data)];
        let error = fails(&[&args[..], &["--data-memory", memory, "--out", text(&out)]].concat());
        for part in [
            "18 of 24 images cannot be used",
            "cats/01.png: 64x80 pixels, not 32x32; --resize crops and resizes images",
        ] {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
        assert!(!out.exists());
    }
}

/// A file whose header is good is found to be damaged while training.
#[test]
fn nothing_is_lost_when_a_damaged_image_is_met() {
    let folder = TempDir::new().expect("a temporary folder");
    let pictures = pictures(&[(32, 32)]);
    let want = {
        let whole = folder.path().join("whole");
        write_folder(&whole, &pictures);
        train(folder.path(), "whole run", &whole, &[])
    };
    let data = folder.path().join("data.tar");
    write_tar(&data, &pictures);
    let whole = fs::read(&data).expect("there");
    // The last pictures of the first epoch.
    let out = folder.path().join("runs/damaged");
    let damage = |name: &str| {
        let mut bytes = whole.clone();
        let start = bytes.windows(name.len()).position(|part| part == name.as_bytes());
        let start = start.expect("a member") + 512;
        bytes[start + 60..start + 90].fill(0);
        fs::write(&data, bytes).expect("written");
    };
    let options = options(folder.path());
    let args = ["train", "--preset", "tiny", "--options", &options, "--data", text(&data)];
    let rest = ["--grid", "0", "--duration", "40", "--out", text(&out), "--data-memory", "0"];
    damage(LATE);
    let error = fails(&[&args[..], &rest].concat());
    for part in [
        "data.tar: ",
        &format!("{LATE}: damaged"),
        "after 16 images, which are saved in a checkpoint; restore the file, then resume:",
    ] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    // In memory, it is found at the start, as by `data check`.
    let error = fails(&["train", "--data", text(&data), "--out", text(&folder.path().join("x"))]);
    assert!(error.contains("1 of 24 images cannot be used"), "{error}");
    let assert = trainer().args(["data", "check", text(&data)]).assert().code(1);
    let said = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert!(said.contains("images      23") && said.contains(LATE), "{said}");

    fs::write(&data, &whole).expect("restored");
    let run_folder = only_run(&out);
    run(&["train", "--resume", text(&run_folder), "--grid", "0", "--data-memory", "0"]);
    assert!(latest(&run_folder) == want);

    // A truncated member is found without decoding.
    fs::write(&data, &whole[..whole.len() - 1024 - 512]).expect("cut");
    let error = fails(&[&args[..], &rest].concat());
    assert!(error.contains("dogs/23.png: truncated: "), "{error}");
}

/// Returns what a run that is resumed up to `duration` says.
fn resume(run_folder: &Path, duration: &str, more: &[&str]) -> String {
    let args = ["train", "--resume", text(run_folder), "--grid", "0", "--duration", duration];
    let assert = trainer().args(args).args(more).assert().success();
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

#[test]
fn a_resumed_run_keeps_its_memory_for_images() {
    let folder = TempDir::new().expect("a temporary folder");
    let data = folder.path().join("data");
    write_folder(&data, &pictures(&[(32, 32)]));
    train(folder.path(), "run", &data, &["--data-memory", FEW]);
    let run_folder = only_run(&folder.path().join("runs/run"));
    let launch = || {
        let file = fs::read(run_folder.join("launch.json")).expect("the settings");
        let settings: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
        settings["data_memory"].as_u64()
    };
    let on_demand = "they are decoded while training";
    assert_eq!(launch(), Some(20_000));
    assert!(resume(&run_folder, "48", &[]).contains(on_demand));
    assert_eq!(launch(), Some(20_000));
    // Unless the flag is given again.
    let more = ["--data-memory", "1GB"];
    assert!(!resume(&run_folder, "56", &more).contains(on_demand));
    assert_eq!(launch(), Some(1_000_000_000));
    assert!(!resume(&run_folder, "64", &[]).contains(on_demand));
}

/// A validation image whose header is good is found to be damaged when the loss is measured.
#[test]
fn training_goes_on_without_a_damaged_validation_image() {
    let folder = TempDir::new().expect("a temporary folder");
    let pictures = pictures(&[(32, 32)]);
    let path = |name: &str| folder.path().join(name);
    write_folder(&path("data"), &pictures);
    let want = train(folder.path(), "plain", &path("data"), &[]);
    write_tar(&path("held out.tar"), &pictures);
    let mut bytes = fs::read(path("held out.tar")).expect("there");
    let name = b"cats/03.png";
    let start = bytes.windows(name.len()).position(|part| part == name).expect("a member") + 512;
    bytes[start + 60..start + 90].fill(0);
    fs::write(path("held out.tar"), bytes).expect("written");

    let options = options(folder.path());
    let args = ["train", "--preset", "tiny", "--options", &options, "--data"];
    let held_out = path("held out.tar");
    let validation = ["--validate", "24", "--validation-data", text(&held_out)];
    let out = path("runs/validated");
    let rest = ["--validate-every", "16", "--data-memory", "0", "--grid", "0", "--duration", "40"];
    let assert = trainer()
        .args(args)
        .args([text(&path("data")), "--out", text(&out)])
        .args(validation)
        .args(rest)
        .assert()
        .success();
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    // After 16 and 32 images, and at the end.
    assert_eq!(said.matches("warning: no validation loss: ").count(), 3, "{said}");
    for part in ["held out.tar: ", "cats/03.png: damaged", "training goes on"] {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }
    assert!(latest(&only_run(&out)) == want, "the result differs");
}

/// A picture of the third batch of the first epoch.
const LATE: &str = "cats/00.png";

/// In memory, these images would take 614 MB.
#[cfg(target_os = "linux")]
#[test]
fn many_images_take_little_memory() {
    let folder = TempDir::new().expect("a temporary folder");
    let [many, few] = ["many.zip", "few.zip"].map(|name| folder.path().join(name));
    let mut black = std::io::Cursor::new(Vec::new());
    RgbImage::new(32, 32).write_to(&mut black, ImageFormat::Png).expect("encoded");
    let black = black.into_inner();
    let entry = |i: usize| (format!("{}/{i:06}.png", ["cats", "dogs"][i % 2]), black.clone());
    write_zip(&many, &(0..200_000).map(entry).collect::<Vec<_>>(), CompressionMethod::Stored);
    write_zip(&few, &(0..2_000).map(entry).collect::<Vec<_>>(), CompressionMethod::Stored);
    let check = |data: &Path| peak(&["data", "check", text(data)]);
    let (all, some) = (check(&many), check(&few));
    assert!(all < some + 300, "{all} MB, but {some} MB for few images");
    let options = options(folder.path());
    let train = |data: &Path, more: &[&str]| {
        let out = folder.path().join("runs");
        let args = ["train", "--preset", "tiny", "--options", &options, "--data", text(data)];
        let rest = ["--data-memory", "1MB", "--grid", "0", "--duration", "8", "--out", text(&out)];
        peak(&[&args[..], &rest, more].concat())
    };
    let (all, some) = (train(&many, &[]), train(&few, &[]));
    assert!(all < some + 300, "{all} MB, but {some} MB for few images");
    let validated = train(&few, &["--validate", "16", "--validation-data", text(&many)]);
    assert!(validated < some + 300, "{validated} MB, but {some} MB without validation images");
}

#[test]
fn headers_of_files_are_read_at_the_start() {
    let folder = TempDir::new().expect("a temporary folder");
    let data = folder.path().join("data");
    write_folder(&data, &pictures(&[(32, 32)]));
    fs::write(data.join("cats/empty.png"), b"").expect("written");
    fs::write(data.join("cats/html.jpg"), b"<html>").expect("written");
    fs::write(data.join("cats/large.jpg"), picture(48, ImageFormat::Jpeg)).expect("written");
    let out = folder.path().join("runs");
    let args = ["train", "--data", text(&data), "--data-memory", "0", "--out", text(&out)];
    let error = fails(&args);
    for part in [
        "3 of 27 images cannot be used",
        "cats/empty.png: the file is empty",
        "cats/html.jpg: not a PNG or JPEG file",
        "cats/large.jpg: 48x48 pixels, not 32x32",
    ] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    assert!(!out.exists());
    let error = fails(&["train", "--data-memory", "much"]);
    assert!(error.contains("such as 500MB or 16GB"), "{error}");
}
