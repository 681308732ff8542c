//! The register tile: its size on each instruction set, and the loop over the inner dimension.
//!
//! A tile of `R` rows by `V` vectors takes `R * V` registers for its sums, `V` for the current row
//! of the right factor and one for the broadcast value of the left factor:
//!
//! | registers | instruction sets | tile | used |
//! |---|---|---|---|
//! | 32 | AVX-512, NEON | 8x3 | 28 |
//! | 16 | AVX2, SSE | 4x3 | 16 |
//! | WebAssembly | 128 bits | 4x2 | 11 |
//!
//! The arrays of vectors stay in registers only if every index into them is a constant after
//! unrolling, hence the loops over `0..R` and `0..V` by index and the const generics.

// Index loops over constants keep the arrays of vectors in registers; see above.
#![allow(clippy::needless_range_loop, clippy::manual_memcpy)]

use pulp::Simd;

/// Whether the tile has 8 rows instead of 4. WebAssembly does not say how many registers the
/// machine has, and pulp assumes 32; on x86-64 its vectors are compiled to SSE, which has 16.
#[inline(always)]
pub(super) const fn has_many_registers<S: Simd>() -> bool {
    S::REGISTER_COUNT >= 32 && !cfg!(target_family = "wasm")
}

/// The width of the widest tile, in vectors.
#[inline(always)]
pub(super) const fn max_vectors() -> usize {
    if cfg!(target_family = "wasm") { 2 } else { 3 }
}

/// Loads a vector, or what is left of a slice shorter than that, padded with zeros.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    match S::as_simd_f32s(from).0.first() {
        Some(vector) => *vector,
        None => simd.partial_load_f32s(from),
    }
}

/// Stores a vector, or as many of its lanes as a shorter slice holds.
#[inline(always)]
pub(super) fn store<S: Simd>(simd: S, to: &mut [f32], vector: S::f32s) {
    if to.len() >= S::F32_LANES {
        S::as_mut_simd_f32s(to).0[0] = vector;
    } else {
        simd.partial_store_f32s(to, vector);
    }
}

/// Loads `V` vectors of a row that may be shorter.
///
/// `row` reaches from the first value wanted to the end of the matrix. Lanes beyond the end of the
/// matrix are zero. Lanes beyond the end of the row hold values of the next row; they end up in
/// columns that [`super::Out::write`] drops.
#[inline(always)]
pub(super) fn load_row<S: Simd, const V: usize>(simd: S, row: &[f32]) -> [S::f32s; V] {
    let mut vectors = [simd.splat_f32s(0.0); V];
    if let Some(row) = row.get(..V * S::F32_LANES) {
        let (row, _) = S::as_simd_f32s(row);
        for v in 0..V {
            vectors[v] = row[v];
        }
    } else {
        // Only the last rows of a matrix end here. Each `v` is tested on its own: an iterator that
        // stops early would not be unrolled, and the vectors would be kept in memory.
        for v in 0..V {
            if let Some(row) = row.get(v * S::F32_LANES..) {
                vectors[v] = load(simd, row);
            }
        }
    }
    vectors
}

/// The micro-kernel of a product: `sums[r][v] += Σ_k left[r][k] · right[k][v]`, where row `k` of
/// `right` begins at `k * stride`.
///
/// It takes and returns the sums by value, so that once inlined they never leave the registers.
#[inline(always)]
pub(super) fn accumulate<S: Simd, const R: usize, const V: usize>(
    simd: S,
    left: [&[f32]; R],
    right: &[f32],
    stride: usize,
    mut sums: [[S::f32s; V]; R],
) -> [[S::f32s; V]; R] {
    let width = V * S::F32_LANES;
    let len = left[0].len();
    // Number of rows that `right` holds over the whole width of the tile. For those, slices of
    // known length let the compiler drop the bounds checks in the loop.
    let whole = if width <= stride { len.min(right.len() / stride) } else { 0 };
    let mut rows: [&[f32]; R] = left;
    for r in 0..R {
        rows[r] = &left[r][..whole];
    }
    for (k, row) in (0..whole).zip(right.chunks_exact(stride)) {
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
    // The last row of a matrix that ends with it, and all rows that are narrower than the tile.
    for k in whole..len {
        let vectors = load_row::<S, V>(simd, &right[k * stride..]);
        for r in 0..R {
            let value = simd.splat_f32s(left[r][k]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(value, vectors[v], sums[r][v]);
            }
        }
    }
    sums
}
