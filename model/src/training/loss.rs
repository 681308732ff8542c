//! Training objectives: the distribution of noise levels, and the weight of each level.

use core::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::config::check::{ConfigError, check, positive};
use crate::diffusion::discrete::{Diffusion, LinearBetas};
use crate::diffusion::noise::Random;
use crate::diffusion::precond::{validate_ve, ve_sigma_max, ve_sigma_min};
use crate::diffusion::vp::VpSchedule;
use crate::model::Denoised;
use crate::training::hybrid::HybridInputs;
use crate::training::importance::{TimeSampler, TimeSampling};

/// Training objective: the distribution of noise levels, and the weight of the squared error at
/// each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossConfig {
    /// EDM: `ln σ ~ N(P_mean, P_std²)`, weight `(σ² + σ_data²) / (σ σ_data)²`.
    #[serde(rename = "edm")]
    Edm {
        /// Mean of `ln σ`.
        p_mean: f64,
        /// Standard deviation of `ln σ`.
        p_std: f64,
        /// Expected standard deviation of the data.
        sigma_data: f64,
    },
    /// Variance preserving: times uniform over the schedule, weight `1 / σ²`.
    #[serde(rename = "vp")]
    Vp {
        /// The noise schedule.
        #[serde(default)]
        schedule: VpSchedule,
    },
    /// Variance exploding: `ln σ` uniform, weight `1 / σ²`.
    #[serde(rename = "ve")]
    Ve {
        /// Lowest noise level.
        #[serde(default = "ve_sigma_min")]
        sigma_min: f64,
        /// Highest noise level.
        #[serde(default = "ve_sigma_max")]
        sigma_max: f64,
    },
    /// ADM: squared error of the noise at discrete timesteps, weight `1 / σ²`; and, if the network
    /// predicts the variance, the variational term of [`crate::training::hybrid`].
    #[serde(rename = "adm")]
    Adm {
        /// The noise schedule.
        #[serde(default)]
        betas: LinearBetas,
        /// Distribution from which timesteps are drawn.
        #[serde(default)]
        times: TimeSampling,
    },
}

impl Default for LossConfig {
    fn default() -> Self {
        Self::Edm { p_mean: -1.2, p_std: 1.2, sigma_data: 0.5 }
    }
}

impl LossConfig {
    /// Checks the ranges of all fields.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match *self {
            LossConfig::Edm { p_mean, p_std, sigma_data } => {
                check(p_mean.is_finite(), || format!("p_mean is {p_mean}, not a finite number"))?;
                positive("p_std", p_std)?;
                positive("sigma_data", sigma_data)
            }
            LossConfig::Vp { schedule } => schedule.validate(),
            LossConfig::Ve { sigma_min, sigma_max } => validate_ve(sigma_min, sigma_max),
            LossConfig::Adm { betas, times } => betas.validate().and(times.validate()),
        }
    }

    /// Returns the loss-aware timestep sampler, if the objective has one; otherwise
    /// [`LossConfig::sigma`] draws the noise levels. It continues from an `earlier` sampler of the
    /// same kind.
    pub fn time_sampler(&self, earlier: Option<TimeSampler>) -> Option<TimeSampler> {
        let LossConfig::Adm { betas, times } = *self else { return None };
        if times == TimeSampling::Uniform {
            return None;
        }
        let new = TimeSampler::new(times, betas.steps);
        Some(earlier.filter(|earlier| earlier.is_like(&new)).unwrap_or(new))
    }

    /// Returns the noise level of a timestep drawn by a [`TimeSampler`].
    ///
    /// # Panics
    ///
    /// If the objective has no discrete time, or no such timestep.
    pub fn sigma_of(&self, time: usize) -> f64 {
        match self {
            LossConfig::Adm { betas, .. } => betas.sigmas()[time],
            _ => panic!("the objective has no discrete time"),
        }
    }

    /// Draws a noise level from the objective's distribution; ADM's timesteps are drawn uniformly.
    pub fn sigma(&self, random: &mut Random) -> f64 {
        match *self {
            LossConfig::Edm { p_mean, p_std, .. } => (random.normal() * p_std + p_mean).exp(),
            LossConfig::Vp { .. } | LossConfig::Ve { .. } => self.quantile(random.uniform()),
            LossConfig::Adm { betas, .. } => {
                let steps = u32::try_from(betas.steps).expect("a valid number of steps");
                betas.sigmas()[random.below(steps) as usize]
            }
        }
    }

    /// Returns the `p`-quantile of the noise levels that [`LossConfig::sigma`] draws, for `p`
    /// between 0 and 1, both excluded.
    pub fn quantile(&self, p: f64) -> f64 {
        match *self {
            LossConfig::Edm { p_mean, p_std, .. } => (normal_quantile(p) * p_std + p_mean).exp(),
            LossConfig::Vp { schedule } => {
                let first = schedule.epsilon_t;
                schedule.sigma(first + p * (1.0 - first))
            }
            LossConfig::Ve { sigma_min, sigma_max } => sigma_min * (sigma_max / sigma_min).powf(p),
            LossConfig::Adm { betas, .. } => betas.sigmas()[(p * betas.steps as f64) as usize],
        }
    }

    /// Returns the weight λ(σ) of the squared error.
    pub fn weight(&self, sigma: f64) -> f64 {
        match *self {
            LossConfig::Edm { sigma_data, .. } => {
                (sigma.powi(2) + sigma_data.powi(2)) / (sigma * sigma_data).powi(2)
            }
            LossConfig::Vp { .. } | LossConfig::Ve { .. } | LossConfig::Adm { .. } => {
                sigma.powi(-2)
            }
        }
    }

    /// Computes the loss of each picture, summed over its values, `[B]`. `output` is the model's
    /// output for `images` with `noise` of the levels `sigma` added.
    ///
    /// # Shapes
    ///
    /// - images, noise: `[B, C, H, W]`; sigma: one noise level per picture
    ///
    /// # Panics
    ///
    /// If there are not as many noise levels as pictures.
    pub fn of(
        &self,
        images: Tensor<4>,
        noise: Tensor<4>,
        sigma: &[f64],
        output: Denoised,
    ) -> Tensor<1> {
        let [b, c, h, w] = images.dims();
        let column = |values: Vec<f64>| {
            Tensor::<1>::from_data(TensorData::new(values, [b]), &images.device())
        };
        match (self, output.variance()) {
            (LossConfig::Adm { betas, .. }, Some(variance)) => {
                // The sum y + σ ε is given, so the error of the noise is -1/σ times that of the
                // picture.
                let error = (images.clone() - output.denoised)
                    * column(sigma.iter().map(|sigma| sigma.recip()).collect())
                        .reshape([b, 1, 1, 1]);
                let times: Vec<usize> =
                    sigma.iter().map(|&sigma| betas.time(sigma).round() as usize).collect();
                let predicted = noise.clone() + error;
                let inputs = HybridInputs { images, noise, times: &times, predicted, variance };
                let hybrid = Diffusion::new(betas).hybrid_loss(inputs);
                hybrid.total(1.0) * (c * h * w) as f64
            }
            _ => {
                let weight = column(sigma.iter().map(|&sigma| self.weight(sigma)).collect());
                let errors = weighted_squared_error(output.denoised, images, weight);
                errors.reshape([b, c * h * w]).sum_dim(1).reshape([b])
            }
        }
    }
}

/// Returns the `p`-quantile of the standard normal distribution.
fn normal_quantile(p: f64) -> f64 {
    // Bisection is exact to the last bits, and this is not called often.
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        let below = 0.5 * libm::erfc(-middle * FRAC_1_SQRT_2);
        if below < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Computes `λ (D - y)²` for every value of every picture.
///
/// # Shapes
///
/// - denoised, images, output: `[B, C, H, W]`; weight: `[B]`
pub fn weighted_squared_error(
    denoised: Tensor<4>,
    images: Tensor<4>,
    weight: Tensor<1>,
) -> Tensor<4> {
    let [b, ..] = images.dims();
    (denoised - images).square() * weight.reshape([b, 1, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PrecondConfig;
    use crate::diffusion::noise::Stream;

    #[test]
    fn noise_levels_are_log_normal() {
        let loss = LossConfig::default();
        let mut random = Random::new(3, Stream::Training, 0);
        let logs: Vec<f64> = (0..20_000).map(|_| loss.sigma(&mut random).ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let var = logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / logs.len() as f64;
        assert!((mean + 1.2).abs() < 0.03 && (var.sqrt() - 1.2).abs() < 0.03);
    }

    /// The deciles of the quantity that each objective draws uniformly hold a tenth each.
    #[test]
    fn times_and_logarithms_are_uniform() {
        let schedule = VpSchedule::default();
        let uniform = |loss: &LossConfig, back: &dyn Fn(f64) -> f64| {
            let mut random = Random::new(3, Stream::Training, 0);
            let mut counts = [0usize; 10];
            for _ in 0..20_000 {
                counts[(back(loss.sigma(&mut random)) * 10.0) as usize] += 1;
            }
            assert!(counts.iter().all(|count| count.abs_diff(2_000) < 200), "{counts:?}");
        };
        uniform(&LossConfig::Vp { schedule }, &|sigma| schedule.time(sigma));
        let ve = LossConfig::Ve { sigma_min: 0.02, sigma_max: 100.0 };
        uniform(&ve, &|sigma| (sigma / 0.02).ln() / 5000f64.ln());
        let betas = LinearBetas { steps: 50, ..LinearBetas::default() };
        let loss = LossConfig::Adm { betas, times: TimeSampling::Uniform };
        uniform(&loss, &|sigma| betas.time(sigma) / 50.0);
    }

    /// The fraction of drawn levels below a quantile is the quantile's probability, and the
    /// quantiles of the normal distribution are those of a table.
    #[test]
    fn quantiles_match_the_drawn_levels() {
        for (p, want) in
            [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (0.01, -2.326_347_874_040_841)]
        {
            let found = normal_quantile(p);
            assert!((found - want).abs() < 1e-12, "{found}, not {want}");
        }
        let betas = LinearBetas { steps: 50, ..LinearBetas::default() };
        for loss in [
            LossConfig::default(),
            LossConfig::Vp { schedule: VpSchedule::default() },
            LossConfig::Ve { sigma_min: 0.02, sigma_max: 100.0 },
            LossConfig::Adm { betas, times: TimeSampling::Uniform },
        ] {
            let mut random = Random::new(3, Stream::Training, 0);
            let drawn: Vec<f64> = (0..20_000).map(|_| loss.sigma(&mut random)).collect();
            for p in [0.1, 0.3, 0.5, 0.9] {
                let quantile = loss.quantile(p);
                let below = drawn.iter().filter(|&&sigma| sigma < quantile).count();
                let want = (p * 20_000.0) as usize;
                assert!(below.abs_diff(want) < 300, "{loss:?}: {below} of 20000, not {want}");
            }
        }
    }

    /// The weight turns the error of the picture into that of the noise, Eq (1) with λ = 1.
    #[test]
    fn vp_weighs_the_noise_equally_at_every_level() {
        let schedule = VpSchedule::default();
        let (loss, precond) = (LossConfig::Vp { schedule }, PrecondConfig::Vp { schedule });
        for sigma in [0.01, 0.5, 100.0] {
            let c_out = precond.coefficients(sigma).c_out;
            assert!((loss.weight(sigma) * c_out.powi(2) - 1.0).abs() < 1e-12);
        }
    }

    /// With a learned variance, the loss is the hybrid loss of the noise that the denoised picture
    /// implies.
    #[test]
    fn adm_has_the_hybrid_loss_with_a_learned_variance() {
        let betas = LinearBetas::default();
        let (loss, device) =
            (LossConfig::Adm { betas, times: TimeSampling::Uniform }, burn::tensor::Device::flex());
        let tensor = |factor: f64| {
            let values: Vec<f32> = (0..24).map(|i| ((i as f64 * factor).sin()) as f32).collect();
            Tensor::<4>::from_data(TensorData::new(values, [2, 3, 2, 2]), &device)
        };
        let (images, noise, predicted, position) =
            (tensor(1.0), tensor(2.0), tensor(2.1), tensor(3.0));
        let times = [0, 700];
        let sigma = times.map(|t: usize| betas.sigmas()[t]);
        let column = TensorData::new(sigma.to_vec(), [2, 1, 1, 1]);
        let off = (noise.clone() - predicted.clone()) * Tensor::from_data(column, &device);
        let output = |raw| Denoised {
            denoised: images.clone() + off.clone(),
            raw,
            attention: None,
            summaries: vec![],
        };
        let value = |loss: Tensor<1>| f64::from(loss.sum().into_scalar::<f32>());

        let both = Tensor::cat(vec![predicted.clone(), position.clone()], 1);
        let found = value(loss.of(images.clone(), noise.clone(), &sigma, output(both)));
        let inputs = HybridInputs {
            images: images.clone(),
            noise: noise.clone(),
            times: &times,
            predicted: predicted.clone(),
            variance: position,
        };
        let hybrid = Diffusion::new(&betas).hybrid_loss(inputs);
        let squared = value((predicted.clone() - noise.clone()).square().sum());
        let want = squared + 12.0 * value(hybrid.variational.sum());
        assert!((found / want - 1.0).abs() < 1e-3 && want > squared, "{found}, not {want}");
        let found = value(loss.of(images.clone(), noise, &sigma, output(predicted)));
        assert!((found / squared - 1.0).abs() < 1e-3, "{found}, not {squared}");
    }

    /// EDM's weight makes the network's own error count equally at all levels.
    #[test]
    fn the_weight_cancels_c_out() {
        let (loss, precond) = (LossConfig::default(), PrecondConfig::default());
        for sigma in [0.002, 0.1, 0.5, 3.0, 80.0] {
            let c_out = precond.coefficients(sigma).c_out;
            assert!((loss.weight(sigma) * c_out.powi(2) - 1.0).abs() < 1e-12);
        }
    }
}
