//! Helpers for files: atomic writes, reading at offsets, locks, memory mapping, hashes.

pub mod at;
pub mod atomic;
pub mod hash;
pub mod lock;
pub mod mapped;
