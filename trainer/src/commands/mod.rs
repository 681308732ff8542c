//! The commands of the program.

pub mod bench;
pub mod compare;
pub mod data;
pub mod denoise;
pub mod ema;
pub mod export;
pub mod info;
pub mod manual;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod report;
pub mod sample;
pub mod table;
pub mod train;
pub mod verify;
