//! Tests of the program `trainer`, run as a process.

mod classes;
mod data;
mod errors;
mod latents;
mod many;
mod memory;
mod nodes;
mod reports;
mod resume;
mod safety;
mod sample;
mod support;
mod train;
mod validation;
mod weights;
