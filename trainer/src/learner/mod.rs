//! A training step: gradients, optimizer, moving average, on one or several devices and machines.

pub mod gradients;
pub mod learned;
pub mod muon;
pub mod nodes;
mod placed;
pub mod step;
mod worker;
