//! The autoencoder of Stable Diffusion (`sd-vae-ft-ema`, `sd-vae-ft-mse`), between whose halves the
//! latent network works: an eighth of a picture's height and width, in four channels.
//!
//! | to find | look in |
//! |---|---|
//! | what it is made of | [`VaeConfig`] |
//! | residual blocks, attention, changes of resolution | `blocks` |
//! | encoder and decoder | `network` |
//! | the published files | `file` |
//! | decoding in parts | `tiles` |

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
