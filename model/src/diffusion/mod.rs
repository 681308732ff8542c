//! Diffusion: noise levels, preconditioning, guidance, noise, and the samplers that lead from noise
//! to pictures. What needs no tensors comes without Burn.

pub mod discrete;
#[cfg(feature = "tensor")]
pub mod generate;
pub mod guidance;
pub mod label;
pub mod noise;
pub mod precond;
#[cfg(feature = "tensor")]
pub mod process;
#[cfg(feature = "tensor")]
pub mod sampler;
pub mod schedule;
pub mod settings;
pub mod vp;
