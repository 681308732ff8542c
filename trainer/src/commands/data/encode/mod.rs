//! `trainer data encode`: encodes images to a latent dataset.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::{ControlFlow, Range};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;

use anstream::{eprintln, println};
use anyhow::{Context, anyhow, ensure};
use burn::tensor::{Device, Tensor, TensorData, f16};
use indicatif::{ProgressBar, ProgressStyle};
use model::vae::Vae;
use model::weights::Precision;
use rayon::{ThreadPool, ThreadPoolBuilder};
use sha2::{Digest, Sha256};

use crate::args::{EncodeArgs, Shard};
use crate::data::augment::mirror_x;
use crate::data::decode::DecodedImage;
use crate::data::item::Item;
use crate::data::latents::{Origin, Part, bytes_of, header, record_size};
use crate::data::source::{read_usable, visit};
use crate::files::hash::hex;
use crate::files::lock::try_lock;
use crate::weights::autoencoder::Autoencoder;

/// Number of images after which the file is synced.
const SYNC_INTERVAL: usize = 16;

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
    let (encoders, sha256) = encoders(&args, devices)?;
    let config = encoders[0].vae.config.clone();
    let (side, factor, c) = (args.size as usize, config.factor(), config.image_channels);
    ensure!(
        side.is_multiple_of(factor),
        "--size {side} is not a multiple of {factor}, the downsampling factor of this autoencoder"
    );
    ensure!(c == 1 || c == 3, "this autoencoder takes images of {c} channels, not 1 or 3");

    // All images are checked before the first is encoded, which takes far longer.
    let (mut digest, mut labels) = (ImagesDigest::default(), Vec::new());
    let classes = read_usable(&args.data, |image, class| {
        digest.add(&image, class);
        labels.extend(class);
        Ok(())
    })?;
    let (labels, classes) = match labels.len() == digest.count && !classes.names.is_empty() {
        true => (labels, classes.names),
        false => Default::default(),
    };
    let part = part(&args, digest.count)?;
    let origin = Origin {
        pictures_sha256: digest.sha256(),
        vae: config.clone(),
        vae_sha256: sha256,
        classes,
    };
    let shape = [config.latent_channels, side / factor, side / factor];
    let precision = args.precision.into();
    let layout = Layout {
        header: header(&origin, &labels, part, shape, precision),
        record: record_size(shape, precision),
        images: part.range(),
        precision,
    };
    let count = layout.images.len();
    if is_complete(&args, &layout)? {
        println!("{} already contains the latents of these {count} images", args.output.display());
        return Ok(());
    }

    let partial = partial_path(&args.output);
    let (file, done) = open_partial(&partial, &layout, &args)?;
    if done > 0 {
        eprintln!("resuming after {done} images");
    }
    let encoding = Encoding { args: &args, encoders: &encoders, layout: &layout };
    let found = encoding.encode(file, &partial, done)?;
    ensure!(
        found == origin.pictures_sha256,
        "{}: the images changed during encoding",
        args.data.display()
    );
    std::fs::rename(&partial, &args.output)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    let of_all = match args.shard {
        Some(shard) => format!(" (part {shard} of {})", part.images),
        None => String::new(),
    };
    println!(
        "{}: latents {shape:?} of {count} images{of_all} and their mirror images, {} classes, {:.1} MB",
        args.output.display(),
        origin.classes.len(),
        layout.size() as f64 / 1e6
    );
    Ok(())
}

/// Returns the part of `images` images that is to be encoded.
///
/// # Errors
///
/// If it is empty.
fn part(args: &EncodeArgs, images: usize) -> anyhow::Result<Part> {
    let Shard { number, count } = args.shard.unwrap_or(Shard { number: 1, count: 1 });
    ensure!(
        count <= images,
        "--shard {number}/{count}: {} has only {images} images",
        args.data.display()
    );
    Ok(Part { number, count, images })
}

/// Loads the autoencoder on each device, and returns the SHA-256 of its file.
///
/// # Errors
///
/// If a file cannot be used.
fn encoders(args: &EncodeArgs, devices: Vec<Device>) -> anyhow::Result<(Vec<Encoder>, String)> {
    let (mut encoders, mut hash) = (Vec::new(), String::new());
    let several = devices.len() > 1;
    for device in devices {
        let Autoencoder { vae, sha256 } =
            Autoencoder::load(&args.vae, args.vae_config.as_deref(), &device)?;
        let thread = several.then(|| ThreadPoolBuilder::new().num_threads(1).build()).transpose();
        encoders.push(Encoder { vae, device, thread: thread.context("a thread for a device")? });
        hash = sha256;
    }
    Ok((encoders, hash))
}

/// Layout of a latent dataset, or of a part of one.
struct Layout {
    header: Vec<u8>,
    /// Size of a record in bytes.
    record: usize,
    /// Numbers of the images, one for each record.
    images: Range<usize>,
    precision: Precision,
}

impl Layout {
    /// Returns the size of the file in bytes.
    fn size(&self) -> usize {
        self.header.len() + self.images.len() * self.record
    }
}

/// Returns whether the output file exists and is complete.
///
/// # Errors
///
/// If there is a file with other content, which may not be overwritten.
fn is_complete(args: &EncodeArgs, layout: &Layout) -> anyhow::Result<bool> {
    let Ok(metadata) = args.output.metadata() else { return Ok(false) };
    if args.overwrite {
        return Ok(false);
    }
    let same = starts_with(&args.output, &layout.header)? && metadata.len() == layout.size() as u64;
    ensure!(
        same,
        "{} exists with other content than the latents of these images by this autoencoder; use \
         --overwrite to replace it",
        args.output.display()
    );
    Ok(true)
}

/// The encoding of a dataset to a file.
struct Encoding<'a> {
    args: &'a EncodeArgs,
    encoders: &'a [Encoder],
    layout: &'a Layout,
}

/// An image to encode, `[C, H, W]`, with its name.
type Square = (String, Vec<u8>);

impl Encoding<'_> {
    /// Encodes all images of the layout after the first `done`, and appends their records to `file`.
    /// Returns the SHA-256 of all images of the dataset.
    fn encode(&self, file: File, path: &Path, done: usize) -> anyhow::Result<String> {
        let images = &self.layout.images;
        let mut records = Records { file, path, count: done, layout: self.layout };
        let bar = ProgressBar::new(images.len() as u64).with_style(
            ProgressStyle::with_template("{wide_bar} {pos} of {len} images, {eta} left")
                .expect("a valid template"),
        );
        bar.set_position(done as u64);
        bar.reset_eta();
        let mut digest = ImagesDigest::default();
        let mut squares: Vec<Square> = Vec::new();
        let round = usize::from(self.args.batch) * self.encoders.len();
        let mut take = |Item { name, image, class }| {
            let image = image.map_err(|reason| self.unusable(&name, &reason))?;
            let number = digest.count;
            digest.add(&image, class);
            if !images.contains(&number) || number - images.start < done {
                return Ok(());
            }
            let square = self.square(image).map_err(|reason| self.unusable(&name, &reason))?;
            squares.push((name, square));
            if squares.len() == round || number + 1 == images.end {
                records.append(&self.records(&squares)?)?;
                bar.inc(squares.len() as u64);
                squares.clear();
            }
            Ok(())
        };
        let mut result: anyhow::Result<()> = Ok(());
        visit(&self.args.data, &mut |item| {
            result = take(item);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        bar.finish_and_clear();
        records.file.sync_all().with_context(|| records.cannot_write())?;
        Ok(digest.sha256())
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
        let mut bytes = Vec::with_capacity(squares.len() * self.layout.record);
        let range =
            if self.layout.precision == Precision::F32 { f32::MAX } else { f16::MAX.into() };
        for (moments, (name, _)) in moments.chunks_exact(per_image).zip(squares) {
            // Not greater than the range: NaN neither.
            ensure!(
                moments.iter().all(|value| value.abs() <= range),
                self.unusable(
                    name,
                    "its latents are not finite, or beyond the range of --precision"
                )
            );
            bytes.extend(bytes_of(moments, self.layout.precision));
        }
        Ok(bytes)
    }
}

/// The records of the file that is written.
struct Records<'a> {
    file: File,
    path: &'a Path,
    count: usize,
    layout: &'a Layout,
}

impl Records<'_> {
    /// Appends records. The file is synced at each multiple of [`SYNC_INTERVAL`] records.
    fn append(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        let record = self.layout.record;
        while !bytes.is_empty() {
            let left = SYNC_INTERVAL - self.count % SYNC_INTERVAL;
            let (now, later) = bytes.split_at(bytes.len().min(left * record));
            self.file.write_all(now).with_context(|| self.cannot_write())?;
            self.count += now.len() / record;
            if self.count.is_multiple_of(SYNC_INTERVAL) {
                self.file.sync_data().with_context(|| self.cannot_write())?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn cannot_write(&self) -> String {
        format!("cannot write {} ({} MB)", self.path.display(), self.layout.size() / 1_000_000)
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

/// Returns the path of the partial file of an encoding.
fn partial_path(output: &Path) -> PathBuf {
    let mut partial = output.to_owned().into_os_string();
    partial.push(".partial");
    partial.into()
}

/// Returns whether a file starts with the given bytes.
fn starts_with(path: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes.len() as u64).read_to_end(&mut start))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(start == bytes)
}

/// Opens the partial file after its last record that is known to be on disk, and returns the number
/// of records before that position.
fn open_partial(path: &Path, layout: &Layout, args: &EncodeArgs) -> anyhow::Result<(File, usize)> {
    let name = path.display();
    let cannot_write = || format!("cannot write {name}");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .with_context(cannot_write)?;
    ensure!(
        try_lock(&file).with_context(cannot_write)?,
        "{name}: another process is writing to this file"
    );
    let len = usize::try_from(file.metadata().with_context(cannot_write)?.len())?;
    let header = &layout.header;
    let same = starts_with(path, header)?;
    ensure!(
        same || args.overwrite || len <= header.len(),
        "{name} belongs to an encoding of other images, with another --size or another autoencoder; \
         use --overwrite to start over"
    );
    // After a power failure, records written since the last sync may be lost, although the file has
    // its full length.
    let records = if same { (len - header.len()) / layout.record } else { 0 };
    let done = (records.saturating_sub(1) / SYNC_INTERVAL * SYNC_INTERVAL).min(layout.images.len());
    // Images are put together in the batches in which they would be without the interruption.
    let batch = usize::from(args.batch);
    let done = done / batch * batch;
    if !same {
        file.set_len(0).with_context(cannot_write)?;
        file.write_all(header).with_context(cannot_write)?;
    }
    let end = (header.len() + done * layout.record) as u64;
    file.set_len(end).with_context(cannot_write)?;
    file.seek(SeekFrom::Start(end)).with_context(cannot_write)?;
    Ok((file, done))
}

/// An autoencoder on a device.
struct Encoder {
    vae: Vae,
    device: Device,
    /// The thread that encodes, if there are several devices. It lasts: on a GPU, each new thread
    /// would get a queue and a pool of memory of its own.
    thread: Option<ThreadPool>,
}

impl Encoder {
    /// Returns the moments of batches of images, one for each encoder, one after the other.
    fn all_moments<'a>(
        encoders: &[Self],
        batches: impl Iterator<Item = &'a [Square]>,
        side: usize,
    ) -> Vec<f32> {
        if let [encoder] = encoders {
            return batches.flat_map(|batch| encoder.moments(batch, side)).collect();
        }
        std::thread::scope(|scope| {
            let started: Vec<_> = encoders
                .iter()
                .zip(batches)
                .map(|(encoder, batch)| {
                    scope.spawn(move || {
                        let encode = || encoder.moments(batch, side);
                        encoder.thread.as_ref().map_or_else(encode, |thread| thread.install(encode))
                    })
                })
                .collect();
            let join =
                |thread: ScopedJoinHandle<_>| thread.join().unwrap_or_else(|e| resume_unwind(e));
            started.into_iter().map(join).collect::<Vec<_>>().concat()
        })
    }

    /// Returns `[B, 2, 2, C, H, W]`: mean and standard deviation of the latents of each image and of
    /// its mirror image.
    fn moments(&self, images: &[Square], side: usize) -> Vec<f32> {
        let c = self.vae.config.image_channels;
        let mut all = Vec::with_capacity(2 * images.len() * c * side * side);
        for (_, image) in images {
            let mut values = vec![0.0; image.len()];
            model::image::from_bytes(image, &mut values);
            let mut mirrored = values.clone();
            mirror_x(&mut mirrored, side);
            all.extend(values);
            all.extend(mirrored);
        }
        let data = TensorData::new(all, [2 * images.len(), c, side, side]);
        let encoded = self.vae.encode(Tensor::from_data(data, &self.device));
        let moments = Tensor::stack::<5>(vec![encoded.mean, encoded.std], 1);
        moments.into_data().try_into_vec().expect("moments are f32")
    }
}
