//! Latent datasets: images encoded by an autoencoder, in memory-mapped safetensors files.
//!
//! | entry | content |
//! |---|---|
//! | `labels` | `[N]` of `U32`, the class of each image; absent if there are no classes |
//! | `moments` | `[N, 2, 2, C, H, W]` of `F32` or `F16`: for each image and its mirror image, mean and standard deviation of the latent, times the autoencoder's scale |
//! | metadata, `diffit-latents` | [`Origin`] as JSON, with the [`Part`] if it is not the whole encoding |
//!
//! A dataset is a file, or a folder with the files of all parts of one encoding.

mod read;
mod write;

use std::ops::Range;

use model::vae::VaeConfig;
use model::weights::Precision;
use serde::{Deserialize, Serialize};

pub use read::Latents;
pub use write::{bytes_of, header};

const KEY: &str = "diffit-latents";

/// Format version of a file with all images of an encoding.
const VERSION: u32 = 1;

/// Format version of a file with a part of them. Earlier versions of the program, which would take it
/// for the whole, do not read it.
const VERSION_OF_PARTS: u32 = 2;

/// Origin of a latent dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// SHA-256 of the images with their sizes and classes.
    pub pictures_sha256: String,
    /// Configuration of the autoencoder.
    pub vae: VaeConfig,
    /// SHA-256 of the autoencoder's file.
    pub vae_sha256: String,
    /// Names of the classes; empty if there are none.
    pub classes: Vec<String>,
}

/// Part of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number of the part, from 1.
    pub number: usize,
    /// Number of parts.
    pub count: usize,
    /// Number of images of the whole encoding.
    pub images: usize,
}

impl Part {
    /// Returns the numbers of the images of this part.
    pub fn range(self) -> Range<usize> {
        let start =
            |part: usize| (part as u128 * self.images as u128 / self.count as u128) as usize;
        start(self.number - 1)..start(self.number)
    }
}

/// Returns the size in bytes of a value.
fn value_size(precision: Precision) -> usize {
    if precision == Precision::F32 { 4 } else { 2 }
}

/// Returns the size in bytes of the moments of an image.
pub fn record_size(shape: [usize; 3], precision: Precision) -> usize {
    4 * value_size(precision) * shape.iter().product::<usize>()
}

#[cfg(test)]
mod tests;
