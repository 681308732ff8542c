//! `trainer sample`: pictures from seeds.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::Path;

use anstream::println;
use anyhow::{Context, ensure};
use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressStyle};
use model::Model;
use model::config::LinearBetas;
use model::discrete::Respacing;
use model::generate::{Settings, generate};
use model::picture::{Origin, Rgb};
use model::sampler::Churn;
use model::schedule::Schedule;
use model::vae::{Vae, VaeConfig};

use crate::args::{SampleArgs, SettingsArgs, list, seeds};
use crate::run_folder::write_file;
use crate::weights_file;

impl TryFrom<&SettingsArgs> for Settings {
    type Error = anyhow::Error;

    fn try_from(args: &SettingsArgs) -> anyhow::Result<Self> {
        let SettingsArgs { sigma_min, sigma_max, rho, .. } = *args;
        let (steps, schedule) = match &args.respacing {
            None => (args.steps, Schedule::Edm { sigma_min, sigma_max, rho }),
            Some(Respacing { spacing, steps }) => {
                let betas = LinearBetas::default();
                (*steps, Schedule::Adm { betas, spacing: spacing.clone() })
            }
        };
        let list = |text| list("--classes", "class", text);
        let classes = args.classes.as_deref().map(list).transpose()?;
        let settings = Settings {
            steps,
            method: args.method(),
            schedule,
            churn: Churn {
                s_churn: args.churn,
                s_min: args.churn_min,
                s_max: args.churn_max,
                s_noise: args.churn_noise,
            },
            clip_denoised: args.clip_denoised,
            classes: classes.unwrap_or_default().into_iter().map(|class| class as usize).collect(),
            guidance: args.guidance(),
            ..Settings::default()
        };
        settings.validate()?;
        Ok(settings)
    }
}

/// Makes one picture per seed, `batch` at a time; `vae` decodes them where they are latents. `done`
/// is told after each evaluation how many pictures it was for.
pub fn pictures(
    model: &Model,
    vae: Option<&Vae>,
    settings: &Settings,
    seeds: &[u64],
    batch: usize,
    device: &Device,
    mut done: impl FnMut(usize),
) -> Vec<Rgb> {
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
            let values = images.into_data().try_into_vec::<f32>().expect("pictures are f32");
            pictures.extend(Rgb::from_values(&values, [c, h, w]));
        }
    }
    pictures
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

/// Reads the autoencoder.
fn autoencoder(path: &Path, args: &SampleArgs, device: &Device) -> anyhow::Result<Vae> {
    let config = match &args.vae_config {
        Some(path) => {
            let context = || format!("cannot read {}", path.display());
            let text = std::fs::read_to_string(path).with_context(context)?;
            serde_json::from_str(&text).with_context(context)?
        }
        None => VaeConfig::default(),
    };
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Vae::from_safetensors(&bytes, config, device).with_context(|| path.display().to_string())
}

/// Runs the command.
///
/// # Errors
///
/// If the settings make no sense, the weights cannot be read, or the files not be written.
pub fn run(args: SampleArgs) -> anyhow::Result<()> {
    let settings = Settings::try_from(&args.settings)?;
    let seeds = seeds(&args.seeds)?;
    let device = args.device.open()?;
    let loaded = weights_file::load(args.weights.as_deref(), &device)?;
    settings.validate_for(&loaded.model.config)?;
    let vae = args.vae.as_deref().map(|path| autoencoder(path, &args, &device)).transpose()?;
    let [made, side, _] = loaded.model.config.image_shape();
    let c = match &vae {
        Some(Vae { config, .. }) => {
            let (c, factor) = (config.latent_channels, config.factor());
            ensure!(
                made == c,
                "the autoencoder of --vae has latents of {c} channels, and what this model makes has \
                 {made}: leave --vae out for a model that makes pictures"
            );
            ensure!(
                side * factor <= 4096,
                "pictures of {} pixels a side are too large",
                side * factor
            );
            config.image_channels
        }
        None => made,
    };
    ensure!(
        c == 1 || c == 3,
        "pictures of {c} channels cannot be written as PNG: if they are latents, give the file of \
         their autoencoder with --vae (diffusion_pytorch_model.safetensors of \
         stabilityai/sd-vae-ft-ema)"
    );

    let evaluations = settings.method.evaluations(settings.steps) * seeds.len();
    let bar = ProgressBar::new(evaluations as u64).with_style(
        ProgressStyle::with_template("{wide_bar} {percent}% {eta} left").expect("a valid template"),
    );
    let batch = args.batch as usize;
    let pictures = pictures(&loaded.model, vae.as_ref(), &settings, &seeds, batch, &device, |n| {
        bar.inc(n as u64)
    });
    bar.finish_and_clear();

    let origin = |seeds: &[u64]| Origin {
        model: loaded.card.name.clone(),
        weights_sha256: loaded.sha256.clone(),
        seeds: seeds.to_vec(),
        settings: settings.clone(),
        page: None,
    };
    if args.separate {
        std::fs::create_dir_all(&args.output)
            .with_context(|| format!("cannot make {}", args.output.display()))?;
        for (seed, picture) in seeds.iter().zip(&pictures) {
            let path = args.output.join(format!("{seed:06}.png"));
            save(picture, &path, Some(&origin(&[*seed])))?;
        }
    } else {
        let columns = args.columns.map_or_else(|| Rgb::square(pictures.len()), |c| c as usize);
        let grid = Rgb::grid(&pictures, columns);
        save(&grid, &args.output, Some(&origin(&seeds)))?;
    }
    println!("{} pictures in {}", pictures.len(), args.output.display());
    Ok(())
}
