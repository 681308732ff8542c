//! The shipped weights, which are part of the program.

/// Content of the weights file.
pub const WEIGHTS: &[u8] = include_bytes!("../../../www/weights/tiny-emoji.safetensors");

/// Name of the shipped weights on the command line.
pub const NAME: &str = "shipped";
