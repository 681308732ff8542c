//! DiffiT (Diffusion Vision Transformers, arXiv 2312.02139) in Burn: network, noise schedules,
//! preconditioning, losses, samplers.
//!
//! This crate computes and does nothing else: it reads no file, looks at no clock, and draws no
//! random number that is not a function of its arguments. The trainer and the page are built on
//! it and share every line. Without the feature `tensor` only plain values are left: settings,
//! noise levels, noise, pictures, cards; they come without Burn.
//!
//! | to find | look in |
//! |---|---|
//! | what a model is made of | [`config`], [`preset`] |
//! | the paper's Eq (3)-(6), (7)-(8), (9)-(10) | `tmsa`, `block` |
//! | the networks | [`network`], `unet`, `latent` |
//! | from the network to a denoiser | [`precond`], [`Model`] |
//! | from noise to pictures | [`schedule`], [`sampler`], [`noise`], [`generate`], [`image`], [`picture`] |
//! | all settings of that | [`settings`] |
//! | labels of pictures, names of classes, classifier-free guidance | [`label`], [`classes`], [`guidance`] |
//! | training objective | [`loss`], [`hybrid`], [`importance`] |
//! | discrete time: betas and what follows from them | [`discrete`] |
//! | picture, noise and score; Eq (1), (2) | [`process`] |
//! | between pictures and latents | [`vae`] |
//! | the weights file, and the released ones | [`weights`], [`card`], [`official`], [`tensor_file`] |

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
pub use diffusion::{discrete, guidance, label, noise, precond, schedule, settings};
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
pub use training::recompute;
