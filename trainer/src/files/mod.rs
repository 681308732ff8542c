//! Helpers for files: atomic writes, locks, memory mapping, hashes.

pub mod atomic;
pub mod hash;
pub mod lock;
pub mod mapped;
