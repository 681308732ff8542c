//! Messages of a run: a progress bar on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints a line to standard error. Unlike `eprintln!`, it does not panic if the line cannot be
/// written, as in a file on a full disk.
macro_rules! print_message {
    ($($arg:tt)*) => {{
        let text = format!("{}\n", format_args!($($arg)*));
        let _ = std::io::Write::write_all(&mut anstream::stderr(), text.as_bytes());
    }};
}
pub(crate) use print_message;

/// Prints a warning.
pub fn warn(text: &str) {
    print_message!("warning: {text}");
}

/// Time between plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// Amount of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Progress and messages.
    Full,
    /// Warnings only.
    Quiet,
}

/// Progress display of a run.
pub struct Status {
    verbosity: Verbosity,
    bar: ProgressBar,
    duration: u64,
    /// Smoothed seconds per image.
    seconds_per_image: f64,
    /// Smoothed loss.
    loss: f64,
    /// Number of steps that went into them.
    steps: u32,
    last_line: Instant,
    /// Latest validation loss.
    pub validation_loss: Option<f64>,
}

impl Status {
    /// Starts the display of a run of `duration` images, of which `images` are done.
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
            seconds_per_image: 0.0,
            loss: 0.0,
            steps: 0,
            last_line: Instant::now(),
            validation_loss: None,
        }
    }

    /// Returns the smoothed number of images per second.
    pub fn rate(&self) -> f64 {
        if self.steps == 0 { 0.0 } else { 1.0 / self.seconds_per_image }
    }

    /// Updates the display after a step of `batch` images that took `time`, with its loss, gradient
    /// norm and learning rate. `memory` is the peak memory of the process in bytes, if it is known.
    pub fn step(
        &mut self,
        images: u64,
        batch: usize,
        time: Duration,
        [loss, norm, lr]: [f64; 3],
        memory: Option<u64>,
    ) {
        // The mean of all steps, then an exponential moving average. The second step replaces the
        // first, which includes warm-up.
        let now = time.as_secs_f64().max(1e-9) / batch as f64;
        let weight = (1.0 / f64::from(self.steps.max(1))).max(0.05);
        self.seconds_per_image += weight * (now - self.seconds_per_image);
        // The loss of a step depends on its noise levels, more than on the time of the run.
        if loss.is_finite() {
            self.loss += (1.0 / (f64::from(self.steps) + 1.0)).max(0.02) * (loss - self.loss);
        }
        let loss = self.loss;
        self.steps = self.steps.saturating_add(1);
        let rate = self.rate();
        let left = self.duration.saturating_sub(images) as f64 / rate;
        let validation =
            self.validation_loss.map_or(String::new(), |loss| format!(" (validation {loss:.4})"));
        let memory = memory
            .map_or(String::new(), |bytes| format!("  peak memory {:.1} GB", bytes as f64 / 1e9));
        let message = format!(
            "{} of {} images  {rate:.1} images/s  loss {loss:.4}{validation}  gradient \
             {norm:.2}  lr {lr:.2e}{memory}  {:#} left",
            HumanCount(images),
            HumanCount(self.duration),
            HumanDuration(Duration::from_secs_f64(left.min(1e9))),
        );
        let plain = self.bar.is_hidden() && self.verbosity == Verbosity::Full;
        if plain && self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            print_message!("{message}");
        }
        self.bar.set_position(images);
        self.bar.set_message(message);
    }

    /// Shows what is being done between steps.
    #[cfg(feature = "metrics")]
    pub fn activity(&self, text: &str) {
        self.bar.set_message(text.to_string());
    }

    /// Prints a message above the progress bar.
    pub fn message(&self, text: &str) {
        if self.verbosity == Verbosity::Full {
            self.warn(text);
        }
    }

    /// Prints a warning above the progress bar.
    pub fn warn(&self, text: &str) {
        if self.bar.is_hidden() {
            print_message!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    /// Removes the progress bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
