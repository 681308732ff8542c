//! Ranges of numbers, and the parser that clamps to them.

use std::ops::RangeInclusive;
use std::str::FromStr;

/// Sampling steps. 250 is what the paper uses for latent models; the command line accepts more.
pub const STEPS: RangeInclusive<usize> = 1..=250;
/// Exponent of EDM's schedule.
pub const RHO: RangeInclusive<f64> = 1.0..=20.0;
/// Lowest noise level above zero.
pub const SIGMA_MIN: RangeInclusive<f64> = 0.0001..=1.0;
/// Highest noise level.
pub const SIGMA_MAX: RangeInclusive<f64> = 2.0..=1000.0;
/// Total churn.
pub const CHURN: RangeInclusive<f64> = 0.0..=200.0;
/// Standard deviation of the churn noise.
pub const NOISE: RangeInclusive<f64> = 0.5..=1.5;
/// Noise level that bounds an interval; `f64::MAX` means no upper bound.
pub const LEVEL: RangeInclusive<f64> = 0.0..=f64::MAX;
/// DDIM's eta.
pub const ETA: RangeInclusive<f64> = 0.0..=1.0;
/// Guidance scale.
pub const GUIDANCE: RangeInclusive<f64> = 0.0..=100.0;
/// Power of the guidance schedule; 0 means a constant scale.
pub const GUIDANCE_POWER: RangeInclusive<f64> = 0.0..=100.0;
/// Class numbers. The model's own count is checked once the model is known.
pub const CLASS: RangeInclusive<usize> = 0..=99_999;
/// Noise level added to a picture that sampling starts from.
pub const SIGMA: RangeInclusive<f64> = 0.1..=80.0;
/// Block and head numbers. The model's own counts are checked once the model is known.
pub const PART: RangeInclusive<usize> = 0..=255;

/// Parses a number and clamps it to a range. Returns `None` for NaN and for text that is not a
/// number.
pub fn number<T: FromStr + PartialOrd + Copy>(text: &str, range: RangeInclusive<T>) -> Option<T> {
    let number: T = text.trim().parse().ok()?;
    // NaN differs from itself.
    #[expect(clippy::eq_op)]
    let is_number = number == number;
    let (low, high) = range.into_inner();
    is_number.then(|| {
        if number < low {
            low
        } else if number > high {
            high
        } else {
            number
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_clamped_and_everything_else_is_refused() {
        assert_eq!(["0", "7", "99999"].map(|text| number(text, STEPS)), [1, 7, 250].map(Some));
        assert_eq!(["-3", "1e3", "", "x"].map(|text| number(text, STEPS)), [None; 4]);
        assert_eq!(
            ["inf", " 0.5 ", "NaN"].map(|text| number(text, ETA)),
            [Some(1.0), Some(0.5), None]
        );
    }
}
