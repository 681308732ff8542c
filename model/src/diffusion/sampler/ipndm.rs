//! iPNDM: Adams-Bashforth on the slopes of the probability flow.

use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::step::{Evaluate, Prediction, Stop, settled, slope, steps};

/// Weights of the slopes, the newest first, of the Adams-Bashforth methods of order 1 to 4.
const ADAMS_BASHFORTH: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// iPNDM (arXiv 2204.13902): Adams-Bashforth, along a weighted sum of the last slopes, of as high
/// an order as there are slopes, up to `order`.
///
/// The weights are those of steps of equal width, whatever the widths are. On such levels the
/// error falls with `order`; on EDM's, where the widths change by a part in N from one step to the
/// next, with the second order at the most, and what `order` changes is the factor in front.
/// The step to 0 is Euler's: there the widths have nothing in common with those before.
pub(super) async fn ipndm<E>(
    order: usize,
    sigmas: &[f64],
    mut x: Tensor<4>,
    mut evaluate: impl Evaluate<E>,
) -> Result<Tensor<4>, Stop<E>> {
    assert!((1..=4).contains(&order), "iPNDM has the orders 1 to 4");
    // The newest first.
    let mut slopes = VecDeque::with_capacity(order);
    for (step, sigma, next) in steps(sigmas) {
        let Prediction { denoised, .. } = evaluate(&x, sigma, step).await?;
        if let Some(end) = settled(&x, &denoised, sigma, next) {
            x = end;
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
