//! Tests of the program `trainer`, run as a process.

mod ablations;
mod classes;
mod compare;
mod data;
mod errors;
mod latents;
mod memory;
mod nodes;
mod resume;
mod safety;
mod sample;
mod support;
mod train;
mod validation;
mod weights;
