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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::screen::Screen;

    #[test]
    fn a_bar_says_what_is_done_and_disappears() {
        for (unit, counted) in [
            (Unit::Images, "5of10images,"),
            (Unit::Bytes, "5Bof10B,"),
            (Unit::Files, "reading5files,"),
        ] {
            // The narrow terminal has no space for the bar itself.
            for width in [80, 20] {
                let screen = Screen::new(width);
                let mut bar = SlowBar::new(true, "reading", unit, 10);
                bar.bar.set_draw_target(screen.target());
                bar.started = None;
                bar.advance(4);
                bar.advance(5);
                bar.bar.force_draw();
                let shown = screen.text();
                assert!(shown.starts_with("reading") && shown.contains(counted), "{shown}");
                assert_eq!(shown.matches("reading").count(), 1, "{shown}");
                assert!(shown.ends_with("left") || shown.ends_with("/s"), "{shown}");
                drop(bar);
                assert_eq!(screen.text(), "");
            }
        }
    }

    #[test]
    fn a_bar_appears_after_a_while_if_it_is_to_be_shown() {
        let mut bar = SlowBar::new(true, "reading", Unit::Files, 0);
        assert!(bar.bar.is_hidden());
        bar.started = Some(Instant::now());
        bar.advance(1);
        assert!(bar.started.is_some(), "it appears at once");
        let Some(long_ago) = Instant::now().checked_sub(2 * DELAY) else { return };
        bar.started = Some(long_ago);
        bar.advance(2);
        assert!(bar.started.is_none(), "it does not appear");

        let bar = SlowBar::new(false, "reading", Unit::Files, 0);
        assert!(bar.started.is_none(), "it would appear");
    }
}
