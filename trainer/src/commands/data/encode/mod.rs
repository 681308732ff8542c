//! `trainer data encode`: encodes images to a latent dataset.

mod encoder;
mod output;

use std::ops::ControlFlow;

use anstream::{eprintln, println};
use anyhow::{anyhow, bail, ensure};
use burn::tensor::f16;
use indicatif::{ProgressBar, ProgressStyle};
use model::weights::Precision;
use sha2::{Digest, Sha256};

use self::encoder::Encoder;
use self::output::{Output, Records};
use crate::args::{EncodeArgs, Shard};
use crate::data::decode::DecodedImage;
use crate::data::item::Item;
use crate::data::latents::{Origin, Part, bytes_of, record_size};
use crate::data::source::{self, Source, read_usable, visit_all, without_unusable};
use crate::files::hash::hex;
use crate::run::report::warn;

/// Runs the command.
///
/// Records are appended to a partial file, which is renamed at the end. An interrupted encoding is
/// resumed from the partial file.
///
/// # Errors
///
/// If the images or the autoencoder cannot be used, or the file cannot be written.
pub fn run(args: EncodeArgs) -> anyhow::Result<()> {
    let devices = args.device.device.open_all(args.devices.into())?;
    let (encoders, sha256) = encoder::load(&args, devices)?;
    let config = encoders[0].vae.config.clone();
    let (side, factor, c) = (args.size as usize, config.factor(), config.image_channels);
    ensure!(
        side.is_multiple_of(factor),
        "--size {side} is not a multiple of {factor}, the downsampling factor of this autoencoder"
    );
    ensure!(c == 1 || c == 3, "this autoencoder takes images of {c} channels, not 1 or 3");
    let shape = [config.latent_channels, side / factor, side / factor];
    let precision = Precision::from(args.precision);

    let mut source = source::open(&args.data, true)?;
    if args.skip_bad {
        let check = |source: &dyn Source, i| source.image(i).map(drop);
        let (usable, left_out) = without_unusable(&args.data, source, true, check)?;
        source = usable;
        if let Some(left_out) = left_out {
            warn(&left_out);
        }
    }
    let images = source.index().images.len();
    let mut origin = Origin {
        pictures_sha256: "0".repeat(64),
        vae: config,
        vae_sha256: sha256,
        classes: source.index().classes.names.clone(),
    };
    let parts = match (args.shard, args.shard_size) {
        (None, Some(limit)) => {
            let record = record_size(shape, precision);
            let count = output::parts_of(&origin, images, limit, record)?;
            (1..=count).map(|number| Part { number, count, images }).collect()
        }
        (shard, _) => vec![part(&args, shard, images)?],
    };

    // All images are checked before the first is encoded, which takes far longer.
    let (mut digest, mut labels, mut digests) = (ImagesDigest::default(), Vec::new(), Vec::new());
    read_usable(&args.data, &*source, |image, class| {
        digest.add(&image, class);
        labels.extend(class);
        if parts.iter().any(|part| part.range().end == digest.count) {
            digests.push(digest.sha256());
        }
        Ok(())
    })?;
    origin.pictures_sha256 = digest.sha256();
    if labels.len() != images {
        (labels, origin.classes) = Default::default();
    }
    if origin.classes.is_empty() {
        labels.clear();
    }
    let paths = match args.shard_size {
        None => vec![args.output.clone()],
        Some(_) => output::paths_in(&args.output, parts.len())?,
    };
    let files = paths.into_iter().zip(digests).zip(&parts);
    let outputs: Vec<Output> = files
        .map(|((path, digest), part)| {
            Output::new(path, digest, &origin, &labels, *part, (shape, precision))
        })
        .collect();

    let count: usize = outputs.iter().map(|output| output.images.len()).sum();
    let mut incomplete = Vec::new();
    for output in &outputs {
        if !output.is_complete(args.overwrite)? {
            incomplete.push(output);
        }
    }
    if incomplete.is_empty() {
        println!("{} already contains the latents of these {count} images", args.output.display());
        return Ok(());
    }
    let encoding = Encoding { args: &args, encoders: &encoders, source: &*source, precision };
    encoding.encode(&incomplete, count)?;
    let of_all = match (args.shard, outputs.len()) {
        (Some(shard), _) => format!(" (part {shard} of {images})"),
        (None, 1) => String::new(),
        (None, files) => format!(" in {files} files"),
    };
    println!(
        "{}: latents {shape:?} of {count} images{of_all} and their mirror images, {} classes, {:.1} MB",
        args.output.display(),
        origin.classes.len(),
        outputs.iter().map(Output::size).sum::<usize>() as f64 / 1e6
    );
    Ok(())
}

/// Returns the part of `images` images that is to be encoded.
///
/// # Errors
///
/// If it is empty.
fn part(args: &EncodeArgs, shard: Option<Shard>, images: usize) -> anyhow::Result<Part> {
    let Shard { number, count } = shard.unwrap_or(Shard { number: 1, count: 1 });
    ensure!(
        count <= images.max(1),
        "--shard {number}/{count}: {} has only {images} images",
        args.data.display()
    );
    Ok(Part { number, count, images })
}

/// The encoding of a dataset to one or several files.
struct Encoding<'a> {
    args: &'a EncodeArgs,
    encoders: &'a [Encoder],
    source: &'a dyn Source,
    precision: Precision,
}

/// An image to encode, `[C, H, W]`, with its name.
type Square = (String, Vec<u8>);

impl Encoding<'_> {
    /// Encodes the images of files that are not complete, which are in the order of their images, in one
    /// pass over the dataset. `total` is the number of images of all files, for the progress bar.
    fn encode(&self, outputs: &[&Output], total: usize) -> anyhow::Result<()> {
        let missing: usize = outputs.iter().map(|output| output.images.len()).sum();
        let mut outputs = outputs.iter();
        let mut next = || outputs.next().map(|output| output.open(self.args)).transpose();
        let mut current = next()?;
        let done = total - missing + current.as_ref().map_or(0, Records::count);
        if done > 0 {
            eprintln!("resuming after {done} images");
        }
        let bar = ProgressBar::new(total as u64).with_style(
            ProgressStyle::with_template("{wide_bar} {pos} of {len} images, {eta} left")
                .expect("a valid template"),
        );
        bar.set_position(done as u64);
        bar.reset_eta();
        let mut digest = ImagesDigest::default();
        let mut squares: Vec<Square> = Vec::new();
        let round = usize::from(self.args.batch) * self.encoders.len();
        let mut take = |Item { name, image, class }| {
            let Some(records) = &mut current else { return Ok(ControlFlow::Break(())) };
            let image = image.map_err(|reason| self.unusable(&name, &reason))?;
            let number = digest.count;
            digest.add(&image, class);
            if number < records.next() {
                return Ok(ControlFlow::Continue(()));
            }
            let square = self.square(image).map_err(|reason| self.unusable(&name, &reason))?;
            squares.push((name, square));
            let is_last = number + 1 == records.output.images.end;
            if squares.len() == round || is_last {
                records.append(&self.records(&squares)?)?;
                bar.inc(squares.len() as u64);
                squares.clear();
            }
            if is_last {
                if digest.sha256() != records.output.digest {
                    bail!("{}: the images changed during encoding", self.args.data.display());
                }
                current.take().map_or(Ok(()), Records::finish)?;
                current = next()?;
            }
            Ok(ControlFlow::Continue(()))
        };
        let mut result: anyhow::Result<()> = Ok(());
        visit_all(self.source, None, &mut |item| {
            take(item).unwrap_or_else(|error| {
                result = Err(error);
                ControlFlow::Break(())
            })
        });
        bar.finish_and_clear();
        result
    }

    fn unusable(&self, name: &str, reason: &str) -> anyhow::Error {
        anyhow!("{}: {name}: {reason}", self.args.data.display())
    }

    /// Returns the part of an image that is encoded.
    fn square(&self, image: DecodedImage) -> Result<Vec<u8>, String> {
        let (side, c) = (self.args.size as usize, self.encoders[0].vae.config.image_channels);
        image.center_crop(side)?.channels_first([c, side, side])
    }

    /// Returns the records of images: a batch on each device.
    fn records(&self, squares: &[Square]) -> anyhow::Result<Vec<u8>> {
        let side = self.args.size as usize;
        let batches = squares.chunks(self.args.batch.into());
        let moments = Encoder::all_moments(self.encoders, batches, side);
        let per_image = moments.len() / squares.len();
        let mut bytes = Vec::with_capacity(4 * moments.len());
        let range = if self.precision == Precision::F32 { f32::MAX } else { f16::MAX.into() };
        for (moments, (name, _)) in moments.chunks_exact(per_image).zip(squares) {
            // Not greater than the range: NaN neither.
            ensure!(
                moments.iter().all(|value| value.abs() <= range),
                self.unusable(
                    name,
                    "its latents are not finite, or beyond the range of --precision"
                )
            );
            bytes.extend(bytes_of(moments, self.precision));
        }
        Ok(bytes)
    }
}

/// Hash and number of images.
#[derive(Default)]
struct ImagesDigest {
    hash: Sha256,
    count: usize,
}

impl ImagesDigest {
    fn add(&mut self, image: &DecodedImage, class: Option<u32>) {
        let sizes = [image.width, image.height].map(|size| size as u64);
        // No class has this number.
        let class = class.map_or(u64::MAX, u64::from);
        for number in [sizes[0], sizes[1], class] {
            self.hash.update(number.to_le_bytes());
        }
        self.hash.update(&image.rgb);
        self.count += 1;
    }

    fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }
}
