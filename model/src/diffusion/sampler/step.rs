//! What all methods have in common.

use burn::tensor::Tensor;

/// What a denoiser makes of a noisy picture.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// D(x; σ), `[B, C, H, W]`.
    pub denoised: Tensor<4>,
    /// Where the variance of an ancestral step lies by its logarithm, from -1 for the smallest to
    /// 1 for the largest, `[B, C, H, W]`; none from a denoiser that does not say.
    pub variance: Option<Tensor<4>>,
}

impl From<Tensor<4>> for Prediction {
    fn from(denoised: Tensor<4>) -> Self {
        Self { denoised, variance: None }
    }
}

/// Why a method ends before its last step.
pub(super) enum Stop<E> {
    /// `on_step` broke off.
    Broken,
    /// `denoise` or `on_step` failed.
    Failed(E),
}

/// What a method asks for predictions: of `x` at a noise level, for a step by its number.
pub(super) trait Evaluate<E>:
    AsyncFnMut(&Tensor<4>, f64, usize) -> Result<Prediction, Stop<E>>
{
}
impl<E, F: AsyncFnMut(&Tensor<4>, f64, usize) -> Result<Prediction, Stop<E>>> Evaluate<E> for F {}

/// Each step's number, its noise level and the next.
pub(super) fn steps(sigmas: &[f64]) -> impl Iterator<Item = (usize, f64, f64)> {
    sigmas.windows(2).enumerate().map(|(step, pair)| (step, pair[0], pair[1]))
}

/// The slope dx/dσ of the probability flow, which is the noise in `x`.
pub(super) fn slope(x: &Tensor<4>, denoised: &Tensor<4>, sigma: f64) -> Tensor<4> {
    (x.clone() - denoised.clone()) / sigma
}

/// The end of a step that is the same with every method but Euler's and Heun's, if it is one: a step
/// of no width changes nothing, and the step to 0 returns the denoised picture. Neither draws noise or
/// is part of a history.
pub(super) fn settled(
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
