//! `trainer data encode`: latents of pictures.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anstream::{eprintln, println};
use anyhow::{Context, anyhow, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use indicatif::{ProgressBar, ProgressStyle};
use model::vae::Vae;
use sha2::{Digest, Sha256};

use super::latents::{Origin, head, record};
use super::{Item, Picture, usable, visit};
use crate::args::EncodeArgs;
use crate::augment::mirror_x;
use crate::autoencoder::Autoencoder;
use crate::run_folder::take;
use crate::weights_file::hex;

/// Pictures after which what was written is brought to the disk.
const SYNC: usize = 16;

/// Runs the command.
///
/// The file is written beside its place, record after record, and renamed when it is whole. What
/// an encoding that was stopped has left is gone on from.
///
/// # Errors
///
/// If pictures or autoencoder cannot be used, or the file not be written.
pub fn encode(args: EncodeArgs) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let Autoencoder { vae, sha256 } =
        Autoencoder::load(&args.vae, args.vae_config.as_deref(), &device)?;
    let (side, factor, c) = (args.size as usize, vae.config.factor(), vae.config.image_channels);
    ensure!(
        side.is_multiple_of(factor),
        "--size {side}: this autoencoder makes pictures {factor} times smaller, which {side} is not \
         a multiple of"
    );
    ensure!(c == 1 || c == 3, "this autoencoder is for pictures of {c} channels, not 1 or 3");

    // All pictures are looked at before one is encoded, which takes far longer.
    let (mut seen, mut labels) = (Seen::default(), Vec::new());
    let classes = usable(&args.data, |picture, class| {
        seen.see(&picture, class);
        labels.extend(class);
        Ok(())
    })?;
    let (labels, classes) = match labels.len() == seen.pictures && !classes.names.is_empty() {
        true => (labels, classes.names),
        false => Default::default(),
    };
    let pictures = seen.pictures;
    let origin = Origin {
        pictures_sha256: seen.sha256(),
        vae: vae.config.clone(),
        vae_sha256: sha256,
        classes,
    };
    let shape = [vae.config.latent_channels, side / factor, side / factor];
    let head = head(&origin, &labels, pictures, shape);
    let whole = head.len() + pictures * record(shape);

    let output = args.output.display();
    if let Ok(metadata) = args.output.metadata()
        && !args.overwrite
    {
        let same = begins_with(&args.output, &head)? && metadata.len() == whole as u64;
        ensure!(
            same,
            "{output} exists and holds other things than latents of these pictures by this \
             autoencoder; --overwrite replaces it"
        );
        println!("{output} holds the latents of these {pictures} pictures already");
        return Ok(());
    }
    let mut partial = args.output.clone().into_os_string();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let cannot = || format!("cannot write {} ({} MB)", partial.display(), whole / 1_000_000);
    let (mut file, done) = go_on(partial, &head, record(shape), args.overwrite)?;
    let done = done.min(pictures);
    if done > 0 {
        eprintln!("going on after {done} pictures");
    }
    let bar = ProgressBar::new(pictures as u64).with_style(
        ProgressStyle::with_template("{wide_bar} {pos} of {len} pictures, {eta} left")
            .expect("a valid template"),
    );
    bar.set_position(done as u64);
    bar.reset_eta();
    let mut seen = Seen::default();
    let mut take = |Item { name, picture, class }| {
        let wrong = |reason: String| anyhow!("{}: {name}: {reason}", args.data.display());
        let picture = picture.map_err(wrong)?;
        seen.see(&picture, class);
        if seen.pictures <= done {
            return Ok(());
        }
        let square = picture.square(side).map_err(wrong)?;
        let square = square.channels_first([c, side, side]).map_err(wrong)?;
        let moments = moments(&vae, &square, [c, side, side], &device);
        if !moments.iter().all(|value| value.is_finite()) {
            return Err(wrong("the autoencoder makes values of it that are not finite".into()));
        }
        let bytes: Vec<u8> = moments.iter().flat_map(|value| value.to_le_bytes()).collect();
        file.write_all(&bytes).with_context(cannot)?;
        if seen.pictures.is_multiple_of(SYNC) {
            file.sync_data().with_context(cannot)?;
        }
        bar.inc(1);
        Ok(())
    };
    let mut taken = Ok(());
    visit(&args.data, &mut |item| {
        taken = take(item);
        if taken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    taken?;
    bar.finish_and_clear();
    ensure!(
        seen.sha256() == origin.pictures_sha256,
        "{}: the pictures changed while they were encoded",
        args.data.display()
    );
    file.sync_all().with_context(cannot)?;
    drop(file);
    std::fs::rename(partial, &args.output).with_context(|| format!("cannot write {output}"))?;
    println!(
        "{output}: latents {shape:?} of {pictures} pictures and their mirror images, {} classes, {:.1} \
         MB",
        origin.classes.len(),
        whole as f64 / 1e6
    );
    Ok(())
}

/// Pictures that were looked at.
#[derive(Default)]
struct Seen {
    hash: Sha256,
    pictures: usize,
}

impl Seen {
    fn see(&mut self, picture: &Picture, class: Option<u32>) {
        let sizes = [picture.width, picture.height].map(|size| size as u64);
        // No class has this number.
        let class = class.map_or(u64::MAX, u64::from);
        for number in [sizes[0], sizes[1], class] {
            self.hash.update(number.to_le_bytes());
        }
        self.hash.update(&picture.rgb);
        self.pictures += 1;
    }

    fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }
}

/// Whether a file has this beginning.
fn begins_with(path: &Path, head: &[u8]) -> anyhow::Result<bool> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(head.len() as u64).read_to_end(&mut start))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(start == head)
}

/// Opens the file that is being written, at the end of what is sure to be in it; returns how many
/// records that are.
fn go_on(
    path: &Path,
    head: &[u8],
    record: usize,
    overwrite: bool,
) -> anyhow::Result<(File, usize)> {
    let name = path.display();
    let context = || format!("cannot write {name}");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .with_context(context)?;
    ensure!(take(&file).with_context(context)?, "{name}: another process is encoding into it");
    let len = usize::try_from(file.metadata().with_context(context)?.len())?;
    let same = begins_with(path, head)?;
    ensure!(
        same || overwrite || len <= head.len(),
        "{name} was begun with other pictures, another --size or another autoencoder; --overwrite \
         starts anew"
    );
    // What was written after the disk was last waited for may be lost after a power cut, with the
    // file as long as before.
    let records = if same { (len - head.len()) / record } else { 0 };
    let sure = records.saturating_sub(1) / SYNC * SYNC;
    if !same {
        file.set_len(0).with_context(context)?;
        file.write_all(head).with_context(context)?;
    }
    let end = (head.len() + sure * record) as u64;
    file.set_len(end).with_context(context)?;
    file.seek(SeekFrom::Start(end)).with_context(context)?;
    Ok((file, sure))
}

/// Mean and standard deviation of the latents of a picture and of its mirror image,
/// `[2, 2, C, H, W]`. A picture is encoded with nothing but its mirror image, so that what comes
/// of it depends on nothing else.
fn moments(vae: &Vae, picture: &[u8], [c, h, w]: [usize; 3], device: &Device) -> Vec<f32> {
    let mut values = vec![0.0; picture.len()];
    model::image::from_bytes(picture, &mut values);
    let mut mirrored = values.clone();
    mirror_x(&mut mirrored, w);
    values.extend(mirrored);
    let encoded = vae.encode(Tensor::from_data(TensorData::new(values, [2, c, h, w]), device));
    let moments = Tensor::stack::<5>(vec![encoded.mean, encoded.std], 1);
    moments.into_data().try_into_vec().expect("moments are f32")
}
