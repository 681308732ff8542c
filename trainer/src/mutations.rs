//! Files of the trainer, damaged in thousands of ways: each leads to an error or to valid content, not
//! to a panic, and takes memory in proportion to its size.
//!
//! The formats that other programs read too are in `tests/mutations.rs`.

use std::fmt::Debug;
use std::io::{Cursor, Write};
use std::path::Path;

use burn::tensor::Device;
use image::{ImageFormat, RgbImage};
use model::Model;
use model::config::{NetworkConfig, Window};
use model::vae::VaeConfig;
use model::weights::Precision;
use sha2::{Digest, Sha256};
use tests::mutate::{Reader, mutated, read_all};
use zip::write::SimpleFileOptions;

use crate::config::TrainConfig;
use crate::config::options::Options;
use crate::data::latents::{self, Latents, Origin, Part};
use crate::data::source;
use crate::run::checkpoint::{self, Checkpoint, State};
use crate::run::launch::Launch;
use crate::run::progress::Progress;

const MB: usize = 1_000_000;

/// Reads files as [`read_all`] does, with one thread.
fn check<E: Debug>(
    valid: &[Vec<u8>],
    count: u64,
    (times, more): (usize, usize),
    read: impl Fn(&[u8]) -> Result<(), E> + Send,
) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    // What would be done on several threads is done on the one that is measured.
    let measure = |call: &mut dyn FnMut()| allocation_counter::measure(call).bytes_max;
    pool.install(|| read_all(valid, count, Reader { read, measure, times, more }));
}

fn picture(side: u32, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let pixel = |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, (x * y * 13) as u8]);
    RgbImage::from_fn(side, side, pixel).write_to(&mut bytes, format).expect("encoded");
    bytes.into_inner()
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).expect("written");
    }
    tar.into_inner().expect("written")
}

/// Reads all images of a dataset that is written to `path`.
fn read_images(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).expect("written");
    let source = source::open(path, false).map_err(|error| error.to_string())?;
    let mut problems = 0;
    for i in 0..source.index().images.len() {
        let size = source.get(i, |i| source.size(i));
        let image = source.get(i, |i| source.image(i));
        if let (Ok(size), Ok(image)) = (&size, &image) {
            assert_eq!(*size, [image.width, image.height]);
        }
        problems += usize::from(image.is_err());
    }
    if problems == 0 { Ok(()) } else { Err(format!("{problems} images cannot be used")) }
}

/// Zips of compressed and uncompressed files, with a list of classes. Inflated, a file can be a
/// thousand times as large, and so large that it is refused.
#[test]
fn zips_of_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.zip");
    let json = br#"{"labels": [["a/1.png", 0], ["b/2.png", 1]], "classes": ["x", "y"]}"#;
    let files =
        [("a/1.png", picture(8, ImageFormat::Png)), ("b/2.png", picture(9, ImageFormat::Png))];
    let valid = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated].map(|method| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        for (name, bytes) in files.iter().map(|(name, bytes)| (*name, &bytes[..])) {
            zip.start_file(name, options).expect("started");
            zip.write_all(bytes).expect("written");
        }
        zip.start_file("dataset.json", options).expect("started");
        zip.write_all(json).expect("written");
        zip.finish().expect("finished").into_inner()
    });
    check(&valid, 2_000, (16, MB), |bytes| read_images(&path, bytes));
}

#[test]
fn tars_of_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.tar");
    let [a, b] = [8, 9].map(|side| picture(side, ImageFormat::Png));
    let by_name = [("1.png", &a[..]), ("1.cls", b"cat"), ("2.png", &b), ("2.cls", b"dog")];
    let by_number =
        [("1.json", &br#"{"label": 1}"#[..]), ("1.png", &a), ("2.cls", b"0"), ("2.png", &b)];
    let valid = [tar(&by_name), tar(&by_number)];
    check(&valid, 2_000, (16, MB), |bytes| read_images(&path, bytes));
}

/// The size of a JPEG file is not protected by a checksum: a small file can claim to be the largest
/// image that is read, which takes at most 1 GiB.
#[test]
fn large_images_take_no_more_than_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.tar");
    let jpeg = picture(16, ImageFormat::Jpeg);
    check(&[tar(&[("1.jpg", &jpeg)])], 1_000, (16, 1 << 30), |bytes| read_images(&path, bytes));
    // Marker, length, bits, height, width.
    let frame = jpeg.windows(3).position(|bytes| bytes == [0xff, 0xc0, 0]).expect("a frame");
    for side in [8_192u16, 8_193, u16::MAX] {
        let mut large = jpeg.clone();
        for at in [5, 7] {
            large[frame + at..][..2].copy_from_slice(&side.to_be_bytes());
        }
        let used = allocation_counter::measure(|| {
            let read = read_images(&path, &tar(&[("1.jpg", &large)]));
            assert!(read.is_err() || side == 8_192, "{side} pixels are too many");
        });
        assert!(used.bytes_max <= 1 << 30, "{side}: {} bytes", used.bytes_max);
    }
}

/// The archive is damaged before it is compressed, whose checksum would find everything.
#[test]
fn archives_of_cifar() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.tar.gz");
    let mut record = vec![3];
    record.extend((0..3072).map(|i| (i % 251) as u8));
    let names = b"airplane\nautomobile\nbird\ncat\n";
    let valid = [tar(&[
        ("cifar-10-batches-bin/data_batch_1.bin", &record),
        ("cifar-10-batches-bin/batches.meta.txt", names),
    ])];
    check(&valid, 1_000, (16, MB), |bytes| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(bytes).and_then(|()| gz.try_finish()).expect("compressed");
        read_images(&path, &gz.finish().expect("compressed"))
    });
}

/// Files that PyArrow wrote: with the defaults, with dictionaries and pages of version 2, and plain ones.
#[test]
fn parquet_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.parquet");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet");
    let names = ["snappy/data/train-00000-of-00002", "zstd/train", "plain/x"];
    let valid = names
        .map(|name| std::fs::read(golden.join(format!("{name}.parquet"))).expect("a golden file"));
    check(&valid, 3_000, (64, MB), |bytes| read_images(&path, bytes));
}

#[test]
fn latent_datasets() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.latents");
    let origin = Origin {
        pictures_sha256: "p".into(),
        vae: VaeConfig::tiny(),
        vae_sha256: "v".into(),
        classes: vec!["a".into(), "b".into()],
    };
    let valid = [Precision::F32, Precision::F16].map(|precision| {
        let part = Part { number: 1, count: 1, images: 3 };
        let mut file = latents::header(&origin, &[0, 1, 0], part, [4, 2, 2], precision);
        file.extend(latents::bytes_of(&[0.5; 3 * 64], precision));
        file
    });
    check(&valid, 3_000, (16, MB), |bytes| {
        std::fs::write(&path, bytes).expect("written");
        let latents = Latents::open(&path).map_err(|error| error.to_string())?;
        for i in 0..latents.len() {
            assert!(latents.moments(i, true).concat().iter().all(|value| value.is_finite()));
        }
        Ok::<_, String>(())
    });
}

/// With the hash that fits: that of a damaged one would not.
#[test]
fn checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.ckpt");
    let mut config = TrainConfig::preset("tiny").expect("a preset");
    let NetworkConfig::Image(image) = &mut config.model.network else { unreachable!() };
    (image.resolution, image.channels, image.blocks) = (4, vec![32], vec![1]);
    image.window = Window::Size(2);
    (image.time.channels, image.time.width) = (4, 4);
    let model = Model::new(config.model.clone(), 1, &Device::flex()).expect("it fits together");
    let state = State {
        progress: Progress::new(config, String::new()),
        network: model.parameters(),
        ema: model.parameters(),
        averages: Vec::new(),
        optimizer: vec![1, 2, 3],
    };
    checkpoint::save(&path, state).expect("saved");
    let whole = std::fs::read(&path).expect("there");
    for number in 0..500 {
        let file = mutated(std::slice::from_ref(&whole), number);
        assert!(file == whole || Checkpoint::parse(&file).is_err(), "file {number}");
    }
    let payload = whole[40..].to_vec();
    check(&[payload], 1_500, (8, 2 * MB), |payload| {
        let sum = Sha256::digest(payload);
        let file = [&whole[..8], &sum[..], payload].concat();
        let checkpoint = Checkpoint::parse(&file)?;
        checkpoint.model(checkpoint::Part::Ema, &Device::flex());
        anyhow::Ok(())
    });
}

#[test]
fn options_and_launch_settings() {
    for preset in ["tiny-emoji", "latent-tiny", "t5-ve"] {
        let preset = TrainConfig::preset(preset).expect("a preset");
        let valid = serde_json::to_vec_pretty(&preset).expect("plain data");
        check(&[valid], 1_500, (64, MB), |bytes| {
            let mut options = Options::new("the preset", &preset)?;
            options.add("the file", serde_json::from_slice(bytes)?);
            let config = options.config()?;
            config.validate_for(2)?;
            options.explained().map(|_| ())
        });
    }
    let launch = br#"{"device": "flex", "devices": 2, "nodes": ["a:1"], "node": 0, "grid": 4,
        "data_memory": 1000, "keep": 3, "quality": {"metrics": ["fid"], "every": 10, "samples": 5,
        "reference": null, "features": "lite0", "network": "x", "allow_unknown_network": false}}"#;
    check(&[launch.to_vec()], 3_000, (64, MB), |bytes| {
        serde_json::from_slice::<Launch>(bytes).map(|_| ())
    });
}
