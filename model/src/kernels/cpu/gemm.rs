//! Matrix products: a tile of sums stays in registers while a row of one factor after the other
//! passes by.
//!
//! The left factor is read where it lies, its rows anywhere; the right one is packed once, in
//! panels as wide as a tile, or read where it lies too. What follows a product in the network, a
//! bias or a residual, is added before the sums are written.

// An index that is the same number everywhere keeps arrays of vectors in registers.
#![allow(clippy::needless_range_loop, clippy::manual_memcpy)]

use core::array::from_fn;

use pulp::{Simd, WithSimd};

use super::parallel::for_each;

/// Where the rows of a matrix begin.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    /// One after the other at this distance.
    Every(usize),
    /// At these places.
    At(&'a [usize]),
}

impl Rows<'_> {
    #[inline(always)]
    fn start(self, row: usize) -> usize {
        match self {
            Rows::Every(distance) => row * distance,
            Rows::At(starts) => starts[row],
        }
    }
}

/// The left factor of a [`Product`]. A row consists of `segments` pieces of `len` values, the
/// beginnings of which are `segment` apart: a 3x3 patch of a map is three pieces of three pixels.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub data: &'a [f32],
    pub rows: Rows<'a>,
    pub segments: usize,
    pub segment: usize,
    pub len: usize,
}

impl<'a> Left<'a> {
    /// A matrix with `len` columns.
    pub fn new(data: &'a [f32], rows: Rows<'a>, len: usize) -> Self {
        Self { data, rows, segments: 1, segment: 0, len }
    }
}

/// The right factor of a [`Product`].
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    /// In panels.
    Packed(&'a Packed),
    /// Row after row, at this distance.
    Plain(&'a [f32], usize),
}

/// A matrix `[k, n]` in panels of some columns. Each panel lies row after row, and the last is
/// filled up with zeros.
pub(super) struct Packed {
    data: Vec<f32>,
    k: usize,
    n: usize,
}

impl Packed {
    /// From its elements by row and column.
    pub fn new(k: usize, n: usize, element: impl Fn(usize, usize) -> f32 + Sync + Send) -> Self {
        let (lanes, most) = pulp::Arch::new().dispatch(TileWidth);
        let vectors = n.div_ceil(lanes);
        let mut data = vec![0.0; k * vectors * lanes];
        let mut rest = data.as_mut_slice();
        let mut tasks = Vec::new();
        for (from, to) in panels(vectors, most) {
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

    /// From a matrix that lies row after row.
    pub fn of(matrix: &[f32], k: usize, n: usize) -> Self {
        Self::new(k, n, |k, j| matrix[k * n + j])
    }

    /// The transpose of a matrix `[n, k]` that lies row after row.
    pub fn transpose_of(matrix: &[f32], k: usize, n: usize) -> Self {
        Self::new(k, n, |i, j| matrix[j * k + i])
    }
}

/// The first vector of each panel and that after its last, of a matrix as wide as `vectors`.
#[inline(always)]
fn panels(vectors: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = vectors.div_ceil(most);
    (0..count).map(move |p| (p * vectors / count, (p + 1) * vectors / count))
}

/// Whether there are registers enough for a large tile. WebAssembly's are those of an old processor.
#[inline(always)]
const fn large<S: Simd>() -> bool {
    S::REGISTER_COUNT >= 32 && !cfg!(target_family = "wasm")
}

/// The most vectors that a tile is wide.
#[inline(always)]
const fn most_vectors() -> usize {
    if cfg!(target_family = "wasm") { 2 } else { 3 }
}

/// Values of a vector, and the most vectors that a tile is wide.
struct TileWidth;

impl WithSimd for TileWidth {
    type Output = (usize, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (usize, usize) {
        (S::F32_LANES, most_vectors())
    }
}

/// Reads a vector, or less at the end of a row.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    match S::as_simd_f32s(from).0.first() {
        Some(vector) => *vector,
        None => simd.partial_load_f32s(from),
    }
}

/// Writes a vector, or less at the end of a row.
#[inline(always)]
fn store<S: Simd>(simd: S, to: &mut [f32], vector: S::f32s) {
    if to.len() >= S::F32_LANES {
        S::as_mut_simd_f32s(to).0[0] = vector;
    } else {
        simd.partial_store_f32s(to, vector);
    }
}

/// Reads `V` vectors of a row. What lies beyond the end of the matrix reads as zero; what lies
/// beyond the end of the row is never used.
#[inline(always)]
fn load_row<S: Simd, const V: usize>(simd: S, row: &[f32]) -> [S::f32s; V] {
    let mut vectors = [simd.splat_f32s(0.0); V];
    if let Some(row) = row.get(..V * S::F32_LANES) {
        let (row, _) = S::as_simd_f32s(row);
        for v in 0..V {
            vectors[v] = row[v];
        }
    } else {
        // Only the last row of a matrix can end here. No index may depend on a loop that is not
        // unrolled: the vectors would lie in memory.
        for v in 0..V {
            if let Some(row) = row.get(v * S::F32_LANES..) {
                vectors[v] = load(simd, row);
            }
        }
    }
    vectors
}

/// Adds the products of `R` rows with the `V` vectors of each row of `right` to `sums`. The loop
/// that everything is about: kept apart so that all of it stays in registers.
#[inline(always)]
fn accumulate<S: Simd, const R: usize, const V: usize>(
    simd: S,
    left: [&[f32]; R],
    right: &[f32],
    distance: usize,
    mut sums: [[S::f32s; V]; R],
) -> [[S::f32s; V]; R] {
    let width = V * S::F32_LANES;
    let len = left[0].len();
    // Rows that lie in `right` as wide as the tile.
    let whole = if width <= distance { len.min(right.len() / distance) } else { 0 };
    let mut rows: [&[f32]; R] = left;
    for r in 0..R {
        rows[r] = &left[r][..whole];
    }
    for (k, row) in (0..whole).zip(right.chunks_exact(distance)) {
        let (row, _) = S::as_simd_f32s(&row[..width]);
        let mut vectors = [simd.splat_f32s(0.0); V];
        for v in 0..V {
            vectors[v] = row[v];
        }
        for r in 0..R {
            let value = simd.splat_f32s(rows[r][k]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(value, vectors[v], sums[r][v]);
            }
        }
    }
    // The last row, if the matrix ends with it, and rows that are narrower than the tile.
    for k in whole..len {
        let vectors = load_row::<S, V>(simd, &right[k * distance..]);
        for r in 0..R {
            let value = simd.splat_f32s(left[r][k]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(value, vectors[v], sums[r][v]);
            }
        }
    }
    sums
}

/// What becomes of the sums of a product.
pub(super) struct Out<'a> {
    pub data: &'a mut [f32],
    pub rows: Rows<'a>,
    /// Added to every row.
    pub bias: Option<&'a [f32]>,
    /// Matrices that are added.
    pub add: [Option<(&'a [f32], Rows<'a>)>; 2],
    /// Whether what is there is kept, and added to.
    pub accumulate: bool,
}

impl<'a> Out<'a> {
    /// Sums that are written as they are.
    pub fn new(data: &'a mut [f32], rows: Rows<'a>) -> Self {
        Self { data, rows, bias: None, add: [None, None], accumulate: false }
    }

    /// With a bias.
    pub fn with_bias(data: &'a mut [f32], rows: Rows<'a>, bias: &'a [f32]) -> Self {
        Self { bias: Some(bias), ..Self::new(data, rows) }
    }

    /// Sums that are added to what is there.
    pub fn added(data: &'a mut [f32], rows: Rows<'a>) -> Self {
        Self { accumulate: true, ..Self::new(data, rows) }
    }

    /// Writes the vectors of row `i` from column `first` on, of `n`.
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

/// `out = left · right` for `[m, k]` and `[k, n]`.
pub(super) fn product(left: Left, right: Right, out: Out, m: usize, n: usize) {
    if let Right::Packed(packed) = right {
        debug_assert_eq!((packed.k, packed.n), (left.segments * left.len, n));
    }
    pulp::Arch::new().dispatch(Product { left, right, out, m, n });
}

struct Product<'a> {
    left: Left<'a>,
    right: Right<'a>,
    out: Out<'a>,
    m: usize,
    n: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for (from, to) in panels(self.n.div_ceil(S::F32_LANES), most_vectors()) {
            match to - from {
                1 => self.panel::<S, 1>(simd, from),
                2 => self.panel::<S, 2>(simd, from),
                _ => self.panel::<S, 3>(simd, from),
            }
        }
    }
}

impl Product<'_> {
    /// All rows of `V` vectors of columns.
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, vector: usize) {
        let rows = if large::<S>() { 8 } else { 4 };
        let whole = self.m / rows * rows;
        for i in (0..whole).step_by(rows) {
            if large::<S>() {
                self.tile::<S, 8, V>(simd, i, vector);
            } else {
                self.tile::<S, 4, V>(simd, i, vector);
            }
        }
        for i in whole..self.m {
            self.tile::<S, 1, V>(simd, i, vector);
        }
    }

    /// `R` rows by `V` vectors.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, i: usize, vector: usize) {
        let Left { data, rows, segments, segment, len } = self.left;
        let first = vector * S::F32_LANES;
        let starts: [usize; R] = from_fn(|r| rows.start(i + r));
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for s in 0..segments {
            let left: [&[f32]; R] = from_fn(|r| &data[starts[r] + s * segment..][..len]);
            sums = match self.right {
                Right::Packed(packed) => {
                    let width = V * S::F32_LANES;
                    let right = &packed.data[packed.k * first + s * len * width..];
                    accumulate(simd, left, &right[..len * width], width, sums)
                }
                Right::Plain(data, distance) => {
                    let right = &data[first + s * len * distance..];
                    accumulate(simd, left, right, distance, sums)
                }
            };
        }
        for (r, sums) in sums.iter().enumerate() {
            self.out.write(simd, i + r, first, self.n, sums);
        }
    }
}

/// `out = leftᵀ · right` for `[k, m]` and `[k, n]`: the gradient of weights, summed over pixels.
pub(super) fn outer(left: (&[f32], Rows), right: (&[f32], Rows), out: Out, [m, k, n]: [usize; 3]) {
    pulp::Arch::new().dispatch(Outer { left, right, out, m, k, n });
}

struct Outer<'a> {
    left: (&'a [f32], Rows<'a>),
    right: (&'a [f32], Rows<'a>),
    out: Out<'a>,
    m: usize,
    k: usize,
    n: usize,
}

/// Rows of the factors that are gone through for all tiles before the next come: about what L1 holds
/// of one panel.
const DEPTH: usize = 128;

impl WithSimd for Outer<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for from in (0..self.k).step_by(DEPTH) {
            let part = (from, self.k.min(from + DEPTH));
            for (from, to) in panels(self.n.div_ceil(S::F32_LANES), most_vectors()) {
                match to - from {
                    1 => self.panel::<S, 1>(simd, from, part),
                    2 => self.panel::<S, 2>(simd, from, part),
                    _ => self.panel::<S, 3>(simd, from, part),
                }
            }
            self.out.accumulate = true;
        }
    }
}

impl Outer<'_> {
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, vector: usize, part: (usize, usize)) {
        let (data, rows) = self.right;
        let fits = |k: usize| rows.start(k) + (vector + V) * S::F32_LANES <= data.len();
        let whole = match rows {
            Rows::Every(_) => fits(part.1 - 1),
            Rows::At(_) => (part.0..part.1).all(fits),
        };
        if whole {
            self.tiles::<S, V, true>(simd, vector, part);
        } else {
            self.tiles::<S, V, false>(simd, vector, part);
        }
    }

    /// `V` vectors of columns; `WHOLE` if they lie within the right factor in all rows of the part.
    #[inline(always)]
    fn tiles<S: Simd, const V: usize, const WHOLE: bool>(
        &mut self,
        simd: S,
        vector: usize,
        part: (usize, usize),
    ) {
        let rows = if large::<S>() { 8 } else { 4 };
        let whole = self.m / rows * rows;
        for i in (0..whole).step_by(rows) {
            if large::<S>() {
                self.tile::<S, 8, V, WHOLE>(simd, i, vector, part);
            } else {
                self.tile::<S, 4, V, WHOLE>(simd, i, vector, part);
            }
        }
        for i in whole..self.m {
            self.tile::<S, 1, V, WHOLE>(simd, i, vector, part);
        }
    }

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
        // All in one loop: handed to a function and back, the sums would go through memory.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, columns: usize, seed: f32) -> Vec<f32> {
        (0..rows * columns).map(|i| ((i as f32 + seed) * 0.37).sin()).collect()
    }

    /// Holds a matrix with `n` columns, its rows at a distance, against the definition.
    fn check(
        out: &[f32],
        distance: usize,
        [m, k, n]: [usize; 3],
        of: impl Fn(usize, usize, usize) -> f32,
    ) {
        for i in 0..m {
            for j in 0..n {
                let want: f32 = (0..k).map(|l| of(i, j, l)).sum();
                let off = (out[i * distance + j] - want).abs();
                assert!(off < 1e-4, "{m} {k} {n}: {off} at {i}, {j}");
            }
            for value in &out[i * distance + n..(i + 1) * distance] {
                assert!(value.is_nan(), "beyond the end of a row");
            }
        }
    }

    const SHAPES: [[usize; 3]; 9] = [
        [1, 1, 1],
        [4, 3, 16],
        [5, 7, 19],
        [16, 32, 16],
        [9, 2, 33],
        [8, 300, 48],
        [17, 5, 64],
        [23, 40, 130],
        [64, 9, 3],
    ];

    #[test]
    fn products_agree_with_the_definition() {
        for [m, k, n] in SHAPES {
            let (a, b) = (matrix(m, k, 0.0), matrix(k, n, 9.0));
            let of = |i: usize, j: usize, l: usize| a[i * k + l] * b[l * n + j];
            let packed = Packed::of(&b, k, n);
            let turned: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
            let turned = Packed::transpose_of(&turned, k, n);
            for right in [Right::Packed(&packed), Right::Packed(&turned), Right::Plain(&b, n)] {
                let mut c = vec![f32::NAN; m * (n + 3)];
                let left = Left::new(&a, Rows::Every(k), k);
                product(left, right, Out::new(&mut c, Rows::Every(n + 3)), m, n);
                check(&c, n + 3, [m, k, n], of);
            }
            let turned: Vec<f32> = (0..k * m).map(|i| a[i % m * k + i / m]).collect();
            let mut c = vec![f32::NAN; m * (n + 3)];
            let (left, right) = ((&turned[..], Rows::Every(m)), (&b[..], Rows::Every(n)));
            outer(left, right, Out::new(&mut c, Rows::Every(n + 3)), [m, k, n]);
            check(&c, n + 3, [m, k, n], of);
        }
    }

    #[test]
    fn segments_follow_each_other_and_all_is_added() {
        // Rows of two pieces of three values, nine apart; the rows themselves in reverse.
        let (m, n) = (11, 21);
        let data = matrix(40, 1, 0.0);
        let starts: Vec<usize> = (0..m).rev().map(|i| 2 * i).collect();
        let left = Left { data: &data, rows: Rows::At(&starts), segments: 2, segment: 9, len: 3 };
        let (b, bias, add) = (matrix(6, n, 1.0), matrix(1, n, 2.0), matrix(m, n, 3.0));
        let mut c = matrix(m, n, 4.0);
        let before = c.clone();
        let out = Out {
            data: &mut c,
            rows: Rows::Every(n),
            bias: Some(&bias),
            add: [None, Some((&add, Rows::Every(n)))],
            accumulate: true,
        };
        product(left, Right::Packed(&Packed::of(&b, 6, n)), out, m, n);
        check(&c, n, [m, 7, n], |i, j, l| match l {
            6 => before[i * n + j] + bias[j] + add[i * n + j],
            _ => data[starts[i] + l / 3 * 9 + l % 3] * b[l * n + j],
        });
    }
}
