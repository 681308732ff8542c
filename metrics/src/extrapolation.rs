//! FID-infinity: FID extrapolated to infinitely many samples (Chong and Forsyth, arXiv 1911.07023).
//!
//! FID of N samples is biased upwards by about `c / N`, with a `c` that depends on the model. A line
//! in `1 / N` through the distances of growing subsets gives its value at `1 / N = 0`.

use model::noise::{Random, Stream};

use crate::MetricsError;
use crate::frechet::Factored;
use crate::rows::{Rows, Selected};
use crate::statistics::{Gaussian, Statistics};

/// Number of subsets.
const SUBSETS: usize = 15;

/// Smallest number of samples: two in the smallest subset, of a tenth of them.
const MIN_SAMPLES: usize = 20;

/// Returns the Fréchet distance extrapolated to infinitely many samples. The subsets, from a tenth
/// of the samples to all of them, are the beginnings of one random order.
///
/// # Errors
///
/// If there are fewer than 20 samples, dimensions differ, or features cannot be read.
pub fn distance_at_infinity(samples: &dyn Rows, reference: Gaussian) -> Result<f64, MetricsError> {
    let n = samples.len();
    if n < MIN_SAMPLES {
        return Err(MetricsError::TooFew { metric: "FID-infinity", needed: MIN_SAMPLES, found: n });
    }
    let order: Vec<usize> = Random::new(0, Stream::Subset, 0)
        .permutation(n)
        .into_iter()
        .map(|number| number as usize)
        .collect();
    let reference = Factored::new(reference);
    let mut statistics = Statistics::new(samples.dim());
    let (mut points, mut done) = (Vec::with_capacity(SUBSETS), 0);
    for subset in 0..SUBSETS {
        let size = n / 10 + (n - n / 10) * subset / (SUBSETS - 1);
        // In the order of the file, which is read faster.
        let mut numbers = order[done..size].to_vec();
        numbers.sort_unstable();
        statistics.merge(&Statistics::of(&Selected { rows: samples, numbers: &numbers })?)?;
        done = size;
        let distance = reference.distance(&Factored::new(statistics.gaussian()?))?;
        points.push((1.0 / size as f64, distance));
    }
    Ok(intercept(&points))
}

/// Returns the value at 0 of the line of least squares through points.
fn intercept(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let covariance: f64 = points.iter().map(|(a, b)| (a - x) * (b - y)).sum();
    let variance: f64 = points.iter().map(|(a, _)| (a - x) * (a - x)).sum();
    if variance > 0.0 { y - covariance / variance * x } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frechet::distance;
    use crate::rows::Memory;
    use crate::testing::{assert_close, features};

    #[test]
    fn a_line_is_extrapolated_exactly() {
        let points: Vec<(f64, f64)> =
            [0.1, 0.25, 0.5, 1.0].into_iter().map(|x| (x, 3.0 + 7.0 * x)).collect();
        assert_close("intercept", &[intercept(&points)], &[3.0], 1e-12);
    }

    /// Samples of the distribution of the reference: the bias is most of their distance.
    #[test]
    fn most_of_the_bias_is_removed() {
        let dim = 16;
        let of = |name: &str, n: usize| Memory::new(features(name, n * dim, 1.0, 0.0), dim);
        let gaussian = |rows: &dyn Rows| Statistics::of(rows).and_then(|s| s.gaussian());
        let reference = gaussian(&of("reference", 20_000)).expect("enough");
        let samples = of("samples", 600);
        let plain = distance(gaussian(&samples).expect("enough"), reference.clone()).expect("fits");
        let found = distance_at_infinity(&samples, reference).expect("enough");
        assert!(found.abs() < plain / 3.0, "{found} at infinity, {plain} of 600");
    }

    #[test]
    fn few_samples_are_an_error() {
        let few = Memory::new(features("few", 19 * 2, 1.0, 0.0), 2);
        let reference = Statistics::of(&few).and_then(|s| s.gaussian()).expect("enough");
        let error = distance_at_infinity(&few, reference).expect_err("too few").to_string();
        assert!(error.contains("at least 20 images, but there are 19"), "{error}");
    }
}
