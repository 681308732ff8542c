//! Arithmetic that the compiler turns into vector instructions.
//!
//! Everything here is plain scalar Rust in a shape that LLVM vectorises, inlined into a closure
//! that [`vectorize`] compiles once per instruction set and picks at run time. No fused
//! multiply-add is asked for: where the hardware has none, it would be a library call.

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

/// Sum of `f(i)` over `0..n`, in [`LANES`] partial sums.
#[inline(always)]
pub(super) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = n / LANES * LANES;
    let mut start = 0;
    while start < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
        start += LANES;
    }
    let mut total: f32 = lanes.iter().sum();
    for i in whole..n {
        total += f(i);
    }
    total
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
#[inline(always)]
pub(super) fn matmul(a: Strided, b: &[f32], c: &mut [f32], m: usize, k: usize, n: usize) {
    const ROWS: usize = 4;
    let mut i = 0;
    while i < m {
        let rows = ROWS.min(m - i);
        let mut j = 0;
        while j + LANES <= n {
            let mut acc = [[0.0f32; LANES]; ROWS];
            if rows == ROWS {
                for l in 0..k {
                    let b = &b[l * n + j..l * n + j + LANES];
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let a = a.data[(i + r) * a.rows + l * a.columns];
                        for (acc, b) in acc.iter_mut().zip(b) {
                            *acc += a * b;
                        }
                    }
                }
            } else {
                for l in 0..k {
                    let b = &b[l * n + j..l * n + j + LANES];
                    for (r, acc) in acc.iter_mut().enumerate().take(rows) {
                        let a = a.data[(i + r) * a.rows + l * a.columns];
                        for (acc, b) in acc.iter_mut().zip(b) {
                            *acc += a * b;
                        }
                    }
                }
            }
            for (r, acc) in acc.iter().enumerate().take(rows) {
                c[(i + r) * n + j..(i + r) * n + j + LANES].copy_from_slice(acc);
            }
            j += LANES;
        }
        for r in 0..rows {
            for j in j..n {
                let mut sum = 0.0;
                for l in 0..k {
                    sum += a.data[(i + r) * a.rows + l * a.columns] * b[l * n + j];
                }
                c[(i + r) * n + j] = sum;
            }
        }
        i += rows;
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
    fn sum_counts_every_element_once() {
        for n in [0, 1, 15, 16, 17, 64, 100] {
            assert_eq!(sum(n, |i| i as f32), (n * n.saturating_sub(1) / 2) as f32);
        }
    }
}
