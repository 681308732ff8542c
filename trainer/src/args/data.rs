//! Flags of `trainer data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::compute::DeviceArgs;
use super::parse::{Shard, bytes, shard};
use super::weights::PrecisionKind;

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
    /// Folder or zip of PNG or JPEG files, WebDataset's tar files or Parquet files of Hugging Face
    /// datasets (one, or a folder of them), CIFAR-10 archive, latent dataset (a file, or the folder of its parts), or `emoji` for the embedded emoji
    /// dataset.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Report what `train --skip-bad` and `data encode --skip-bad` use: unusable images are counted, the
    /// first are named, and they are no failure.
    #[arg(long)]
    pub skip_bad: bool,
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
    /// Folder or zip of PNG or JPEG files, WebDataset's tar files or Parquet files of Hugging Face
    /// datasets (one, or a folder of them), CIFAR-10 archive, or `emoji` for the embedded emoji dataset.
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
    /// Latent dataset to write: a file, or with --shard-size a folder.
    #[arg(long, short, value_name = "FILE|FOLDER")]
    pub output: PathBuf,
    /// Number format of the latents.
    ///
    /// f16 takes half the space, and rounds by 1 in 2048 at most.
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: PrecisionKind,
    /// Encode only part PART of the images, of PARTS of about the same size, such as 3/8.
    ///
    /// The parts can be encoded at the same time, on several machines. Put their files, named
    /// *.latents, into one folder, and use the folder as the dataset.
    #[arg(long, value_name = "PART/PARTS", value_parser = shard)]
    pub shard: Option<Shard>,
    /// Write files of at most this size, such as 2GB, to the folder OUTPUT.
    ///
    /// The folder is the dataset. An interrupted encoding continues with the file that is not complete.
    #[arg(long, value_name = "BYTES", value_parser = bytes, conflicts_with = "shard")]
    pub shard_size: Option<u64>,
    /// Leave out images that cannot be used, such as damaged files, and print how many they are.
    ///
    /// They are found at the start, when all images are decoded once more.
    #[arg(long)]
    pub skip_bad: bool,
    /// Overwrite an existing file, or a partial file of another encoding.
    #[arg(long)]
    pub overwrite: bool,
    /// Encode this many images at once, each with its mirror image.
    ///
    /// More use a GPU better, and take more memory. This changes results by rounding only.
    #[arg(help_heading = "Devices", long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: u16,
    /// Encode a batch on each of this many devices.
    #[arg(help_heading = "Devices", long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub devices: u16,
    #[command(flatten)]
    pub device: DeviceArgs,
}
