//! The autoencoder of Stable Diffusion (`sd-vae-ft-ema`, `sd-vae-ft-mse`). The latent network works
//! on its latents, which have an eighth of a picture's height and width, and four channels.
//!
//! | to find | look in |
//! |---|---|
//! | the configuration | [`VaeConfig`] |
//! | encoding and decoding | [`Vae`] |
//! | residual blocks, attention, down- and upsampling | `blocks` |
//! | encoder and decoder | `network` |
//! | loading published files | `file`, `names` |
//! | decoding in tiles | `tiles` |

mod autoencoder;
mod blocks;
mod config;
mod file;
mod names;
mod network;
mod tiles;

pub use autoencoder::{Encoded, Vae};
pub use config::VaeConfig;
pub use tiles::{Tiling, TilingError};
