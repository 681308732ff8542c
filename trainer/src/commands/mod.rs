//! The commands of the program.

pub mod bench;
pub mod data;
pub mod denoise;
pub mod export;
pub mod info;
pub mod manual;
pub mod report;
pub mod sample;
pub mod train;
pub mod verify;
