//! DiffiT (Diffusion Vision Transformers, arXiv 2312.02139) in Burn: network, noise schedules,
//! preconditioning, losses, samplers.
//!
//! This crate computes and does nothing else: it reads no file, looks at no clock, and draws no
//! random number that is not a function of its arguments. The trainer and the page are built on
//! it and share every line.
//!
//! | to find | look in |
//! |---|---|
//! | what a model is made of | [`config`], [`preset`] |
//! | the paper's Eq (3)-(6), (7)-(8), (9)-(10) | `tmsa`, `block` |
//! | the networks | [`network`], `unet`, `latent` |
//! | from the network to a denoiser | [`precond`], [`Model`] |
//! | from noise to pictures | [`schedule`], [`sampler`], [`noise`], [`generate`], [`image`], [`picture`] |
//! | classifier-free guidance, names of classes | [`guidance`], [`classes`] |
//! | training objective | [`loss`] |
//! | picture, noise and score; Eq (1), (2) | [`process`] |
//! | the weights file, and the released ones | [`weights`], [`card`], [`official`] |

#![forbid(unsafe_code)]

mod block;
pub mod card;
pub mod classes;
pub mod config;
mod cpu;
pub mod generate;
#[cfg(test)]
mod golden;
pub mod guidance;
pub mod image;
mod latent;
mod layers;
pub mod loss;
pub mod macs;
mod model;
pub mod network;
pub mod noise;
pub mod official;
mod ops;
mod params;
pub mod picture;
pub mod precond;
pub mod preset;
pub mod process;
pub mod sampler;
pub mod schedule;
mod time;
mod tmsa;
mod unet;
pub mod weights;
pub mod window;

pub use model::{Conditioning, Denoised, Model};
pub use params::TensorSpec;
