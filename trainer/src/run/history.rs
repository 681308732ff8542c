//! The log of a run, read back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::Context;
use serde_json::Value;

use super::folder::RunFolder;

/// Fields of a line that are not values to plot over images.
const OTHER_FIELDS: [&str; 5] =
    ["images", "seconds", "skipped_steps", "peak_memory", "metric_samples"];

/// The log of a run, its `stats.jsonl`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Values by name, such as `loss` and `validation_loss`: pairs of images seen and value, in the
    /// order of the log. A value that is not finite is NaN.
    values: BTreeMap<String, Vec<(f64, f64)>>,
    /// Training time in seconds.
    pub seconds: f64,
    /// Number of skipped steps.
    pub skipped_steps: u64,
    /// Highest memory of a process, in bytes.
    pub peak_memory: u64,
    /// Number of lines that could not be read.
    pub damaged_lines: usize,
}

impl History {
    /// Reads the log of a run. A run that has not logged anything has an empty one.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(folder: &RunFolder) -> anyhow::Result<Self> {
        let path = folder.path().join("stats.jsonl");
        let mut history = Self::default();
        if !path.exists() {
            return Ok(history);
        }
        let context = || format!("cannot read {}", path.display());
        let mut reader = BufReader::new(File::open(&path).with_context(context)?);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).with_context(context)? > 0 {
            history.add(&line);
            line.clear();
        }
        Ok(history)
    }

    fn add(&mut self, line: &[u8]) {
        let parsed = serde_json::from_slice::<Value>(line).ok();
        let fields = parsed.as_ref().and_then(Value::as_object);
        let images = fields.and_then(|fields| fields.get("images")?.as_f64());
        let (Some(fields), Some(images)) = (fields, images) else {
            self.damaged_lines += usize::from(!line.trim_ascii().is_empty());
            return;
        };
        let number = |name: &str| fields.get(name).and_then(Value::as_f64).unwrap_or_default();
        self.seconds = self.seconds.max(number("seconds"));
        self.skipped_steps = self.skipped_steps.max(number("skipped_steps") as u64);
        self.peak_memory = self.peak_memory.max(number("peak_memory") as u64);
        for (name, value) in fields {
            // JSON has no NaN: a value that is not finite is written as null.
            let value = match value {
                Value::Null => f64::NAN,
                value => match value.as_f64() {
                    Some(value) => value,
                    None => continue,
                },
            };
            if !OTHER_FIELDS.contains(&name.as_str()) {
                self.values.entry(name.clone()).or_default().push((images, value));
            }
        }
    }

    /// Returns a value over images seen; empty if the log does not have it.
    pub fn get(&self, name: &str) -> &[(f64, f64)] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the last value.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.get(name).last().map(|(_, value)| *value)
    }

    /// Returns the names of all values except the given ones.
    pub fn names_except<'a>(&'a self, known: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.values.keys().map(String::as_str).filter(|name| !known.contains(name))
    }

    /// Returns the number of images seen at the last line.
    pub fn images(&self) -> f64 {
        let last = |values: &Vec<(f64, f64)>| values.last().map_or(0.0, |(images, _)| *images);
        self.values.values().map(last).fold(0.0, f64::max)
    }
}

/// Returns an exponential moving average over about a twentieth of the values, without the bias of its
/// start. Values that are not finite are left out.
pub fn smoothed(values: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let decay = 1.0 - 1.0 / (values.len() as f64 / 20.0).max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let finite = values.iter().filter(|(_, value)| value.is_finite());
    finite
        .map(|&(images, value)| {
            sum = decay * sum + (1.0 - decay) * value;
            weight = decay * weight + (1.0 - decay);
            (images, sum / weight)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(log: &str) -> History {
        let out = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::create(out.path(), "x").expect("made");
        std::fs::write(folder.path().join("stats.jsonl"), log).expect("written");
        History::read(&folder).expect("readable")
    }

    #[test]
    fn values_are_read_by_name() {
        let history = history(concat!(
            "{\"images\":10,\"loss\":0.5,\"lr\":1e-3,\"seconds\":2.5,\"skipped_steps\":1,\"peak_memory\":9}\n",
            "{\"images\":10,\"validation_loss\":0.75,\"seconds\":3.0}\n\n",
            "{\"images\":20,\"loss\":null,\"fid\":12.5,\"note\":\"x\",\"seconds\":4.0}\n",
            "[1]\n{\"loss\":3}\n{\"images\":30,\"lo",
        ));
        assert_eq!(history.get("validation_loss"), [(10.0, 0.75)]);
        assert_eq!(history.get("loss")[0], (10.0, 0.5));
        assert!(history.get("loss")[1].1.is_nan() && history.get("nothing").is_empty());
        assert_eq!((history.seconds, history.skipped_steps, history.peak_memory), (4.0, 1, 9));
        assert_eq!((history.damaged_lines, history.images()), (3, 20.0));
        assert_eq!(history.last("lr"), Some(1e-3));
        let known = ["loss", "validation_loss", "lr"];
        assert_eq!(history.names_except(&known).collect::<Vec<_>>(), ["fid"]);
    }

    #[test]
    fn a_run_without_a_log_has_no_history() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::create(out.path(), "x").expect("made");
        assert_eq!(History::read(&folder).expect("empty"), History::default());
    }

    #[test]
    fn smoothing_keeps_the_mean_and_removes_noise() {
        let noisy: Vec<_> = (0..1000).map(|i| (i as f64, 2.0 + f64::from(i % 2))).collect();
        let smooth = smoothed(&noisy);
        assert_eq!((smooth.len(), smooth[0]), (1000, (0.0, 2.0)));
        assert!(smooth[300..].iter().all(|(_, value)| (value - 2.5).abs() < 0.05));
        // Few values are kept as they are.
        assert_eq!(smoothed(&noisy[..10]), noisy[..10]);
        assert_eq!(smoothed(&[(0.0, f64::NAN), (1.0, 3.0)]), [(1.0, 3.0)]);
    }
}
