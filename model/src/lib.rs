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

#[cfg(feature = "tensor")]
mod block;
pub mod card;
pub mod classes;
pub mod config;
#[cfg(feature = "tensor")]
mod cpu;
pub mod discrete;
#[cfg(feature = "tensor")]
pub mod generate;
#[cfg(all(test, feature = "tensor"))]
mod golden;
pub mod guidance;
#[cfg(feature = "tensor")]
pub mod hybrid;
pub mod image;
#[cfg(feature = "tensor")]
pub mod importance;
pub mod label;
#[cfg(feature = "tensor")]
mod latent;
#[cfg(feature = "tensor")]
mod layers;
#[cfg(feature = "tensor")]
pub mod loss;
#[cfg(feature = "tensor")]
pub mod macs;
#[cfg(feature = "tensor")]
mod model;
#[cfg(feature = "tensor")]
pub mod network;
pub mod noise;
#[cfg(feature = "tensor")]
pub mod official;
#[cfg(feature = "tensor")]
mod ops;
#[cfg(feature = "tensor")]
mod params;
pub mod picture;
pub mod precond;
#[cfg(feature = "tensor")]
pub mod preset;
#[cfg(feature = "tensor")]
pub mod process;
#[cfg(feature = "train")]
pub mod recompute;
#[cfg(feature = "tensor")]
pub mod sampler;
pub mod schedule;
pub mod settings;
#[cfg(feature = "tensor")]
pub mod tensor_file;
#[cfg(feature = "tensor")]
mod time;
#[cfg(feature = "tensor")]
mod tmsa;
#[cfg(feature = "tensor")]
mod unet;
#[cfg(feature = "tensor")]
pub mod vae;
#[cfg(feature = "tensor")]
pub mod weights;
#[cfg(feature = "tensor")]
pub mod window;

#[cfg(feature = "tensor")]
pub use model::{Conditioning, Denoised, Model};
#[cfg(feature = "tensor")]
pub use params::TensorSpec;
