//! Precision and recall by nearest neighbours (Kynkäänniemi et al., arXiv 1904.06991).
//!
//! The manifold of a set of features is the union of the balls around its points whose radius is
//! the distance to the k-th nearest other point. Precision is the share of samples within the
//! manifold of the reference, recall the share of the reference within that of the samples.
//!
//! Squared distances are `u·u - 2 u·v + v·v`, clipped at 0, in `f32`; ADM's evaluator computes them
//! in half precision, which can change the third decimal.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::MetricsError;
use crate::rows::{Rows, blocks};

/// Number of neighbours of the usual definition.
pub const NEIGHBOURS: usize = 3;

/// Number of rows and columns of a block of distances: 16 MiB.
const BLOCK: usize = 2048;

/// Precision and recall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// Share of the samples within the manifold of the reference.
    pub precision: f64,
    /// Share of the reference within the manifold of the samples.
    pub recall: f64,
}

/// Computes precision and recall with `k` neighbours on a device.
///
/// # Errors
///
/// If a set has no more than `k` images, dimensions differ, or features cannot be read.
pub fn precision_recall(
    samples: &dyn Rows,
    reference: &dyn Rows,
    k: usize,
    device: &Device,
) -> Result<PrecisionRecall, MetricsError> {
    if samples.dim() != reference.dim() {
        let (found, expected) = (samples.dim(), reference.dim());
        return Err(MetricsError::Dimensions { found, expected });
    }
    for set in [samples, reference] {
        if set.len() <= k {
            let (metric, found) = ("precision and recall", set.len());
            return Err(MetricsError::TooFew { metric, needed: k + 1, found });
        }
    }
    let of_samples = radii(samples, k, device)?;
    let of_reference = radii(reference, k, device)?;
    let mut in_reference = vec![false; samples.len()];
    let mut in_samples = vec![false; reference.len()];
    for rows in blocks(samples.len(), BLOCK) {
        let block = Block::read(samples, rows.clone(), device)?;
        for columns in blocks(reference.len(), BLOCK) {
            let other = Block::read(reference, columns.clone(), device)?;
            let distances = block.distances(&other);
            for (row, i) in distances.chunks_exact(columns.len()).zip(rows.clone()) {
                for (&distance, j) in row.iter().zip(columns.clone()) {
                    in_reference[i] |= distance <= of_reference[j];
                    in_samples[j] |= distance <= of_samples[i];
                }
            }
        }
    }
    let share = |inside: &[bool]| {
        inside.iter().filter(|inside| **inside).count() as f64 / inside.len() as f64
    };
    Ok(PrecisionRecall { precision: share(&in_reference), recall: share(&in_samples) })
}

/// Returns the squared distance from each point to its `k`-th nearest other point.
fn radii(set: &dyn Rows, k: usize, device: &Device) -> Result<Vec<f32>, MetricsError> {
    let mut radii = Vec::with_capacity(set.len());
    for rows in blocks(set.len(), BLOCK) {
        let block = Block::read(set, rows.clone(), device)?;
        // The k + 1 smallest distances so far; the point itself is one of them.
        let mut smallest = vec![f32::INFINITY; rows.len() * (k + 1)];
        for columns in blocks(set.len(), BLOCK) {
            let distances = block.distances(&Block::read(set, columns.clone(), device)?);
            distances
                .par_chunks_exact(columns.len())
                .zip(smallest.par_chunks_exact_mut(k + 1))
                .for_each(|(row, smallest)| {
                    for &distance in row {
                        if distance < smallest[k] {
                            let at = smallest.partition_point(|other| *other <= distance);
                            smallest.copy_within(at..k, at + 1);
                            smallest[at] = distance;
                        }
                    }
                });
        }
        radii.extend(smallest.chunks_exact(k + 1).map(|smallest| smallest[k]));
    }
    Ok(radii)
}

/// Some rows of a set, with their squared norms.
struct Block {
    /// `[N, dim]`
    rows: Tensor<2>,
    norms: Vec<f32>,
}

impl Block {
    fn read(set: &dyn Rows, range: Range<usize>, device: &Device) -> Result<Self, MetricsError> {
        let shape = [range.len(), set.dim()];
        let values = set.read(range)?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(MetricsError::NotFinite("features".into()));
        }
        let norm = |row: &[f32]| row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        let norms = values.chunks_exact(shape[1]).map(|row| norm(row) as f32).collect();
        Ok(Self { rows: Tensor::from_data(TensorData::new(values, shape), device), norms })
    }

    /// Returns the squared distances between the rows of two blocks, row-major.
    fn distances(&self, other: &Self) -> Vec<f32> {
        let products = self.rows.clone().matmul(other.rows.clone().transpose());
        let mut products: Vec<f32> = products.into_data().try_into_vec().expect("f32 as put in");
        let n = other.norms.len();
        products.par_chunks_exact_mut(n).zip(&self.norms).for_each(|(row, u)| {
            for (value, v) in row.iter_mut().zip(&other.norms) {
                *value = (u - 2.0 * *value + v).max(0.0);
            }
        });
        products
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Memory;
    use crate::testing::features;

    fn compute(samples: Memory, reference: Memory) -> Result<PrecisionRecall, MetricsError> {
        precision_recall(&samples, &reference, NEIGHBOURS, &Device::flex())
    }

    /// Values computed with NumPy.
    #[test]
    fn shares_are_those_of_numpy() {
        let reference = Memory::new(features("a", 40 * 8, 1.0, 0.0), 8);
        let samples = Memory::new(features("b", 50 * 8, 1.5, 0.3), 8);
        let found = compute(samples, reference).expect("enough");
        assert_eq!(found, PrecisionRecall { precision: 0.44, recall: 1.0 });
    }

    /// More than one block, against the definition.
    #[test]
    fn blocks_do_not_change_the_shares() {
        let (n, m, dim) = (BLOCK + 40, 70, 4);
        let (a, b) =
            (features("blocks a", n * dim, 1.0, 0.0), features("blocks b", m * dim, 1.2, 0.1));
        let distance = |u: &[f32], v: &[f32]| {
            u.iter().zip(v).map(|(u, v)| (f64::from(*u) - f64::from(*v)).powi(2)).sum::<f64>()
        };
        let radii = |set: &[f32]| -> Vec<f64> {
            set.chunks_exact(dim)
                .map(|u| {
                    let mut all: Vec<f64> = set.chunks_exact(dim).map(|v| distance(u, v)).collect();
                    all.sort_by(f64::total_cmp);
                    all[NEIGHBOURS]
                })
                .collect()
        };
        let share = |points: &[f32], set: &[f32]| {
            let radii = radii(set);
            let inside = |u: &&[f32]| {
                set.chunks_exact(dim).zip(&radii).any(|(v, radius)| distance(u, v) <= *radius)
            };
            let all = (points.len() / dim) as f64;
            points.chunks_exact(dim).filter(inside).count() as f64 / all
        };
        let want = PrecisionRecall { precision: share(&a, &b), recall: share(&b, &a) };
        let found = compute(Memory::new(a, dim), Memory::new(b, dim)).expect("enough");
        assert!((found.precision - want.precision).abs() < 2.0 / n as f64, "{found:?} {want:?}");
        assert!((found.recall - want.recall).abs() < 1e-9, "{found:?} {want:?}");
    }

    #[test]
    fn small_sets_and_features_that_are_not_finite_are_errors() {
        let of = |n: usize, dim| Memory::new(features("small", n * dim, 1.0, 0.0), dim);
        let error = compute(of(3, 2), of(9, 2)).expect_err("too few").to_string();
        assert!(error.contains("at least 4 images, but there are 3"), "{error}");
        assert!(compute(of(9, 2), of(9, 3)).is_err());
        let nan = Memory::new(vec![f32::NAN; 18], 2);
        assert!(compute(of(9, 2), nan).expect_err("not finite").to_string().contains("not finite"));
    }
}
