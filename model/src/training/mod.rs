//! Training: objectives, timestep samplers, examples, steps and gradient checkpointing.

#[cfg(feature = "train")]
pub mod ema;
#[cfg(feature = "train")]
pub mod examples;
#[cfg(feature = "train")]
pub mod gradients;
pub mod hybrid;
pub mod importance;
pub mod loss;
#[cfg(feature = "train")]
pub mod recompute;
#[cfg(feature = "train")]
pub mod state;
