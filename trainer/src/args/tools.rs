//! Flags of `trainer bench`, `trainer completions` and `trainer man`.

use std::path::PathBuf;
use std::time::Duration;

use burn::tensor::DType;
use clap::{Args, ValueEnum};

use super::compute::DeviceArgs;
use super::parse::time;

/// Flags of `trainer bench`.
#[derive(Args, Clone)]
pub struct BenchArgs {
    /// Presets to measure; `vae` is the autoencoder at 256x256.
    #[arg(value_name = "PRESET", default_value = "tiny")]
    pub presets: Vec<String>,
    /// Measure only these.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Measure>,
    /// Number format of weights and activations.
    ///
    /// For training, weights stay in f32. f16 measures the forward pass only, bf16 no sampling.
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: BenchPrecision,
    /// Batch size.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    /// Minimum time per measurement.
    #[arg(long, default_value = "3s", value_parser = time)]
    pub time: Duration,
    /// Print a JSON object per measurement.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Measurements of `trainer bench`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// A forward pass of the denoiser.
    Forward,
    /// A forward and backward pass.
    Training,
    /// A step of Heun's method.
    Sampling,
}

/// Number formats of `trainer bench`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchPrecision {
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Single precision.
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

/// Flags of `trainer completions`.
#[derive(Args, Clone)]
pub struct CompletionsArgs {
    /// Shell to print completions for.
    pub shell: clap_complete::Shell,
}

/// Flags of `trainer man`.
#[derive(Args, Clone)]
pub struct ManArgs {
    /// Folder to write the man pages to.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}
