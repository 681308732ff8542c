//! How the same prediction is written as a picture, as noise or as a score, and the processes that
//! run from noise to pictures along it (Eq (1), (2) of the paper).
//!
//! `x = y + σ ε` throughout, `y` a picture and `ε` unit noise.

use burn::tensor::Tensor;

/// The noise that denoising to `denoised` takes out of `x`: `ε = (x - D) / σ`.
///
/// # Shapes
///
/// - x, denoised, output: `[B, C, H, W]`
pub fn noise(x: Tensor<4>, denoised: Tensor<4>, sigma: f64) -> Tensor<4> {
    (x - denoised) / sigma
}

/// The picture that is left of `x` without the noise: `D = x - σ ε`.
///
/// # Shapes
///
/// - x, noise, output: `[B, C, H, W]`
pub fn denoised(x: Tensor<4>, noise: Tensor<4>, sigma: f64) -> Tensor<4> {
    x - noise * sigma
}

/// The gradient of the log density of noisy pictures: `s = (D - x) / σ² = -ε / σ`.
///
/// # Shapes
///
/// - x, denoised, output: `[B, C, H, W]`
pub fn score(x: Tensor<4>, denoised: Tensor<4>, sigma: f64) -> Tensor<4> {
    (denoised - x) / (sigma * sigma)
}

/// The process of Eq (2) at one moment: `dz = drift · s dt + diffusion dw`, for time that runs
/// from noise to pictures, so that `dt` is negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// Factor of the score, `-(dσ/dt + β) σ`.
    pub drift: f64,
    /// Factor of the noise, `sqrt(2 β σ)`.
    pub diffusion: f64,
}

impl Process {
    /// At noise level `sigma`, which changes by `sigma_rate` in a unit of time, with fresh noise
    /// at the rate `beta`. Without fresh noise this is the probability flow: an ordinary
    /// differential equation.
    pub fn at(sigma: f64, sigma_rate: f64, beta: f64) -> Self {
        Self { drift: -(sigma_rate + beta) * sigma, diffusion: (2.0 * beta * sigma).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn picture_noise_and_score_are_one_prediction(
            x in -2.0f32..2.0, y in -1.0f32..1.0, sigma in 0.01f64..10.0,
        ) {
            let tensor = |v: f32| Tensor::<4>::full([1, 1, 1, 1], v, &Device::flex());
            let value = |t: Tensor<4>| f64::from(t.into_scalar::<f32>());
            let epsilon = noise(tensor(x), tensor(y), sigma);
            let back = value(denoised(tensor(x), epsilon.clone(), sigma));
            prop_assert!((back - f64::from(y)).abs() < 1e-5);
            let s = value(score(tensor(x), tensor(y), sigma));
            prop_assert!((s + value(epsilon) / sigma).abs() < 1e-3 * s.abs().max(1.0));
        }

        /// Whatever the rate of fresh noise, pictures that are normal with variance `v` stay
        /// normal with variance `v + σ²`: a small step changes it by `2 σ dσ`.
        #[test]
        fn fresh_noise_does_not_change_the_distribution(
            v in 0.1f64..2.0, sigma in 0.1f64..10.0, rate in 0.1f64..3.0, beta in 0.0f64..5.0,
        ) {
            let Process { drift, diffusion } = Process::at(sigma, rate, beta);
            let total = v + sigma * sigma;
            let dt = -1e-7;
            // The score of a normal density is -z / variance.
            let factor = 1.0 - drift * dt / total;
            let after = factor * factor * total + diffusion * diffusion * -dt;
            let want = v + (sigma + rate * dt).powi(2);
            prop_assert!(((after - want) / dt).abs() < 1e-4 * (1.0 + sigma * (rate + beta)).powi(2));
        }
    }

    #[test]
    fn without_fresh_noise_nothing_is_random() {
        assert_eq!(Process::at(2.0, 1.0, 0.0), Process { drift: -2.0, diffusion: 0.0 });
    }
}
