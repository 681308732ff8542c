//! Sums over features, and the mean and covariance that follow from them.

use serde::{Deserialize, Serialize};

use crate::MetricsError;
use crate::linear::transposed_product;
use crate::rows::{BLOCK, Rows, blocks};

/// Sums over the features of a set of images, in `f64`. Sums of parts of a set can be merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Dimension of the features.
    pub dim: usize,
    /// Number of images.
    pub count: u64,
    /// Sum of the features, `[dim]`.
    pub sum: Vec<f64>,
    /// Sum of the outer products of each feature with itself, `[dim, dim]`.
    pub outer: Vec<f64>,
}

impl Statistics {
    /// Creates the sums of no images.
    pub fn new(dim: usize) -> Self {
        Self { dim, count: 0, sum: vec![0.0; dim], outer: vec![0.0; dim * dim] }
    }

    /// Sums over a set of features, block by block.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn of(rows: &dyn Rows) -> Result<Self, MetricsError> {
        let mut statistics = Self::new(rows.dim());
        for block in blocks(rows.len(), BLOCK) {
            statistics.add(&rows.read(block)?);
        }
        Ok(statistics)
    }

    /// Adds features, `[N, dim]`.
    ///
    /// # Panics
    ///
    /// If they are no whole rows.
    pub fn add(&mut self, features: &[f32]) {
        assert!(self.dim > 0 && features.len().is_multiple_of(self.dim), "whole rows");
        let rows = features.len() / self.dim;
        if rows == 0 {
            return;
        }
        let features: Vec<f64> = features.iter().copied().map(f64::from).collect();
        for row in features.chunks_exact(self.dim) {
            add(&mut self.sum, row);
        }
        add(&mut self.outer, &transposed_product(&features, &features, rows));
        self.count += rows as u64;
    }

    /// Adds the sums over other images.
    ///
    /// # Errors
    ///
    /// If the features have another dimension.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        if self.dim != other.dim {
            return Err(MetricsError::Dimensions { found: other.dim, expected: self.dim });
        }
        add(&mut self.sum, &other.sum);
        add(&mut self.outer, &other.outer);
        self.count += other.count;
        Ok(())
    }

    /// Returns the mean `μ = Σ f / n` and the unbiased covariance
    /// `Σ = (Σ f fᵀ - n μ μᵀ) / (n - 1)`.
    ///
    /// # Errors
    ///
    /// If there are fewer than two images, or values that are not finite.
    pub fn gaussian(&self) -> Result<Gaussian, MetricsError> {
        if self.count < 2 {
            let found = self.count as usize;
            return Err(MetricsError::TooFew { metric: "a covariance", needed: 2, found });
        }
        let n = self.count as f64;
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / n).collect();
        let dim = self.dim;
        let covariance = (0..dim * dim)
            .map(|at| (self.outer[at] - n * (mean[at / dim] * mean[at % dim])) / (n - 1.0))
            .collect();
        Gaussian::new(mean, covariance)
    }
}

/// Adds values element by element.
fn add(sum: &mut [f64], values: &[f64]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Mean and covariance of features.
#[derive(Clone, Debug, PartialEq)]
pub struct Gaussian {
    /// Mean, `[dim]`.
    pub mean: Vec<f64>,
    /// Covariance, `[dim, dim]`.
    pub covariance: Vec<f64>,
}

impl Gaussian {
    /// Creates a Gaussian and checks its values.
    ///
    /// # Errors
    ///
    /// If sizes do not fit or values are not finite.
    pub fn new(mean: Vec<f64>, covariance: Vec<f64>) -> Result<Self, MetricsError> {
        let dim = mean.len();
        if covariance.len() != dim * dim {
            return Err(MetricsError::Dimensions { found: covariance.len(), expected: dim * dim });
        }
        if !mean.iter().chain(&covariance).all(|value| value.is_finite()) {
            return Err(MetricsError::NotFinite("mean and covariance of the features".into()));
        }
        Ok(Self { mean, covariance })
    }

    /// Returns the dimension of the features.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Returns the trace of the covariance.
    pub fn trace(&self) -> f64 {
        self.covariance.iter().step_by(self.dim() + 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Memory;
    use crate::testing::{assert_close, features};

    /// The definition, in two passes.
    fn direct(features: &[f32], dim: usize) -> (Vec<f64>, Vec<f64>) {
        let n = (features.len() / dim) as f64;
        let rows = || features.chunks_exact(dim);
        let mean: Vec<f64> =
            (0..dim).map(|i| rows().map(|row| f64::from(row[i])).sum::<f64>() / n).collect();
        let covariance = (0..dim * dim)
            .map(|at| {
                let (i, j) = (at / dim, at % dim);
                let product =
                    |row: &[f32]| (f64::from(row[i]) - mean[i]) * (f64::from(row[j]) - mean[j]);
                rows().map(product).sum::<f64>() / (n - 1.0)
            })
            .collect();
        (mean, covariance)
    }

    #[test]
    fn mean_and_covariance_are_those_of_the_definition() {
        let (dim, rows) = (5, 1300);
        let values = features("statistics", dim * rows, 2.0, 0.7);
        let (mean, covariance) = direct(&values, dim);
        let found = Statistics::of(&Memory::new(values, dim)).expect("in memory");
        assert_eq!(found.count, 1300);
        let found = found.gaussian().expect("enough");
        assert_close("mean", &found.mean, &mean, 1e-12);
        assert_close("covariance", &found.covariance, &covariance, 1e-12);
    }

    #[test]
    fn parts_add_up_to_the_whole_and_survive_a_file() {
        let dim = 3;
        let values = features("parts", dim * 50, 1.0, 0.0);
        let of = |values: &[f32]| {
            let mut statistics = Statistics::new(dim);
            statistics.add(values);
            statistics
        };
        let whole = of(&values);
        let text = serde_json::to_string(&of(&values[..dim * 20])).expect("plain data");
        let mut merged: Statistics = serde_json::from_str(&text).expect("as written");
        assert_eq!(merged, of(&values[..dim * 20]));
        merged.merge(&of(&values[dim * 20..])).expect("one dimension");
        assert_eq!(merged.count, 50);
        assert_close("sum", &merged.sum, &whole.sum, 1e-14);
        assert_close("outer products", &merged.outer, &whole.outer, 1e-14);
        assert!(merged.merge(&Statistics::new(4)).is_err());
    }

    #[test]
    fn too_few_images_and_values_that_are_not_finite_are_errors() {
        let mut statistics = Statistics::new(2);
        statistics.add(&[1.0, 2.0]);
        let error = statistics.gaussian().expect_err("one image").to_string();
        assert!(error.contains("at least 2 images, but there are 1"), "{error}");
        statistics.add(&[f32::NAN, 2.0]);
        assert!(statistics.gaussian().expect_err("not finite").to_string().contains("not finite"));
    }
}
