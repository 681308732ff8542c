//! iPNDM: Adams-Bashforth on the slopes of the probability flow.

use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::step::{Evaluate, Prediction, Stop, slope, steps, trivial_step};

/// Weights of the slopes, newest first, of the Adams-Bashforth methods of order 1 to 4.
const ADAMS_BASHFORTH: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// iPNDM (arXiv 2204.13902): Adams-Bashforth steps, along a weighted sum of the last slopes. The
/// order is the number of slopes available, up to `order`.
///
/// The weights are those for steps of equal width, regardless of the actual widths. On evenly
/// spaced levels the error is of order `order`. On EDM's levels, where consecutive widths differ by
/// a factor of about 1 + 1/N, it is of second order at most, and a higher `order` only changes its
/// constant factor. The step to 0 is an Euler step, because its width is unrelated to those before
/// it.
pub(super) async fn ipndm<E>(
    order: usize,
    sigmas: &[f64],
    mut x: Tensor<4>,
    mut evaluate: impl Evaluate<E>,
) -> Result<Tensor<4>, Stop<E>> {
    assert!((1..=4).contains(&order), "iPNDM has the orders 1 to 4");
    // Newest first.
    let mut slopes = VecDeque::with_capacity(order);
    for (step, sigma, next) in steps(sigmas) {
        let Prediction { denoised, .. } = evaluate(&x, sigma, step).await?;
        if let Some(result) = trivial_step(&x, &denoised, sigma, next) {
            x = result;
            continue;
        }
        slopes.truncate(order - 1);
        slopes.push_front(slope(&x, &denoised, sigma));
        for (weight, d) in ADAMS_BASHFORTH[slopes.len() - 1].iter().zip(&slopes) {
            x = x + d.clone() * (weight * (next - sigma));
        }
    }
    Ok(x)
}
