//! Messages of `trainer train`.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::HumanDuration;
use serde_json::json;

use super::change::Change;
use super::invocation;
use crate::args::OutputArgs;
use crate::data::dataset::Dataset;
use crate::device::DeviceKind;
use crate::memory::Chosen;
use crate::run::checkpoint;
use crate::run::folder::RunFolder;
use crate::run::progress::{Measured, Progress};
use crate::run::report::print_message;

/// Prints that the data are being read, which can take minutes.
pub fn reading(data: &Path) {
    print_message!("reading the data: {}", data.display());
}

/// Prints the options that flags change in a resumed run, a line for each.
pub fn changed(options: &[String]) {
    for option in options {
        print_message!("changed option: {option}");
    }
}

/// Returns the time that the rest of a run of `duration` images takes at the speed of the run so far, if
/// it has one.
pub fn time_left(progress: &Progress, duration: u64) -> Option<HumanDuration> {
    let left = duration.saturating_sub(progress.images);
    let known = progress.images > 0 && progress.seconds > 0.0 && left > 0;
    let seconds = progress.seconds / progress.images as f64 * left as f64;
    known.then(|| HumanDuration(Duration::from_secs_f64(seconds.min(1e9))))
}

/// Prints that not all images are in memory.
pub fn on_demand(data: &Dataset) {
    let size = data.len() * data.shape.iter().product::<usize>();
    print_message!(
        "the images take {} MB, more than the {} MB of --data-memory: they are decoded while training",
        size / 1_000_000,
        data.memory() / 1_000_000
    );
}

/// Returns the message about what a device computes with, and the compilation of kernels, which
/// happens in the first grid and steps. `None` for the CPU, whose kernels are part of the program.
pub fn compiling(device: DeviceKind) -> Option<String> {
    let name = device.to_possible_value().map(|value| value.get_name().to_string());
    (device != DeviceKind::Cpu).then(|| {
        format!(
            "{} computes with {}; the first grid and the first steps take longer, up to minutes, \
             because kernels are compiled",
            name.unwrap_or_default(),
            device.implementation()
        )
    })
}

/// Prints what is trained, on what, and where the output goes. `parameters` are those of the
/// network.
pub fn introduction(
    progress: &Progress,
    data: &Dataset,
    folder: &RunFolder,
    parameters: usize,
    args: &OutputArgs,
) {
    let config = &progress.config;
    print_message!(
        "{:.1} M parameters, {} images from {}, batch size {}, seed {}",
        parameters as f64 / 1e6,
        data.len(),
        config.data.display(),
        config.batch,
        config.seed
    );
    if let Some(note) = &data.note {
        print_message!("of the data is read: {note}");
    }
    let images = data.len().saturating_sub(config.held_out());
    if images < config.batch {
        print_message!(
            "{images} training images are fewer than a batch of {}: every batch has images more than once",
            config.batch
        );
    }
    let [c, h, w] = config.model.image_shape();
    let kind = if data.latents_of().is_some() { "latents" } else { "images" };
    let classes = match &progress.classes[..] {
        [] => String::new(),
        [one] => format!(" of the class \"{one}\""),
        [first, second, ..] => {
            format!(" of {} classes such as \"{first}\" and \"{second}\"", progress.classes.len())
        }
    };
    print_message!("The model learns to remove noise from {w}x{h}x{c} {kind}{classes}.");
    if progress.images > 0 {
        let left = time_left(progress, config.duration)
            .map(|left| format!("; about {left} left at the speed of the run so far"));
        let left = left.unwrap_or_default();
        print_message!("resuming after {} images{left}", progress.images);
    } else if progress.started_from.is_empty() {
        print_message!(
            "starting from random weights: samples take shape after about 100,000 images"
        );
    } else {
        print_message!(
            "starting from the weights \"{}\"; use --from scratch for random weights",
            progress.started_from
        );
    }
    if data.latents_of().is_some() && args.vae.vae.is_none() && args.grid > 0 {
        print_message!("grids show the first three channels of latents; use --vae to decode them");
    }
    print_message!(
        "writing to {}: grids, and {} checkpoints of {} MB",
        folder.path().display(),
        args.keep,
        checkpoint::size(config, parameters) / 1_000_000
    );
    if let Some(interval) = config.snapshot_interval() {
        print_message!(
            "keeping {} moving averages with power-function profiles; snapshots of {} MB each every \
             {interval} images",
            config.profile_stds().len(),
            4 * parameters / 1_000_000
        );
    }
}

/// Prints which micro-batch was chosen, since a batch of `batch` images does not fit into memory.
pub fn micro_batch(chosen: &Chosen, batch: usize) {
    let [needed, free] = [chosen.needed, chosen.free].map(|bytes| bytes / 1_000_000);
    print_message!(
        "a batch of {batch} takes about {needed} MB, but {free} MB are available: computing it in \
         micro-batches of {}, with the same result up to rounding",
        chosen.size
    );
}

/// Returns how to go on after skipped steps. No step was taken from the checkpoint after
/// `unconfirmed` images, which can be the cause.
fn advice(progress: &Progress, folder: &RunFolder, unconfirmed: Option<u64>) -> String {
    let suspect = unconfirmed.map(|images| folder.checkpoint(images));
    let checkpoints = RunFolder::find(folder.path()).map(|found| found.1).unwrap_or_default();
    let good = checkpoints.iter().find(|path| Some(*path) != suspect.as_ref());
    match good {
        Some(checkpoint) => format!(
            "Resume from the last checkpoint from which steps were taken, with a lower learning \
             rate:\n  {}",
            invocation::resume(
                checkpoint,
                ["--lr".into(), format!("{:e}", progress.config.adam.lr / 2.0).into()]
            )
        ),
        None if checkpoints.is_empty() => {
            "No checkpoint was saved yet: start again with a lower --lr".into()
        }
        None => format!(
            "No step was taken from the only checkpoint, {}: start again with a lower --lr",
            checkpoints[0].display()
        ),
    }
}

/// Returns the message for the end of a run whose last state was not saved.
pub fn unusable(
    progress: &Progress,
    folder: &RunFolder,
    problem: &str,
    unconfirmed: Option<u64>,
) -> String {
    format!(
        "ended after {} images without a checkpoint or weights file of this state, since {problem}. \
         {}",
        progress.images,
        advice(progress, folder, unconfirmed)
    )
}

/// Maximum number of images that a message names.
const MAX_NAMED: usize = 64;

/// Returns which images a skipped step was of, by their numbers in the data: those whose loss is not
/// finite, or the whole batch if that is true of all or none. `batch` are their numbers, and `losses` the
/// losses in the same order.
fn suspects(batch: &[usize], losses: &[f64]) -> String {
    let pairs = batch.iter().zip(losses);
    let of_loss = pairs.filter(|(_, loss)| !loss.is_finite()).map(|(number, _)| *number);
    let of_loss: Vec<usize> = of_loss.collect();
    let (which, images) = if of_loss.is_empty() || of_loss.len() == batch.len() {
        ("", batch)
    } else {
        (" whose loss is not finite", &of_loss[..])
    };
    let named: Vec<String> = images.iter().take(MAX_NAMED).map(usize::to_string).collect();
    let more = match images.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "The images of the last step{which} have these numbers in the data, from 0: {}{more}",
        named.join(", ")
    )
}

/// Returns the error for too many consecutive skipped steps. `batch` are the numbers of the images of the
/// last one in the data, and `losses` their losses.
pub fn too_many_skipped_steps(
    progress: &Progress,
    folder: &RunFolder,
    unconfirmed: Option<u64>,
    lr: f64,
    batch: &[usize],
    losses: &[f64],
) -> String {
    let images = progress.images;
    let suspects = suspects(batch, losses);
    let advice = advice(progress, folder, unconfirmed);
    format!(
        "{} steps in a row had a loss or gradient that is not finite, up to image {images} (step {}) \
         at learning rate {lr:e}. {suspects}. {advice}",
        progress.skipped_in_row,
        images / progress.config.batch as u64
    )
}

/// Prints how to resume a run that was stopped by a signal.
pub fn stopped(progress: &Progress, folder: &RunFolder) {
    print_message!(
        "stopped after {} images and saved a checkpoint; to resume:\n  {}",
        progress.images,
        invocation::resume(folder.path(), [])
    );
}

/// Prints the result of a run, and how to use it. `best` is the measurement of `best.ckpt`.
pub fn result(
    progress: &Progress,
    folder: &RunFolder,
    best: Option<&Measured>,
    args: &OutputArgs,
    change: Option<&Change>,
) {
    let weights = folder.weights();
    let mut text = String::new();
    if args.json {
        let mut result = json!({
            "images": progress.images,
            "run": folder.path().to_string_lossy(),
            "weights": weights.to_string_lossy(),
            "validation_loss": progress.validation_loss,
            "first_and_last_grid": change.map(|change| change.path.to_string_lossy()),
        });
        if let Some(Measured { images, name, value, .. }) = best {
            let checkpoint = folder.best().to_string_lossy().into_owned();
            result["best"] = json!({ "checkpoint": checkpoint, "images": images, "metric": name, "value": value });
        }
        text = format!("{result}\n");
    } else {
        text += &format!("trained on {} images; weights: {}\n", progress.images, weights.display());
        if args.grid > 0 {
            text += &format!("samples: {}\n", folder.grid(progress.images).display());
        }
        if let Some(Measured { images, name, value, .. }) = best {
            let path = folder.best();
            text += &format!(
                "best image quality: {name} {value:.4} after {images} images: {}\n",
                path.display()
            );
        }
        let mut sample = vec!["sample".into(), "--weights".into(), invocation::argument(&weights)];
        if ![1, 3].contains(&progress.config.model.image_shape()[0]) {
            let vae = args.vae.vae.as_deref().unwrap_or(Path::new("AUTOENCODER"));
            sample.extend(["--vae".into(), invocation::argument(vae)]);
        }
        text += &format!("to sample: {}\n", invocation::command(sample));
        if progress.images < progress.config.duration {
            text += &format!("to resume: {}\n", invocation::resume(folder.path(), []));
        }
        if let Some(Change { path, sentence }) = change {
            text += &format!("{sentence} Side by side: {}\n", path.display());
        }
    }
    // Everything is saved: standard output that cannot be written is no failure.
    let _ = anstream::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;

    #[test]
    fn compilation_is_announced_on_gpus() {
        assert_eq!(compiling(DeviceKind::Cpu), None);
        let said = compiling(DeviceKind::Cuda).expect("a message");
        let start = format!("cuda computes with {};", DeviceKind::Cuda.implementation());
        assert!(said.starts_with(&start) && said.ends_with("kernels are compiled"), "{said}");
    }

    #[test]
    fn the_images_of_a_skipped_step_are_numbers_in_the_data() {
        let named = |numbers: &str| format!("have these numbers in the data, from 0: {numbers}");
        for losses in [[1.0, 2.0, 3.0], [f64::NAN, f64::INFINITY, f64::NAN]] {
            let all = suspects(&[7, 0, 5], &losses);
            assert_eq!(all, format!("The images of the last step {}", named("7, 0, 5")));
        }
        let one = suspects(&[7, 0, 5], &[1.0, f64::NAN, 1.0]);
        let want = "The images of the last step whose loss is not finite";
        assert_eq!(one, format!("{want} {}", named("0")));
        let many: Vec<usize> = (0..66).collect();
        assert!(suspects(&many, &[0.0; 66]).ends_with("62, 63 and 2 more"));
    }

    #[test]
    fn the_time_left_is_that_of_the_speed_so_far() {
        let config = TrainConfig::preset("tiny").expect("a preset");
        let new = Progress::new(config, String::new());
        assert!(time_left(&new, 3_000).is_none());
        let progress = Progress { images: 1_000, seconds: 120.0, ..new };
        let left = |duration| time_left(&progress, duration).map(|left| left.to_string());
        assert_eq!(left(3_000).as_deref(), Some("4 minutes"));
        assert_eq!(left(1_000), None);
    }
}
