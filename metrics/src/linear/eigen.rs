//! Eigenvalues of symmetric matrices: Householder reflections make the matrix tridiagonal, then QL
//! steps with implicit shifts make it diagonal (Golub and Van Loan, Matrix Computations, 8.3).

use rayon::prelude::*;

use super::dot;

/// Number of rows of a parallel task.
const ROWS: usize = 32;

/// Maximum number of QL steps for an eigenvalue. Two are usual.
const MAX_STEPS: usize = 60;

/// Error for a matrix with values that are not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the eigenvalues of a matrix do not converge; it has values that are not finite")]
pub struct NotConverged;

/// Returns the eigenvalues of a symmetric matrix `[n, n]`, in no particular order.
///
/// # Errors
///
/// If the matrix has values that are not finite.
///
/// # Panics
///
/// If the matrix is not square.
pub fn eigenvalues(mut matrix: Vec<f64>, n: usize) -> Result<Vec<f64>, NotConverged> {
    assert_eq!(matrix.len(), n * n, "the matrix is square");
    if !matrix.iter().all(|value| value.is_finite()) {
        return Err(NotConverged);
    }
    let (mut diagonal, mut beside) = tridiagonal(&mut matrix, n);
    diagonalise(&mut diagonal, &mut beside)?;
    Ok(diagonal)
}

/// Returns the diagonal and the entries beside it of a tridiagonal matrix with the same
/// eigenvalues. The last entry of the second is 0.
///
/// Step k reflects `x`, the part of row k right of the diagonal, onto its first axis, by
/// `I - β v vᵀ`. The rest `A` of the matrix becomes `A - v wᵀ - w vᵀ`, with `p = β A v` and
/// `w = p - (β/2) (pᵀ v) v`. The rest is changed when the next step reads it: most of the time is
/// spent on reading the matrix from memory.
fn tridiagonal(matrix: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (vec![0.0; n], vec![0.0; n]);
    // The last reflection, which the rows below the current one have yet to undergo.
    let mut v = vec![0.0; n];
    let mut w = vec![0.0; n];
    for k in 0..n {
        let (done, below) = matrix.split_at_mut((k + 1) * n);
        let row = &mut done[k * n..];
        reflect(row, k, &v, &w, k);
        diagonal[k] = row[k];
        if k + 1 == n {
            break;
        }
        let x = &row[k + 1..];
        let norm = dot(x, x).sqrt();
        let start = if x[0] > 0.0 { -norm } else { norm };
        beside[k] = start;
        let mut new = vec![0.0; n];
        let mut beta = 0.0;
        if norm > 0.0 {
            new[k + 1..].copy_from_slice(x);
            new[k + 1] -= start;
            let square = dot(&new[k + 1..], &new[k + 1..]);
            if square > 0.0 {
                beta = 2.0 / square;
            }
        }
        let mut p = vec![0.0; n];
        let (old_v, old_w, next) = (&v, &w, &new);
        below
            .par_chunks_mut(n)
            .zip(p[k + 1..].par_iter_mut())
            .enumerate()
            .with_min_len(ROWS)
            .for_each(|(i, (row, p))| {
                reflect(row, k + 1 + i, old_v, old_w, k + 1);
                *p = beta * dot(&row[k + 1..], &next[k + 1..]);
            });
        let half = 0.5 * beta * dot(&p[k + 1..], &new[k + 1..]);
        for (p, v) in p.iter_mut().zip(&new) {
            *p -= half * v;
        }
        (v, w) = (new, p);
    }
    (diagonal, beside)
}

/// Subtracts `v wᵀ + w vᵀ` from the columns of row `i` from column `from` on.
fn reflect(row: &mut [f64], i: usize, v: &[f64], w: &[f64], from: usize) {
    let (a, b) = (v[i], w[i]);
    if a == 0.0 && b == 0.0 {
        return;
    }
    for ((value, v), w) in row[from..].iter_mut().zip(&v[from..]).zip(&w[from..]) {
        *value -= a * w + b * v;
    }
}

/// Replaces the diagonal of a tridiagonal matrix by its eigenvalues.
fn diagonalise(diagonal: &mut [f64], beside: &mut [f64]) -> Result<(), NotConverged> {
    let n = diagonal.len();
    for l in 0..n {
        for step in 0.. {
            // The block from l to m has no zero beside its diagonal.
            let is_zero = |m: usize| {
                let scale = diagonal[m].abs() + diagonal[m + 1].abs();
                beside[m].abs() <= f64::EPSILON * scale || beside[m].abs() < f64::MIN_POSITIVE
            };
            let m = (l..n - 1).find(|&m| is_zero(m)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            if step == MAX_STEPS {
                return Err(NotConverged);
            }
            // Wilkinson's shift: the eigenvalue of the first 2x2 block that is closer to its corner.
            let half = (diagonal[l + 1] - diagonal[l]) / (2.0 * beside[l]);
            let shift = diagonal[l] - beside[l] / (half + half.hypot(1.0).copysign(half));
            chase(&mut diagonal[l..=m], &mut beside[l..=m], shift);
        }
    }
    Ok(())
}

/// A QL step on an unreduced block: a rotation at its end creates an entry outside the three
/// diagonals, which further rotations move upwards and out.
fn chase(diagonal: &mut [f64], beside: &mut [f64], shift: f64) {
    let last = diagonal.len() - 1;
    let mut g = diagonal[last] - shift;
    let (mut sine, mut cosine, mut carried) = (1.0f64, 1.0f64, 0.0f64);
    for i in (0..last).rev() {
        let (f, b) = (sine * beside[i], cosine * beside[i]);
        let length = f.hypot(g);
        beside[i + 1] = length;
        if length == 0.0 {
            // The block is split here.
            diagonal[i + 1] -= carried;
            beside[last] = 0.0;
            return;
        }
        (sine, cosine) = (f / length, g / length);
        let rest = diagonal[i + 1] - carried;
        let turned = (diagonal[i] - rest) * sine + 2.0 * cosine * b;
        carried = sine * turned;
        diagonal[i + 1] = rest + carried;
        g = cosine * turned - b;
    }
    diagonal[0] -= carried;
    beside[0] = g;
    beside[last] = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, uniform};

    fn sorted(mut values: Vec<f64>) -> Vec<f64> {
        values.sort_by(f64::total_cmp);
        values
    }

    /// The second difference has the eigenvalues `2 - 2 cos(π j / (n + 1))`.
    #[test]
    fn eigenvalues_of_the_second_difference_are_known() {
        for n in [1, 2, 3, 50] {
            let mut matrix = vec![0.0; n * n];
            for i in 0..n {
                matrix[i * n + i] = 2.0;
                if i + 1 < n {
                    matrix[i * n + i + 1] = -1.0;
                    matrix[(i + 1) * n + i] = -1.0;
                }
            }
            let want: Vec<f64> = (1..=n)
                .map(|j| 2.0 - 2.0 * (std::f64::consts::PI * j as f64 / (n as f64 + 1.0)).cos())
                .collect();
            assert_close(
                "eigenvalues",
                &sorted(eigenvalues(matrix, n).expect("finite")),
                &want,
                1e-13,
            );
        }
    }

    /// A product of reflections turns a diagonal matrix into a full one.
    #[test]
    fn eigenvalues_of_a_turned_diagonal_matrix_are_its_entries() {
        for n in [2, 9, 130] {
            let want = sorted(uniform("entries", n));
            let mut matrix = vec![0.0; n * n];
            for (i, value) in want.iter().enumerate() {
                matrix[i * n + i] = *value;
            }
            for turn in 0..3 {
                let v = uniform(&format!("turn {turn}"), n);
                let square = dot(&v, &v);
                let reflected = |i: usize, j: usize| f64::from(i == j) - 2.0 * v[i] * v[j] / square;
                let mut half = vec![0.0; n * n];
                for i in 0..n {
                    for j in 0..n {
                        half[i * n + j] = (0..n).map(|k| matrix[i * n + k] * reflected(k, j)).sum();
                    }
                }
                for i in 0..n {
                    for j in 0..n {
                        matrix[i * n + j] = (0..n).map(|k| reflected(i, k) * half[k * n + j]).sum();
                    }
                }
            }
            let found = sorted(eigenvalues(matrix, n).expect("finite"));
            assert_close("eigenvalues", &found, &want, 1e-12);
        }
    }

    #[test]
    fn multiple_and_zero_eigenvalues_are_found() {
        assert_eq!(eigenvalues(vec![0.0; 25], 5).expect("finite"), [0.0; 5]);
        // All ones: n once, 0 otherwise.
        let found = sorted(eigenvalues(vec![1.0; 36], 6).expect("finite"));
        assert_close("eigenvalues", &found, &[0., 0., 0., 0., 0., 6.], 1e-14);
        assert!(eigenvalues(Vec::new(), 0).expect("finite").is_empty());
    }

    #[test]
    fn values_that_are_not_finite_are_an_error() {
        assert_eq!(eigenvalues(vec![1.0, f64::NAN, f64::NAN, 1.0], 2), Err(NotConverged));
    }
}
