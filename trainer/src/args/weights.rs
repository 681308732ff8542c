//! Flags of `trainer export`, `trainer denoise` and `trainer info`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use model::weights::Precision;

use super::compute::DeviceArgs;
use super::sampling::GuidanceArgs;

/// Number formats of a weights file.
#[derive(Clone, Copy, ValueEnum)]
pub enum PrecisionKind {
    /// Half precision.
    F16,
    /// Single precision.
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

/// Flags of `trainer export`.
#[derive(Args, Clone)]
pub struct ExportArgs {
    /// Run folder, checkpoint or weights file.
    #[arg(value_name = "RUN|FILE")]
    pub run: PathBuf,
    /// Weights file to write.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Number format of the weights.
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: PrecisionKind,
    /// JSON file with fields that override those of the model card.
    #[arg(long, value_name = "FILE")]
    pub card: Option<PathBuf>,
    /// Overwrite an existing file.
    #[arg(long)]
    pub overwrite: bool,
}

/// Flags of `trainer ema`.
#[derive(Args, Clone)]
pub struct EmaArgs {
    /// Run folder of a training with --ema-profiles.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Relative standard deviation of the moving average, such as 0.1.
    ///
    /// The weights that are averaged are from 5 % of the training ago at 0.05, 11 % at 0.1 and 26 % at
    /// 0.2, on average.
    #[arg(long, value_name = "STD")]
    pub std: f64,
    /// Number of images at which the average ends, one of those of the snapshots.
    ///
    /// The default is that of the last snapshot.
    #[arg(long, value_name = "IMAGES", value_parser = super::parse::images)]
    pub at: Option<u64>,
    /// Weights file to write.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Number format of the weights.
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: PrecisionKind,
    /// Overwrite an existing file.
    #[arg(long)]
    pub overwrite: bool,
}

/// Flags of `trainer denoise`.
#[derive(Args, Clone)]
pub struct DenoiseArgs {
    /// Weights file, checkpoint or run folder.
    ///
    /// The default is the shipped weights.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Safetensors file with the f32 tensors `x` of shape B x C x H x W and `sigma` of shape B.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Safetensors file to write, with the tensors `denoised` and `raw`, the network's output.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Batch size.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub guidance: GuidanceArgs,
}

/// Flags of `trainer info`.
#[derive(Args, Clone)]
pub struct InfoArgs {
    /// Weights file, checkpoint, run folder or preset.
    ///
    /// The default is the shipped weights. Only the header of a file is read: `trainer verify` checks
    /// the values.
    #[arg(value_name = "FILE|PRESET")]
    pub model: Option<PathBuf>,
    /// List every tensor with its shape.
    #[arg(long)]
    pub tensors: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
}
