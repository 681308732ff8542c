//! Discrete-time methods: DDIM and ancestral sampling (DDPM).

use burn::tensor::Tensor;

use super::step::{Evaluate, Prediction, Stop, slope, steps, trivial_step};
use crate::diffusion::method::Variance;

/// Bounds of the variance of an ancestral step from noise level `sigma` to `next`, in units of the
/// picture: the discrete-time variances divided by `ᾱ = 1 / (1 + next²)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepVariance {
    /// Variance of the posterior, `next² (σ² - next²) / σ²`.
    pub small: f64,
    /// Beta, `(1 + next²) (σ² - next²) / (1 + σ²)`.
    pub large: f64,
}

impl StepVariance {
    /// Computes the bounds for a step from `sigma` down to `next`.
    pub fn of(sigma: f64, next: f64) -> Self {
        let difference = (sigma - next) * (sigma + next);
        Self {
            small: difference * (next / sigma).powi(2),
            large: difference * (1.0 + next * next) / (1.0 + sigma * sigma),
        }
    }
}

/// DDIM: a step to the next noise level, with a part of the noise fresh.
pub(super) async fn ddim<E>(
    eta: f64,
    sigmas: &[f64],
    mut x: Tensor<4>,
    mut noise: impl FnMut(usize) -> Tensor<4>,
    mut evaluate: impl Evaluate<E>,
) -> Result<Tensor<4>, Stop<E>> {
    for (step, sigma, next) in steps(sigmas) {
        let Prediction { denoised, .. } = evaluate(&x, sigma, step).await?;
        if let Some(result) = trivial_step(&x, &denoised, sigma, next) {
            x = result;
            continue;
        }
        let fresh = eta * eta * StepVariance::of(sigma, next).small;
        let d = slope(&x, &denoised, sigma);
        x = denoised + d * (next * next - fresh).max(0.0).sqrt();
        if fresh > 0.0 {
            x = x + noise(step) * fresh.sqrt();
        }
    }
    Ok(x)
}

/// Ancestral sampling: each step draws from the posterior at the next noise level.
pub(super) async fn ddpm<E>(
    kind: Variance,
    sigmas: &[f64],
    mut x: Tensor<4>,
    mut noise: impl FnMut(usize) -> Tensor<4>,
    mut evaluate: impl Evaluate<E>,
) -> Result<Tensor<4>, Stop<E>> {
    for (step, sigma, next) in steps(sigmas) {
        let Prediction { denoised, variance } = evaluate(&x, sigma, step).await?;
        if let Some(result) = trivial_step(&x, &denoised, sigma, next) {
            x = result;
            continue;
        }
        let StepVariance { small, large } = StepVariance::of(sigma, next);
        let d = slope(&x, &denoised, sigma);
        let mean = denoised + d * (next * next / sigma);
        let added = match (kind, variance) {
            (Variance::Large, _) => noise(step) * large.sqrt(),
            (Variance::Learned, Some(position)) => {
                // Half the logarithm of a variance is the logarithm of the standard deviation.
                let (low, high) = (0.5 * small.ln(), 0.5 * large.ln());
                let log = (position + 1.0) * (0.5 * (high - low)) + low;
                noise(step) * log.exp()
            }
            (Variance::Small | Variance::Learned, _) => noise(step) * small.sqrt(),
        };
        x = mean + added;
    }
    Ok(x)
}
