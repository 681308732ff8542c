//! DPM-Solver++, multistep.

use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::step::{Evaluate, Prediction, Stop, settled, steps};

/// DPM-Solver++ (arXiv 2211.01095), multistep, 2M and 3M: in λ = -ln σ the flow is
/// dx/dλ = D - x, and over a step of width h
///
/// ```text
/// x(λ + h) = e^-h x + ∫ e^(τ - h) D(λ + τ) dτ,  τ from 0 to h
/// ```
///
/// where D is continued from the last denoised pictures by a polynomial. The second order weighs the
/// slope of D by h (1 - e^-h) / 2, as the paper does (its algorithm 2), the third by the integrals
/// themselves. (The code published with the paper halves the last of them, which leaves 3M of second
/// order.)
///
/// The order is lower at both ends: at first, since there is no history; at the end, as the
/// published code has it for few steps, the step to the lowest level above 0 is of second order at the
/// most, and that to 0, which is without end in λ, returns the denoised picture.
pub(super) async fn dpmpp<E>(
    order: usize,
    sigmas: &[f64],
    mut x: Tensor<4>,
    mut evaluate: impl Evaluate<E>,
) -> Result<Tensor<4>, Stop<E>> {
    assert!((2..=3).contains(&order), "DPM-Solver++ has the orders 2 and 3");
    let lowest = sigmas[sigmas.len() - 2];
    // λ and the denoised picture there, the newest first.
    let mut past = VecDeque::with_capacity(order);
    for (step, sigma, next) in steps(sigmas) {
        let Prediction { denoised, .. } = evaluate(&x, sigma, step).await?;
        if let Some(end) = settled(&x, &denoised, sigma, next) {
            x = end;
            continue;
        }
        past.truncate(order - 1);
        past.push_front((-sigma.ln(), denoised));
        let (lambda, denoised) = &past[0];
        let h = (sigma / next).ln();
        // The integrals of e^(τ - h) times 1, τ and τ².
        let w0 = -(-h).exp_m1();
        let w1 = h - w0;
        let w2 = h * h - 2.0 * w1;
        // Divided differences of D.
        let rise = |i: usize| -> Tensor<4> {
            let ((newer, to), (older, from)) = (&past[i], &past[i + 1]);
            (to.clone() - from.clone()) / (newer - older)
        };
        x = x * (next / sigma) + denoised.clone() * w0;
        x = match past.len().min(if next == lowest { 2 } else { order }) {
            1 => x,
            2 => x + rise(0) * (0.5 * h * w0),
            _ => {
                let bend = (rise(0) - rise(1)) / (lambda - past[2].0);
                // Newton's polynomial through three points, in powers of τ.
                let slope = rise(0) + bend.clone() * (lambda - past[1].0);
                x + slope * w1 + bend * w2
            }
        };
    }
    Ok(x)
}
