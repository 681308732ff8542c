//! Generated images, from seeds to PNG files.

pub mod captions;
pub mod generate;
