//! Tests of the program `trainer`, run as a process.

mod ablations;
mod averages;
mod classes;
mod compare;
mod data;
mod earlier;
mod errors;
mod hub;
mod info;
mod latents;
mod many;
mod memory;
#[cfg(feature = "metrics")]
mod metrics;
mod nodes;
mod on_demand;
mod paths;
mod promises;
#[cfg(feature = "metrics")]
mod quality;
mod reports;
mod resume;
mod safety;
mod sample;
mod soak;
mod support;
mod terminal;
mod train;
mod validation;
mod verify;
mod weights;
