//! `leftᵀ · right`, tile by tile: both factors are read row by row, along the summed dimension.

// Index loops over constants keep the arrays of vectors in registers; see `tile`.
#![allow(clippy::needless_range_loop, clippy::manual_memcpy)]

use pulp::{Simd, WithSimd};

use super::pack::panels;
use super::tile::{has_many_registers, load_row, max_vectors};
use super::{Out, Rows};

/// The arguments of [`super::outer`].
pub(super) struct Outer<'a> {
    pub left: (&'a [f32], Rows<'a>),
    pub right: (&'a [f32], Rows<'a>),
    pub out: Out<'a>,
    pub m: usize,
    pub k: usize,
    pub n: usize,
}

/// Block size of the summed dimension. All tiles are computed for one block of rows before the next
/// block is read: about as many rows as L1 holds of one panel of the right factor.
const DEPTH: usize = 128;

impl WithSimd for Outer<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for from in (0..self.k).step_by(DEPTH) {
            let part = (from, self.k.min(from + DEPTH));
            for (from, to) in panels(self.n.div_ceil(S::F32_LANES), max_vectors()) {
                match to - from {
                    1 => self.panel::<S, 1>(simd, from, part),
                    2 => self.panel::<S, 2>(simd, from, part),
                    _ => self.panel::<S, 3>(simd, from, part),
                }
            }
            // Later blocks add to what the first one wrote.
            self.out.accumulate = true;
        }
    }
}

impl Outer<'_> {
    /// Computes all rows of the panel of `V` vectors that begins at `vector`, for the rows of the
    /// factors in the range `part`.
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, vector: usize, part: (usize, usize)) {
        let (data, rows) = self.right;
        let fits = |k: usize| rows.start(k) + (vector + V) * S::F32_LANES <= data.len();
        let whole = match rows {
            Rows::Strided(_) => fits(part.1 - 1),
            Rows::Indexed(_) => (part.0..part.1).all(fits),
        };
        if whole {
            self.tiles::<S, V, true>(simd, vector, part);
        } else {
            self.tiles::<S, V, false>(simd, vector, part);
        }
    }

    /// [`Outer::panel`]; `WHOLE` says that the panel lies inside the slice of the right factor in
    /// every row of the part, so that the loop needs no check.
    #[inline(always)]
    fn tiles<S: Simd, const V: usize, const WHOLE: bool>(
        &mut self,
        simd: S,
        vector: usize,
        part: (usize, usize),
    ) {
        let rows = if has_many_registers::<S>() { 8 } else { 4 };
        let whole = self.m / rows * rows;
        for i in (0..whole).step_by(rows) {
            if has_many_registers::<S>() {
                self.tile::<S, 8, V, WHOLE>(simd, i, vector, part);
            } else {
                self.tile::<S, 4, V, WHOLE>(simd, i, vector, part);
            }
        }
        for i in whole..self.m {
            self.tile::<S, 1, V, WHOLE>(simd, i, vector, part);
        }
    }

    /// Computes the tile of `R` rows by `V` vectors that begins at row `i` and at `vector`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize, const WHOLE: bool>(
        &mut self,
        simd: S,
        i: usize,
        vector: usize,
        (from, to): (usize, usize),
    ) {
        let first = vector * S::F32_LANES;
        let ((left, left_rows), (right, right_rows)) = (self.left, self.right);
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        // The loop is written out here: passing the sums to a function for each row and back made
        // the compiler keep them in memory.
        for k in from..to {
            let left = &left[left_rows.start(k) + i..][..R];
            let right = &right[right_rows.start(k) + first..];
            let mut row = [simd.splat_f32s(0.0); V];
            if WHOLE {
                let (right, _) = S::as_simd_f32s(&right[..V * S::F32_LANES]);
                for v in 0..V {
                    row[v] = right[v];
                }
            } else {
                row = load_row::<S, V>(simd, right);
            }
            for r in 0..R {
                let value = simd.splat_f32s(left[r]);
                for v in 0..V {
                    sums[r][v] = simd.mul_add_e_f32s(value, row[v], sums[r][v]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            self.out.write(simd, i + r, first, self.n, sums);
        }
    }
}
