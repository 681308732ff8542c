//! KID, the kernel distance (Bińkowski et al., arXiv 1801.01401).
//!
//! The unbiased estimate of the squared maximum mean discrepancy with the kernel
//! `k(x, y) = (x·y / d + 1)³` of features of d values, as mean and deviation over random subsets.
//! Unlike FID, it has no bias that depends on the number of samples.

use burn::tensor::{DType, Device, Tensor, TensorData};
use model::noise::{Random, Stream};

use crate::MetricsError;
use crate::rows::{Rows, Selected};

/// Number of subsets of the usual definition.
pub const SUBSETS: usize = 100;

/// Number of images of a subset of the usual definition.
pub const SUBSET: usize = 1_000;

/// A kernel distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelDistance {
    /// Mean over the subsets.
    pub mean: f64,
    /// Standard deviation over the subsets.
    pub deviation: f64,
    /// Number of subsets; 1 if each is the whole set.
    pub subsets: usize,
    /// Number of images of each subset.
    pub size: usize,
}

/// Computes the kernel distance of two sets, over `subsets` random subsets of `size` images of each,
/// or fewer if a set is smaller.
///
/// # Errors
///
/// If a set has fewer than two images, dimensions differ, or features cannot be read.
pub fn kernel_distance(
    samples: &dyn Rows,
    reference: &dyn Rows,
    subsets: usize,
    size: usize,
) -> Result<KernelDistance, MetricsError> {
    if samples.dim() != reference.dim() {
        let (found, expected) = (samples.dim(), reference.dim());
        return Err(MetricsError::Dimensions { found, expected });
    }
    let size = size.min(samples.len()).min(reference.len());
    if size < 2 {
        return Err(MetricsError::TooFew { metric: "KID", needed: 2, found: size });
    }
    let all = size == samples.len() && size == reference.len();
    let subsets = if all { 1 } else { subsets.max(1) };
    let mut values = Vec::with_capacity(subsets);
    for subset in 0..subsets {
        let mut random = Random::new(1, Stream::Subset, subset as u64);
        let mut choose = |set: &dyn Rows| {
            let order = random.permutation(set.len());
            let mut numbers: Vec<usize> = order[..size].iter().map(|n| *n as usize).collect();
            // In the order of the file, which is read faster.
            numbers.sort_unstable();
            Selected { rows: set, numbers: &numbers }.read(0..size)
        };
        let (x, y) = (choose(samples)?, choose(reference)?);
        values.push(discrepancy(&x, &y, samples.dim()));
    }
    if !values.iter().all(|value| value.is_finite()) {
        return Err(MetricsError::NotFinite("features".into()));
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / n;
    Ok(KernelDistance { mean, deviation: variance.sqrt(), subsets, size })
}

/// Returns the unbiased estimate of the squared maximum mean discrepancy of two sets of features,
/// which may differ in size.
pub fn discrepancy(x: &[f32], y: &[f32], dim: usize) -> f64 {
    let tensor = |values: &[f32]| -> Tensor<2> {
        let shape = [values.len() / dim, dim];
        let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
        Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F64))
    };
    let (x, y) = (tensor(x), tensor(y));
    let kernel = |a: &Tensor<2>, b: &Tensor<2>| -> Vec<f64> {
        let products = a.clone().matmul(b.clone().transpose());
        let products: Vec<f64> = products.into_data().try_into_vec().expect("f64 as put in");
        products.into_iter().map(|product| (product / dim as f64 + 1.0).powi(3)).collect()
    };
    let within = |a: &Tensor<2>| {
        let n = a.dims()[0];
        let kernel = kernel(a, a);
        let diagonal: f64 = kernel.iter().step_by(n + 1).sum();
        (kernel.iter().sum::<f64>() - diagonal) / (n * (n - 1)) as f64
    };
    let between = kernel(&x, &y);
    let mean = between.iter().sum::<f64>() / between.len() as f64;
    within(&x) + within(&y) - 2.0 * mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Memory;
    use crate::testing::{assert_close, features};

    /// A value computed with NumPy.
    #[test]
    fn the_discrepancy_is_that_of_numpy() {
        let (x, y) = (features("a", 40 * 8, 1.0, 0.0), features("b", 50 * 8, 1.5, 0.3));
        assert_close("KID", &[discrepancy(&x, &y, 8)], &[0.296_649_6], 1e-6);
    }

    #[test]
    fn subsets_estimate_the_same_value() {
        let of = |name: &str, n: usize, shift| Memory::new(features(name, n * 8, 1.0, shift), 8);
        let (x, y) = (of("x", 900, 0.0), of("y", 1100, 0.4));
        let whole =
            discrepancy(&x.read(0..900).expect("there"), &y.read(0..1100).expect("there"), 8);
        let found = kernel_distance(&x, &y, 40, 300).expect("enough");
        assert_eq!((found.subsets, found.size), (40, 300));
        assert!(found.deviation > 0.0);
        let error = found.deviation / 40f64.sqrt();
        assert!((found.mean - whole).abs() < 4.0 * error, "{found:?} against {whole}");
        assert_eq!(kernel_distance(&x, &y, 40, 300).expect("enough"), found);
        // All images of both: one subset.
        let same = kernel_distance(&of("x", 50, 0.0), &of("y", 50, 0.4), 40, 300).expect("enough");
        assert_eq!((same.subsets, same.size, same.deviation), (1, 50, 0.0));
    }

    #[test]
    fn sets_of_one_and_of_other_dimensions_are_errors() {
        let of = |n: usize, dim| Memory::new(features("kid", n * dim, 1.0, 0.0), dim);
        assert!(kernel_distance(&of(1, 4), &of(9, 4), 1, 9).is_err());
        assert!(kernel_distance(&of(9, 4), &of(9, 5), 1, 9).is_err());
    }
}
