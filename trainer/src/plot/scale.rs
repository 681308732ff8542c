//! Axes of charts: ranges, ticks and their labels.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// A linear or logarithmic axis with its ticks.
#[derive(Clone, Debug)]
pub struct Scale {
    log: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Scale {
    /// Makes the axis of some values, with about `count` ticks. Values that are not finite, and on a
    /// logarithmic axis those that are not above 0, are ignored. `padded` leaves a margin around the
    /// values of a linear axis.
    pub fn new(
        values: impl Iterator<Item = f64>,
        log: bool,
        padded: bool,
        count: usize,
    ) -> Option<Self> {
        let (mut low, mut high) = values
            .filter(|value| is_drawable(*value, log))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if low > high {
            return None;
        }
        if log {
            // A tenth of a decade at least, so that equal values are in the middle.
            let margin = if high / low < 1.26 { 1.12 } else { 1.0 };
            let padding = if padded { (high / low).powf(0.04) } else { 1.0 };
            (low, high) = (low / margin / padding, high * margin * padding);
        } else {
            let span = high - low;
            let margin = match span {
                0.0 if low == 0.0 => 1.0,
                0.0 => 0.1 * low.abs(),
                _ if padded => 0.05 * span,
                _ => 0.0,
            };
            // The margin does not lead from positive values to negative ones.
            let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
            (low, high) = ((low - margin).max(floor), high + margin);
        }
        let ticks = match log {
            true => log_ticks(low, high, count),
            false => linear_ticks(low, high, count),
        };
        Some(Self { log, low, high, ticks })
    }

    /// Returns the position of a value, 0 at the low end and 1 at the high end.
    pub fn position(&self, value: f64) -> f64 {
        let at = |value: f64| if self.log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        ((at(value) - at(self.low)) / (at(self.high) - at(self.low))).clamp(0.0, 1.0)
    }
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        start + (self.position(*value) * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // There is no second, lighter grid.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

/// Returns whether an axis can show a value.
pub fn is_drawable(value: f64, log: bool) -> bool {
    value.is_finite() && (!log || value > 0.0)
}

/// Returns about `count` ticks at multiples of 1, 2 or 5 times a power of ten.
fn linear_ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let raw = (high - low) / count.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = step.into_iter().find(|step| *step >= 0.999 * raw).unwrap_or(10.0 * power);
    let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
    if !(first.is_finite() && last - first < 1000.0) {
        return Vec::new();
    }
    // Adding 0 turns -0 into 0.
    (0..=(last - first) as usize).map(|i| (first + i as f64) * step + 0.0).collect()
}

/// Returns about `count` ticks of a logarithmic axis: powers of ten, or multiples of them by 2 and 5,
/// or, within less than a factor of about 5, evenly spaced values.
fn log_ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let within = |factors: &[f64], stride: usize| -> Vec<f64> {
        let decades = (first..=last).step_by(stride);
        let all = decades.flat_map(|power| factors.iter().map(move |f| f * 10f64.powi(power)));
        all.filter(|tick| (low * 0.9999..=high * 1.0001).contains(tick)).collect()
    };
    let decades = within(&[1.0], 1);
    if decades.len() > 3 {
        let stride = decades.len().div_ceil(count.max(1));
        return within(&[1.0], stride);
    }
    let finer = within(&[1.0, 2.0, 5.0], 1);
    if finer.len() < 3 { linear_ticks(low, high, count) } else { finer }
}

/// Returns the text of a tick, such as `250`, `0.05`, `12.5 k`, `3 M` or `2e-4`.
pub fn tick_label(value: f64) -> String {
    let size = value.abs();
    let (divisor, suffix) = match size {
        1e9.. => (1e9, " G"),
        1e6.. => (1e6, " M"),
        1e3.. => (1e3, " k"),
        _ => (1.0, ""),
    };
    if size > 0.0 && size < 1e-3 {
        let text = format!("{value:.3e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{exponent}", trimmed(digits));
    }
    format!("{}{suffix}", trimmed(&format!("{:.4}", value / divisor)))
}

/// Returns a decimal number without zeros at its end.
fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticks(values: &[f64], log: bool) -> Vec<String> {
        let scale = Scale::new(values.iter().copied(), log, false, 6).expect("values");
        scale.ticks.into_iter().map(tick_label).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(ticks(&[0.0, 1.0], false), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(ticks(&[-0.3, 0.3], false), ["-0.3", "-0.2", "-0.1", "0", "0.1", "0.2", "0.3"]);
        assert_eq!(ticks(&[0.0, 3e3], false), ["0", "500", "1 k", "1.5 k", "2 k", "2.5 k", "3 k"]);
        assert_eq!(
            ticks(&[0.0, 2e8], false),
            ["0", "50 M", "100 M", "150 M", "200 M"],
            "steps of 20 M would be more than six"
        );
        assert_eq!(ticks(&[1e-3, 1e3], true).len(), 4);
        assert_eq!(ticks(&[0.1, 2.0], true), ["0.1", "0.2", "0.5", "1", "2"]);
        assert_eq!(ticks(&[0.2, 0.4], true), ["0.2", "0.25", "0.3", "0.35", "0.4"]);
        assert_eq!(ticks(&[1e-4, 2e-4], false)[..2], ["1e-4", "1.2e-4"]);
    }

    #[test]
    fn values_that_cannot_be_drawn_have_no_axis() {
        assert!(Scale::new([f64::NAN, f64::INFINITY].into_iter(), false, true, 5).is_none());
        assert!(Scale::new([0.0, -1.0].into_iter(), true, true, 5).is_none());
        assert!(Scale::new(std::iter::empty(), false, true, 5).is_none());
    }

    proptest! {
        /// Every value is within its axis, and ticks are in order, within it and not too many.
        #[test]
        fn an_axis_contains_its_values(
            values in proptest::collection::vec(-1e12..1e12f64, 1..20), log: bool, padded: bool,
        ) {
            let scale = Scale::new(values.iter().copied(), log, padded, 6);
            prop_assert_eq!(scale.is_some(), values.iter().any(|v| is_drawable(*v, log)));
            let Some(scale) = scale else { return Ok(()) };
            for value in values.iter().filter(|v| is_drawable(**v, log)) {
                prop_assert!((0.0..=1.0).contains(&scale.position(*value)));
                prop_assert!(scale.low <= *value && *value <= scale.high);
            }
            prop_assert!(scale.ticks.is_sorted() && scale.ticks.len() <= 14, "{:?}", scale);
            let slack = |end: f64| 1e-3 * end.abs() + 1e-6 * (scale.high - scale.low);
            for tick in &scale.ticks {
                prop_assert!(*tick >= scale.low - slack(scale.low), "{:?}", scale);
                prop_assert!(*tick <= scale.high + slack(scale.high), "{:?}", scale);
            }
        }
    }
}
