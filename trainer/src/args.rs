//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use burn::tensor::DType;
use clap::{Parser, Subcommand, ValueEnum};
use model::classes::find_all;
use model::discrete::Respacing;
use model::guidance::{Course, Guidance, GuidedChannels};
use model::label::Label;
use model::sampler::{Method, Variance};
use model::weights::Precision;

use crate::config;
use crate::device::DeviceKind;

/// Trains DiffiT, samples from it, exports its weights.
///
/// Without a command it trains the preset `tiny-emoji` on the embedded emoji for a few minutes, starting
/// from the weights that are shipped with it.
#[derive(Parser)]
#[command(version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 stopped by Ctrl-C, \
143 stopped by SIGTERM. A stopped run is saved.";

// There is one of them, and it is moved once or twice.
#[allow(clippy::large_enum_variant)]
#[derive(Subcommand)]
pub enum Command {
    /// Train a model, or go on training one.
    Train(TrainArgs),
    /// Make pictures.
    Sample(SampleArgs),
    /// Make a weights file of a run or a checkpoint.
    Export(ExportArgs),
    /// Run the denoiser on tensors from a file: the door for other implementations.
    Denoise(DenoiseArgs),
    /// Print configuration, counts and card of a weights file, a checkpoint or a preset.
    Info(InfoArgs),
    /// Look at training data, or fetch some.
    #[command(subcommand)]
    Data(DataCommand),
    /// Measure speed and memory on this machine.
    Bench(BenchArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Write man pages.
    Man(ManArgs),
}

#[derive(clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

#[derive(clap::Args)]
pub struct ManArgs {
    /// Folder to write them to.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

impl Default for Command {
    /// `trainer train`, with every flag at its default.
    fn default() -> Self {
        Args::parse_from(["trainer", "train"]).command.expect("a command was given")
    }
}

#[derive(Subcommand)]
pub enum DataCommand {
    /// Read a data set to the end and report what is in it and what is wrong with it.
    Check(CheckArgs),
    /// Download a data set: with progress, resuming, and a check of its hash.
    Fetch(FetchArgs),
    /// Encode pictures, and their mirror images, as latents to train on. Stopped, it goes on where
    /// it was.
    Encode(EncodeArgs),
}

/// Reads numbers of images such as `512`, `3k`, `102.4M`, `8Mi`.
fn images(text: &str) -> Result<u64, String> {
    parse_size::parse_size(text)
        .map_err(|error| format!("{error}; write a number of images such as 3000, 3k or 102.4M"))
}

/// Reads times such as `90s`, `10m`, `2h`.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let seconds = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("unknown unit `{unit}`; write a time such as 90s, 10m, 2h or 1d")),
    };
    let number: f64 = number.parse().map_err(|e| format!("`{number}`: {e}"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|e| e.to_string())
}

/// Reads probabilities.
fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        Ok(value) => Err(format!("{value} is not within 0 to 1")),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads numbers that must be above 0.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        Ok(value) => Err(format!("{value} is not above 0")),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(clap::Args, Clone)]
pub struct TrainArgs {
    /// Model and recipe: tiny-emoji, tiny-cifar10, tiny, cifar10, cifar10-i, cifar10-256, ffhq64,
    /// ffhq64-i, and for latents latent256, latent512, latent-tiny; for the comparisons of the
    /// paper's tables and figures, t3-token512, t3-time256, t4-a to t4-e, t6-f, t6-g, t6-g-in,
    /// t6-none, t6-e-add, t7-token, t7-additive, t8-fourier, f8-w2, f8-w4, f8-w8. Without it:
    /// tiny-emoji for the embedded emoji, tiny, which knows no classes, for other data.
    #[arg(long, conflicts_with = "resume")]
    pub preset: Option<String>,
    /// JSON file with values that replace those of the preset, such as a run's options.json; it
    /// may hold any part of them.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub options: Option<PathBuf>,
    /// Print every value and where it comes from, sizes and the run folder, and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Folder or zip of PNG or JPEG files, a CIFAR-10 archive, a file of latents, or `emoji` for
    /// the embedded set (the default).
    #[arg(long, value_name = "PATH", conflicts_with = "resume")]
    pub data: Option<PathBuf>,
    /// What to start from.
    #[arg(long, value_name = "shipped|scratch|FILE", conflicts_with = "resume")]
    pub from: Option<String>,
    /// Go on with a run: its folder, or one of its checkpoints.
    #[arg(long, value_name = "PATH")]
    pub resume: Option<PathBuf>,
    /// Images to train on in all, repetitions counted, such as 3k or 200M.
    #[arg(long, value_name = "IMAGES", value_parser = images)]
    pub duration: Option<u64>,
    /// Stop after this much time, such as 10m or 2h, with everything saved.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub max_time: Option<Duration>,
    /// Images per step.
    #[arg(long, conflicts_with = "resume", value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub batch: Option<u64>,
    /// Images computed at a time, if a whole step's do not fit into memory; it divides the batch.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub micro_batch: Option<u64>,
    /// Keep less for the gradients and compute it again: far less memory, one more forward pass.
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    pub gradient_checkpointing: Option<bool>,
    /// Compute in single precision, or products in bfloat16 (weights stay in single precision).
    #[arg(long, value_enum)]
    pub precision: Option<config::Precision>,
    /// Shorten gradients to this length, all parameters taken together.
    #[arg(long, value_name = "NORM", value_parser = positive, allow_negative_numbers = true)]
    pub clip: Option<f64>,
    /// Probability of each change of EDM's augmentation (scale, rotation, ..); 0 for none.
    #[arg(long, value_name = "P", value_parser = probability, conflicts_with = "resume")]
    pub augment: Option<f64>,
    /// Probability that a picture is shown without its class.
    #[arg(long, value_name = "P", value_parser = probability, conflicts_with = "resume")]
    pub label_dropout: Option<f64>,
    /// How the vectors of the classes begin, where the weights to start from do not have them.
    #[arg(long, value_enum, conflicts_with = "resume")]
    pub class_vectors: Option<config::ClassVectors>,
    /// Learning rate after the ramp.
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Images over which the learning rate rises from 0.
    #[arg(long, value_name = "IMAGES", value_parser = images)]
    pub lr_ramp: Option<u64>,
    /// Part of the duration over which, at its end, the learning rate falls to 0, such as 0.2.
    #[arg(long, value_name = "PART", value_parser = probability)]
    pub lr_decay: Option<f64>,
    /// What takes the steps: Adam, or Muon for the matrices and kernels inside the network and Adam
    /// for the rest.
    #[arg(long, value_enum, conflicts_with = "resume")]
    pub optimizer: Option<config::Optimizer>,
    /// Learning rate of Muon after the ramp, if it is not that of --lr.
    #[arg(long, value_name = "LR", value_parser = positive, allow_negative_numbers = true)]
    pub muon_lr: Option<f64>,
    /// Give each picture of a batch noise of the batch that is near to it.
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", conflicts_with = "resume")]
    pub immiscible: Option<bool>,
    /// Hold out so many pictures, from all over the data, and measure the loss on them; 0 for none.
    /// They are not trained on: where each class has one picture, as the emoji do, the model never
    /// sees those classes. --validation-data spares them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub validate: Option<u32>,
    /// Take the pictures of --validate from here, and train on all of --data: another data set with
    /// the same classes.
    #[arg(long, value_name = "PATH", requires = "validate")]
    pub validation_data: Option<PathBuf>,
    /// Measure the loss on them whenever this many images have been seen; if nothing is said, as
    /// often as grids are written.
    #[arg(long, value_name = "IMAGES", value_parser = images)]
    pub validate_every: Option<u64>,
    /// Seed of everything random: initial weights, order of the data, noise.
    #[arg(long, conflicts_with = "resume")]
    pub seed: Option<u64>,
    /// Folder that run folders are made in.
    #[arg(long, value_name = "FOLDER", default_value = "runs", conflicts_with = "resume")]
    pub out: PathBuf,
    /// Write a grid of pictures whenever this many images have been seen.
    #[arg(long, value_name = "IMAGES", value_parser = images)]
    pub sample_every: Option<u64>,
    /// Pictures in a grid; 0 for no grids.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub grid: u32,
    #[command(flatten)]
    pub vae: VaeArgs,
    /// Save a checkpoint whenever this many images have been seen.
    #[arg(long, value_name = "IMAGES", value_parser = images)]
    pub save_every: Option<u64>,
    /// Say nothing but what comes of it, and what goes wrong.
    #[arg(long, short)]
    pub quiet: bool,
    /// Print JSON, an object in a line: the lines of stats.jsonl as they come, then the result.
    #[arg(long)]
    pub json: bool,
    /// Latest checkpoints that are kept.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: u32,
    /// Of the others, keep those of every so many images.
    #[arg(long, value_name = "IMAGES", value_parser = images)]
    pub keep_every: Option<u64>,
    /// What to compute on.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceKind,
    /// Share each batch among so many devices of that kind.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub devices: u16,
    /// Share each batch among machines: the address of each, the same list on all of them. Each is
    /// started with the same flags and trains in a run folder of its own.
    #[arg(long, value_name = "HOST:PORT,..", value_delimiter = ',', requires = "node")]
    pub nodes: Vec<String>,
    /// Which of them this machine is, from 0.
    #[arg(long, value_name = "N", requires = "nodes")]
    pub node: Option<usize>,
}

impl TrainArgs {
    /// Devices that share a batch, on all machines.
    pub fn workers(&self) -> usize {
        usize::from(self.devices) * self.nodes.len().max(1)
    }
}

/// The autoencoder that makes pictures of latents.
#[derive(clap::Args, Clone)]
pub struct VaeArgs {
    /// File of the autoencoder that makes pictures of latents: diffusion_pytorch_model.safetensors
    /// of stabilityai/sd-vae-ft-ema, or one like it.
    #[arg(long, value_name = "FILE")]
    pub vae: Option<PathBuf>,
    /// JSON file with the sizes of an autoencoder that has others.
    #[arg(long, value_name = "FILE", requires = "vae")]
    pub vae_config: Option<PathBuf>,
}

/// What the pictures are of.
#[derive(clap::Args, Clone)]
pub struct GuidanceArgs {
    /// Classes of the pictures, by number or by a part of the name that no other has, such as
    /// 207,otter,10-19: with n of them, seed s (of denoise, picture s) has number s mod n. A mixture
    /// has weights, and a semicolon before what follows it: otter=0.6,pizza=0.4;rocket.
    #[arg(long, visible_alias = "class", value_name = "CLASSES")]
    pub classes: Option<String>,
    /// Scale of classifier-free guidance: 1 for none. The paper has 4.4 at 256x256. Of sample,
    /// several, such as 1,2,4, make as many outputs, each with its scale in its name.
    #[arg(long, value_name = "SCALES", requires = "classes", value_delimiter = ',')]
    pub guidance: Vec<f64>,
    /// Power of the course of guidance over time, from 1 to the scale; 0 for the scale throughout,
    /// as the paper has it at 512x512.
    #[arg(long, value_name = "POWER", default_value_t = 4.0)]
    pub guidance_power: f64,
    /// Channels that are guided.
    #[arg(long, value_enum, default_value = "three")]
    pub guidance_channels: GuidedChannelsKind,
    /// Lowest noise level that is guided.
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0, allow_negative_numbers = true)]
    pub guidance_min: f64,
    /// Highest noise level that is guided.
    #[arg(long, value_name = "SIGMA", default_value_t = f64::MAX, hide_default_value = true)]
    pub guidance_max: f64,
}

/// How pictures are made.
#[derive(clap::Args, Clone)]
pub struct SettingsArgs {
    /// Steps of the sampler.
    #[arg(long, default_value_t = 18)]
    pub steps: usize,
    /// How a step is taken.
    #[arg(long, value_enum, default_value = "heun")]
    pub sampler: SamplerKind,
    /// Order of the sampler: ipndm has 1 to 4 (4 if not given), dpmpp 2 and 3 (3 if not given).
    #[arg(long)]
    pub order: Option<usize>,
    /// Part of the noise that is fresh, with the sampler ddim: from 0 for none to 1.
    #[arg(long, default_value_t = 0.0)]
    pub eta: f64,
    /// Variance of a step, with the sampler ddpm.
    #[arg(long, value_enum, default_value_t)]
    pub variance: VarianceKind,
    /// Take the noise levels of ADM's 1000 steps: a number of them evenly (250), by a whole stride
    /// (ddim50), or so many of each of equal parts (10,15,20).
    #[arg(long, value_name = "STEPS", conflicts_with_all = ["steps", "levels", "sigma_min", "sigma_max", "rho"])]
    pub respacing: Option<Respacing>,
    /// How the noise levels lie between the first and the last.
    #[arg(long, value_enum, default_value_t)]
    pub levels: LevelsKind,
    /// Clip every denoised picture to -1 to 1 before the step is taken.
    #[arg(long)]
    pub clip_denoised: bool,
    #[command(flatten)]
    pub guidance: GuidanceArgs,
    /// Noise level of the last step but one.
    #[arg(long, default_value_t = 0.002)]
    pub sigma_min: f64,
    /// Noise level of the start.
    #[arg(long, default_value_t = 80.0)]
    pub sigma_max: f64,
    /// How much the steps crowd towards low noise, with the levels edm.
    #[arg(long, default_value_t = 7.0)]
    pub rho: f64,
    /// Noise added on the way (S_churn); 0 for none.
    #[arg(long, default_value_t = 0.0)]
    pub churn: f64,
    /// Lowest noise level that churn adds noise at (S_min).
    #[arg(long, default_value_t = 0.0)]
    pub churn_min: f64,
    /// Highest noise level that churn adds noise at (S_max).
    #[arg(long, default_value_t = f64::MAX, hide_default_value = true)]
    pub churn_max: f64,
    /// Standard deviation of the added noise (S_noise).
    #[arg(long, default_value_t = 1.0)]
    pub churn_noise: f64,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub enum LevelsKind {
    /// EDM's, with rho.
    #[default]
    Edm,
    /// Evenly in log-SNR.
    LogSnr,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum SamplerKind {
    Euler,
    Heun,
    /// iPNDM.
    Ipndm,
    /// DPM-Solver++, multistep.
    Dpmpp,
    /// DDIM.
    Ddim,
    /// Ancestral sampling.
    Ddpm,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum GuidedChannelsKind {
    /// The first three, as in the official release.
    Three,
    /// All.
    All,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub enum VarianceKind {
    /// As the network says, and small where it says nothing.
    #[default]
    Learned,
    /// That of the posterior.
    Small,
    /// Beta.
    Large,
}

impl GuidanceArgs {
    /// Classifier-free guidance of a scale.
    pub fn of_scale(&self, scale: f64) -> Guidance {
        let course = match self.guidance_power {
            0.0 => Course::Constant,
            power => Course::PowerCosine { power },
        };
        let channels = match self.guidance_channels {
            GuidedChannelsKind::Three => GuidedChannels::Three,
            GuidedChannelsKind::All => GuidedChannels::All,
        };
        Guidance {
            scale,
            course,
            channels,
            sigma_low: self.guidance_min,
            sigma_high: self.guidance_max,
        }
    }

    /// The classes that are asked for, of those of such names.
    ///
    /// # Errors
    ///
    /// If there is no such class, or it could be several.
    pub fn labels(&self, names: &[String]) -> anyhow::Result<Vec<Label>> {
        find_all(names, self.classes.as_deref().unwrap_or_default()).context("--classes")
    }
}

impl SettingsArgs {
    /// How a step is taken.
    ///
    /// # Errors
    ///
    /// If an order is given for a sampler that has only one.
    pub fn method(&self) -> anyhow::Result<Method> {
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

#[derive(clap::Args, Clone)]
pub struct SampleArgs {
    /// Weights file or checkpoint; without it, the weights that are shipped.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Seeds, one picture each, such as 0-63,100.
    #[arg(long, default_value = "0-15")]
    pub seeds: String,
    #[command(flatten)]
    pub vae: VaeArgs,
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// PNG file with all pictures in a grid, or with --separate a folder.
    #[arg(long, short, value_name = "PATH", default_value = "samples.png")]
    pub output: PathBuf,
    /// Write one file per seed.
    #[arg(long)]
    pub separate: bool,
    /// Write the class under each picture of the grid.
    #[arg(long, conflicts_with = "separate", requires = "classes")]
    pub labels: bool,
    /// Columns of the grid.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub columns: Option<u32>,
    /// Pictures computed at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    /// What to compute on.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceKind,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum PrecisionKind {
    F16,
    F32,
}

impl From<PrecisionKind> for Precision {
    fn from(kind: PrecisionKind) -> Self {
        match kind {
            PrecisionKind::F16 => Precision::F16,
            PrecisionKind::F32 => Precision::F32,
        }
    }
}

#[derive(clap::Args, Clone)]
pub struct ExportArgs {
    /// A run folder or a checkpoint.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// The weights file to write.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Number format of the values.
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: PrecisionKind,
    /// A JSON file whose fields replace those of the model card.
    #[arg(long, value_name = "FILE")]
    pub card: Option<PathBuf>,
    /// Replace an existing file.
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(clap::Args, Clone)]
pub struct DenoiseArgs {
    /// Weights file or checkpoint; without it, the weights that are shipped.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Safetensors file with `x` of B x C x H x W values and `sigma` of B, both f32.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Safetensors file to write: `denoised` and `raw`, the network's own output.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub guidance: GuidanceArgs,
    /// Pictures computed at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    /// What to compute on.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceKind,
}

#[derive(clap::Args, Clone)]
pub struct InfoArgs {
    /// A weights file, a checkpoint, a run folder or the name of a preset; without it, the
    /// weights that are shipped.
    #[arg(value_name = "FILE|PRESET")]
    pub what: Option<PathBuf>,
    /// List every tensor with its shape.
    #[arg(long)]
    pub tensors: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Clone)]
pub struct CheckArgs {
    /// Folder or zip of PNG or JPEG files, a CIFAR-10 archive, a file of latents, or `emoji` for
    /// the embedded set.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

#[derive(clap::Args, Clone)]
pub struct EncodeArgs {
    /// Folder or zip of PNG or JPEG files, a CIFAR-10 archive, or `emoji` for the embedded set.
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// File of the autoencoder: diffusion_pytorch_model.safetensors of stabilityai/sd-vae-ft-ema,
    /// or one like it.
    #[arg(long, value_name = "FILE")]
    pub vae: PathBuf,
    /// JSON file with the sizes of an autoencoder that has others.
    #[arg(long, value_name = "FILE")]
    pub vae_config: Option<PathBuf>,
    /// Height and width in pixels: of pictures of other sizes, the square in the middle is resized.
    #[arg(long, value_name = "PIXELS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub size: u32,
    /// The file to write.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace an existing file, or one that was begun with other pictures.
    #[arg(long)]
    pub overwrite: bool,
    /// What to compute on.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceKind,
}

#[derive(clap::Args, Clone)]
pub struct FetchArgs {
    /// What to fetch.
    #[arg(value_parser = ["cifar10"])]
    pub name: String,
    /// Folder to put it in.
    #[arg(long, value_name = "FOLDER", default_value = "data")]
    pub to: PathBuf,
    /// Fetch it from another place; the hash must still come out.
    #[arg(long)]
    pub url: Option<String>,
}

#[derive(clap::Args, Clone)]
pub struct BenchArgs {
    /// Presets to measure; vae is the autoencoder, at 256x256.
    #[arg(value_name = "PRESET", default_value = "tiny")]
    pub presets: Vec<String>,
    /// What to measure; all of it, if nothing is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Measure>,
    /// Number format of weights and pictures, for the forward pass alone.
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: BenchPrecision,
    /// Pictures per forward pass and per training step.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    /// Least time to spend on each measurement.
    #[arg(long, default_value = "3s", value_parser = time)]
    pub time: Duration,
    /// Print one JSON object per measurement.
    #[arg(long)]
    pub json: bool,
    /// What to compute on.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceKind,
}

/// What `bench` measures.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// One evaluation of the denoiser.
    Forward,
    /// An evaluation and its backpropagation.
    Training,
    /// One step of a sampler.
    Sampling,
}

/// Number formats that `bench` computes in.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchPrecision {
    F16,
    Bf16,
    F32,
}

impl From<BenchPrecision> for DType {
    fn from(precision: BenchPrecision) -> Self {
        match precision {
            BenchPrecision::F16 => DType::F16,
            BenchPrecision::Bf16 => DType::BF16,
            BenchPrecision::F32 => DType::F32,
        }
    }
}

/// Reads lists of seeds such as `0-63,100`, in the order they are written.
///
/// # Errors
///
/// Says which part is not a number or a range.
pub fn seeds(text: &str) -> anyhow::Result<Vec<u64>> {
    const MOST: usize = 1_000_000;
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim) {
        let number = |text: &str| {
            text.trim().parse::<u64>().map_err(|_| {
                anyhow::anyhow!(
                    "--seeds {text:?}: `{part}` is neither a seed nor a range such as 0-63"
                )
            })
        };
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        anyhow::ensure!(first <= last, "--seeds: the range `{part}` runs backwards");
        anyhow::ensure!(
            last - first < MOST as u64 && numbers.len() + ((last - first) as usize) < MOST,
            "--seeds: more than {MOST}"
        );
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn seeds_are_read_as_written() {
        let read = |text| seeds(text).map_err(|e| e.to_string());
        assert_eq!(read("0-3,100, 7"), Ok(vec![0, 1, 2, 3, 100, 7]));
        assert_eq!(read("18446744073709551615"), Ok(vec![u64::MAX]));
        for (text, message) in [
            ("", "`` is neither"),
            ("1,", "`` is neither"),
            ("x", "`x` is neither"),
            ("-3", "`-3` is neither"),
            ("9-1", "runs backwards"),
            ("0-1000000", "more than 1000000"),
            ("0-18446744073709551615", "more than 1000000"),
        ] {
            let error = read(text).expect_err(message);
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    #[test]
    fn numbers_and_times_take_units() {
        assert_eq!(images("102.4M"), Ok(102_400_000));
        assert_eq!(images("8Mi"), Ok(8 << 20));
        assert!(images("-1").is_err());
        assert_eq!(time("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(time("20"), Ok(Duration::from_secs(20)));
        assert!(time("3 weeks").is_err() && time("-1s").is_err());
    }
}
