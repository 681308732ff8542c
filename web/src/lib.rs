//! DiffiT in a browser tab.
//!
//! There are two programs: the page (`src/bin/app.rs`), which shows and asks, and the worker
//! (`src/bin/worker.rs`), which computes, so that the page never freezes. They share the messages
//! of [`protocol`] and nothing else. Each has a feature, so that the page does not carry the
//! worker's mathematics.

#![forbid(unsafe_code)]

pub mod adapter;
pub mod explain;
pub mod manifest;
pub mod memory;
pub mod names;
pub mod plot;
pub mod protocol;
pub mod scene;

#[cfg(all(target_arch = "wasm32", feature = "page"))]
pub mod app;
#[cfg(all(target_arch = "wasm32", feature = "compute"))]
pub mod worker;
