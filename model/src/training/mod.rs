//! Training: objectives, timestep samplers and gradient checkpointing.

pub mod hybrid;
pub mod importance;
pub mod loss;
#[cfg(feature = "train")]
pub mod recompute;
