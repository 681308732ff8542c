//! Hybrid training objective with a learned variance, as in ADM (arXiv 2102.09672): the squared
//! error of the noise, plus a term of the variational bound that trains the variance.

use burn::tensor::{Tensor, TensorData};

use crate::diffusion::discrete::{Diffusion, Posterior};
use crate::kernels::tanh;

/// Inputs of the hybrid loss, for one batch.
#[derive(Clone, Debug)]
pub struct HybridInputs<'a> {
    /// The pictures, `[B, C, H, W]`.
    pub images: Tensor<4>,
    /// The noise that was added to them, `[B, C, H, W]`.
    pub noise: Tensor<4>,
    /// Step of the process, one for each picture.
    pub times: &'a [usize],
    /// The noise as the network predicts it, `[B, C, H, W]`.
    pub predicted: Tensor<4>,
    /// The predicted variance: the position of its logarithm between the bounds, from -1 for the
    /// smallest to 1 for the largest, `[B, C, H, W]`.
    pub variance: Tensor<4>,
}

/// The two terms of the hybrid loss, `[B]` each.
#[derive(Clone, Debug)]
pub struct HybridLoss {
    /// Squared error of the noise, averaged over the values of a picture.
    pub squared_error: Tensor<1>,
    /// Term of the variational bound, in bits per value. Its gradient reaches the variance only.
    pub variational: Tensor<1>,
}

impl HybridLoss {
    /// Returns the weighted sum of both terms, `[B]`. ADM weighs the variational term with 1, or,
    /// if it "rescales learned sigmas", with the number of steps over 1000.
    pub fn total(self, variational_weight: f64) -> Tensor<1> {
        self.squared_error + self.variational * variational_weight
    }
}

impl Diffusion {
    /// Computes the loss of every picture of a batch.
    ///
    /// At step 0 the variational term is the negative log likelihood of the picture, whose values
    /// are discretised to 256 levels; at any other step it is KL(posterior || predicted step).
    ///
    /// # Panics
    ///
    /// If there is not one step of the process for each picture.
    pub fn hybrid_loss(&self, inputs: HybridInputs) -> HybridLoss {
        let HybridInputs { images, noise, times, predicted, variance } = inputs;
        let [b, ..] = images.dims();
        assert_eq!(b, times.len(), "one step per picture");
        let options = (&images.device(), images.dtype());
        let posteriors: Vec<Posterior> = times.iter().map(|&t| self.posterior(t)).collect();
        let per_picture = |values: Vec<f64>| {
            Tensor::<1>::from_data(TensorData::new(values, [b]), options).reshape([b, 1, 1, 1])
        };
        let of_posterior =
            |value: fn(&Posterior) -> f64| per_picture(posteriors.iter().map(value).collect());

        let error = predicted - noise;
        let squared_error = mean(error.clone().square());

        // The error of the predicted mean: noise that is predicted too high lowers the picture, and
        // with it the mean. It is detached because the bound would train the mean too, with much
        // noisier gradients than the squared error.
        let sigmas = self.sigmas();
        let scale = posteriors.iter().zip(times).map(|(p, &t)| -p.c_picture * sigmas[t]).collect();
        let mean_error = error.detach() * per_picture(scale);
        let small = of_posterior(|p| p.log_small);
        let large = of_posterior(|p| p.log_large);
        let fraction = (variance + 1.0) * 0.5;
        let log_variance = fraction * (large - small.clone()) + small.clone();

        let bits = core::f64::consts::LN_2.recip();
        let mut variational =
            mean(divergence(mean_error.clone(), small, log_variance.clone())) * bits;
        if times.contains(&0) {
            let first: Vec<bool> = times.iter().map(|&t| t == 0).collect();
            let first = Tensor::from_data(TensorData::new(first, [b]), options.0);
            let nll = mean(log_likelihood(images, mean_error, log_variance)) * -bits;
            variational = variational.mask_where(first, nll);
        }
        HybridLoss { squared_error, variational }
    }
}

/// Computes the mean over each picture.
fn mean(x: Tensor<4>) -> Tensor<1> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c * h * w]).mean_dim(1).reshape([b])
}

/// Computes KL(N(0, e^log_true) || N(mean_error, e^log)) of each value, in nats.
fn divergence(mean_error: Tensor<4>, log_true: Tensor<4>, log: Tensor<4>) -> Tensor<4> {
    let difference = log_true - log.clone();
    (difference.clone().exp() - difference - 1.0 + mean_error.square() * (-log).exp()) * 0.5
}

/// Computes the log likelihood of each value `y` of a picture, discretised to 256 levels from -1 to
/// 1, under `N(y + mean_error, e^log_variance)`: the probability of falling within half a level of
/// `y`, where the lowest and the highest level extend to infinity.
fn log_likelihood(images: Tensor<4>, mean_error: Tensor<4>, log_variance: Tensor<4>) -> Tensor<4> {
    const HALF_STEP: f64 = 1.0 / 255.0;
    let reciprocal = (log_variance * -0.5).exp();
    let above = normal_cdf((-mean_error.clone() + HALF_STEP) * reciprocal.clone());
    let below = normal_cdf((-mean_error - HALF_STEP) * reciprocal);
    let safe_log = |x: Tensor<4>| x.clamp_min(1e-12).log();
    let between = safe_log(above.clone() - below.clone());
    between
        .mask_where(images.clone().lower_elem(-0.999), safe_log(above))
        .mask_where(images.greater_elem(0.999), safe_log(-below + 1.0))
}

/// Computes the distribution function of the standard normal, in ADM's approximation by tanh.
fn normal_cdf(x: Tensor<4>) -> Tensor<4> {
    let cube = x.clone() * x.clone() * x.clone();
    let u = (x + cube * 0.044715) * (2.0 / core::f64::consts::PI).sqrt();
    (tanh(u) + 1.0) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LinearBetas;
    use crate::diffusion::discrete::Spacing;
    use burn::tensor::{DType, Device};

    fn one(value: f64) -> Tensor<4> {
        let data = TensorData::new(vec![value], [1, 1, 1, 1]);
        Tensor::from_data(data, (&Device::flex(), DType::F64))
    }

    fn loss(y: f64, noise: f64, predicted: f64, log_var_fraction: f64, t: usize) -> (f64, f64) {
        let diffusion = Diffusion::new(&LinearBetas::default());
        let diffusion = diffusion.respaced(&Spacing::Even, 100).expect("100 of 1000");
        let (images, noise, predicted) = (one(y), one(noise), one(predicted));
        let inputs =
            HybridInputs { images, noise, times: &[t], predicted, variance: one(log_var_fraction) };
        let HybridLoss { squared_error, variational } = diffusion.hybrid_loss(inputs);
        (squared_error.into_scalar::<f64>(), variational.into_scalar::<f64>())
    }

    #[test]
    fn the_exact_step_has_no_loss() {
        for t in [1, 17, 99] {
            let (squared, variational) = loss(0.3, -0.8, -0.8, -1.0, t);
            assert_eq!(squared, 0.0);
            assert!(variational.abs() < 1e-12);
            // A wrong mean or a wrong variance has a loss.
            assert!(loss(0.3, -0.8, -0.7, -1.0, t).1 > 1e-7);
            assert!(loss(0.3, -0.8, -0.8, 0.5, t).1 > 1e-12);
        }
    }

    /// A larger variance lowers the loss of a wrong mean.
    #[test]
    fn a_wrong_mean_favours_a_larger_variance() {
        let at = |log_var_fraction| loss(0.0, 0.0, 0.5, log_var_fraction, 50).1;
        assert!(at(0.2) < at(-1.0));
    }

    /// At step 0 the bound is a probability distribution over the 256 levels.
    #[test]
    fn likelihoods_of_all_levels_sum_to_one() {
        let diffusion = Diffusion::new(&LinearBetas::default());
        let sigma = diffusion.sigmas()[0];
        let diffusion_loss = |y: f64, centre: f64| {
            let inputs = HybridInputs {
                images: one(y),
                noise: one(0.0),
                times: &[0],
                // Noise for which the mean, y - σ ε, is the centre.
                predicted: one((y - centre) / sigma),
                variance: one(1.0),
            };
            diffusion.hybrid_loss(inputs).variational.into_scalar::<f64>()
        };
        for centre in [-1.0, 0.1, 0.98] {
            let sum: f64 = (0..256)
                .map(|byte| diffusion_loss(f64::from(byte) / 127.5 - 1.0, centre))
                .map(|bits| (-bits).exp2())
                .sum();
            assert!((sum - 1.0).abs() < 1e-8, "{sum}");
        }
    }
}
