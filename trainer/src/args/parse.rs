//! Parsers of values.

use std::time::Duration;

/// Parses a number of images, such as `512`, `3k`, `102.4M` or `8Mi`.
pub(super) fn images(text: &str) -> Result<u64, String> {
    parse_size::parse_size(text)
        .map_err(|error| format!("{error}; expected a number of images such as 3000, 3k or 102.4M"))
}

/// Parses an amount of memory, such as `500MB` or `4GiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    parse_size::parse_size(text)
        .map_err(|error| format!("{error}; expected an amount of memory such as 500MB or 16GB"))
}

/// Parses a duration, such as `90s`, `10m` or `2h`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let seconds = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("unknown unit `{unit}`; expected a time such as 90s, 10m or 2h")),
    };
    let number: f64 = number.parse().map_err(|e| format!("`{number}`: {e}"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|e| e.to_string())
}

/// Parses a number from 0 to 1.
pub(super) fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        Ok(value) => Err(format!("{value} is not within 0 to 1")),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses a finite number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        Ok(value) => Err(format!("{value} is not above 0")),
        Err(error) => Err(error.to_string()),
    }
}

/// Size of the micro-batches of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicroBatch {
    /// The largest that fits into memory.
    Auto,
    /// A number of images.
    Size(u32),
}

/// Parses the size of a micro-batch: `auto`, or a number of images.
pub(super) fn micro_batch(text: &str) -> Result<MicroBatch, String> {
    match (text, text.parse::<u32>()) {
        ("auto", _) => Ok(MicroBatch::Auto),
        (_, Ok(size @ 1..=65_536)) => Ok(MicroBatch::Size(size)),
        _ => Err("expected auto, or a number of images from 1 to 65536".into()),
    }
}

/// A part of the work that several processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Number of the part, from 1.
    pub number: usize,
    /// Number of parts.
    pub count: usize,
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

/// Parses a part of the work, such as `3/8`.
pub(super) fn shard(text: &str) -> Result<Shard, String> {
    let numbers = text.split_once('/').and_then(|(number, count)| {
        Some((number.trim().parse().ok()?, count.trim().parse().ok()?))
    });
    match numbers {
        Some((number, count)) if (1..=count).contains(&number) => Ok(Shard { number, count }),
        _ => {
            Err("expected the number of a part, from 1, and the number of parts, such as 3/8"
                .into())
        }
    }
}

/// Parses a list of seeds such as `0-63,100`, in the order given.
///
/// # Errors
///
/// If a part is neither a number nor a range, or there are too many seeds.
pub fn seeds(text: &str) -> anyhow::Result<Vec<u64>> {
    const MAX_SEEDS: usize = 1_000_000;
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim) {
        let number = |text: &str| {
            text.trim().parse::<u64>().map_err(|_| {
                anyhow::anyhow!(
                    "--seeds {text:?}: `{part}` is neither a seed nor a range such as 0-63"
                )
            })
        };
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        anyhow::ensure!(first <= last, "--seeds: the range `{part}` is reversed");
        anyhow::ensure!(
            last - first < MAX_SEEDS as u64
                && numbers.len() + ((last - first) as usize) < MAX_SEEDS,
            "--seeds: more than {MAX_SEEDS}"
        );
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_as_written() {
        let read = |text| seeds(text).map_err(|e| e.to_string());
        assert_eq!(read("0-3,100, 7"), Ok(vec![0, 1, 2, 3, 100, 7]));
        assert_eq!(read("18446744073709551615"), Ok(vec![u64::MAX]));
        for (text, message) in [
            ("", "`` is neither"),
            ("1,", "`` is neither"),
            ("x", "`x` is neither"),
            ("-3", "`-3` is neither"),
            ("9-1", "is reversed"),
            ("0-1000000", "more than 1000000"),
            ("0-18446744073709551615", "more than 1000000"),
        ] {
            let error = read(text).expect_err(message);
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    #[test]
    fn shards_are_counted_from_one() {
        assert_eq!(shard("3/8"), Ok(Shard { number: 3, count: 8 }));
        assert_eq!(shard("8/8").map(|shard| shard.to_string()), Ok("8/8".into()));
        for text in ["0/8", "9/8", "3", "3/", "/8", "-1/8", "1/0", "a/b"] {
            assert!(shard(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_micro_batch_is_automatic_or_a_number() {
        assert_eq!(micro_batch("auto"), Ok(MicroBatch::Auto));
        assert_eq!(micro_batch("65536"), Ok(MicroBatch::Size(65_536)));
        for text in ["0", "65537", "-1", "Auto", "", "1.5"] {
            assert!(micro_batch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_and_times_take_units() {
        assert_eq!(images("102.4M"), Ok(102_400_000));
        assert_eq!(images("8Mi"), Ok(8 << 20));
        assert!(images("-1").is_err());
        assert_eq!(time("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(time("20"), Ok(Duration::from_secs(20)));
        assert!(time("3 weeks").is_err() && time("-1s").is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(probability("0.25"), Ok(0.25));
        assert_eq!([probability("0"), probability("1")], [Ok(0.0), Ok(1.0)]);
        for text in ["-0.1", "1.1", "NaN", "x"] {
            assert!(probability(text).is_err(), "{text}");
        }
        assert_eq!(positive("1e-4"), Ok(1e-4));
        for text in ["0", "-1", "inf", "NaN", "x"] {
            assert!(positive(text).is_err(), "{text}");
        }
    }
}
