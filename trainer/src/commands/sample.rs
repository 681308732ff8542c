//! `trainer sample`: generates images.

use std::path::{Path, PathBuf};

use anstream::println;
use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use model::classes::list;
use model::generate::Settings;
use model::picture::{Origin, Rgb};

use crate::args::{SampleArgs, seeds};
use crate::samples::captions;
use crate::samples::generate::{images, save};
use crate::weights::autoencoder::Autoencoder;
use crate::weights::load::load;

/// Runs the command.
///
/// # Errors
///
/// If the flags are invalid, the weights cannot be loaded, or a file cannot be written.
pub fn run(args: SampleArgs) -> anyhow::Result<()> {
    let mut all_settings = args.settings()?;
    let seeds = seeds(&args.seeds)?;
    let device = args.device.device.open()?;
    let loaded = load(args.weights.as_deref(), &device)?;
    let config = &loaded.model.config;
    let names = loaded.card.class_names(config.classes());
    let classes = args.guidance.labels(&names)?;
    for settings in &mut all_settings {
        settings.use_process_of(config);
        settings.classes.clone_from(&classes);
        settings.validate()?;
        settings.validate_for(config)?;
    }
    let autoencoder = Autoencoder::from_args(&args.vae, &device)?;
    let c = match &autoencoder {
        Some(autoencoder) => {
            autoencoder.check_fits(config)?;
            autoencoder.vae.config.image_channels
        }
        None => config.image_shape()[0],
    };
    ensure!(
        c == 1 || c == 3,
        "images of {c} channels cannot be written as PNG: for a latent model, give its autoencoder \
         with --vae (diffusion_pytorch_model.safetensors of stabilityai/sd-vae-ft-ema)"
    );

    let vae = autoencoder.as_ref().map(|autoencoder| &autoencoder.vae);
    let evaluations: usize =
        all_settings.iter().map(|s| s.method.evaluations(s.steps) * seeds.len()).sum();
    let bar = ProgressBar::new(evaluations as u64).with_style(
        ProgressStyle::with_template("{wide_bar} {percent}% {eta} left").expect("a valid template"),
    );
    let batch = args.batch as usize;
    for settings in &all_settings {
        let progress = |n| bar.inc(n as u64);
        let images = images(&loaded.model, vae, settings, &seeds, batch, &device, progress)?;
        let output = match settings.guidance {
            Some(guidance) if all_settings.len() > 1 => with_scale(&args.output, guidance.scale),
            _ => args.output.clone(),
        };
        let origin = |seeds: &[u64]| Origin {
            model: loaded.card.name.clone(),
            weights_sha256: loaded.sha256.clone(),
            vae_sha256: autoencoder.as_ref().map(|autoencoder| autoencoder.sha256.clone()),
            seeds: seeds.to_vec(),
            settings: settings.clone(),
            page: None,
        };
        if args.separate {
            std::fs::create_dir_all(&output)
                .with_context(|| format!("cannot create {}", output.display()))?;
            for (seed, image) in seeds.iter().zip(&images) {
                let path = output.join(format!("{seed:06}.png"));
                save(image, &path, Some(&origin(&[*seed])))?;
            }
        } else {
            let grid = grid(&args, &images, settings, &seeds, &names);
            save(&grid, &output, Some(&origin(&seeds)))?;
        }
        bar.suspend(|| println!("{} images in {}", images.len(), output.display()));
    }
    bar.finish_and_clear();
    Ok(())
}

/// Returns a grid of all images, with the classes below if --labels is given.
fn grid(
    args: &SampleArgs,
    images: &[Rgb],
    settings: &Settings,
    seeds: &[u64],
    names: &[String],
) -> Rgb {
    let columns = args.columns.map_or_else(|| Rgb::square(images.len()), |c| c as usize);
    if !args.labels {
        return Rgb::grid(images, columns);
    }
    let labels = settings.labels_of(seeds);
    let captions: Vec<String> = labels.into_iter().map(|label| list(names, &[label])).collect();
    captions::grid(images, &captions, columns)
}

/// Adds a guidance scale to a path: `samples.png` becomes `samples-guidance4.4.png`.
fn with_scale(output: &Path, scale: f64) -> PathBuf {
    let mut name = output.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-guidance{scale}"));
    if let Some(extension) = output.extension() {
        name.push(".");
        name.push(extension);
    }
    output.with_file_name(name)
}
