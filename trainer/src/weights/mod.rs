//! Models from files, and weights files of runs.

pub mod autoencoder;
pub mod card;
pub mod load;
pub mod save;
pub mod shipped;
