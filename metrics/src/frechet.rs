//! The Fréchet distance of two Gaussians, which is FID for features of Inception.
//!
//! `d² = |μ₁ - μ₂|² + tr Σ₁ + tr Σ₂ - 2 tr (Σ₁ Σ₂)^½` (Heusel et al., arXiv 1706.08500). With
//! `Σ₁ = L₁ L₁ᵀ` and `Σ₂ = L₂ L₂ᵀ`, the eigenvalues of `Σ₁ Σ₂` are those of
//! `(L₂ᵀ L₁)ᵀ (L₂ᵀ L₁)` and zeros, so the last trace is the sum of the singular values of `L₂ᵀ L₁`.
//! Nothing is added to covariances that are singular: their factors have fewer columns.

use crate::MetricsError;
use crate::linear::{Factor, eigenvalues, gram, transposed_product};
use crate::statistics::Gaussian;

/// A Gaussian with the factor of its covariance, for several distances from it.
pub struct Factored {
    gaussian: Gaussian,
    factor: Factor,
}

impl Factored {
    /// Factorises the covariance.
    pub fn new(gaussian: Gaussian) -> Self {
        let factor = Factor::new(&gaussian.covariance, gaussian.dim());
        Self { gaussian, factor }
    }

    /// Returns the squared Fréchet distance from another Gaussian.
    ///
    /// # Errors
    ///
    /// If the dimensions differ.
    pub fn distance(&self, other: &Self) -> Result<f64, MetricsError> {
        let (a, b) = (&self.gaussian, &other.gaussian);
        if a.dim() != b.dim() {
            return Err(MetricsError::Dimensions { found: b.dim(), expected: a.dim() });
        }
        let mean: f64 = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b) * (a - b)).sum();
        Ok(mean + a.trace() + b.trace() - 2.0 * cross_trace(&self.factor, &other.factor)?)
    }
}

/// Returns the squared Fréchet distance of two Gaussians.
///
/// # Errors
///
/// If the dimensions differ.
pub fn distance(a: Gaussian, b: Gaussian) -> Result<f64, MetricsError> {
    Factored::new(a).distance(&Factored::new(b))
}

/// Returns `tr (Σ₁ Σ₂)^½` from the factors of two covariances.
fn cross_trace(a: &Factor, b: &Factor) -> Result<f64, MetricsError> {
    if a.rank == 0 || b.rank == 0 {
        return Ok(0.0);
    }
    let product = transposed_product(&b.values, &a.values, a.rows);
    let (gram, size) = gram(&product, b.rank);
    // Rounding makes eigenvalues that are zero slightly negative.
    Ok(eigenvalues(gram, size)?.iter().map(|value| value.max(0.0).sqrt()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Statistics;
    use crate::testing::{assert_close, features};

    fn gaussian(values: &[f32], dim: usize) -> Gaussian {
        let mut statistics = Statistics::new(dim);
        statistics.add(values);
        statistics.gaussian().expect("enough")
    }

    /// Values computed with NumPy, also for more dimensions than images.
    #[test]
    fn distances_are_those_of_numpy() {
        let (a, b) = (features("a", 40 * 8, 1.0, 0.0), features("b", 50 * 8, 1.5, 0.3));
        let found = distance(gaussian(&a, 8), gaussian(&b, 8)).expect("one dimension");
        assert_close("distance", &[found], &[1.654_372_160_4], 1e-6);
        let (a, b) = (features("a", 6 * 8, 1.0, 0.0), features("b", 5 * 8, 1.0, 0.0));
        let found = distance(gaussian(&a, 8), gaussian(&b, 8)).expect("one dimension");
        assert_close("distance", &[found], &[2.317_228_9], 1e-6);
    }

    #[test]
    fn the_distance_is_zero_from_itself_and_that_of_the_means_from_a_shifted_copy() {
        let dim = 8;
        let (a, shifted) = (features("a", 40 * dim, 1.0, 0.0), features("a", 40 * dim, 1.0, 0.5));
        let zero = distance(gaussian(&a, dim), gaussian(&a, dim)).expect("one dimension");
        assert!(zero.abs() < 1e-9, "{zero}");
        let found = distance(gaussian(&a, dim), gaussian(&shifted, dim)).expect("one dimension");
        assert_close("distance", &[found], &[0.25 * dim as f64], 1e-6);
    }

    #[test]
    fn dimensions_must_agree() {
        let (a, b) = (features("a", 40, 1.0, 0.0), features("b", 40, 1.0, 0.0));
        let error = distance(gaussian(&a, 4), gaussian(&b, 8)).expect_err("4 and 8").to_string();
        assert!(error.contains('4') && error.contains('8'), "{error}");
    }
}
