//! Progress of sampling: a bar on a terminal, plain lines elsewhere.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use crate::run::report::print_message;

/// Time between plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// Progress display of several threads that generate pictures.
pub struct Meter {
    bar: ProgressBar,
    started: Instant,
    last_line: Mutex<Instant>,
    /// Number of pictures that are done.
    done: AtomicU64,
    /// Number of pictures that this process generates.
    total: u64,
    /// Number of evaluations of the model for a picture.
    evaluations: u64,
}

impl Meter {
    /// Starts the display for `total` pictures, each of which takes `evaluations`.
    pub fn new(total: usize, evaluations: usize) -> Self {
        let bar = ProgressBar::new((total * evaluations) as u64);
        let style = ProgressStyle::with_template("{bar:20} {msg}").expect("a valid template");
        bar.set_style(style);
        let now = Instant::now();
        Self {
            bar,
            started: now,
            last_line: Mutex::new(now),
            done: AtomicU64::new(0),
            total: total as u64,
            evaluations: evaluations.max(1) as u64,
        }
    }

    /// Reports an evaluation of a batch of pictures.
    pub fn evaluated(&self, pictures: usize) {
        self.bar.inc(pictures as u64);
        let evaluated = self.bar.position() as f64 / self.evaluations as f64;
        let rate = evaluated / self.started.elapsed().as_secs_f64().max(1e-9);
        let left = (self.total as f64 - evaluated).max(0.0) / rate.max(1e-9);
        let message = format!(
            "{} of {} images  {}  {:#} left",
            HumanCount(self.done.load(Ordering::Relaxed)),
            HumanCount(self.total),
            speed(rate),
            HumanDuration(Duration::from_secs_f64(left.min(1e9))),
        );
        if self.bar.is_hidden()
            && let Ok(mut last) = self.last_line.lock()
            && last.elapsed() >= LINE_INTERVAL
        {
            *last = Instant::now();
            print_message!("{message}");
        }
        self.bar.set_message(message);
    }

    /// Reports pictures that are done.
    pub fn finished(&self, pictures: usize) {
        self.done.fetch_add(pictures as u64, Ordering::Relaxed);
    }

    /// Returns the number of pictures that are done, and their rate as text.
    pub fn result(&self) -> (u64, String) {
        let done = self.done.load(Ordering::Relaxed);
        (done, speed(done as f64 / self.started.elapsed().as_secs_f64().max(1e-9)))
    }

    /// Removes the progress bar.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Returns a rate as text, in images per second, minute or hour, whichever reads best.
fn speed(per_second: f64) -> String {
    let (rate, unit) = match per_second {
        1.0.. => (per_second, "s"),
        0.02.. => (60.0 * per_second, "min"),
        _ => (3600.0 * per_second, "h"),
    };
    format!("{rate:.1} images/{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_fitting_unit() {
        for (rate, text) in [
            (123.45, "123.5 images/s"),
            (0.5, "30.0 images/min"),
            (0.001, "3.6 images/h"),
            (0.0, "0.0 images/h"),
        ] {
            assert_eq!(speed(rate), text);
        }
    }
}
