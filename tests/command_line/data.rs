//! Contents of datasets, unusable images and malicious archives.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::Path;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use tempfile::TempDir;
use tests::trainer;
use zip::write::SimpleFileOptions;

use crate::support::{
    fails, latest, only_run, picture, run, small_autoencoder_and_pictures, small_options, text,
};

/// A small PNG that claims to have this many pixels a side.
fn bomb(side: u32) -> Vec<u8> {
    let mut bytes = picture(32, ImageFormat::Png);
    bytes[16..20].copy_from_slice(&side.to_be_bytes());
    bytes[20..24].copy_from_slice(&side.to_be_bytes());
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
    write("dogs/bomb.png", &bomb(60_000));
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

/// Returns a grey JPEG of 8x8 pixels with this number of colour components: 3 are YCbCr, 4 are CMYK.
fn grey_jpeg(components: u8) -> Vec<u8> {
    let mut jpeg = vec![0xff, 0xd8];
    let mut segment = |marker: u8, content: Vec<u8>| {
        jpeg.extend([0xff, marker]);
        jpeg.extend((content.len() as u16 + 2).to_be_bytes());
        jpeg.extend(content);
    };
    // A table of quantisation. The frame: 8 bits, height, width, components.
    segment(0xdb, [vec![0], vec![1; 64]].concat());
    let mut frame = vec![8, 0, 8, 0, 8, components];
    let mut scan = vec![components];
    for id in 1..=components {
        frame.extend([id, 0x11, 0]);
        scan.extend([id, 0]);
    }
    scan.extend([0, 63, 0]);
    segment(0xc0, frame);
    // Huffman tables of one code, which is a 0: for no difference, and for the end of a block.
    for table in [0x00, 0x10] {
        segment(0xc4, [vec![table, 1], vec![0; 16]].concat());
    }
    segment(0xda, scan);
    // Two zeros for each component, then ones.
    jpeg.push((0xff_u16 >> (2 * components)) as u8);
    jpeg.extend([0xff, 0xd9]);
    jpeg
}

/// Returns a picture as a PNG file.
fn png_of(picture: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, ImageFormat::Png).expect("encoded");
    bytes.into_inner()
}

/// Returns names and contents of pictures that cannot be used, and the reasons.
fn unusable() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let [png, jpeg] = [ImageFormat::Png, ImageFormat::Jpeg].map(|format| picture(32, format));
    let deep = DynamicImage::from(RgbImage::new(32, 32)).into_rgb16();
    let half = RgbaImage::from_fn(32, 32, |x, _| Rgba([9, 9, 9, if x < 16 { 255 } else { 254 }]));
    let transparent = "has transparent pixels; composite it on a background first";
    vec![
        ("bomb.png", bomb(60_000), "larger than 8192x8192 pixels"),
        ("cmyk.jpg", grey_jpeg(4), "its colours are CMYK; convert it to RGB first"),
        ("cut.jpg", jpeg[..jpeg.len() - 20].to_vec(), "damaged (it is cut short)"),
        ("cut.png", png[..png.len() / 2].to_vec(), "damaged ("),
        ("deep.png", png_of(deep), "Rgb16; only 8 bits per channel are supported"),
        ("empty.png", Vec::new(), "the file is empty"),
        ("page.png", b"<html>".to_vec(), "not a PNG or JPEG file"),
        ("transparent.png", png_of(half), transparent),
        // As large as a picture may be, with few bytes.
        ("wide.png", bomb(8_192), "damaged ("),
    ]
}

#[test]
fn every_kind_of_unusable_picture_has_a_reason() {
    let folder = TempDir::new().expect("a temporary folder");
    let write = |name: &str, bytes: Vec<u8>| {
        fs::write(folder.path().join(name), bytes).expect("written");
    };
    for (name, bytes, _) in unusable() {
        write(name, bytes);
    }
    // Much like them, and usable.
    write("grey.jpg", grey_jpeg(3));
    write("opaque.png", png_of(RgbaImage::from_pixel(32, 32, Rgba([1, 2, 3, 255]))));
    let check = ["data", "check", text(folder.path())];
    let all_are_said = |code: Option<i32>, said: &[u8]| {
        let said = String::from_utf8_lossy(said);
        assert_eq!(code, Some(1), "{said}");
        for (name, _, reason) in unusable() {
            let line = format!("    {name}: {reason}");
            assert!(said.contains(&line), "{said:?} does not say {line:?}");
        }
        for part in ["images      2", "8x8         1", "9 cannot be used:", "--skip-bad"] {
            assert!(said.contains(part), "{said:?} does not say {part:?}");
        }
    };
    let output = trainer().args(check).output().expect("it runs");
    all_are_said(output.status.code(), &output.stdout);
    // What files claim takes no memory.
    #[cfg(target_os = "linux")]
    {
        let output = crate::memory::limited(&check);
        all_are_said(output.status.code(), &output.stdout);
    }
}

/// Writes pictures of 32x32 that differ, with numbers as names.
fn write_pictures(folder: &Path, count: u32) {
    fs::create_dir_all(folder).expect("made");
    for i in 0..count {
        let pixel = |x: u32, y: u32| Rgb([(x * 8) as u8, (y * 8) as u8, (i * 15) as u8]);
        let path = folder.join(format!("{i:02}.png"));
        RgbImage::from_fn(32, 32, pixel).save(path).expect("written");
    }
}

/// Writes pictures that cannot be used, whose names are before, between and after those of
/// [`write_pictures`].
fn write_unusable(folder: &Path) {
    for (i, (name, bytes, _)) in unusable().into_iter().enumerate() {
        fs::write(folder.join(format!("{:02}-{name}", 2 * i)), bytes).expect("written");
    }
}

#[test]
fn training_without_unusable_pictures_is_training_on_the_others() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let (good, mixed) = (path("good"), path("mixed"));
    write_pictures(&good, 16);
    write_pictures(&mixed, 16);
    write_unusable(&mixed);
    let options = small_options(folder.path());
    let args = ["train", "--preset", "tiny", "--options", &options, "--grid", "0"];
    let args = [&args[..], &["--duration", "24", "--data"]].concat();
    let error = fails(&[&args[..], &[text(&mixed), "--out", text(&path("none"))]].concat());
    for part in
        ["9 of 25 images cannot be used:\n  00-bomb.png: ", "  and 4 more\n", "--skip-bad leaves"]
    {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    assert!(!path("none").exists());

    run(&[&args[..], &[text(&good), "--out", text(&path("want"))]].concat());
    let want = latest(&only_run(&path("want")));
    // Those that are decoded while training are looked for at the start, too.
    for memory in ["1GB", "0"] {
        let out = path(memory);
        let more = [text(&mixed), "--skip-bad", "--data-memory", memory, "--out", text(&out)];
        let assert = trainer().args(&args).args(more).assert().success();
        let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        for part in [
            "mixed: 9 of 25 images cannot be used and are left out:\n  00-bomb.png: larger than",
            "  08-deep.png: Rgb16; only 8 bits per channel are supported\n  and 4 more\n",
            "16 images from",
        ] {
            assert!(said.contains(part), "{memory}: {said:?} does not say {part:?}");
        }
        assert!(latest(&only_run(&out)) == want, "{memory}: the result differs");
    }

    // A resumed run leaves out the same pictures, or is refused.
    let [want, found] = ["want", "0"].map(|name| only_run(&path(name)));
    for run_folder in [&want, &found] {
        run(&["train", "--resume", text(run_folder), "--grid", "0", "--duration", "32"]);
    }
    assert!(latest(&found) == latest(&want));
    fs::write(mixed.join("07.png"), b"").expect("written");
    let error = fails(&["train", "--resume", text(&found), "--grid", "0", "--duration", "40"]);
    let part = "not the data that this run was trained on so far: they are 15 images, not 16";
    assert!(error.contains(part), "{error}");

    // Nothing is left.
    let bad = path("bad");
    fs::create_dir(&bad).expect("made");
    write_unusable(&bad);
    let none = path("none");
    let more = [text(&bad), "--skip-bad", "--out", text(&none)];
    let error = fails(&[&args[..], &more].concat());
    assert!(error.contains("bad: 9 of 9 images cannot be used:\n"), "{error}");
    trainer().args(["data", "check", "--skip-bad", text(&bad)]).assert().code(1);
}

#[test]
fn encoding_without_unusable_pictures_is_encoding_the_others() {
    let folder = TempDir::new().expect("a temporary folder");
    let [vae, sizes, pictures] = small_autoencoder_and_pictures(folder.path());
    let encode = |output: &Path, more: &[&str]| {
        let data = ["data", "encode", "--data", text(&pictures), "--vae", text(&vae)];
        let sizes = ["--vae-config", text(&sizes), "--size", "32", "-o", text(output)];
        trainer().args([&data[..], &sizes, more].concat()).output().expect("it runs")
    };
    let [want, found] = ["want", "found"].map(|name| folder.path().join(name));
    assert!(encode(&want, &[]).status.success());
    write_unusable(&pictures.join("cats"));
    let output = encode(&found, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--skip-bad leaves them out"), "{said}");
    assert!(!found.exists());
    let output = encode(&found, &["--skip-bad"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("9 of 33 images cannot be used and are left out:"), "{said}");
    assert!(fs::read(&found).expect("written") == fs::read(&want).expect("written"));

    let said = run(&["data", "check", "--skip-bad", text(&pictures)]);
    for part in [
        "images      24",
        "  9 cannot be used and are left out:\n    cats/00-bomb.png: larger than",
        "    and 4 more\n",
    ] {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }
}

#[test]
fn mean_and_deviation_are_those_of_the_pixels() {
    let folder = TempDir::new().expect("a temporary folder");
    // 4 and 12 pixels.
    let write = |name: &str, [width, height]: [u32; 2], colour: [u8; 3]| {
        let picture = RgbImage::from_pixel(width, height, Rgb(colour));
        picture.save(folder.path().join(name)).expect("written");
    };
    write("a.png", [2, 2], [0, 51, 255]);
    write("b.png", [4, 3], [255, 51, 0]);
    fs::write(folder.path().join("c.png"), b"").expect("written");
    let said = run(&["data", "check", "--skip-bad", text(folder.path())]);
    for part in [
        "  images      2\n",
        "  2x2         1\n",
        "  4x3         1\n",
        "  mean        0.7500 0.2000 0.2500  (red, green, blue; 0 is black, 1 is white)\n",
        // The square root of 0.75 times 0.25.
        "  deviation   0.4330 0.0000 0.4330\n",
    ] {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }
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
