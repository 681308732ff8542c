//! DiffiT in a browser tab.
//!
//! There are three programs: the page (`src/bin/app.rs`), which is the user interface, and two workers,
//! which compute, so that the page stays responsive: one for graphics processors (`src/bin/worker.rs`),
//! and one for processors (`src/bin/cpu.rs`), which also trains. They communicate through the messages
//! of [`protocol`] only. Each has a feature of its own, so that none contains what it does not use.

#![forbid(unsafe_code)]

pub mod adapter;
pub mod brush;
pub mod command;
pub mod equation;
pub mod explain;
pub mod lesson;
pub mod looks;
pub mod manifest;
pub mod map;
pub mod memory;
pub mod names;
pub mod playground;
pub mod plot;
pub mod protocol;
pub mod scene;
pub mod session;
pub mod survey;
pub mod testing;
pub mod tour;

#[cfg(all(target_arch = "wasm32", feature = "page"))]
pub mod app;
#[cfg(all(target_arch = "wasm32", feature = "compute"))]
pub mod worker;
