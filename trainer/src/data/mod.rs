//! Training data: reading datasets, augmentation, and batches.
//!
//! A dataset is read completely before training starts, so that unusable files are found then.

pub mod archive;
pub mod augment;
pub mod cifar;
pub mod class_vectors;
pub mod dataset;
pub mod decode;
pub mod emoji;
pub mod error;
pub mod fetch;
pub mod held_out;
pub mod immiscible;
pub mod item;
pub mod latents;
pub mod loader;
pub mod source;
pub mod statistics;
