//! Small valid files in the formats that the trainer reads, and what reads them: for the tests that damage
//! files, and for the fuzz targets.
//!
//! A reader returns an error or reads everything; what can be written again is written and read again. Some
//! readers take a path to write the file to. The formats that other programs read too are in
//! `tests/support/formats.rs`.
//!
//! # Panics
//!
//! Readers panic if a file is read otherwise than it was written; all functions do if a file cannot be
//! written.

use std::io::{Cursor, Write};
use std::path::Path;

use burn::tensor::Device;
use image::{ImageFormat, RgbImage};
use model::Model;
use model::config::{NetworkConfig, Window};
use model::vae::VaeConfig;
use model::weights::Precision;
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;

use crate::comparison::Plan;
use crate::config::TrainConfig;
use crate::config::options::Options;
use crate::data::latents::{self, Latents, Origin, Part};
use crate::data::source;
#[cfg(feature = "hub")]
use crate::hub::{Link, remote::Listing};
use crate::run::checkpoint::{self, Checkpoint, State};
use crate::run::launch::Launch;
use crate::run::progress::Progress;

/// Why a file is not read.
type Refused = Result<(), String>;

/// Returns an image file.
pub fn picture(side: u32, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let pixel = |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, (x * y * 13) as u8]);
    RgbImage::from_fn(side, side, pixel).write_to(&mut bytes, format).expect("encoded");
    bytes.into_inner()
}

/// Returns a tar file.
pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).expect("written");
    }
    tar.into_inner().expect("written")
}

/// Reads all images of a dataset that is written to `path`.
///
/// # Errors
///
/// If not all of them can be used.
pub fn read_images(bytes: &[u8], path: &Path) -> Refused {
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

/// Zips of compressed and uncompressed files, with a list of classes.
pub fn zips() -> Vec<Vec<u8>> {
    let json = br#"{"labels": [["a/1.png", 0], ["b/2.png", 1]], "classes": ["x", "y"]}"#;
    let files =
        [("a/1.png", picture(8, ImageFormat::Png)), ("b/2.png", picture(9, ImageFormat::Png))];
    let zip = |method| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        for (name, bytes) in files.iter().map(|(name, bytes)| (*name, &bytes[..])) {
            zip.start_file(name, options).expect("started");
            zip.write_all(bytes).expect("written");
        }
        zip.start_file("dataset.json", options).expect("started");
        zip.write_all(json).expect("written");
        zip.finish().expect("finished").into_inner()
    };
    [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated].map(zip).into()
}

/// Tar files with names of classes, and with numbers of them.
pub fn tars() -> Vec<Vec<u8>> {
    let [a, b] = [8, 9].map(|side| picture(side, ImageFormat::Png));
    let by_name = [("1.png", &a[..]), ("1.cls", b"cat"), ("2.png", &b), ("2.cls", b"dog")];
    let by_number =
        [("1.json", &br#"{"label": 1}"#[..]), ("1.png", &a), ("2.cls", b"0"), ("2.png", &b)];
    vec![tar(&by_name), tar(&by_number)]
}

/// Archives of CIFAR-10 in its binary form, before they are compressed, whose checksum would find
/// everything.
pub fn cifar() -> Vec<Vec<u8>> {
    let mut record = vec![3];
    record.extend((0..3072).map(|i| (i % 251) as u8));
    let names = b"airplane\nautomobile\nbird\ncat\n";
    vec![tar(&[
        ("cifar-10-batches-bin/data_batch_1.bin", &record),
        ("cifar-10-batches-bin/batches.meta.txt", names),
    ])]
}

/// Compresses an archive of CIFAR-10 and reads it as [`read_images`] does.
///
/// # Errors
///
/// As [`read_images`].
pub fn read_cifar(bytes: &[u8], path: &Path) -> Refused {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).and_then(|()| gz.try_finish()).expect("compressed");
    read_images(&gz.finish().expect("compressed"), path)
}

/// Parquet files that PyArrow wrote: with the defaults, with dictionaries and pages of version 2, plain
/// ones, and with gzip.
pub fn parquets() -> Vec<Vec<u8>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet");
    let names = [
        "snappy/data/train-00000-of-00002",
        "zstd/train",
        "plain/x",
        "gzip/train-00000-of-00002",
        "gzip/train-00001-of-00002",
    ];
    let read = |name| std::fs::read(golden.join(format!("{name}.parquet")));
    names.map(|name| read(name).expect("a golden file")).into()
}

/// Latent datasets of 32 and 16 bits.
pub fn latent_datasets() -> Vec<Vec<u8>> {
    let origin = Origin {
        pictures_sha256: "p".into(),
        vae: VaeConfig::tiny(),
        vae_sha256: "v".into(),
        classes: vec!["a".into(), "b".into()],
    };
    let file = |precision| {
        let part = Part { number: 1, count: 1, images: 3 };
        let mut file = latents::header(&origin, &[0, 1, 0], part, [4, 2, 2], precision);
        file.extend(latents::bytes_of(&[0.5; 3 * 64], precision));
        file
    };
    [Precision::F32, Precision::F16].map(file).into()
}

/// Reads a latent dataset that is written to `path`.
///
/// # Errors
///
/// If it cannot be used.
pub fn read_latents(bytes: &[u8], path: &Path) -> Refused {
    let open = |bytes: &[u8], path: &Path| {
        std::fs::write(path, bytes).expect("written");
        Latents::open(path).map_err(|error| error.to_string())
    };
    let all = |latents: &Latents| -> Vec<f32> {
        let images = (0..latents.len()).flat_map(|i| [false, true].map(|mirrored| (i, mirrored)));
        images.flat_map(|(i, mirrored)| latents.moments(i, mirrored).concat()).collect()
    };
    let latents = open(bytes, path)?;
    let moments = all(&latents);
    assert!(moments.iter().all(|value| value.is_finite()));
    let part = Part { number: 1, count: 1, images: latents.len() };
    let Latents { origin, labels, shape, precision, .. } = &latents;
    let mut again = latents::header(origin, labels, part, *shape, *precision);
    again.extend(latents::bytes_of(&moments, *precision));
    // Not the same file, which is mapped into memory.
    let again = open(&again, &path.with_extension("again")).expect("its own");
    assert_eq!((&again.origin, &again.labels), (origin, labels));
    assert_eq!(all(&again), moments);
    Ok(())
}

/// Checkpoints, without what precedes the safetensors file, whose hash would find everything.
pub fn checkpoints() -> Vec<Vec<u8>> {
    let mut config = preset("tiny");
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
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.ckpt");
    checkpoint::save(&path, state).expect("saved");
    let file = std::fs::read(&path).expect("there");
    let payload = file[40..].to_vec();
    assert_eq!(whole_checkpoint(&payload), file);
    vec![payload]
}

/// Returns a checkpoint with this safetensors file, and the hash that fits.
pub fn whole_checkpoint(payload: &[u8]) -> Vec<u8> {
    [&b"DIFFIT\0\x01"[..], &Sha256::digest(payload)[..], payload].concat()
}

/// Reads a checkpoint with the hash that fits.
///
/// # Errors
///
/// If it cannot be used.
pub fn read_checkpoint(bytes: &[u8], _: &Path) -> Refused {
    let checkpoint = Checkpoint::parse(&whole_checkpoint(bytes));
    let checkpoint = checkpoint.map_err(|error| format!("{error:#}"))?;
    checkpoint.model(checkpoint::Part::Ema, &Device::flex());
    let text = serde_json::to_string(&checkpoint.progress).expect("plain data");
    let again: Progress = serde_json::from_str(&text).expect("its own");
    assert_eq!(again, checkpoint.progress);
    Ok(())
}

/// Presets with networks of different kinds.
const PRESETS: [&str; 3] = ["tiny-emoji", "latent-tiny", "t5-ve"];

fn preset(name: &str) -> TrainConfig {
    TrainConfig::preset(name).expect("a preset")
}

/// Recipes, as `--options` reads them.
pub fn options() -> Vec<Vec<u8>> {
    PRESETS.map(|name| serde_json::to_vec_pretty(&preset(name)).expect("plain data")).into()
}

/// Reads options for any of the presets.
///
/// # Errors
///
/// If they can be used for none of them.
pub fn read_options(bytes: &[u8], _: &Path) -> Refused {
    let read = |name| {
        let mut options = Options::new("the preset", &preset(name))?;
        options.add("the file", serde_json::from_slice(bytes)?);
        let config = options.config()?;
        config.validate_for(2)?;
        config.validate_fit()?;
        options.explained()?;
        anyhow::Ok(config)
    };
    let [first, second, third] = PRESETS;
    let config = read(first).or_else(|_| read(second)).or_else(|_| read(third));
    let config = config.map_err(|error| format!("{error:#}"))?;
    let text = serde_json::to_string(&config).expect("plain data");
    assert_eq!(serde_json::from_str::<TrainConfig>(&text).expect("its own"), config);
    Ok(())
}

/// Launch settings of a run.
pub fn launches() -> Vec<Vec<u8>> {
    let launch = br#"{"device": "flex", "devices": 2, "nodes": ["a:1"], "node": 0, "grid": 4,
        "data_memory": 1000, "keep": 3, "quality": {"metrics": ["fid"], "every": 10, "samples": 5,
        "reference": null, "features": "lite0", "network": "x", "allow_unknown_network": false}}"#;
    vec![launch.to_vec()]
}

/// Reads launch settings.
///
/// # Errors
///
/// If they cannot be used.
pub fn read_launch(bytes: &[u8], _: &Path) -> Refused {
    let launch: Launch = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let text = serde_json::to_string(&launch).expect("plain data");
    assert_eq!(serde_json::from_str::<Launch>(&text).expect("its own"), launch);
    Ok(())
}

/// Plans of comparisons.
pub fn plans() -> Vec<Vec<u8>> {
    let plan = br#"{"title": "Two", "description": "of them", "options": {"batch": 8},
        "networks": [{"name": "E", "preset": "t4-e", "published": 1.95},
        {"name": "D", "preset": "t4-d", "options": {"clip": 1.0}}],
        "reference": "E", "seeds": [0, 1], "levels": 4, "validate_every": 100, "published": "FID"}"#;
    vec![plan.to_vec()]
}

/// Reads a plan that is written to `path`.
///
/// # Errors
///
/// If it cannot be used.
pub fn read_plan(bytes: &[u8], path: &Path) -> Refused {
    std::fs::write(path, bytes).expect("written");
    let plan = Plan::read(path).map_err(|error| format!("{error:#}"))?;
    let text = serde_json::to_string(&plan).expect("plain data");
    assert_eq!(serde_json::from_str::<Plan>(&text).expect("its own"), plan);
    Ok(())
}

/// Links to the Hub, each with a list of a repository's files after it.
#[cfg(feature = "hub")]
pub fn hubs() -> Vec<Vec<u8>> {
    let listing = r#"{"sha": "0123abc", "siblings": [{"rfilename": "data/train-00000-of-00001.parquet"},
        {"rfilename": "data/test-00000-of-00001.parquet"}, {"rfilename": "b/1.png"},
        {"rfilename": "b/dataset.json"}, {"rfilename": "README.md"}]}"#;
    let links = [
        "hf://datasets/o-1/r.x/data@refs/convert/parquet",
        "hf://o-1/r.x@v1.0/a/b.safetensors",
        "https://huggingface.co/datasets/o-1/r.x/tree/refs%2Fconvert%2Fparquet/b",
    ];
    links.map(|link| format!("{link}\n{listing}").into_bytes()).into()
}

/// Reads a link, and for a folder a list of a repository's files. What is chosen of it must lie in there.
///
/// # Errors
///
/// If there is no link, or no dataset at its place.
#[cfg(feature = "hub")]
pub fn read_hub(bytes: &[u8], _: &Path) -> Refused {
    let text = String::from_utf8_lossy(bytes);
    let (link, listing) = text.split_once('\n').unwrap_or((&text, ""));
    let link = Link::parse(link).ok_or("no link")??;
    for part in link.repo.split('/').chain(link.revision.split('/')).chain(link.path.split('/')) {
        assert!(part != ".." && part != "." && !part.contains('\\'), "{link:?}");
    }
    if !link.is_folder {
        return Ok(());
    }
    let listing = Listing::parse(listing.as_bytes()).map_err(|error| format!("{error:#}"))?;
    let (names, _) = listing.chosen(&link.path).map_err(|error| format!("{error:#}"))?;
    for name in names {
        assert!(Path::new(&name).is_relative() && name.starts_with(&link.path), "{name}");
        assert!(name.split('/').all(|part| !["", ".", ".."].contains(&part)), "{name}");
    }
    Ok(())
}
