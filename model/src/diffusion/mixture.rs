//! A data distribution whose denoiser is known in closed form: a mixture of Gaussians in the plane.
//!
//! Samplers can be compared on it without a network. Unlike that of a single Gaussian, its
//! probability flow is curved.

#[cfg(feature = "tensor")]
use burn::tensor::{Tensor, TensorData};

/// Exponent below which a component is left out: it contributes less than the rounding error.
const NEGLIGIBLE: f64 = -40.0;

/// A mixture of isotropic Gaussians in the plane, of equal weight and equal standard deviation `s`.
///
/// Noise of level σ turns it into the mixture with the same means and the variance `s² + σ²`, so
/// that the posterior weight of component `i` and the denoiser are
///
/// ```text
/// w_i(x, σ) ∝ exp(-|x - μ_i|² / (2 (s² + σ²))),  Σ w_i = 1
/// D(x; σ) = (s² x + σ² Σ w_i μ_i) / (s² + σ²)
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    means: Vec<[f64; 2]>,
    std: f64,
}

impl Mixture {
    /// Creates the mixture of components with these means and this standard deviation.
    ///
    /// # Panics
    ///
    /// If there is no mean, or the standard deviation is not a positive number.
    pub fn new(means: Vec<[f64; 2]>, std: f64) -> Self {
        assert!(!means.is_empty(), "a mixture has a component");
        assert!(std > 0.0 && std.is_finite(), "a standard deviation is a positive number");
        Self { means, std }
    }

    /// Returns the means of the components.
    pub fn means(&self) -> &[[f64; 2]] {
        &self.means
    }

    /// Returns the standard deviation of every component.
    pub fn std(&self) -> f64 {
        self.std
    }

    /// Returns the distance from a point to the nearest mean, in standard deviations.
    pub fn nearest(&self, x: [f64; 2]) -> f64 {
        self.nearest_square(x).sqrt() / self.std
    }

    fn nearest_square(&self, x: [f64; 2]) -> f64 {
        self.means.iter().map(|&mean| square(x, mean)).fold(f64::INFINITY, f64::min)
    }

    /// Computes `D(x; σ)`: the mean of the data, given a point with noise of level σ.
    pub fn denoise(&self, x: [f64; 2], sigma: f64) -> [f64; 2] {
        let variance = self.std * self.std + sigma * sigma;
        // Relative to the nearest mean, whose weight is 1, so that the sum cannot underflow.
        let nearest = self.nearest_square(x);
        let (mut total, mut sum) = (0.0, [0.0; 2]);
        for &mean in &self.means {
            let exponent = (nearest - square(x, mean)) / (2.0 * variance);
            if exponent > NEGLIGIBLE {
                let weight = exponent.exp();
                total += weight;
                sum = [sum[0] + weight * mean[0], sum[1] + weight * mean[1]];
            }
        }
        let of_x = self.std * self.std / variance;
        let of_means = sigma * sigma / (variance * total);
        [of_x * x[0] + of_means * sum[0], of_x * x[1] + of_means * sum[1]]
    }

    /// Computes `D(x; σ)` for a batch of points on the processor, in the number type of `x`.
    ///
    /// # Shapes
    ///
    /// - x, result: `[n, 1, 1, 2]`
    ///
    /// # Panics
    ///
    /// If `x` has another shape, or is on a device that cannot be read synchronously.
    #[cfg(feature = "tensor")]
    pub fn denoise_batch(&self, x: &Tensor<4>, sigma: f64) -> Tensor<4> {
        let shape = x.dims();
        assert_eq!(shape[1..], [1, 1, 2], "a batch of points in the plane");
        let data = x.to_data();
        let values: Vec<f64> = data.iter().collect();
        let denoised: Vec<f64> =
            values.chunks_exact(2).flat_map(|x| self.denoise([x[0], x[1]], sigma)).collect();
        Tensor::from_data(TensorData::new(denoised, shape), (&x.device(), x.dtype()))
    }
}

/// Returns the squared distance of two points.
fn square(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)
}

/// The samplers on a curved flow.
#[cfg(all(test, feature = "tensor"))]
mod sampling {
    use super::*;
    use crate::diffusion::noise::start_noise;
    use crate::diffusion::sampler::{Churn, Method, sample};
    use crate::diffusion::schedule::Schedule;
    use burn::tensor::{DType, Device};
    use core::convert::Infallible;
    use core::ops::ControlFlow;

    /// Samples from points at the first of the levels, in double precision.
    fn sampled(mixture: &Mixture, method: Method, levels: &[f64], start: &[f64]) -> Vec<[f64; 2]> {
        let data = TensorData::new(start.to_vec(), [start.len() / 2, 1, 1, 2]);
        let x = Tensor::<4>::from_data(data, (&Device::flex(), DType::F64));
        let made = pollster::block_on(sample(
            method,
            &Churn::default(),
            levels,
            x,
            |_| unreachable!("no fresh noise"),
            async |x: &Tensor<4>, sigma| Ok::<_, Infallible>(mixture.denoise_batch(x, sigma)),
            async |_| Ok(ControlFlow::Continue(())),
        ));
        let made = made.expect("infallible").expect("not cancelled").into_data();
        let values: Vec<f64> = made.try_to_vec().expect("f64");
        values.chunks_exact(2).map(|x| [x[0], x[1]]).collect()
    }

    #[test]
    fn many_steps_give_the_means_and_variances_of_the_mixture() {
        let means = vec![[-1.2, -0.4], [0.9, 1.1], [1.0, -1.3]];
        let mixture = Mixture::new(means.clone(), 0.15);
        let noise = start_noise(3, 6000);
        let start: Vec<f64> = noise.into_iter().map(|n| 80.0 * f64::from(n)).collect();
        let ends = sampled(&mixture, Method::Heun, &Schedule::default().sigmas(60), &start);
        for (i, &mean) in means.iter().enumerate() {
            let own = ends
                .iter()
                .filter(|&&end| means.iter().all(|&other| square(end, mean) <= square(end, other)));
            let own: Vec<[f64; 2]> = own.copied().collect();
            let n = own.len() as f64;
            // Four standard errors of a share of a third, of a mean, and of a variance.
            assert!((n - 1000.0).abs() < 4.0 * 26.0, "{n} points at mean {i}");
            for d in 0..2 {
                let centre = own.iter().map(|x| x[d]).sum::<f64>() / n;
                let variance = own.iter().map(|x| (x[d] - centre).powi(2)).sum::<f64>() / n;
                assert!((centre - mean[d]).abs() < 4.0 * 0.15 / n.sqrt(), "{centre}");
                let ratio = variance / 0.15f64.powi(2);
                assert!((ratio - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "{ratio}");
            }
        }
    }

    /// On a single Gaussian, where all points of a step move by the same factor, a mistake in how a
    /// method combines slopes can go unnoticed.
    #[test]
    fn methods_have_their_orders_on_a_curved_flow() {
        let mixture = Mixture::new(vec![[-1.0, 0.2], [0.8, 0.9], [0.5, -1.1]], 0.4);
        let start = [2.0, -1.0, -0.7, 2.4, 1.5, 1.9];
        let levels = |steps: usize| {
            // Without the step to 0, which has an order of its own.
            let mut levels = Schedule::LogSnr { sigma_min: 0.05, sigma_max: 3.0 }.sigmas(steps + 1);
            levels.pop();
            levels
        };
        let exact = sampled(&mixture, Method::Heun, &levels(4096), &start);
        for (method, order) in [
            (Method::Euler, 1.0),
            (Method::Heun, 2.0),
            (Method::Dpmpp { order: 2 }, 2.0),
            (Method::Ddim { eta: 0.0 }, 1.0),
        ] {
            let error = |steps: usize| {
                let ends = sampled(&mixture, method, &levels(steps), &start);
                ends.iter().zip(&exact).map(|(a, b)| square(*a, *b)).sum::<f64>().sqrt()
            };
            let seen = (error(64) / error(128)).log2();
            assert!((seen - order).abs() < 0.2, "{method:?} has the order {seen}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The posterior mean by numerical integration over the plane: the mean of `y`, weighted with
    /// its density times that of the noise `x - y`. The trapezoidal rule is exact to rounding for
    /// Gaussians once the step is below the standard deviation.
    fn integrated(mixture: &Mixture, x: [f64; 2], sigma: f64) -> [f64; 2] {
        let step = 0.5 * mixture.std.min(sigma);
        let gaussian = |distance: f64, std: f64| (-0.5 * distance / (std * std)).exp();
        let (mut total, mut sum) = (0.0, [0.0; 2]);
        let count = (7.0 / step) as i32;
        for i in -count..=count {
            for j in -count..=count {
                let y = [f64::from(i) * step, f64::from(j) * step];
                let of_data: f64 =
                    mixture.means.iter().map(|&mean| gaussian(square(y, mean), mixture.std)).sum();
                let density = of_data * gaussian(square(x, y), sigma);
                total += density;
                sum = [sum[0] + density * y[0], sum[1] + density * y[1]];
            }
        }
        sum.map(|sum| sum / total)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_denoiser_is_the_posterior_mean(
            means in proptest::collection::vec([-1.5..1.5, -1.5..1.5], 1..5),
            std in 0.2..0.8, x in [-3.0..3.0, -3.0..3.0], sigma in 0.2..3.0,
        ) {
            let mixture = Mixture::new(means, std);
            let (found, want) = (mixture.denoise(x, sigma), integrated(&mixture, x, sigma));
            for (found, want) in found.into_iter().zip(want) {
                prop_assert!((found - want).abs() < 1e-6, "{found} is not {want}");
            }
        }

        #[test]
        fn the_denoised_point_lies_between_the_point_and_the_means(
            x in [-1e4..1e4, -1e4..1e4], sigma in 0.0..1e3,
        ) {
            let mixture = Mixture::new(vec![[-1.0, 0.5], [2.0, -0.25]], 0.01);
            let denoised = mixture.denoise(x, sigma);
            for (i, bounds) in [[-1.0f64, 2.0], [-0.25, 0.5]].into_iter().enumerate() {
                let (low, high) = (bounds[0].min(x[i]) - 1e-9, bounds[1].max(x[i]) + 1e-9);
                prop_assert!((low..=high).contains(&denoised[i]), "{denoised:?}");
            }
        }
    }

    #[test]
    fn the_limits_are_the_mean_of_the_data_and_the_point_itself() {
        let mixture = Mixture::new(vec![[-1.0, 0.0], [3.0, 2.0]], 0.1);
        let far = mixture.denoise([5.0, -4.0], 1e6);
        assert!((far[0] - 1.0).abs() < 1e-4 && (far[1] - 1.0).abs() < 1e-4, "{far:?}");
        assert_eq!(mixture.denoise([0.3, 0.7], 0.0), [0.3, 0.7]);
        assert!((mixture.nearest([3.0, 2.3]) - 3.0).abs() < 1e-12);
    }
}
