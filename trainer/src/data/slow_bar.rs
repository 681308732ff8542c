//! Progress bars of what is slow for large datasets only.

use std::fmt::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

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
    bar: ProgressBar,
    /// Time of the start, until the bar appears. `None` if it never does.
    started: Option<Instant>,
}

impl SlowBar {
    /// Makes a bar; `what` says what is done. It never appears unless it is to be `shown`.
    pub fn new(shown: bool, what: &str, unit: Unit, total: u64) -> Self {
        let style = match unit {
            Unit::Images => "{msg} {wide_bar} {pos} of {len} images, {rate}, {eta} left",
            Unit::Bytes => "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            Unit::Files => "{msg} {pos} files, {rate}",
        };
        let style = ProgressStyle::with_template(style).expect("a valid template");
        let rate = |state: &ProgressState, text: &mut dyn Write| {
            let _ = write!(text, "{:.0}/s", state.per_sec());
        };
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
            .with_style(style.with_key("rate", rate))
            .with_message(what.to_string());
        Self { bar, started: shown.then(Instant::now) }
    }

    /// Shows that `done` of the total are done.
    pub fn advance(&mut self, done: u64) {
        self.bar.set_position(done);
        if self.started.is_some_and(|started| started.elapsed() > DELAY) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.started = None;
        }
    }
}

impl Drop for SlowBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
