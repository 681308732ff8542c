//! Flags of `trainer metrics` and `trainer evaluate`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::compute::DeviceArgs;
use super::quality::{MetricKind, NetworkArgs};
use super::sampling::{GuidanceArgs, SamplerArgs, VaeArgs};

#[derive(Subcommand)]
pub enum MetricsCommand {
    /// Download the weights of the feature network of FID and verify their hash.
    ///
    /// These are the weights of Inception-v3 that TensorFlow published on 2015-12-05, as
    /// pytorch-fid distributes them. Resumes interrupted downloads.
    Fetch(FetchNetworkArgs),
    /// Compute the reference statistics of a dataset.
    ///
    /// The file has the arrays mu and sigma of EDM's and ADM's reference files, and mu_s and
    /// sigma_s of ADM's.
    Reference(ReferenceArgs),
}

/// Flags of `trainer metrics fetch`.
#[derive(Args, Clone)]
pub struct FetchNetworkArgs {
    /// Folder to download to.
    #[arg(long, value_name = "FOLDER", default_value = "data")]
    pub to: PathBuf,
    /// URL of a mirror.
    ///
    /// The file must have the same hash.
    #[arg(long)]
    pub url: Option<String>,
}

/// Flags of `trainer metrics reference`.
#[derive(Args, Clone)]
pub struct ReferenceArgs {
    /// Dataset of images in any format that `trainer data check` reads, .npz file with images, or
    /// `emoji` for the embedded emoji dataset.
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Reference statistics to write.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Number of images whose features are stored too, for precision, recall and KID.
    ///
    /// They are evenly spaced in the dataset. ADM's reference files have 10,000 images.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub keep: usize,
    /// File for the features of all images, from which an interrupted computation continues.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Overwrite an existing file.
    #[arg(long)]
    pub overwrite: bool,
    /// Batch size.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Flags of `trainer evaluate`.
#[derive(Args, Clone)]
pub struct EvaluateArgs {
    /// Reference statistics: a file of `trainer metrics reference`, of EDM or of ADM.
    #[arg(help_heading = "Metrics", long, value_name = "FILE")]
    pub reference: PathBuf,
    /// Evaluate these images instead of generating some, which is the default: a dataset of images in
    /// any format that `trainer data check` reads, or an .npz file as ADM's evaluator takes it.
    #[arg(help_heading = "Images", long, value_name = "PATH", conflicts_with_all = ["weights", "seeds", "vae", "classes"])]
    pub images: Option<PathBuf>,
    /// Weights file, checkpoint or run folder to generate images with.
    ///
    /// The default is the shipped weights.
    #[arg(help_heading = "Model", long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Seeds, one image each, such as 0-49999.
    #[arg(help_heading = "Images", long, default_value = "0-49999")]
    pub seeds: String,
    #[command(flatten)]
    pub vae: VaeArgs,
    /// Metrics to compute.
    ///
    /// The default is all except fid-infinity that the reference file allows.
    #[arg(help_heading = "Metrics", long, value_enum, value_delimiter = ',')]
    pub metrics: Vec<MetricKind>,
    /// File for the features of all images, from which an interrupted evaluation continues; none by
    /// default.
    #[arg(help_heading = "Metrics", long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Print a JSON object instead of a table.
    #[arg(help_heading = "Output", long)]
    pub json: bool,
    /// Also write the values into the model card of the weights file, in place of earlier ones.
    #[arg(help_heading = "Output", long, requires = "weights")]
    pub card: bool,
    /// Batch size.
    #[arg(help_heading = "Images", long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub guidance: GuidanceArgs,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}
