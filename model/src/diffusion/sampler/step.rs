//! Types and functions shared by all methods.

use burn::tensor::Tensor;

/// Output of a denoiser for a noisy picture.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// D(x; σ), `[B, C, H, W]`.
    pub denoised: Tensor<4>,
    /// Variance of an ancestral step: the position of its logarithm between the bounds, from -1 for
    /// the smallest to 1 for the largest, `[B, C, H, W]`; `None` if the denoiser does not predict
    /// it.
    pub variance: Option<Tensor<4>>,
}

impl From<Tensor<4>> for Prediction {
    fn from(denoised: Tensor<4>) -> Self {
        Self { denoised, variance: None }
    }
}

/// Reason why a method ends before its last step.
pub(super) enum Stop<E> {
    /// `on_step` cancelled.
    Cancelled,
    /// `denoise` or `on_step` failed.
    Failed(E),
}

/// The denoiser as the methods call it: with `x`, its noise level and the index of the step.
pub(super) trait Evaluate<E>:
    AsyncFnMut(&Tensor<4>, f64, usize) -> Result<Prediction, Stop<E>>
{
}
impl<E, F: AsyncFnMut(&Tensor<4>, f64, usize) -> Result<Prediction, Stop<E>>> Evaluate<E> for F {}

/// Iterates over the steps: the index, the noise level and the next noise level of each.
pub(super) fn steps(sigmas: &[f64]) -> impl Iterator<Item = (usize, f64, f64)> {
    sigmas.windows(2).enumerate().map(|(step, pair)| (step, pair[0], pair[1]))
}

/// Computes the slope dx/dσ of the probability flow, which is the noise in `x`.
pub(super) fn slope(x: &Tensor<4>, denoised: &Tensor<4>, sigma: f64) -> Tensor<4> {
    (x.clone() - denoised.clone()) / sigma
}

/// Returns the result of a step that needs no method, if it is one: a step of zero width changes
/// nothing, and a step to 0 returns the denoised picture. Such steps draw no noise and do not enter
/// a history. All methods but Euler's and Heun's use it.
pub(super) fn trivial_step(
    x: &Tensor<4>,
    denoised: &Tensor<4>,
    sigma: f64,
    next: f64,
) -> Option<Tensor<4>> {
    if next == sigma {
        Some(x.clone())
    } else if next == 0.0 {
        Some(denoised.clone())
    } else {
        None
    }
}
