//! Diffusion: noise schedules, preconditioning, guidance, random numbers, and samplers. Modules
//! that need no tensors do not depend on Burn.

pub mod discrete;
#[cfg(feature = "tensor")]
pub mod generate;
pub mod guidance;
pub mod label;
pub mod method;
pub mod mixture;
pub mod noise;
pub mod precond;
#[cfg(feature = "tensor")]
pub mod process;
#[cfg(feature = "tensor")]
pub mod sampler;
pub mod schedule;
pub mod settings;
pub mod vp;
