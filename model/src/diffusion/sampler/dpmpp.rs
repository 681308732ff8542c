//! DPM-Solver++, multistep.

use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::step::{Evaluate, Prediction, Stop, steps, trivial_step};

/// DPM-Solver++ (arXiv 2211.01095), multistep, 2M and 3M: in λ = -ln σ the flow is dx/dλ = D - x,
/// and over a step of width h
///
/// ```text
/// x(λ + h) = e^-h x + ∫ e^(τ - h) D(λ + τ) dτ,  τ from 0 to h
/// ```
///
/// where D is extrapolated from the last denoised pictures by a polynomial. The second-order step
/// weighs the slope of D by h (1 - e^-h) / 2, as in the paper (its algorithm 2); the third-order
/// step uses the exact integrals. (The code published with the paper halves the last of them, which
/// reduces 3M to second order.)
///
/// The order is lower at both ends. The first steps lack history. The step to the lowest level
/// above 0 is of second order at most, as in the published code for few steps, and the step to 0,
/// which is infinite in λ, returns the denoised picture.
pub(super) async fn dpmpp<E>(
    order: usize,
    sigmas: &[f64],
    mut x: Tensor<4>,
    mut evaluate: impl Evaluate<E>,
) -> Result<Tensor<4>, Stop<E>> {
    assert!((2..=3).contains(&order), "DPM-Solver++ has the orders 2 and 3");
    let lowest = sigmas[sigmas.len() - 2];
    // Pairs of λ and denoised picture, newest first.
    let mut history = VecDeque::with_capacity(order);
    for (step, sigma, next) in steps(sigmas) {
        let Prediction { denoised, .. } = evaluate(&x, sigma, step).await?;
        if let Some(result) = trivial_step(&x, &denoised, sigma, next) {
            x = result;
            continue;
        }
        history.truncate(order - 1);
        history.push_front((-sigma.ln(), denoised));
        let (lambda, denoised) = &history[0];
        let h = (sigma / next).ln();
        // The integrals of e^(τ - h) times 1, τ and τ², over τ from 0 to h.
        let w0 = -(-h).exp_m1();
        let w1 = h - w0;
        let w2 = h * h - 2.0 * w1;
        // Divided differences of D.
        let divided_difference = |i: usize| -> Tensor<4> {
            let ((newer, to), (older, from)) = (&history[i], &history[i + 1]);
            (to.clone() - from.clone()) / (newer - older)
        };
        x = x * (next / sigma) + denoised.clone() * w0;
        x = match history.len().min(if next == lowest { 2 } else { order }) {
            1 => x,
            2 => x + divided_difference(0) * (0.5 * h * w0),
            _ => {
                let second_difference =
                    (divided_difference(0) - divided_difference(1)) / (lambda - history[2].0);
                // Newton's polynomial through three points, in powers of τ.
                let slope =
                    divided_difference(0) + second_difference.clone() * (lambda - history[1].0);
                x + slope * w1 + second_difference * w2
            }
        };
    }
    Ok(x)
}
