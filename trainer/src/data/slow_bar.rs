//! Progress bars of what is slow for large datasets only.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time after which a bar appears.
const DELAY: Duration = Duration::from_secs(1);

/// What a bar counts.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Images of a known number.
    Images,
    /// Bytes of a known number.
    Bytes,
    /// Files of an unknown number.
    Files,
}

/// A progress bar that appears on a terminal after a while, and disappears when it is dropped.
pub struct SlowBar {
    what: String,
    unit: Unit,
    total: u64,
    shown: bool,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl SlowBar {
    /// Makes a bar; `what` says what is done. It never appears unless it is to be `shown`.
    pub fn new(shown: bool, what: &str, unit: Unit, total: u64) -> Self {
        let what = what.to_string();
        Self { what, unit, total, shown, started: Instant::now(), bar: None }
    }

    /// Shows that `done` of the total are done.
    pub fn advance(&mut self, done: u64) {
        if self.shown && self.bar.is_none() && self.started.elapsed() > DELAY {
            let style = match self.unit {
                Unit::Images => "{msg} {wide_bar} {pos} of {len} images, {per_sec}, {eta} left",
                Unit::Bytes => {
                    "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"
                }
                Unit::Files => "{msg} {pos} files, {per_sec}",
            };
            let bar = ProgressBar::new(self.total)
                .with_style(ProgressStyle::with_template(style).expect("a valid template"))
                .with_message(self.what.clone())
                .with_elapsed(self.started.elapsed());
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for SlowBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
