//! The three forms of a prediction (denoised picture, noise, score) and the conversions between them,
//! and the reverse-time processes that use them (Eq (1), (2) of the paper).
//!
//! Throughout, `x = y + σ ε` with a picture `y` and unit noise `ε`.

use burn::tensor::Tensor;

/// Computes the noise in `x` from its denoised picture: `ε = (x - D) / σ`.
///
/// # Shapes
///
/// - x, denoised, output: `[B, C, H, W]`
pub fn noise(x: Tensor<4>, denoised: Tensor<4>, sigma: f64) -> Tensor<4> {
    (x - denoised) / sigma
}

/// Computes the denoised picture from the noise in `x`: `D = x - σ ε`.
///
/// # Shapes
///
/// - x, noise, output: `[B, C, H, W]`
pub fn denoised(x: Tensor<4>, noise: Tensor<4>, sigma: f64) -> Tensor<4> {
    x - noise * sigma
}

/// Computes the score, the gradient of the log density of noisy pictures: `s = (D - x) / σ² = -ε /
/// σ`.
///
/// # Shapes
///
/// - x, denoised, output: `[B, C, H, W]`
pub fn score(x: Tensor<4>, denoised: Tensor<4>, sigma: f64) -> Tensor<4> {
    (denoised - x) / (sigma * sigma)
}

/// Coefficients of the process of Eq (2) at one time: `dz = drift · s dt + diffusion dw`. Time runs
/// from noise to pictures, so `dt` is negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// Coefficient of the score, `-(dσ/dt + β) σ`.
    pub drift: f64,
    /// Coefficient of the noise, `sqrt(2 β σ)`.
    pub diffusion: f64,
}

impl Process {
    /// Computes the coefficients at noise level `sigma` with `sigma_rate = dσ/dt`, for fresh noise
    /// at the rate `beta`. Without fresh noise the process is the probability flow, an ordinary
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
        fn picture_noise_and_score_convert_into_each_other(
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

        /// For any rate of fresh noise, normally distributed pictures of variance `v` stay normal
        /// with variance `v + σ²`, which a small step changes by `2 σ dσ`.
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
    fn without_fresh_noise_the_process_is_deterministic() {
        assert_eq!(Process::at(2.0, 1.0, 0.0), Process { drift: -2.0, diffusion: 0.0 });
    }
}
