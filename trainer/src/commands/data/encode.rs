//! `trainer data encode`: encodes images to a latent dataset.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anstream::{eprintln, println};
use anyhow::{Context, anyhow, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use indicatif::{ProgressBar, ProgressStyle};
use model::vae::Vae;
use sha2::{Digest, Sha256};

use crate::args::EncodeArgs;
use crate::data::augment::mirror_x;
use crate::data::decode::DecodedImage;
use crate::data::item::Item;
use crate::data::latents::{Origin, header, record_size};
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
    let device = args.device.device.open()?;
    let Autoencoder { vae, sha256 } =
        Autoencoder::load(&args.vae, args.vae_config.as_deref(), &device)?;
    let (side, factor, c) = (args.size as usize, vae.config.factor(), vae.config.image_channels);
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
    let origin = Origin {
        pictures_sha256: digest.sha256(),
        vae: vae.config.clone(),
        vae_sha256: sha256,
        classes,
    };
    let shape = [vae.config.latent_channels, side / factor, side / factor];
    let layout = Layout {
        header: header(&origin, &labels, digest.count, shape),
        record: record_size(shape),
        count: digest.count,
    };
    if is_complete(&args, &layout)? {
        println!(
            "{} already contains the latents of these {} images",
            args.output.display(),
            layout.count
        );
        return Ok(());
    }

    let partial = partial_path(&args.output);
    let (file, done) = open_partial(&partial, &layout, args.overwrite)?;
    if done > 0 {
        eprintln!("resuming after {done} images");
    }
    let encoder = Encoder { args: &args, vae: &vae, device: &device, layout: &layout };
    let found = encoder.encode(file, &partial, done)?;
    ensure!(
        found == origin.pictures_sha256,
        "{}: the images changed during encoding",
        args.data.display()
    );
    std::fs::rename(&partial, &args.output)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    println!(
        "{}: latents {shape:?} of {} images and their mirror images, {} classes, {:.1} MB",
        args.output.display(),
        layout.count,
        origin.classes.len(),
        layout.size() as f64 / 1e6
    );
    Ok(())
}

/// Layout of a latent dataset.
struct Layout {
    header: Vec<u8>,
    /// Size of a record in bytes.
    record: usize,
    /// Number of records.
    count: usize,
}

impl Layout {
    /// Returns the size of the file in bytes.
    fn size(&self) -> usize {
        self.header.len() + self.count * self.record
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

/// Encodes all images of a dataset to a file.
struct Encoder<'a> {
    args: &'a EncodeArgs,
    vae: &'a Vae,
    device: &'a Device,
    layout: &'a Layout,
}

impl Encoder<'_> {
    /// Encodes all images after the first `done`, and appends their records to `file`. Returns the
    /// SHA-256 of all images.
    fn encode(&self, mut file: File, path: &Path, done: usize) -> anyhow::Result<String> {
        let cannot_write =
            || format!("cannot write {} ({} MB)", path.display(), self.layout.size() / 1_000_000);
        let bar = ProgressBar::new(self.layout.count as u64).with_style(
            ProgressStyle::with_template("{wide_bar} {pos} of {len} images, {eta} left")
                .expect("a valid template"),
        );
        bar.set_position(done as u64);
        bar.reset_eta();
        let mut digest = ImagesDigest::default();
        let mut encode_item = |Item { name, image, class }| {
            let unusable =
                |reason: String| anyhow!("{}: {name}: {reason}", self.args.data.display());
            let image = image.map_err(unusable)?;
            digest.add(&image, class);
            if digest.count <= done {
                return Ok(());
            }
            let record = self.record(image).map_err(unusable)?;
            file.write_all(&record).with_context(cannot_write)?;
            if digest.count.is_multiple_of(SYNC_INTERVAL) {
                file.sync_data().with_context(cannot_write)?;
            }
            bar.inc(1);
            Ok(())
        };
        let mut result: anyhow::Result<()> = Ok(());
        visit(&self.args.data, &mut |item| {
            result = encode_item(item);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        bar.finish_and_clear();
        file.sync_all().with_context(cannot_write)?;
        Ok(digest.sha256())
    }

    /// Encodes an image.
    fn record(&self, image: DecodedImage) -> Result<Vec<u8>, String> {
        let (side, c) = (self.args.size as usize, self.vae.config.image_channels);
        let square = image.center_crop(side)?.channels_first([c, side, side])?;
        let moments = moments(self.vae, &square, [c, side, side], self.device);
        if !moments.iter().all(|value| value.is_finite()) {
            return Err("its latents are not finite".into());
        }
        Ok(moments.iter().flat_map(|value| value.to_le_bytes()).collect())
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
fn open_partial(path: &Path, layout: &Layout, overwrite: bool) -> anyhow::Result<(File, usize)> {
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
        same || overwrite || len <= header.len(),
        "{name} belongs to an encoding of other images, with another --size or another autoencoder; \
         use --overwrite to start over"
    );
    // After a power failure, records written since the last sync may be lost, although the file has
    // its full length.
    let records = if same { (len - header.len()) / layout.record } else { 0 };
    let done = (records.saturating_sub(1) / SYNC_INTERVAL * SYNC_INTERVAL).min(layout.count);
    if !same {
        file.set_len(0).with_context(cannot_write)?;
        file.write_all(header).with_context(cannot_write)?;
    }
    let end = (header.len() + done * layout.record) as u64;
    file.set_len(end).with_context(cannot_write)?;
    file.seek(SeekFrom::Start(end)).with_context(cannot_write)?;
    Ok((file, done))
}

/// Returns `[2, 2, C, H, W]`: mean and standard deviation of the latents of an image and of its
/// mirror image. The two are encoded in a batch of their own, so that the result does not depend on
/// other images.
fn moments(vae: &Vae, image: &[u8], [c, h, w]: [usize; 3], device: &Device) -> Vec<f32> {
    let mut values = vec![0.0; image.len()];
    model::image::from_bytes(image, &mut values);
    let mut mirrored = values.clone();
    mirror_x(&mut mirrored, w);
    values.extend(mirrored);
    let encoded = vae.encode(Tensor::from_data(TensorData::new(values, [2, c, h, w]), device));
    let moments = Tensor::stack::<5>(vec![encoded.mean, encoded.std], 1);
    moments.into_data().try_into_vec().expect("moments are f32")
}
