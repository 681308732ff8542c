//! DiffiT in a browser tab.
//!
//! There are two programs: the page (`src/bin/app.rs`), which shows and asks, and the worker
//! (`src/bin/worker.rs`), which computes, so that the page never freezes. They share the messages
//! of [`protocol`] and nothing else.

#![forbid(unsafe_code)]

pub mod adapter;
pub mod manifest;
pub mod protocol;

#[cfg(target_arch = "wasm32")]
pub mod app;
#[cfg(target_arch = "wasm32")]
pub mod worker;
