//! The weights that come with the program: those that the page shows first.

/// The file, whole.
pub const WEIGHTS: &[u8] = include_bytes!("../../www/weights/tiny-emoji.safetensors");

/// What it is called on the command line.
pub const NAME: &str = "shipped";
