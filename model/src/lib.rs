//! DiffiT (Diffusion Vision Transformers, arXiv 2312.02139) in Burn: network, noise schedules,
//! preconditioning, losses, samplers.
//!
//! The crate only computes: it accesses no files and no clock, and every random number is a
//! function of its arguments. The trainer and the web page are both built on it. Without the
//! feature `tensor` it does not depend on Burn and contains only plain values: settings, noise
//! levels, noise, pictures and model cards.
//!
//! | to find | look in |
//! |---|---|
//! | model configuration | [`config`], [`preset`] |
//! | the paper's Eq (3)-(6), (7)-(8), (9)-(10) | `tmsa`, `block` |
//! | networks | [`network`], `unet`, `latent` |
//! | preconditioning, the denoiser | [`precond`], [`Model`] |
//! | sampling | [`schedule`], [`sampler`], [`noise`], [`generate`], [`image`], [`picture`] |
//! | sampling settings | [`settings`] |
//! | a distribution with a closed-form denoiser | [`mixture`] |
//! | labels, class names, classifier-free guidance | [`label`], [`classes`], [`guidance`] |
//! | training objectives, timestep samplers | [`loss`], [`hybrid`], [`importance`] |
//! | examples, a training step, the moving average | [`examples`], [`state`], [`gradients`], [`ema`] |
//! | discrete time: betas and derived quantities | [`discrete`] |
//! | conversion between picture, noise and score; Eq (1), (2) | [`process`] |
//! | autoencoder between pictures and latents | [`vae`] |
//! | weights files | [`weights`], [`card`], [`official`], [`tensor_file`] |

#![forbid(unsafe_code)]

pub mod config;
#[cfg(feature = "tensor")]
mod denoiser;
pub mod diffusion;
#[cfg(all(test, feature = "tensor"))]
mod golden;
#[cfg(feature = "tensor")]
mod kernels;
#[cfg(feature = "tensor")]
mod model;
#[cfg(feature = "tensor")]
pub mod network;
pub mod picture;
#[cfg(feature = "tensor")]
pub mod training;
#[cfg(feature = "tensor")]
pub mod vae;
pub mod weights;

// Short paths for what other crates use most.
pub use diffusion::{discrete, guidance, label, mixture, noise, precond, schedule, settings};
pub use picture::image;
pub use weights::{card, classes};

#[cfg(feature = "tensor")]
pub use {
    config::preset,
    denoiser::{Denoiser, KeptRegion},
    diffusion::{generate, process, sampler},
    model::{Denoised, Model},
    network::params::TensorSpec,
    network::{Conditioning, Inspection, NetworkOptions, TrainingOptions, macs, window},
    training::{hybrid, importance, loss},
    weights::{official, tensor_file},
};

#[cfg(feature = "train")]
pub use training::{ema, examples, gradients, recompute, state};
