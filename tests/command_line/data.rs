//! Unusable images and malicious archives.

use std::fs::{self, File};
use std::io::Write;

use image::ImageFormat;
use tempfile::TempDir;
use tests::trainer;
use zip::write::SimpleFileOptions;

use crate::support::{fails, picture, run, text};

/// A PNG that claims 60,000 x 60,000 pixels.
fn bomb() -> Vec<u8> {
    let mut bytes = picture(32, ImageFormat::Png);
    bytes[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    // The CRC-32 of the header chunk, over type and data.
    let mut crc = u32::MAX;
    for byte in &bytes[12..29] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

#[test]
fn bad_pictures_are_listed_with_their_reasons() {
    let folder = TempDir::new().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    };
    let good = picture(32, ImageFormat::Png);
    write("cats/good.png", &good);
    write("cats/good.jpg", &picture(32, ImageFormat::Jpeg));
    write("dogs/good.png", &good);
    let said = run(&["data", "check", text(folder.path())]);
    for part in [
        "images      3",
        "32x32       3",
        "cats                     2",
        "dogs                     1",
        "all images can be used",
    ] {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }

    write("dogs/empty.png", b"");
    write("dogs/cut.png", &good[..good.len() / 2]);
    write("dogs/html.png", b"<html>");
    write("dogs/bomb.png", &bomb());
    write("dogs/large.png", &picture(48, ImageFormat::Png));
    write("dogs/notes.txt", b"not an image");
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), folder.path().join("dogs/loop")).expect("linked");
    let assert = trainer().args(["data", "check", text(folder.path())]).assert().code(1);
    let said = String::from_utf8(assert.get_output().stdout.clone()).expect("text");
    for part in [
        "dogs/empty.png: the file is empty",
        "dogs/cut.png: damaged",
        "dogs/html.png: not a PNG or JPEG file",
        "dogs/bomb.png: larger than 8192x8192",
        "48x48       1",
        #[cfg(unix)]
        "dogs/loop: a symbolic link loop to",
    ] {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }

    // Training does not start and creates no run folder.
    let out = folder.path().join("runs");
    let error = fails(&["train", "--data", text(folder.path()), "--out", text(&out)]);
    assert!(error.contains("images cannot be used") && error.contains("empty.png"), "{error}");
    assert!(!out.exists());
    let only = folder.path().join("dogs/large.png");
    fs::create_dir(folder.path().join("large")).expect("made");
    fs::rename(only, folder.path().join("large/large.png")).expect("moved");
    let error =
        fails(&["train", "--data", text(&folder.path().join("large")), "--out", text(&out)]);
    assert!(error.contains("large.png: 48x48 pixels, not 32x32"), "{error}");
}

#[test]
fn hostile_archives_are_refused() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("data.zip");
    let zip = |entries: &[(&str, Vec<u8>)]| {
        let mut zip = zip::ZipWriter::new(File::create(&path).expect("made"));
        for (name, bytes) in entries {
            zip.start_file(*name, SimpleFileOptions::default()).expect("started");
            zip.write_all(bytes).expect("written");
        }
        zip.finish().expect("finished");
    };
    let says = |message: &str| {
        let error = fails(&["data", "check", text(&path)]);
        assert!(error.contains(message) && error.contains("data.zip"), "{error:?}: no {message:?}");
    };
    let good = picture(32, ImageFormat::Png);
    zip(&[("../../evil.png", good.clone())]);
    says("`../../evil.png` is outside the archive");
    zip(&[("a.png", good.clone()), ("dataset.json", br#"{"labels": [["../a.png", 0]]}"#.to_vec())]);
    says("`../a.png` is outside the archive");
    zip(&[("a.png", good.clone()), ("dataset.json", br#"{"labels": [["b.png", 0]]}"#.to_vec())]);
    says("dataset.json: no class for a.png");
    zip(&[("a.png", good.clone()), ("dataset.json", b"[]".to_vec())]);
    says("dataset.json: invalid length 0");
    zip(&[
        ("a.png", good.clone()),
        ("dataset.json", br#"{"labels": [["a.png", 3]], "classes": ["x"]}"#.to_vec()),
    ]);
    says("lists 1 class names but has 4 classes");
    zip(&[("readme.txt", b"nothing".to_vec())]);
    says("contains no PNG or JPEG file");
    zip(&[("a.png", good)]);
    let bytes = fs::read(&path).expect("there");
    fs::write(&path, &bytes[..bytes.len() - 30]).expect("cut");
    says("data.zip: invalid Zip archive");
    fs::write(&path, b"plain text").expect("written");
    says("not a dataset of a known format");
    assert!(fails(&["data", "check", "no-such-file"]).contains("no-such-file: No such file"));
}
