//! Packing of a right factor into panels.

use pulp::{Simd, WithSimd};

use super::tile::max_vectors;
use crate::kernels::cpu::parallel::for_each;

/// A matrix `[k, n]` in panels of columns, each as wide as a register tile.
///
/// A panel holds its `k` rows one after the other, so the loop over `k` reads memory sequentially.
/// The last panel is padded with zeros to whole vectors, so that the loop needs no special case for
/// the last columns. Widths are in vectors of this machine: a packed matrix is not portable, and
/// lives only as long as the call that packs it.
pub(crate) struct Packed {
    pub(super) data: Vec<f32>,
    pub(super) k: usize,
    pub(super) n: usize,
}

impl Packed {
    /// Packs the matrix whose element in row `k` and column `j` is `element(k, j)`.
    pub fn new(k: usize, n: usize, element: impl Fn(usize, usize) -> f32 + Sync + Send) -> Self {
        let (lanes, max) = pulp::Arch::new().dispatch(TileWidth);
        let vectors = n.div_ceil(lanes);
        let mut data = vec![0.0; k * vectors * lanes];
        let mut rest = data.as_mut_slice();
        let mut tasks = Vec::new();
        for (from, to) in panels(vectors, max) {
            let (panel, others) = rest.split_at_mut(k * (to - from) * lanes);
            rest = others;
            tasks.push((panel, from * lanes, (to - from) * lanes));
        }
        for_each(tasks.into_iter(), |(panel, first, width)| {
            for (k, row) in panel.chunks_exact_mut(width).enumerate() {
                for (j, value) in (first..n).zip(row) {
                    *value = element(k, j);
                }
            }
        });
        Self { data, k, n }
    }

    /// Packs a row-major matrix `[k, n]`.
    pub fn of(matrix: &[f32], k: usize, n: usize) -> Self {
        Self::new(k, n, |k, j| matrix[k * n + j])
    }

    /// Packs the transpose of a row-major matrix `[n, k]`.
    pub fn transpose_of(matrix: &[f32], k: usize, n: usize) -> Self {
        Self::new(k, n, |i, j| matrix[j * k + i])
    }
}

/// The panels of a matrix that is `vectors` wide, as ranges `(first, end)` of vectors: as few as
/// possible of at most `max` vectors, and of nearly equal width.
#[inline(always)]
pub(super) fn panels(vectors: usize, max: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = vectors.div_ceil(max);
    (0..count).map(move |p| (p * vectors / count, (p + 1) * vectors / count))
}

/// Query for the number of `f32` lanes of a vector and the width of the widest tile in vectors.
struct TileWidth;

impl WithSimd for TileWidth {
    type Output = (usize, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (usize, usize) {
        (S::F32_LANES, max_vectors())
    }
}
