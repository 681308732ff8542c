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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::screen::Screen;

    /// Returns the display of a run of a thousand images, which is drawn nowhere.
    fn hidden(verbosity: Verbosity) -> Status {
        let status = Status::new(0, 1_000, verbosity);
        status.bar.set_draw_target(ProgressDrawTarget::hidden());
        status
    }

    /// Takes a step of eight images that ends after `images`, in two seconds, with this loss.
    fn step(status: &mut Status, images: u64, loss: f64) {
        let time = Duration::from_secs(2);
        status.step(images, 8, time, [loss, 2.5, 5e-4], Some(1_540_000_000));
    }

    #[test]
    fn the_line_says_how_far_a_run_is_and_how_it_goes() {
        let mut status = hidden(Verbosity::Quiet);
        assert_eq!(status.rate(), 0.0);
        step(&mut status, 8, 1.0);
        assert_eq!(
            status.bar.message(),
            "8 of 1,000 images  4.0 images/s  loss 1.0000  gradient 2.50  lr 5.00e-4  \
             peak memory 1.5 GB  4m left"
        );
        status.validation_loss = Some(0.25);
        status.step(1_000, 8, Duration::from_secs(2), [1.0, 2.5, 5e-4], None);
        assert_eq!(
            status.bar.message(),
            "1,000 of 1,000 images  4.0 images/s  loss 1.0000 (validation 0.2500)  \
             gradient 2.50  lr 5.00e-4  0s left"
        );
    }

    #[test]
    fn the_loss_is_a_mean_at_first_and_then_a_moving_average() {
        let mut status = hidden(Verbosity::Quiet);
        for (loss, mean) in [(1.0, 1.0), (0.5, 0.75), (0.0, 0.5), (f64::NAN, 0.5)] {
            step(&mut status, 8, loss);
            assert!((status.loss - mean).abs() < 1e-12, "{} is not {mean}", status.loss);
        }
        assert!(status.bar.message().contains("loss 0.5000"), "{}", status.bar.message());
        let mut status = hidden(Verbosity::Quiet);
        for _ in 0..100 {
            step(&mut status, 8, 1.0);
        }
        step(&mut status, 8, 3.0);
        assert!(status.bar.message().contains("loss 1.0400"), "{}", status.bar.message());
    }

    /// The first step includes warm-up, and does not count once there is another.
    #[test]
    fn the_speed_is_that_of_the_steps_after_the_first() {
        let mut status = hidden(Verbosity::Quiet);
        for (seconds, rate, left) in [(80, 0.1, "3h"), (2, 4.0, "4m"), (4, 8.0 / 3.0, "6m")] {
            status.step(8, 8, Duration::from_secs(seconds), [1.0; 3], None);
            assert!((status.rate() - rate).abs() < 1e-9, "{} is not {rate}", status.rate());
            let message = status.bar.message();
            assert!(message.contains(&format!("  {rate:.1} images/s  ")), "{message}");
            assert!(message.ends_with(&format!("  {left} left")), "{message}");
        }
    }

    #[test]
    fn without_a_terminal_there_is_a_line_from_time_to_time() {
        for (verbosity, prints) in [(Verbosity::Full, true), (Verbosity::Quiet, false)] {
            let mut status = hidden(verbosity);
            let before = status.last_line;
            step(&mut status, 8, 1.0);
            assert_eq!(status.last_line, before, "{verbosity:?}: too soon");
            let Some(long_ago) = before.checked_sub(2 * LINE_INTERVAL) else { continue };
            status.last_line = long_ago;
            step(&mut status, 16, 1.0);
            assert_eq!(status.last_line > long_ago, prints, "{verbosity:?}");
        }
    }

    /// A line that does not fit into a row takes several, which are replaced together.
    #[test]
    fn a_terminal_of_any_width_shows_one_status_line() {
        for width in [200, 80, 40, 11] {
            let screen = Screen::new(width);
            let mut status = Status::new(0, 1_000, Verbosity::Full);
            status.bar.set_draw_target(screen.target());
            for images in [8, 16, 24] {
                step(&mut status, images, 1.0);
            }
            status.message("samples: 24.png");
            step(&mut status, 32, 1.0);
            let shown = screen.text();
            assert!(shown.starts_with("samples:24.png"), "{width}: {shown}");
            assert!(shown.ends_with("peakmemory1.5GB4mleft"), "{width}: {shown}");
            let line = "32of1,000images4.0images/sloss1.0000gradient2.50lr5.00e-4";
            assert!(shown.contains(line), "{width}: {shown}");
            assert_eq!(shown.matches("images/s").count(), 1, "{width}: {shown}");
            status.finish();
            assert_eq!(screen.text(), "samples:24.png", "{width}");
        }
    }

    #[test]
    fn a_quiet_run_draws_nothing() {
        assert!(Status::new(0, 1_000, Verbosity::Quiet).bar.is_hidden());
    }
}
