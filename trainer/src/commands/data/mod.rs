//! The commands of `trainer data`.

pub mod check;
pub mod encode;
pub mod fetch;
