//! Euler and Heun with churn (EDM, algorithms 1 and 2).

use burn::tensor::Tensor;

use super::step::{Evaluate, Prediction, Stop, slope, steps};
use crate::diffusion::method::Churn;

/// Adds churn noise to `x`. Returns the noisier picture with its noise level.
fn churned(
    churn: &Churn,
    steps: usize,
    sigma: f64,
    x: Tensor<4>,
    noise: impl FnOnce() -> Tensor<4>,
) -> (Tensor<4>, f64) {
    let raised = churn.raise(sigma, steps);
    if raised > sigma {
        let added = churn.s_noise * (raised.powi(2) - sigma.powi(2)).sqrt();
        (x + noise() * added, raised)
    } else {
        (x, sigma)
    }
}

/// Euler's method: a step along the slope. First order.
pub(super) async fn euler<E>(
    churn: &Churn,
    sigmas: &[f64],
    mut x: Tensor<4>,
    mut noise: impl FnMut(usize) -> Tensor<4>,
    mut evaluate: impl Evaluate<E>,
) -> Result<Tensor<4>, Stop<E>> {
    for (step, sigma, next) in steps(sigmas) {
        let (noisy, raised) = churned(churn, sigmas.len() - 1, sigma, x, || noise(step));
        let Prediction { denoised, .. } = evaluate(&noisy, raised, step).await?;
        let d = slope(&noisy, &denoised, raised);
        x = noisy + d * (next - raised);
    }
    Ok(x)
}

/// Heun's method: a step along the mean of the slopes at both ends of an Euler step. Second order;
/// the step to 0, where the slope is undefined, is an Euler step. EDM, algorithm 2 (algorithm 1
/// without churn).
pub(super) async fn heun<E>(
    churn: &Churn,
    sigmas: &[f64],
    mut x: Tensor<4>,
    mut noise: impl FnMut(usize) -> Tensor<4>,
    mut evaluate: impl Evaluate<E>,
) -> Result<Tensor<4>, Stop<E>> {
    for (step, sigma, next) in steps(sigmas) {
        let (noisy, raised) = churned(churn, sigmas.len() - 1, sigma, x, || noise(step));
        let Prediction { denoised, .. } = evaluate(&noisy, raised, step).await?;
        let d = slope(&noisy, &denoised, raised);
        x = if next > 0.0 {
            let euler = noisy.clone() + d.clone() * (next - raised);
            let Prediction { denoised, .. } = evaluate(&euler, next, step).await?;
            let d_next = slope(&euler, &denoised, next);
            noisy + (d + d_next) * (0.5 * (next - raised))
        } else {
            noisy + d * (next - raised)
        };
    }
    Ok(x)
}
