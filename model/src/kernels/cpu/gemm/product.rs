//! `left · right`, tile by tile.

use core::array::from_fn;

use pulp::{Simd, WithSimd};

use super::pack::panels;
use super::tile::{accumulate, has_many_registers, max_vectors};
use super::{Left, Out, Right};

/// The arguments of [`super::product`].
pub(super) struct Product<'a> {
    pub left: Left<'a>,
    pub right: Right<'a>,
    pub out: Out<'a>,
    pub m: usize,
    pub n: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for (from, to) in panels(self.n.div_ceil(S::F32_LANES), max_vectors()) {
            match to - from {
                1 => self.panel::<S, 1>(simd, from),
                2 => self.panel::<S, 2>(simd, from),
                _ => self.panel::<S, 3>(simd, from),
            }
        }
    }
}

impl Product<'_> {
    /// Computes all rows of the panel of `V` vectors that begins at `vector`.
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, vector: usize) {
        let rows = if has_many_registers::<S>() { 8 } else { 4 };
        let whole = self.m / rows * rows;
        for i in (0..whole).step_by(rows) {
            if has_many_registers::<S>() {
                self.tile::<S, 8, V>(simd, i, vector);
            } else {
                self.tile::<S, 4, V>(simd, i, vector);
            }
        }
        for i in whole..self.m {
            self.tile::<S, 1, V>(simd, i, vector);
        }
    }

    /// Computes the tile of `R` rows by `V` vectors that begins at row `i` and at `vector`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, i: usize, vector: usize) {
        let Left { data, rows, segments, segment_stride, len } = self.left;
        let first = vector * S::F32_LANES;
        let starts: [usize; R] = from_fn(|r| rows.start(i + r));
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for s in 0..segments {
            let left: [&[f32]; R] = from_fn(|r| &data[starts[r] + s * segment_stride..][..len]);
            sums = match self.right {
                Right::Packed(packed) => {
                    let width = V * S::F32_LANES;
                    // The panels before this one hold `k` rows of `first` columns altogether.
                    let right = &packed.data[packed.k * first + s * len * width..];
                    accumulate(simd, left, &right[..len * width], width, sums)
                }
                Right::Plain(data, stride) => {
                    let right = &data[first + s * len * stride..];
                    accumulate(simd, left, right, stride, sums)
                }
            };
        }
        for (r, sums) in sums.iter().enumerate() {
            self.out.write(simd, i + r, first, self.n, sums);
        }
    }
}
