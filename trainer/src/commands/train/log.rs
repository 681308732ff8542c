//! The log of a run: `stats.jsonl`, TensorBoard, the terminal.

use std::fs::File;
use std::io::Write;

use anyhow::Context;
use serde_json::Value;

use crate::args::OutputArgs;
use crate::files::atomic::append;
use crate::run::folder::RunFolder;
use crate::run::progress::Progress;
use crate::run::report::{Status, Verbosity};
use crate::run::tensorboard::Events;

/// The log of a run.
pub struct Log {
    stats: File,
    /// Event file for TensorBoard.
    pub events: Events,
    /// Progress display.
    pub status: Status,
    json: bool,
}

impl Log {
    /// Opens the log of a run that starts or resumes.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn open(
        folder: &RunFolder,
        progress: &Progress,
        args: &OutputArgs,
    ) -> anyhow::Result<Self> {
        let images = progress.images;
        let quiet = args.quiet || args.json;
        let verbosity = if quiet { Verbosity::Quiet } else { Verbosity::Full };
        let stats = folder.open_stats(images)?;
        let events = Events::create(folder.path(), images)?;
        let mut status = Status::new(images, progress.config.duration, verbosity);
        status.validation_loss = progress.validation_loss;
        Ok(Self { stats, events, status, json: args.json })
    }

    /// Writes a line to `stats.jsonl`, and prints it with --json.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn line(&mut self, value: &Value) -> anyhow::Result<()> {
        let line = format!("{value}\n");
        if self.json {
            // `print!` panics if the disk of its file is full.
            let printed = anstream::stdout().write_all(line.as_bytes());
            self.json = printed.is_ok();
            if let Err(error) = printed {
                self.status.warn(&format!("warning: cannot print the log: {error}"));
            }
        }
        append(&mut self.stats, line.as_bytes()).context("cannot write stats.jsonl")
    }
}
