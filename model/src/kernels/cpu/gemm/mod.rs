//! Matrix products for the small and middle-sized matrices of the network.
//!
//! The structure is that of a BLAS, reduced to what the network needs:
//!
//! - **Register tiles.** A tile of the output, `R` rows by `V` SIMD vectors, is held in registers
//!   while the loop runs over the inner dimension. Each step loads one row of the right factor
//!   (`V` vectors), broadcasts one value of each of the `R` rows of the left factor, and does
//!   `R * V` multiply-adds: `R + V` loads for `R * V` operations. See [`tile`].
//! - **Packing.** The right factor, usually a weight matrix that many rows are multiplied by, is
//!   copied once into panels as wide as a tile, so that the loop reads it with unit stride. See
//!   [`Packed`]. Small right factors that are used once, such as the keys of one window, are read
//!   where they are.
//! - **No packing of the left factor.** It is read in place through row offsets, which is how a
//!   convolution multiplies overlapping patches of a map without copying them (im2col).
//! - **Epilogue.** A bias, up to two residuals, or the old content of the output are added while
//!   the tile is still in registers. See [`Out`].
//!
//! A product runs on one thread; its callers give each thread its own rows of the output. Every
//! element of the output is one sum over the inner dimension in ascending order, whatever tile it
//! belongs to, so the result does not depend on how the rows are divided. It does depend on the
//! instruction set: with fused multiply-adds a sum is rounded differently than without.

mod outer;
mod pack;
mod product;
#[cfg(test)]
mod tests;
mod tile;

use pulp::Simd;

pub(super) use pack::Packed;

use outer::Outer;
use product::Product;
use tile::{load, store};

/// The offsets of a matrix's rows within its slice.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Row `i` begins at `i` times this stride.
    Strided(usize),
    /// Row `i` begins at the `i`-th of these offsets.
    Indexed(&'a [usize]),
}

impl Rows<'_> {
    #[inline(always)]
    fn start(self, row: usize) -> usize {
        match self {
            Rows::Strided(stride) => row * stride,
            Rows::Indexed(offsets) => offsets[row],
        }
    }
}

/// The left factor of a [`product`].
///
/// A row consists of `segments` runs of `len` contiguous values whose beginnings are
/// `segment_stride` apart. A plain matrix has one segment. A 3x3 patch of a channels-last map has
/// three, one for each row of the map, of three pixels each.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub data: &'a [f32],
    pub rows: Rows<'a>,
    pub segments: usize,
    pub segment_stride: usize,
    pub len: usize,
}

impl<'a> Left<'a> {
    /// A matrix with `len` columns.
    pub fn new(data: &'a [f32], rows: Rows<'a>, len: usize) -> Self {
        Self { data, rows, segments: 1, segment_stride: 0, len }
    }
}

/// The right factor of a [`product`].
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    /// A matrix packed in panels.
    Packed(&'a Packed),
    /// A row-major matrix and the stride of its rows.
    Plain(&'a [f32], usize),
}

/// The output of a product, and what is added to the product before it is written.
pub(super) struct Out<'a> {
    pub data: &'a mut [f32],
    pub rows: Rows<'a>,
    /// Vector added to every row.
    pub bias: Option<&'a [f32]>,
    /// Matrices of the output's size that are added, such as residuals.
    pub add: [Option<(&'a [f32], Rows<'a>)>; 2],
    /// Whether the product is added to the values in `data` instead of replacing them.
    pub accumulate: bool,
}

impl<'a> Out<'a> {
    /// An output that receives the product as it is.
    pub fn new(data: &'a mut [f32], rows: Rows<'a>) -> Self {
        Self { data, rows, bias: None, add: [None, None], accumulate: false }
    }

    /// An output that receives the product plus a bias.
    pub fn with_bias(data: &'a mut [f32], rows: Rows<'a>, bias: &'a [f32]) -> Self {
        Self { bias: Some(bias), ..Self::new(data, rows) }
    }

    /// An output that the product is added to.
    pub fn added(data: &'a mut [f32], rows: Rows<'a>) -> Self {
        Self { accumulate: true, ..Self::new(data, rows) }
    }

    /// Writes one row of a tile: `sums` to row `i` from column `first` on. Lanes at or beyond
    /// column `n` are dropped.
    #[inline(always)]
    fn write<S: Simd>(&mut self, simd: S, i: usize, first: usize, n: usize, sums: &[S::f32s]) {
        let start = self.rows.start(i);
        let mut column = first;
        for sum in sums {
            if column >= n {
                break;
            }
            let to = n.min(column + S::F32_LANES);
            let mut sum = *sum;
            if let Some(bias) = self.bias {
                sum = simd.add_f32s(sum, load(simd, &bias[column..to]));
            }
            for (data, rows) in self.add.iter().flatten() {
                let start = rows.start(i);
                sum = simd.add_f32s(sum, load(simd, &data[start + column..start + to]));
            }
            let out = &mut self.data[start + column..start + to];
            if self.accumulate {
                sum = simd.add_f32s(sum, load(simd, out));
            }
            store(simd, out, sum);
            column = to;
        }
    }
}

/// Computes `out = left · right` for `left` `[m, k]` and `right` `[k, n]`.
pub(super) fn product(left: Left, right: Right, out: Out, m: usize, n: usize) {
    if let Right::Packed(packed) = right {
        debug_assert_eq!((packed.k, packed.n), (left.segments * left.len, n));
    }
    pulp::Arch::new().dispatch(Product { left, right, out, m, n });
}

/// Computes `out = leftᵀ · right` for `left` `[k, m]` and `right` `[k, n]`, a sum of outer products
/// of rows. With `k` counting pixels it is the gradient of a weight matrix.
pub(super) fn outer(left: (&[f32], Rows), right: (&[f32], Rows), out: Out, [m, k, n]: [usize; 3]) {
    pulp::Arch::new().dispatch(Outer { left, right, out, m, k, n });
}
