//! Dense linear algebra in `f64`, as much as the Fréchet distance takes: a factorisation of
//! covariances and the eigenvalues of symmetric matrices.
//!
//! Matrices are row-major. Products are computed by Burn on the CPU, whose order of summation does
//! not depend on the number of threads.

mod eigen;
mod factor;
mod product;

pub use eigen::{NotConverged, eigenvalues};
pub use factor::Factor;
pub use product::{gram, transposed_product};

/// Returns the inner product of two slices of equal length. The order of summation is fixed, and is
/// one that compilers turn into vector instructions.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f64 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + tail
}
