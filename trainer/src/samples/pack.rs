//! Pictures of a folder as a single file: a zip in the layout of EDM's datasets, or an npz as ADM's
//! evaluator reads it.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use serde::Serialize;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::labels::Labels;
use super::npy;
use super::store::Store;
use crate::data::decode::DecodedImage;

/// Number of pictures that are read at a time.
const CHUNK: usize = 256;

/// Format of a file of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PNG files and `dataset.json`, in a zip without compression.
    Zip,
    /// `arr_0`, the pictures, `[N, H, W, 3]` of bytes; and `arr_1`, `[N]`, if each has a class.
    Npz,
}

/// Writes the pictures of these seeds, in this order, to a file. The same pictures give the same
/// bytes. The file is complete once it has its name.
///
/// # Errors
///
/// If the file cannot be written, or a picture is missing or damaged. A damaged one is removed, so that
/// it is generated again.
pub fn pack(
    store: &Store,
    seeds: &[u64],
    labels: &Labels,
    class_names: &[String],
    format: Format,
    output: &Path,
) -> anyhow::Result<()> {
    let partial = partial_path(output);
    let context = || format!("cannot write {}", partial.display());
    let mut writer = BufWriter::new(File::create(&partial).with_context(context)?);
    let bar = ProgressBar::new(seeds.len() as u64).with_style(
        ProgressStyle::with_template("writing the file {wide_bar} {percent}%")
            .expect("a valid template"),
    );
    let progress = |n: usize| bar.inc(n as u64);
    let written = match format {
        Format::Zip => to_zip(store, seeds, labels, class_names, &mut writer, progress),
        Format::Npz => to_npz(store, seeds, labels, &mut writer, progress),
    };
    bar.finish_and_clear();
    let written = written.and_then(|()| {
        let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(file.sync_all()?)
    });
    if written.is_err() {
        // On a full disk, it is in the way.
        let _ = fs::remove_file(&partial);
    }
    written.with_context(context)?;
    fs::rename(&partial, output).with_context(|| format!("cannot write {}", output.display()))
}

/// Returns the path of a file that is being written.
fn partial_path(output: &Path) -> PathBuf {
    let mut path = output.to_owned().into_os_string();
    path.push(".partial");
    path.into()
}

/// Entries are not compressed: PNG files are already, and NumPy maps plain arrays. Without a time, the
/// same pictures give the same file.
fn options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
}

fn to_zip(
    store: &Store,
    seeds: &[u64],
    labels: &Labels,
    class_names: &[String],
    writer: impl Write + Seek,
    progress: impl Fn(usize),
) -> anyhow::Result<()> {
    let mut zip = ZipWriter::new(writer);
    for_each(store, seeds, progress, |seed, png, _| {
        zip.start_file(store.name(seed), options())?;
        Ok(zip.write_all(png)?)
    })?;
    zip.start_file("dataset.json", options())?;
    zip.write_all(&dataset_json(store, seeds, labels, class_names)?)?;
    zip.finish()?;
    Ok(())
}

fn to_npz(
    store: &Store,
    seeds: &[u64],
    labels: &Labels,
    writer: impl Write + Seek,
    progress: impl Fn(usize),
) -> anyhow::Result<()> {
    let mut zip = ZipWriter::new(writer);
    let mut size = None;
    for_each(store, seeds, progress, |seed, _, image| {
        let found = [image.height, image.width];
        if size.is_none() {
            zip.start_file("arr_0.npy", options().large_file(true))?;
            zip.write_all(&npy::header("|u1", &[seeds.len(), found[0], found[1], 3]))?;
        }
        let [h, w] = *size.get_or_insert(found);
        ensure!(
            found == [h, w],
            "{}: {}x{} pixels, but the first picture has {w}x{h}",
            store.path(seed).display(),
            found[1],
            found[0]
        );
        Ok(zip.write_all(&image.rgb)?)
    })?;
    if labels.are_classes() {
        zip.start_file("arr_1.npy", options().large_file(true))?;
        zip.write_all(&npy::header("<i8", &[seeds.len()]))?;
        for seed in seeds {
            let class = labels.of(*seed).class().unwrap_or_default() as i64;
            zip.write_all(&class.to_le_bytes())?;
        }
    }
    zip.finish()?;
    Ok(())
}

/// Reads and decodes the pictures in order.
fn for_each(
    store: &Store,
    seeds: &[u64],
    progress: impl Fn(usize),
    mut take: impl FnMut(u64, &[u8], &DecodedImage) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for seeds in seeds.chunks(CHUNK) {
        let read = |seed: &u64| {
            let path = store.path(*seed);
            let png = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            // The checksums of the PNG file are compared.
            let image = DecodedImage::decode(&png);
            Ok((*seed, path, png, image))
        };
        let pictures: Vec<_> = seeds.par_iter().map(read).collect::<anyhow::Result<_>>()?;
        for (seed, path, png, image) in pictures {
            match image {
                Ok(image) => take(seed, &png, &image)?,
                Err(reason) => {
                    fs::remove_file(&path)
                        .with_context(|| format!("cannot remove {}", path.display()))?;
                    bail!(
                        "{}: {reason}; removed, and the same command generates it again",
                        path.display()
                    );
                }
            }
        }
        progress(seeds.len());
    }
    Ok(())
}

/// Content of EDM's `dataset.json`, with the names of the classes.
#[derive(Serialize)]
struct Dataset<'a> {
    labels: Option<Vec<(String, usize)>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    classes: &'a [String],
}

/// Returns the `dataset.json` of the pictures of these seeds: their classes, if each has a single one.
///
/// # Errors
///
/// If it cannot be serialised.
pub fn dataset_json(
    store: &Store,
    seeds: impl IntoIterator<Item = impl std::borrow::Borrow<u64>>,
    labels: &Labels,
    class_names: &[String],
) -> anyhow::Result<Vec<u8>> {
    let mut dataset = Dataset { labels: None, classes: &[] };
    if labels.are_classes() {
        let of = |seed: u64| (store.name(seed), labels.of(seed).class().unwrap_or_default());
        dataset.labels = Some(seeds.into_iter().map(|seed| of(*seed.borrow())).collect());
        dataset.classes = class_names;
    }
    Ok(serde_json::to_vec(&dataset)?)
}
