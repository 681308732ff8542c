//! Cholesky factorisation with pivoting, for covariances that may be singular.

use rayon::prelude::*;

use super::dot;

/// Number of rows of a parallel task.
const ROWS: usize = 64;

/// A factor `L` of a positive semidefinite matrix `S = L Lᵀ`, with as many columns as the matrix
/// has rank.
pub struct Factor {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns: the numerical rank of the matrix.
    pub rank: usize,
    /// Values of `L`, row-major, `[rows, rank]`.
    pub values: Vec<f64>,
}

impl Factor {
    /// Factorises a symmetric matrix `[n, n]`. Diagonal entries below the rounding errors of the
    /// largest one count as zero, and so do negative ones, which a covariance has from rounding
    /// only.
    ///
    /// # Panics
    ///
    /// If the matrix is not square.
    pub fn new(matrix: &[f64], n: usize) -> Self {
        assert_eq!(matrix.len(), n * n, "the matrix is square");
        // The diagonal of what is left of the matrix.
        let mut left: Vec<f64> = (0..n).map(|i| matrix[i * n + i]).collect();
        let largest = left.iter().copied().fold(0.0, f64::max);
        let tolerance = largest * n as f64 * f64::EPSILON;
        let mut is_pivot = vec![false; n];
        let mut rows = vec![0.0; n * n];
        let mut rank = 0;
        while rank < n {
            let free = (0..n).filter(|&i| !is_pivot[i]);
            let Some(pivot) = free.max_by(|&i, &j| left[i].total_cmp(&left[j])) else { break };
            if left[pivot].is_nan() || left[pivot] <= tolerance {
                break;
            }
            is_pivot[pivot] = true;
            let root = left[pivot].sqrt();
            let of_pivot = rows[pivot * n..][..rank].to_vec();
            let column = &matrix[pivot * n..][..n];
            let is_pivot = &is_pivot;
            rows.par_chunks_mut(n)
                .zip(left.par_iter_mut())
                .enumerate()
                .with_min_len(ROWS)
                .for_each(|(i, (row, left))| {
                    if i == pivot {
                        row[rank] = root;
                        *left = 0.0;
                    } else if !is_pivot[i] {
                        let value = (column[i] - dot(&row[..rank], &of_pivot)) / root;
                        row[rank] = value;
                        *left -= value * value;
                    }
                });
            rank += 1;
        }
        let values = rows.chunks_exact(n.max(1)).flat_map(|row| &row[..rank]).copied().collect();
        Self { rows: n, rank, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::transposed_product;
    use crate::testing::{assert_close, uniform};

    /// Returns `B Bᵀ` for a matrix `B` of the given size.
    fn product_of(name: &str, n: usize, columns: usize) -> Vec<f64> {
        let b = uniform(name, n * columns);
        let transposed: Vec<f64> = (0..columns * n).map(|i| b[i % n * columns + i / n]).collect();
        transposed_product(&transposed, &transposed, columns)
    }

    #[test]
    fn the_product_is_the_matrix_and_the_columns_are_its_rank() {
        for (n, columns) in [(1, 1), (7, 7), (40, 12), (30, 50), (5, 0)] {
            let matrix = match columns {
                0 => vec![0.0; n * n],
                _ => product_of("factor", n, columns),
            };
            let factor = Factor::new(&matrix, n);
            assert_eq!(factor.rank, n.min(columns));
            let back: Vec<f64> = (0..n * n)
                .map(|i| {
                    let row = |i: usize| &factor.values[i * factor.rank..][..factor.rank];
                    dot(row(i / n), row(i % n))
                })
                .collect();
            assert_close("L Lᵀ", &back, &matrix, 1e-12);
        }
    }

    #[test]
    fn values_that_are_not_numbers_end_it() {
        assert_eq!(Factor::new(&[f64::NAN; 9], 3).rank, 0);
    }
}
