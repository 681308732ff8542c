//! The state of a run on disk and on the terminal.

pub mod background;
pub mod checkpoint;
mod contents;
pub mod folder;
pub mod history;
pub mod launch;
pub mod progress;
pub mod report;
#[cfg(test)]
pub mod screen;
pub mod signals;
pub mod snapshots;
pub mod tensorboard;
