//! Arithmetic that the compiler turns into vector instructions.
//!
//! The functions are scalar Rust in a form that LLVM vectorises. They are inlined into a closure
//! that [`vectorize`] compiles once per instruction set and chooses at run time. They ask for no
//! fused multiply-add: on hardware without one, `f32::mul_add` is a library call.

/// Number of independent partial sums in a reduction: the `f32` lanes of an AVX-512 register. It is
/// the same for every instruction set, and so is the order of additions.
pub(super) const LANES: usize = 16;

/// Runs `work`, compiled for the widest instruction set of this machine.
#[inline]
pub(super) fn vectorize<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Computes `e^x`, within 2 units in the last place. The argument is clamped to -87.3 to 88.3, so
/// that the result is always a normal number.
///
/// The argument is reduced to `2^n * e^r` with `|r| <= ln(2)/2`; a polynomial gives `e^r`, and
/// `2^n` is written into the exponent bits. Adding the constant `1.5 * 2^23` rounds to the nearest
/// integer.
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

/// Computes `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Sets each `y[i]` to `f(y[i], [x[0][i], x[1][i], ..])` for slices of equal length.
///
/// The width of a vector is written out. Given a plain loop, the compiler unrolls it so far that
/// the short rows of the network never reach its vectorised part.
#[inline(always)]
pub(super) fn update<const N: usize>(
    y: &mut [f32],
    x: [&[f32]; N],
    f: impl Fn(f32, [f32; N]) -> f32,
) {
    let length = y.len();
    let x = x.map(|x| x[..length].as_chunks::<LANES>());
    let (y, y_tail) = y.as_chunks_mut::<LANES>();
    for (i, y) in y.iter_mut().enumerate() {
        let x = x.map(|(x, _)| &x[i]);
        for lane in 0..LANES {
            y[lane] = f(y[lane], x.map(|x| x[lane]));
        }
    }
    for (i, y) in y_tail.iter_mut().enumerate() {
        *y = f(*y, x.map(|(_, x)| x[i]));
    }
}

/// Returns the sum of `f([x[0][i], x[1][i], ..])` over `i`, for slices of equal length.
#[inline(always)]
pub(super) fn sum<const N: usize>(x: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f32 {
    let length = x.first().map_or(0, |x| x.len());
    let x = x.map(|x| x[..length].as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for i in 0..length / LANES {
        let x = x.map(|(x, _)| &x[i]);
        for lane in 0..LANES {
            lanes[lane] += f(x.map(|x| x[lane]));
        }
    }
    for i in 0..length % LANES {
        lanes[i] += f(x.map(|(_, x)| x[i]));
    }
    total(lanes)
}

/// Sets each `y` to `f(y)`, and returns the sum of the new values.
#[inline(always)]
pub(super) fn update_sum(y: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let (y, tail) = y.as_chunks_mut::<LANES>();
    let mut lanes = [0.0; LANES];
    for y in y {
        for lane in 0..LANES {
            y[lane] = f(y[lane]);
            lanes[lane] += y[lane];
        }
    }
    for (lane, y) in lanes.iter_mut().zip(tail) {
        *y = f(*y);
        *lane += *y;
    }
    total(lanes)
}

/// Returns the sum of all lanes, added pairwise in four steps.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// Adds the rows of a matrix to `sums`.
#[inline(always)]
pub(super) fn add_rows(sums: &mut [f32], rows: &[f32]) {
    for row in rows.chunks_exact(sums.len()) {
        update(sums, [row], |sum, [x]| sum + x);
    }
}

/// Returns the largest value of `x`, ignoring NaN, or negative infinity if there is none.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 2.4e-7, "exp({x}): relative error {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1000.0) < 1.3e-38);
        assert!(exp(1000.0).is_finite());
    }

    #[test]
    fn max_considers_every_element() {
        for n in 1..40 {
            for at in 0..n {
                let x: Vec<f32> = (0..n).map(|i| if i == at { 2.0 } else { -1.0 }).collect();
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
            assert_eq!(sum([&x, &x], |[x, y]| x + y), want);
            let mut doubled = x.clone();
            assert_eq!(update_sum(&mut doubled, |x| 2.0 * x), want);
            let mut zeros = vec![0.0; x.len()];
            update(&mut zeros, [&x, &doubled], |zero, [x, doubled]| zero + doubled - 2.0 * x);
            assert!(zeros.iter().all(|&zero| zero == 0.0));
        }
    }
}
