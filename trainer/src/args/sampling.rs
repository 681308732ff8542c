//! Flags of `trainer sample`, and those for sampling that other commands share.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use model::classes::find_all;
use model::config::LinearBetas;
use model::discrete::Respacing;
use model::generate::Settings;
use model::guidance::{Guidance, GuidanceSchedule, GuidedChannels};
use model::label::Label;
use model::sampler::{Churn, Method, Variance};
use model::schedule::Schedule;

use super::compute::DeviceArgs;
use super::parse::{Shard, shard};

/// Flags of `trainer sample`.
#[derive(Args, Clone)]
pub struct SampleArgs {
    /// Weights file, checkpoint or run folder, or a link hf://OWNER/REPO/PATH to the Hugging Face Hub.
    ///
    /// Links need the crate feature `hub`. The default is the shipped weights.
    #[arg(help_heading = "Model", long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Seeds, one image each, such as 0-63,100.
    #[arg(help_heading = "Images", long, default_value = "0-15")]
    pub seeds: String,
    #[command(flatten)]
    pub vae: VaeArgs,
    /// PNG file for a grid of all images; a folder, with --separate; or a .zip or .npz file.
    ///
    /// A zip has the layout of EDM's datasets, an npz that of ADM's evaluator: arr_0 holds the images,
    /// arr_1 their classes. A folder, a zip and an npz are written batch by batch, and the same command
    /// continues after an interruption.
    #[arg(
        help_heading = "Output",
        long,
        short,
        value_name = "PATH",
        default_value = "samples.png"
    )]
    pub output: PathBuf,
    /// Write one file per seed.
    #[arg(help_heading = "Output", long)]
    pub separate: bool,
    /// Make a subfolder for every 1000 seeds, as EDM does.
    #[arg(help_heading = "Output", long)]
    pub subdirs: bool,
    /// Generate one of several parts of the images, such as 3/8.
    ///
    /// By default, one process generates all images. Start a process for each part, with the same flags
    /// otherwise. Together they generate what one
    /// process would. The last one to finish completes the output.
    #[arg(help_heading = "Images", long, value_name = "PART/PARTS", value_parser = shard)]
    pub shard: Option<Shard>,
    /// Use the sampling settings that the model card recommends, in place of the flags for sampler and
    /// guidance.
    #[arg(
        help_heading = "Sampler",
        long,
        conflicts_with_all = [
            "steps", "sampler", "order", "eta", "variance", "respacing", "levels", "sigma_min",
            "sigma_max", "rho", "clip_denoised", "churn", "churn_min", "churn_max", "churn_noise",
            "guidance", "guidance_power", "guidance_channels", "guidance_min", "guidance_max",
        ]
    )]
    pub recommended: bool,
    /// Print the class below each image of the grid.
    #[arg(help_heading = "Output", long, conflicts_with = "separate", requires = "classes")]
    pub labels: bool,
    /// Number of columns of the grid.
    ///
    /// The default makes the grid about as wide as it is high.
    #[arg(help_heading = "Output", long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub columns: Option<u32>,
    /// Batch size.
    ///
    /// It affects the rounding of values: images of other batch sizes differ by a level of 255 here and
    /// there.
    #[arg(help_heading = "Images", long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Generate on this many devices, a batch at a time on each; for a folder, a zip or an npz.
    #[arg(help_heading = "Devices", long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub devices: u16,
    #[command(flatten)]
    pub guidance: GuidanceArgs,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}

impl SampleArgs {
    /// Returns the sampler settings, without classes: one for each guidance scale, or one if there
    /// is no guidance. They are not validated: the range of some depends on the model.
    ///
    /// # Errors
    ///
    /// If flags contradict each other.
    pub fn settings(&self) -> anyhow::Result<Vec<Settings>> {
        let settings = self.sampler.settings()?;
        let guided = self.guidance.guidance.iter().map(|&scale| Settings {
            guidance: Some(self.guidance.with_scale(scale)),
            ..settings.clone()
        });
        let mut all: Vec<Settings> = guided.collect();
        if all.is_empty() {
            all.push(settings);
        }
        Ok(all)
    }
}

/// The autoencoder of a latent model.
#[derive(Args, Clone)]
pub struct VaeArgs {
    /// Autoencoder that decodes latents.
    ///
    /// This is diffusion_pytorch_model.safetensors of stabilityai/sd-vae-ft-ema, or a file of the
    /// same layout. Latents are not decoded by default.
    #[arg(help_heading = "Latents", long, value_name = "FILE")]
    pub vae: Option<PathBuf>,
    /// JSON file with the configuration of the autoencoder; that of Stable Diffusion by default.
    #[arg(help_heading = "Latents", long, value_name = "FILE", requires = "vae")]
    pub vae_config: Option<PathBuf>,
}

impl VaeArgs {
    /// Returns the paths that are given.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.vae, &mut self.vae_config].into_iter().flatten()
    }
}

/// Classes and classifier-free guidance.
#[derive(Args, Clone)]
#[command(next_help_heading = "Classes and guidance")]
pub struct GuidanceArgs {
    /// Classes, by index or by an unambiguous part of the name, such as 207,otter,10-19.
    ///
    /// The default is no class. With n classes, seed s gets class s mod n (for denoise: image s). A
    /// mixture gives weights and is separated from the next class by a semicolon:
    /// otter=0.6,pizza=0.4;rocket. For `sample` and `evaluate`, `random` draws a class for each seed.
    #[arg(long, visible_alias = "class", value_name = "CLASSES")]
    pub classes: Option<String>,
    /// Scale of classifier-free guidance; 1, the default, disables it.
    ///
    /// The paper uses 4.4 at 256x256. `trainer sample` accepts several scales, such as 1,2,4, and
    /// writes one output for each, with the scale in its name.
    #[arg(long, value_name = "SCALES", requires = "classes", value_delimiter = ',')]
    pub guidance: Vec<f64>,
    /// Exponent of the guidance schedule, which rises from 1 to the scale over time; 0 for a
    /// constant scale, as in the paper at 512x512.
    #[arg(long, value_name = "POWER", default_value_t = 4.0)]
    pub guidance_power: f64,
    /// Channels that guidance applies to.
    #[arg(long, value_enum, default_value = "three")]
    pub guidance_channels: GuidedChannelsKind,
    /// Lowest noise level that guidance applies to.
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0, allow_negative_numbers = true)]
    pub guidance_min: f64,
    /// Highest noise level that guidance applies to; all by default.
    #[arg(long, value_name = "SIGMA", default_value_t = f64::MAX, hide_default_value = true)]
    pub guidance_max: f64,
}

impl GuidanceArgs {
    /// Returns classifier-free guidance with the given scale.
    pub fn with_scale(&self, scale: f64) -> Guidance {
        let schedule = match self.guidance_power {
            0.0 => GuidanceSchedule::Constant,
            power => GuidanceSchedule::PowerCosine { power },
        };
        let channels = match self.guidance_channels {
            GuidedChannelsKind::Three => GuidedChannels::Three,
            GuidedChannelsKind::All => GuidedChannels::All,
        };
        Guidance {
            scale,
            schedule,
            channels,
            sigma_low: self.guidance_min,
            sigma_high: self.guidance_max,
        }
    }

    /// Returns whether --classes asks for a random class for each seed.
    pub fn are_random(&self) -> bool {
        self.classes.as_deref().is_some_and(|classes| classes.trim() == "random")
    }

    /// Returns the labels that --classes asks for, among classes with the given names.
    ///
    /// # Errors
    ///
    /// If a class does not exist or its name is ambiguous.
    pub fn labels(&self, names: &[String]) -> anyhow::Result<Vec<Label>> {
        find_all(names, self.classes.as_deref().unwrap_or_default()).context("--classes")
    }
}

/// The sampler and its noise levels.
#[derive(Args, Clone)]
#[command(next_help_heading = "Sampler")]
pub struct SamplerArgs {
    /// Number of sampling steps.
    #[arg(long, value_name = "N", default_value_t = 18)]
    pub steps: usize,
    /// Sampler.
    #[arg(long, value_enum, default_value = "heun")]
    pub sampler: SamplerKind,
    /// Order of the sampler: 1 to 4 for ipndm (default 4), 2 or 3 for dpmpp (default 3).
    #[arg(long)]
    pub order: Option<usize>,
    /// Stochasticity of the ddim sampler, from 0 (deterministic) to 1.
    #[arg(long, default_value_t = 0.0)]
    pub eta: f64,
    /// Variance of a step of the ddpm sampler.
    #[arg(long, value_enum, default_value_t)]
    pub variance: VarianceKind,
    /// Use noise levels of ADM's 1000 timesteps, in place of those of --steps and --levels, which are
    /// the default.
    ///
    /// The timesteps are evenly spaced (250), have a constant stride (ddim50), or are given by a
    /// number for each of equal sections (10,15,20).
    #[arg(long, value_name = "STEPS", conflicts_with_all = ["steps", "levels", "sigma_min", "sigma_max", "rho"])]
    pub respacing: Option<Respacing>,
    /// Spacing of the noise levels.
    #[arg(long, value_enum, default_value_t)]
    pub levels: LevelsKind,
    /// Lowest noise level.
    #[arg(long, value_name = "SIGMA", default_value_t = 0.002)]
    pub sigma_min: f64,
    /// Highest noise level.
    #[arg(long, value_name = "SIGMA", default_value_t = 80.0)]
    pub sigma_max: f64,
    /// Exponent of EDM's noise levels; larger values put more steps at low noise.
    #[arg(long, default_value_t = 7.0)]
    pub rho: f64,
    /// Clamp every denoised image to the range -1 to 1.
    #[arg(long)]
    pub clip_denoised: bool,
    /// Amount of noise added during sampling (S_churn); 0 disables it.
    #[arg(long, default_value_t = 0.0)]
    pub churn: f64,
    /// Lowest noise level at which noise is added (S_min).
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0)]
    pub churn_min: f64,
    /// Highest noise level at which noise is added (S_max); all by default.
    #[arg(long, value_name = "SIGMA", default_value_t = f64::MAX, hide_default_value = true)]
    pub churn_max: f64,
    /// Standard deviation of the added noise (S_noise).
    #[arg(long, default_value_t = 1.0)]
    pub churn_noise: f64,
}

impl SamplerArgs {
    /// Returns the sampler settings, without classes and guidance.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
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
        Ok(Settings {
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
        })
    }

    fn method(&self) -> anyhow::Result<Method> {
        let method = match self.sampler {
            SamplerKind::Euler => Method::Euler,
            SamplerKind::Heun => Method::Heun,
            SamplerKind::Ipndm => Method::Ipndm { order: self.order.unwrap_or(4) },
            SamplerKind::Dpmpp => Method::Dpmpp { order: self.order.unwrap_or(3) },
            SamplerKind::Ddim => Method::Ddim { eta: self.eta },
            SamplerKind::Ddpm => Method::Ddpm {
                variance: match self.variance {
                    VarianceKind::Learned => Variance::Learned,
                    VarianceKind::Small => Variance::Small,
                    VarianceKind::Large => Variance::Large,
                },
            },
        };
        ensure!(
            self.order.is_none() || method.order().is_some(),
            "--order is for the samplers ipndm and dpmpp"
        );
        Ok(method)
    }
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub enum LevelsKind {
    /// EDM's schedule with exponent --rho.
    #[default]
    Edm,
    /// Uniform in log-SNR.
    LogSnr,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum SamplerKind {
    /// Euler's method, first order.
    Euler,
    /// Heun's method, second order.
    Heun,
    /// iPNDM, multistep.
    Ipndm,
    /// DPM-Solver++, multistep.
    Dpmpp,
    /// DDIM.
    Ddim,
    /// DDPM's ancestral sampling.
    Ddpm,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum GuidedChannelsKind {
    /// The first three, as in the official release.
    Three,
    /// All channels.
    All,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub enum VarianceKind {
    /// Predicted by the network, or small if the network predicts none.
    #[default]
    Learned,
    /// Variance of the posterior.
    Small,
    /// Beta of the step.
    Large,
}
