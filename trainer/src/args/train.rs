//! Flags of `trainer train`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::compute::ClusterArgs;
use super::parse::{MicroBatch, bytes, images, micro_batch, positive, probability, time};
use super::quality::QualityArgs;
use super::sampling::VaeArgs;
use crate::config;

// Headings of the flags in --help, by subject.
const RUN: &str = "Run";
const MODEL: &str = "Model";
const DATA: &str = "Data";
const BATCH: &str = "Batch and memory";
const OPTIMISER: &str = "Optimiser";
const NOISE: &str = "Noise and loss";
const AVERAGES: &str = "Moving averages";
const VALIDATION: &str = "Validation";

/// Flags of `trainer train`.
#[derive(Args, Clone)]
#[command(after_help = super::defaults::NOTE)]
pub struct TrainArgs {
    /// Preset that sets the model and the recipe.
    ///
    /// The presets are tiny-emoji, tiny-cifar10, tiny, cifar10, cifar10-i, cifar10-256, ffhq64,
    /// ffhq64-i, and for latents latent256, latent512 and latent-tiny. For comparison there are
    /// DDPM++ and NCSN++ (t5-vp, t5-ve), both with TMSA (t5-vp-tmsa, t5-ve-tmsa), and DiT for
    /// latents (dit-xl2, dit-b2, dit-s2, dit-latent-tiny). The networks of the paper's ablations are
    /// presets too, from t3-token512 to f8-w8: `trainer table params all` lists every preset. The
    /// default is tiny-emoji for the embedded emoji dataset, and the unconditional tiny for other data.
    #[arg(help_heading = MODEL, long, conflicts_with = "resume")]
    pub preset: Option<String>,
    /// JSON file with options that override those of the preset, such as the options.json of a run.
    ///
    /// Any subset of the options may be given. By default, all are those of the preset.
    #[arg(help_heading = MODEL, long, value_name = "FILE", conflicts_with = "resume")]
    pub options: Option<PathBuf>,
    /// Initial weights: the shipped weights, random weights (scratch), or a weights file.
    ///
    /// The default is the shipped weights for the model and the data that they were trained on, and
    /// scratch otherwise.
    #[arg(help_heading = MODEL, long, value_name = "shipped|scratch|FILE", conflicts_with = "resume")]
    pub from: Option<String>,
    /// Resume a run from its latest checkpoint, or from the given checkpoint.
    ///
    /// A new run is started by default. `latest` is the newest run in --out. The flags for the run
    /// folder, for image quality and for devices are those of the run unless they are given again.
    #[arg(help_heading = RUN, long, value_name = "RUN|CHECKPOINT|latest")]
    pub resume: Option<PathBuf>,
    /// Stop after this much time, such as 10m or 2h, and save a checkpoint.
    ///
    /// There is no limit by default.
    #[arg(help_heading = RUN, long, value_name = "TIME", value_parser = time)]
    pub max_time: Option<Duration>,
    /// Memory for decoded images, such as 500MB or 16GB.
    ///
    /// If the dataset takes more, only headers are read at the start, images are decoded when they
    /// are needed, and as many as fit stay in memory. This does not change results. The default is
    /// half of the memory that is available at the start. A resumed run keeps a given value.
    #[arg(help_heading = DATA, long, value_name = "BYTES", value_parser = bytes)]
    pub data_memory: Option<u64>,
    /// Print every option and its source, the model's sizes and the run folder, then exit.
    #[arg(help_heading = RUN, long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub quality: QualityArgs,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Names of the flags that are given on the command line.
    #[arg(skip)]
    pub given: BTreeSet<String>,
}

/// Flags that set options of the recipe.
#[derive(Args, Clone)]
pub struct RecipeArgs {
    /// Training data.
    ///
    /// A folder or zip of PNG or JPEG files, WebDataset's tar files or Parquet files of Hugging Face
    /// datasets (one, or a folder of them), a CIFAR-10 archive, a latent dataset (a file, or the folder
    /// of its parts), a link hf://datasets/OWNER/REPO/PATH to the Hugging Face Hub (with the crate
    /// feature `hub`), or `emoji` for the embedded emoji dataset, which is the default of the presets
    /// tiny-emoji and tiny; other presets need this flag. With --resume, the new place of the same data.
    #[arg(help_heading = DATA, long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Center-crop images of other sizes to a square, and resize them to the model's resolution.
    #[arg(help_heading = DATA, long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", conflicts_with = "resume")]
    pub resize: Option<bool>,
    /// Leave out images that cannot be used, such as damaged files, and print how many they are.
    ///
    /// They are found at the start, when all images are decoded, also those that do not fit into
    /// memory: that takes about as long as `trainer data check`. A resumed run does so again, and
    /// is refused if other images are left than before. Validation images are left out likewise.
    #[arg(help_heading = DATA, long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", conflicts_with = "resume")]
    pub skip_bad: Option<bool>,
    /// Number of images to train on, counting repetitions, such as 3k or 200M.
    #[arg(help_heading = RUN, long, value_name = "IMAGES", value_parser = images)]
    pub duration: Option<u64>,
    /// Batch size.
    #[arg(help_heading = BATCH, long, value_name = "N", conflicts_with = "resume", value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub batch: Option<u64>,
    /// Accumulate gradients over micro-batches of this size, which must divide the batch size.
    ///
    /// Takes less memory and computes the same gradients up to rounding. The default, `auto`, is the
    /// whole batch, or the largest micro-batch that fits into the memory if that does not (not on
    /// GPUs, whose memory is unknown). A resumed run keeps its micro-batch unless the flag is given
    /// again.
    #[arg(help_heading = BATCH, long, value_name = "N|auto", value_parser = micro_batch)]
    pub micro_batch: Option<MicroBatch>,
    /// Recompute activations in the backward pass instead of storing them.
    ///
    /// Takes less memory and one more forward pass.
    #[arg(help_heading = BATCH, long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    pub gradient_checkpointing: Option<bool>,
    /// Precision of matrix products and convolutions.
    ///
    /// Weights are always f32.
    #[arg(help_heading = BATCH, long, value_enum)]
    pub precision: Option<config::Precision>,
    /// Learning rate after warm-up.
    #[arg(help_heading = OPTIMISER, long, value_parser = positive, allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Number of images over which the learning rate warms up linearly from 0.
    #[arg(help_heading = OPTIMISER, long, value_name = "IMAGES", value_parser = images)]
    pub lr_ramp: Option<u64>,
    /// Fraction of the duration, at its end, over which the learning rate decays to 0, such as 0.2.
    ///
    /// --lr-decay-shape says whether it decays linearly or as a cosine.
    #[arg(help_heading = OPTIMISER, long, value_name = "FRACTION", value_parser = probability)]
    pub lr_decay: Option<f64>,
    /// Shape of the decay of --lr-decay.
    #[arg(help_heading = OPTIMISER, long, value_enum)]
    pub lr_decay_shape: Option<config::DecayShape>,
    /// After this many images, let the learning rate fall with the inverse square root of the number
    /// of images, as in EDM2.
    ///
    /// It does not by default.
    #[arg(help_heading = OPTIMISER, long, value_name = "IMAGES", value_parser = images)]
    pub lr_inverse_sqrt: Option<u64>,
    /// Decoupled weight decay, as in AdamW: each step multiplies the weights by 1 - lr times this.
    #[arg(help_heading = OPTIMISER, long, value_name = "RATE", conflicts_with = "resume")]
    pub weight_decay: Option<f64>,
    /// Optimizer.
    #[arg(help_heading = OPTIMISER, long, value_enum, conflicts_with = "resume")]
    pub optimizer: Option<config::Optimizer>,
    /// Learning rate of Muon after warm-up.
    ///
    /// The default is that of --lr.
    #[arg(help_heading = OPTIMISER, long, value_name = "LR", value_parser = positive, allow_negative_numbers = true)]
    pub muon_lr: Option<f64>,
    /// Clip the gradient to this global norm.
    ///
    /// Only the presets t5-vp, t5-ve, t5-vp-tmsa and t5-ve-tmsa clip by default.
    #[arg(help_heading = OPTIMISER, long, value_name = "NORM", value_parser = positive, allow_negative_numbers = true)]
    pub clip: Option<f64>,
    /// Probability of each transformation of EDM's augmentation (scaling, rotation, ...); 0
    /// disables it.
    #[arg(help_heading = DATA, long, value_name = "P", value_parser = probability, conflicts_with = "resume")]
    pub augment: Option<f64>,
    /// Probability of training on an image without its class label.
    #[arg(help_heading = NOISE, long, value_name = "P", value_parser = probability, conflicts_with = "resume")]
    pub label_dropout: Option<f64>,
    /// Initial class embeddings, unless the initial weights have some.
    #[arg(help_heading = MODEL, long, value_enum, conflicts_with = "resume")]
    pub class_vectors: Option<config::ClassVectors>,
    /// Assign the noise of a batch to its images so that the sum of squared distances is smallest.
    #[arg(help_heading = NOISE, long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", conflicts_with = "resume")]
    pub immiscible: Option<bool>,
    /// Also keep moving averages with power-function profiles, and write snapshots of them to the
    /// run's folder `ema`, such as 0.05,0.1.
    ///
    /// The values are relative standard deviations, as in EDM2. From the snapshots of two profiles,
    /// `trainer ema` reconstructs an average of any length after training. There are none by default.
    #[arg(help_heading = AVERAGES, long, value_name = "STDS", value_delimiter = ',', conflicts_with = "resume")]
    pub ema_profiles: Vec<f64>,
    /// Write these snapshots every this many images.
    ///
    /// The default is a thirty-second of the duration.
    #[arg(help_heading = AVERAGES, long, value_name = "IMAGES", value_parser = images)]
    pub ema_snapshot_every: Option<u64>,
    /// Measure the validation loss on this many images; 0 disables it.
    ///
    /// They are held out of the training data unless --validation-data is given. With one image per
    /// class, as in the emoji dataset, the model never sees the held-out classes.
    #[arg(help_heading = VALIDATION, long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub validate: Option<u32>,
    /// Dataset to take the validation images from.
    ///
    /// It must have the classes of the training data, from which the images are taken by default.
    #[arg(help_heading = VALIDATION, long, value_name = "PATH", requires = "validate")]
    pub validation_data: Option<PathBuf>,
    /// Seed of the initial weights, the data order and the noise.
    #[arg(help_heading = RUN, long, conflicts_with = "resume")]
    pub seed: Option<u64>,
}

/// Flags for the run folder and for messages.
#[derive(Args, Clone)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Folder in which the run folder is created.
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    pub out: PathBuf,
    /// Generate a grid of samples every this many images.
    ///
    /// The default is a third of the duration, but at least 1k and at most 500k.
    #[arg(long, value_name = "IMAGES", value_parser = images)]
    pub sample_every: Option<u64>,
    /// Number of samples in a grid; 0 disables grids.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub grid: u32,
    #[command(flatten)]
    pub vae: VaeArgs,
    /// Measure the validation loss every this many images.
    ///
    /// The default is that of --sample-every.
    #[arg(help_heading = VALIDATION, long, value_name = "IMAGES", value_parser = images)]
    pub validate_every: Option<u64>,
    /// Save a checkpoint every this many images.
    ///
    /// The default is a third of the duration, but at least 1k and at most 500k.
    #[arg(long, value_name = "IMAGES", value_parser = images)]
    pub save_every: Option<u64>,
    /// Number of latest checkpoints to keep.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: u32,
    /// Also keep one older checkpoint every this many images; 0, the default, disables it.
    #[arg(long, value_name = "IMAGES", value_parser = images)]
    pub keep_every: Option<u64>,
    /// Print only warnings and the result.
    #[arg(long, short)]
    pub quiet: bool,
    /// Print JSON Lines: the lines of stats.jsonl as they are written, then the result.
    #[arg(long)]
    pub json: bool,
    /// Whether the result is not printed either, for commands that train several models.
    #[arg(skip)]
    pub no_result: bool,
}
