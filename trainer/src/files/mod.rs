//! Helpers for files: atomic writes, reading at offsets, locks, memory mapping, hashes, panics of readers.

pub mod at;
pub mod atomic;
pub mod guard;
pub mod hash;
pub mod lock;
pub mod mapped;
