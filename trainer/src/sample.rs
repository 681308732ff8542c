//! `trainer sample`: pictures from seeds.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anstream::println;
use anyhow::{Context, ensure};
use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressStyle};
use model::Model;
use model::classes::list;
use model::config::LinearBetas;
use model::discrete::Respacing;
use model::generate::{Settings, generate};
use model::picture::{NotFinite, Origin, Rgb};
use model::sampler::Churn;
use model::schedule::Schedule;
use model::vae::Vae;

use crate::args::{LevelsKind, SampleArgs, SettingsArgs, seeds};
use crate::autoencoder::Autoencoder;
use crate::labelled;
use crate::run_folder::write_file;
use crate::weights_file;

impl SettingsArgs {
    /// What the flags ask for, but for the classes: one set of settings, or as many as there are
    /// scales of guidance.
    ///
    /// # Errors
    ///
    /// If they make no sense.
    fn settings(&self) -> anyhow::Result<Vec<Settings>> {
        let Self { sigma_min, sigma_max, rho, .. } = *self;
        let (steps, schedule) = match &self.respacing {
            None => {
                let schedule = match self.levels {
                    LevelsKind::Edm => Schedule::Edm { sigma_min, sigma_max, rho },
                    LevelsKind::LogSnr => Schedule::LogSnr { sigma_min, sigma_max },
                };
                (self.steps, schedule)
            }
            Some(Respacing { spacing, steps }) => {
                let betas = LinearBetas::default();
                (*steps, Schedule::Adm { betas, spacing: spacing.clone() })
            }
        };
        let settings = Settings {
            steps,
            method: self.method()?,
            schedule,
            churn: Churn {
                s_churn: self.churn,
                s_min: self.churn_min,
                s_max: self.churn_max,
                s_noise: self.churn_noise,
            },
            clip_denoised: self.clip_denoised,
            ..Settings::default()
        };
        let guided = self.guidance.guidance.iter().map(|&scale| Settings {
            guidance: Some(self.guidance.of_scale(scale)),
            ..settings.clone()
        });
        let mut all: Vec<Settings> = guided.collect();
        if all.is_empty() {
            all.push(settings);
        }
        all.iter().try_for_each(Settings::validate)?;
        Ok(all)
    }
}

/// Makes one picture per seed, `batch` at a time; `vae` decodes them where they are latents, of which
/// otherwise the first three channels are shown. `done` is told after each evaluation how many
/// pictures it was for.
pub fn pictures(
    model: &Model,
    vae: Option<&Vae>,
    settings: &Settings,
    seeds: &[u64],
    batch: usize,
    device: &Device,
    mut done: impl FnMut(usize),
) -> Result<Vec<Rgb>, NotFinite> {
    let mut pictures = Vec::with_capacity(seeds.len());
    for seeds in seeds.chunks(batch) {
        let images = pollster::block_on(generate(model, settings, seeds, device, async |_| {
            done(seeds.len());
            Ok::<_, Infallible>(ControlFlow::Continue(()))
        }));
        let Ok(Some(images)) = images else { unreachable!("it neither fails nor breaks off") };
        let images = match vae {
            // One at a time: they need far more memory than what made the latents.
            Some(vae) => images.split(1, 0).into_iter().map(|latent| vae.decode(latent)).collect(),
            None => vec![images],
        };
        for images in images {
            let [_, c, h, w] = images.dims();
            let c = if c < 3 { 1 } else { 3 };
            let images = images.narrow(1, 0, c);
            let values = images.into_data().try_into_vec::<f32>().expect("pictures are f32");
            pictures.extend(Rgb::from_values(&values, [c, h, w])?);
        }
    }
    Ok(pictures)
}

/// Writes a picture as a PNG file.
///
/// # Errors
///
/// If the file system refuses.
pub fn save(picture: &Rgb, path: &Path, origin: Option<&Origin>) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let png = picture.to_png(origin).with_context(context)?;
    write_file(path, &png).with_context(context)
}

/// Runs the command.
///
/// # Errors
///
/// If the settings make no sense, the weights cannot be read, or the files not be written.
pub fn run(args: SampleArgs) -> anyhow::Result<()> {
    let mut sweep = args.settings.settings()?;
    let seeds = seeds(&args.seeds)?;
    let device = args.device.open()?;
    let loaded = weights_file::load(args.weights.as_deref(), &device)?;
    let config = &loaded.model.config;
    let names = loaded.card.class_names(config.classes());
    let classes = args.settings.guidance.labels(&names)?;
    for settings in &mut sweep {
        settings.classes.clone_from(&classes);
        settings.validate_for(config)?;
    }
    let autoencoder = Autoencoder::asked_for(&args.vae, &device)?;
    let c = match &autoencoder {
        Some(autoencoder) => {
            autoencoder.fits(config)?;
            autoencoder.vae.config.image_channels
        }
        None => config.image_shape()[0],
    };
    ensure!(
        c == 1 || c == 3,
        "pictures of {c} channels cannot be written as PNG: if they are latents, give the file of \
         their autoencoder with --vae (diffusion_pytorch_model.safetensors of \
         stabilityai/sd-vae-ft-ema)"
    );

    let vae = autoencoder.as_ref().map(|autoencoder| &autoencoder.vae);
    let evaluations: usize =
        sweep.iter().map(|s| s.method.evaluations(s.steps) * seeds.len()).sum();
    let bar = ProgressBar::new(evaluations as u64).with_style(
        ProgressStyle::with_template("{wide_bar} {percent}% {eta} left").expect("a valid template"),
    );
    let batch = args.batch as usize;
    for settings in &sweep {
        let done = |n| bar.inc(n as u64);
        let pictures = pictures(&loaded.model, vae, settings, &seeds, batch, &device, done)?;
        let output = match settings.guidance {
            Some(guidance) if sweep.len() > 1 => with_scale(&args.output, guidance.scale),
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
                .with_context(|| format!("cannot make {}", output.display()))?;
            for (seed, picture) in seeds.iter().zip(&pictures) {
                let path = output.join(format!("{seed:06}.png"));
                save(picture, &path, Some(&origin(&[*seed])))?;
            }
        } else {
            let columns = args.columns.map_or_else(|| Rgb::square(pictures.len()), |c| c as usize);
            let grid = if args.labels {
                let labels = settings.labels_of(&seeds);
                let texts: Vec<String> =
                    labels.into_iter().map(|label| list(&names, &[label])).collect();
                labelled::grid(&pictures, &texts, columns)
            } else {
                Rgb::grid(&pictures, columns)
            };
            save(&grid, &output, Some(&origin(&seeds)))?;
        }
        bar.suspend(|| println!("{} pictures in {}", pictures.len(), output.display()));
    }
    bar.finish_and_clear();
    Ok(())
}

/// Where the pictures of one scale of several go: `samples.png` becomes `samples-guidance4.4.png`.
fn with_scale(output: &Path, scale: f64) -> PathBuf {
    let mut name = output.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-guidance{scale}"));
    if let Some(extension) = output.extension() {
        name.push(".");
        name.push(extension);
    }
    output.with_file_name(name)
}
