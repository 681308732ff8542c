//! Messages of `trainer train`.

use std::path::Path;

use anstream::{eprintln, println};
use serde_json::json;

use crate::args::OutputArgs;
use crate::data::dataset::Dataset;
use crate::run::checkpoint;
use crate::run::folder::RunFolder;
use crate::run::progress::Progress;

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
    eprintln!(
        "{:.1} M parameters, {} images from {}, batch size {}, seed {}",
        parameters as f64 / 1e6,
        data.len(),
        config.data.display(),
        config.batch,
        config.seed
    );
    let [c, h, w] = config.model.image_shape();
    let kind = if data.latents_of().is_some() { "latents" } else { "images" };
    let classes = match &progress.classes[..] {
        [] => String::new(),
        [one] => format!(" of the class \"{one}\""),
        [first, second, ..] => {
            format!(" of {} classes such as \"{first}\" and \"{second}\"", progress.classes.len())
        }
    };
    eprintln!("The model learns to remove noise from {w}x{h}x{c} {kind}{classes}.");
    if progress.images > 0 {
        eprintln!("resuming after {} images", progress.images);
    } else if progress.started_from.is_empty() {
        eprintln!("starting from random weights: samples take shape after about 100,000 images");
    } else {
        eprintln!(
            "starting from the weights \"{}\"; use --from scratch for random weights",
            progress.started_from
        );
    }
    if data.latents_of().is_some() && args.vae.vae.is_none() && args.grid > 0 {
        eprintln!("grids show the first three channels of latents; use --vae to decode them");
    }
    eprintln!(
        "writing to {}: grids, and {} checkpoints of {} MB",
        folder.path().display(),
        args.keep,
        checkpoint::size(parameters) / 1_000_000
    );
}

/// Returns the error for too many consecutive skipped steps.
pub fn too_many_skipped_steps(progress: &Progress, folder: &RunFolder, lr: f64) -> String {
    let images = progress.images;
    let advice = match RunFolder::find(folder.path()) {
        Ok((_, checkpoints)) => format!(
            "Resume from the last checkpoint with a lower learning rate:\n  trainer train --resume \
             {} --lr {:e}",
            checkpoints[0].display(),
            lr / 2.0
        ),
        Err(_) => "No checkpoint was saved yet: start again with a lower --lr".into(),
    };
    format!(
        "{} steps in a row had a loss or gradient that is not finite, up to image {images} (step {}) \
         at learning rate {lr:e}. {advice}",
        progress.skipped_in_row,
        images / progress.config.batch as u64
    )
}

/// Prints how to resume a run that was stopped by a signal.
pub fn stopped(progress: &Progress, folder: &RunFolder) {
    eprintln!(
        "stopped after {} images and saved a checkpoint; to resume:\n  trainer train --resume {}",
        progress.images,
        folder.path().display()
    );
}

/// Prints the result of a run, and how to use it.
pub fn result(progress: &Progress, folder: &RunFolder, args: &OutputArgs) {
    let weights = folder.weights();
    if args.json {
        let result = json!({
            "images": progress.images,
            "run": folder.path(),
            "weights": weights,
            "validation_loss": progress.validation_loss,
        });
        println!("{result}");
        return;
    }
    println!("trained on {} images; weights: {}", progress.images, weights.display());
    if args.grid > 0 {
        println!("samples: {}", folder.grid(progress.images).display());
    }
    let vae = match progress.config.model.image_shape() {
        [1 | 3, ..] => String::new(),
        _ => {
            let vae = args.vae.vae.as_deref().unwrap_or(Path::new("AUTOENCODER"));
            format!(" --vae {}", vae.display())
        }
    };
    println!("to sample: cargo run -p trainer -- sample --weights {}{vae}", weights.display());
    if progress.images < progress.config.duration {
        println!("to resume: cargo run -p trainer -- train --resume {}", folder.path().display());
    }
}
