//! What a run says while it goes: a status line, or plain lines where there is no terminal.

use std::time::{Duration, Instant};

use anstream::eprintln;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Says that something is not as it should be, and that the program goes on.
pub fn warn(text: &str) {
    eprintln!("warning: {text}");
}

/// Between plain lines.
const EVERY: Duration = Duration::from_secs(15);

/// How much a run says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// A status line, and what happens.
    Full,
    /// Only what goes wrong.
    Quiet,
}

/// The status of a run.
pub struct Status {
    verbosity: Verbosity,
    bar: ProgressBar,
    duration: u64,
    /// Seconds per image, smoothed, and over how many steps.
    pace: (f64, u32),
    last_line: Instant,
    /// The loss on held-out pictures, when it was last measured.
    pub validation_loss: Option<f64>,
}

impl Status {
    /// For a run of `duration` images of which `images` are done.
    pub fn new(images: u64, duration: u64, verbosity: Verbosity) -> Self {
        let target = match verbosity {
            Verbosity::Full => ProgressDrawTarget::stderr(),
            Verbosity::Quiet => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(duration), target);
        let style = ProgressStyle::with_template("{bar:20} {msg}").expect("a valid template");
        bar.set_style(style);
        bar.set_position(images);
        Self {
            verbosity,
            bar,
            duration,
            pace: (0.0, 0),
            last_line: Instant::now(),
            validation_loss: None,
        }
    }

    /// Images per second, smoothed.
    pub fn rate(&self) -> f64 {
        if self.pace.1 == 0 { 0.0 } else { 1.0 / self.pace.0 }
    }

    /// After a step of `batch` images that took `time`.
    pub fn step(&mut self, images: u64, batch: usize, time: Duration, loss: f64, lr: f64) {
        // A mean of all steps so far, then one that forgets; the first step, which warms up
        // whatever there is to warm up, is replaced by the second.
        let now = time.as_secs_f64().max(1e-9) / batch as f64;
        let weight = (1.0 / f64::from(self.pace.1.max(1))).max(0.05);
        self.pace = (self.pace.0 + weight * (now - self.pace.0), self.pace.1.saturating_add(1));
        let rate = self.rate();
        let left = self.duration.saturating_sub(images) as f64 / rate;
        let held_out =
            self.validation_loss.map_or(String::new(), |of| format!(" (held out {of:.4})"));
        let message = format!(
            "{} of {} images  {rate:.1} images/s  loss {loss:.4}{held_out}  lr {lr:.2e}  {:#} left",
            HumanCount(images),
            HumanCount(self.duration),
            HumanDuration(Duration::from_secs_f64(left.min(1e9))),
        );
        let plain = self.bar.is_hidden() && self.verbosity == Verbosity::Full;
        if plain && self.last_line.elapsed() >= EVERY {
            self.last_line = Instant::now();
            eprintln!("{message}");
        }
        self.bar.set_position(images);
        self.bar.set_message(message);
    }

    /// Says what happened, above the status line.
    pub fn say(&self, text: &str) {
        if self.verbosity == Verbosity::Full {
            self.warn(text);
        }
    }

    /// Says what went wrong, above the status line.
    pub fn warn(&self, text: &str) {
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    /// Takes the status line away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
