//! Flags of `trainer data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::compute::DeviceArgs;

#[derive(Subcommand)]
pub enum DataCommand {
    /// Read a whole dataset, and report its contents and every unusable file.
    Check(CheckArgs),
    /// Download a dataset and verify its hash.
    ///
    /// Resumes interrupted downloads.
    Fetch(FetchArgs),
    /// Encode images and their mirror images to a latent dataset.
    ///
    /// Resumes an interrupted encoding.
    Encode(EncodeArgs),
}

/// Flags of `trainer data check`.
#[derive(Args, Clone)]
pub struct CheckArgs {
    /// Folder or zip of PNG or JPEG files, WebDataset's tar files (one, or a folder of them), CIFAR-10
    /// archive, latent dataset, or `emoji` for the embedded emoji dataset.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// Flags of `trainer data fetch`.
#[derive(Args, Clone)]
pub struct FetchArgs {
    /// Dataset to download.
    #[arg(value_parser = ["cifar10"])]
    pub name: String,
    /// Folder to download to.
    #[arg(long, value_name = "FOLDER", default_value = "data")]
    pub to: PathBuf,
    /// URL of a mirror.
    ///
    /// The file must have the same hash.
    #[arg(long)]
    pub url: Option<String>,
}

/// Flags of `trainer data encode`.
#[derive(Args, Clone)]
pub struct EncodeArgs {
    /// Folder or zip of PNG or JPEG files, WebDataset's tar files (one, or a folder of them), CIFAR-10
    /// archive, or `emoji` for the embedded emoji dataset.
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Autoencoder that encodes the images.
    ///
    /// This is diffusion_pytorch_model.safetensors of stabilityai/sd-vae-ft-ema, or a file of the
    /// same layout.
    #[arg(long, value_name = "FILE")]
    pub vae: PathBuf,
    /// JSON file with the configuration of the autoencoder, if it is not Stable Diffusion's.
    #[arg(long, value_name = "FILE")]
    pub vae_config: Option<PathBuf>,
    /// Height and width of the images.
    ///
    /// Images of other sizes are center-cropped to a square and resized.
    #[arg(long, value_name = "PIXELS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub size: u32,
    /// Latent dataset to write.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Overwrite an existing file, or a partial file of another encoding.
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}
