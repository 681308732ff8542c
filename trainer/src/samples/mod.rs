//! Generated images, from seeds to files.

pub mod captions;
pub mod generate;
pub mod labels;
mod npy;
pub mod pack;
pub mod progress;
pub mod record;
mod store;
pub mod stream;
