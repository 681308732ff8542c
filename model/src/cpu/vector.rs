//! Arithmetic that the compiler turns into vector instructions.
//!
//! Everything here is plain scalar Rust in a shape that LLVM vectorises, inlined into a closure
//! that [`vectorize`] compiles once per instruction set and picks at run time. No fused
//! multiply-add is asked for: where the hardware has none, it would be a library call.

use pulp::{Simd, WithSimd};

/// Number of independent partial sums in a reduction: one AVX-512 register of `f32`.
pub(super) const LANES: usize = 16;

/// Runs `work` compiled for the widest instruction set this machine has.
#[inline]
pub(super) fn vectorize<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// `e^x`, within 2 units in the last place; 0 below -87.3, finite above 88.7.
///
/// Reduction to `2^n * e^r` with `|r| <= ln(2)/2`, a polynomial for `e^r`, and `2^n` written
/// into the exponent bits. The constant `1.5 * 2^23` rounds to the nearest integer when added.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * core::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let power = f32::from_bits(((shifted.to_bits() as i32).wrapping_add(127) << 23) as u32);
    p * power
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Sets every `x` to `f(x, y)`, for slices of one length.
///
/// Rows here are short. Written as one loop, the compiler unrolls it so far that a short row never
/// reaches the vector part; so the width is spelled out.
#[inline(always)]
pub(super) fn update(x: &mut [f32], y: &[f32], f: impl Fn(f32, f32) -> f32) {
    debug_assert_eq!(x.len(), y.len());
    let (x, x_tail) = x.as_chunks_mut::<LANES>();
    let (y, y_tail) = y.as_chunks::<LANES>();
    for (x, y) in x.iter_mut().zip(y) {
        for lane in 0..LANES {
            x[lane] = f(x[lane], y[lane]);
        }
    }
    for (x, y) in x_tail.iter_mut().zip(y_tail) {
        *x = f(*x, *y);
    }
}

/// Sum of `f(x, y)` over slices of one length.
#[inline(always)]
pub(super) fn sum(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    debug_assert_eq!(x.len(), y.len());
    let (x, x_tail) = x.as_chunks::<LANES>();
    let (y, y_tail) = y.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            lanes[lane] += f(x[lane], y[lane]);
        }
    }
    let tail: f32 = x_tail.iter().zip(y_tail).map(|(x, y)| f(*x, *y)).sum();
    tail + lanes.iter().sum::<f32>()
}

/// The largest of `x`; negative infinity if there is none. NaN is passed over.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (x, tail) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for x in x {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], x[lane]);
        }
    }
    lanes.iter().chain(tail).copied().fold(f32::NEG_INFINITY, larger)
}

/// The left factor of [`matmul`]: element `(i, j)` is `data[i * rows + j * columns]`.
#[derive(Clone, Copy)]
pub(super) struct Strided<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub columns: usize,
}

/// `c = a · b` for small matrices: `a` is `[m, k]`, `b` is `[k, n]` and `c` is `[m, n]`,
/// the last two row after row.
///
/// Left to itself, the compiler takes this loop apart into scalars; so here the vectors are
/// written out.
#[inline]
pub(super) fn matmul(a: Strided, b: &[f32], c: &mut [f32], m: usize, k: usize, n: usize) {
    pulp::Arch::new().dispatch(Product { a, b, c, m, k, n });
}

struct Product<'a> {
    a: Strided<'a>,
    b: &'a [f32],
    c: &'a mut [f32],
    m: usize,
    k: usize,
    n: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        const ROWS: usize = 4;
        let whole = self.m / ROWS * ROWS;
        for i in (0..whole).step_by(ROWS) {
            self.rows::<S, ROWS>(simd, i);
        }
        for i in whole..self.m {
            self.rows::<S, 1>(simd, i);
        }
    }
}

impl Product<'_> {
    /// Rows `i` to `i + R`.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&mut self, simd: S, i: usize) {
        let mut j = 0;
        while j + 2 * S::F32_LANES <= self.n {
            self.tile::<S, R, 2>(simd, i, j);
            j += 2 * S::F32_LANES;
        }
        while j + S::F32_LANES <= self.n {
            self.tile::<S, R, 1>(simd, i, j);
            j += S::F32_LANES;
        }
        let Self { a, b, ref mut c, k, n, .. } = *self;
        for i in i..i + R {
            for j in j..n {
                let products = (0..k).map(|l| a.data[i * a.rows + l * a.columns] * b[l * n + j]);
                c[i * n + j] = products.sum();
            }
        }
    }

    /// `R` rows by `V` vectors of sums, which stay in registers.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, i: usize, j: usize) {
        let Self { a, b, ref mut c, k, n, .. } = *self;
        let width = V * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for l in 0..k {
            let (b, _) = S::as_simd_f32s(&b[l * n + j..][..width]);
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = simd.splat_f32s(a.data[(i + r) * a.rows + l * a.columns]);
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = simd.mul_add_e_f32s(a, *b, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let (c, _) = S::as_mut_simd_f32s(&mut c[(i + r) * n + j..][..width]);
            c.copy_from_slice(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let worst = (-87_000..88_000)
            .map(|i| {
                let x = i as f32 * 1e-3;
                let want = f64::from(x).exp();
                (f64::from(exp(x)) - want).abs() / want
            })
            .fold(0.0, f64::max);
        assert!(worst < 2.4e-7, "relative error {worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1000.0) < 1.3e-38);
        assert!(exp(1000.0).is_finite());
    }

    #[test]
    fn matmul_agrees_with_the_definition() {
        for (m, k, n) in [(1, 1, 1), (4, 3, 16), (5, 7, 19), (16, 32, 16), (9, 2, 33)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.71).cos()).collect();
            let mut c = vec![f32::NAN; m * n];
            let left = Strided { data: &a, rows: k, columns: 1 };
            matmul(left, &b, &mut c, m, k, n);
            let transposed: Vec<f32> = (0..k * m).map(|i| a[i % m * k + i / m]).collect();
            let mut d = vec![f32::NAN; m * n];
            let left = Strided { data: &transposed, rows: 1, columns: m };
            matmul(left, &b, &mut d, m, k, n);
            for i in 0..m {
                for j in 0..n {
                    let want: f32 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                    assert!((c[i * n + j] - want).abs() < 1e-5);
                    assert_eq!(c[i * n + j], d[i * n + j]);
                }
            }
        }
    }

    #[test]
    fn max_looks_at_every_element() {
        for n in 1..40 {
            for place in 0..n {
                let x: Vec<f32> = (0..n).map(|i| if i == place { 2.0 } else { -1.0 }).collect();
                assert_eq!(max(&x), 2.0);
            }
        }
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn sum_counts_every_element_once() {
        for n in [0, 1, 15, 16, 17, 64, 100u16] {
            let x: Vec<f32> = (0..n).map(f32::from).collect();
            let want: f32 = x.iter().map(|x| 2.0 * x).sum();
            assert_eq!(sum(&x, &x, |x, y| x + y), want);
        }
    }
}
