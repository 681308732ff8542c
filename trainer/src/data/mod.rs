//! Training data: reading datasets, augmentation, and batches.
//!
//! A dataset that fits into memory is read completely before training starts, so that unusable files
//! are found then. Of a larger one, the headers of all files are read, unless that was done
//! before, and images when they are needed.

pub mod augment;
pub mod checked;
pub mod cifar;
pub mod class_vectors;
pub mod classes;
pub mod dataset;
pub mod decode;
pub mod emoji;
pub mod error;
pub mod fetch;
pub mod folder;
pub mod held_out;
pub mod immiscible;
pub mod item;
pub mod latents;
pub mod loader;
pub mod on_demand;
pub mod parquet_files;
pub mod slow_bar;
pub mod source;
pub mod statistics;
pub mod tar_shards;
pub mod zip_file;
