//! The training objective: which noise levels, and how much each counts.

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

/// Distribution of noise levels, and weight of the squared error at each.
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
    /// ADM's squared error of the noise: steps of discrete time, weight `1 / σ²`; and, where the
    /// network says something of the variance, the variational term of [`crate::training::hybrid`].
    #[serde(rename = "adm")]
    Adm {
        /// The noise schedule.
        #[serde(default)]
        betas: LinearBetas,
        /// How steps are drawn.
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
    /// Checks that noise levels and weights follow from the values.
    ///
    /// # Errors
    ///
    /// The first value from which they do not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match *self {
            LossConfig::Edm { p_mean, p_std, sigma_data } => {
                check(p_mean.is_finite(), || format!("p_mean is {p_mean}"))?;
                positive("p_std", p_std)?;
                positive("sigma_data", sigma_data)
            }
            LossConfig::Vp { schedule } => schedule.validate(),
            LossConfig::Ve { sigma_min, sigma_max } => validate_ve(sigma_min, sigma_max),
            LossConfig::Adm { betas, times } => betas.validate().and(times.validate()),
        }
    }

    /// What draws noise levels by what it has learned of them, if anything does: otherwise
    /// [`LossConfig::sigma`] does, which learns nothing. It goes on from what an `earlier` one has
    /// learned, if that was of the same kind.
    pub fn time_sampler(&self, earlier: Option<TimeSampler>) -> Option<TimeSampler> {
        let LossConfig::Adm { betas, times } = *self else { return None };
        if times == TimeSampling::Uniform {
            return None;
        }
        let new = TimeSampler::new(times, betas.steps);
        Some(earlier.filter(|earlier| earlier.is_like(&new)).unwrap_or(new))
    }

    /// The noise level of a step that a [`TimeSampler`] drew.
    ///
    /// # Panics
    ///
    /// If there is no such step.
    pub fn sigma_of(&self, time: usize) -> f64 {
        match self {
            LossConfig::Adm { betas, .. } => betas.sigmas()[time],
            _ => panic!("time is not discrete"),
        }
    }

    /// Draws a noise level, each alike or as the objective has it.
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

    /// The noise level that [`LossConfig::sigma`] stays below with probability `p`, between 0 and 1
    /// without either.
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

    /// The weight λ(σ) of the squared error.
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

    /// The loss of each picture, summed over its values, `[B]`: of `images`, to which `noise` of the
    /// levels `sigma` was added, and what the model made of that.
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
        made: Denoised,
    ) -> Tensor<1> {
        let [b, c, h, w] = images.dims();
        let column = |values: Vec<f64>| {
            Tensor::<1>::from_data(TensorData::new(values, [b]), &images.device())
        };
        match (self, made.variance()) {
            (LossConfig::Adm { betas, .. }, Some(variance)) => {
                // Of the noise, the error is that of the picture the other way round: y + σ ε is
                // given.
                let error = (images.clone() - made.denoised)
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
                let errors = weighted_squared_error(made.denoised, images, weight);
                errors.reshape([b, c * h * w]).sum_dim(1).reshape([b])
            }
        }
    }
}

/// What a standard normal stays below with probability `p`.
fn normal_quantile(p: f64) -> f64 {
    // Halving finds it to the last bits, and it is not asked for often.
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        let below = 0.5 * libm::erfc(-middle * FRAC_1_SQRT_2);
        if below < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// `λ (D - y)²` for every value of every picture.
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

    /// Under both, the quantity that is to be uniform is: its deciles hold a tenth each.
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

    /// As many of the levels that are drawn lie below a quantile as it says; and the quantiles of
    /// the normal distribution are those of a table.
    #[test]
    fn quantiles_are_those_of_the_levels_that_are_drawn() {
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
    fn noise_counts_the_same_at_every_level() {
        let schedule = VpSchedule::default();
        let (loss, precond) = (LossConfig::Vp { schedule }, PrecondConfig::Vp { schedule });
        for sigma in [0.01, 0.5, 100.0] {
            let c_out = precond.coefficients(sigma).c_out;
            assert!((loss.weight(sigma) * c_out.powi(2) - 1.0).abs() < 1e-12);
        }
    }

    /// Where the variance is learned, the loss is the hybrid one, of noise that the denoised picture
    /// stands for.
    #[test]
    fn adm_s_loss_is_hybrid_where_the_variance_is_learned() {
        let betas = LinearBetas::default();
        let (loss, device) =
            (LossConfig::Adm { betas, times: TimeSampling::Uniform }, burn::tensor::Device::flex());
        let tensor = |factor: f64| {
            let values: Vec<f32> = (0..24).map(|i| ((i as f64 * factor).sin()) as f32).collect();
            Tensor::<4>::from_data(TensorData::new(values, [2, 3, 2, 2]), &device)
        };
        let (images, noise, predicted, place) =
            (tensor(1.0), tensor(2.0), tensor(2.1), tensor(3.0));
        let times = [0, 700];
        let sigma = times.map(|t: usize| betas.sigmas()[t]);
        let column = TensorData::new(sigma.to_vec(), [2, 1, 1, 1]);
        let off = (noise.clone() - predicted.clone()) * Tensor::from_data(column, &device);
        let made = |raw| Denoised { denoised: images.clone() + off.clone(), raw, attention: None };
        let value = |loss: Tensor<1>| f64::from(loss.sum().into_scalar::<f32>());

        let both = Tensor::cat(vec![predicted.clone(), place.clone()], 1);
        let found = value(loss.of(images.clone(), noise.clone(), &sigma, made(both)));
        let inputs = HybridInputs {
            images: images.clone(),
            noise: noise.clone(),
            times: &times,
            predicted: predicted.clone(),
            variance: place,
        };
        let hybrid = Diffusion::new(&betas).hybrid_loss(inputs);
        let squared = value((predicted.clone() - noise.clone()).square().sum());
        let want = squared + 12.0 * value(hybrid.variational.sum());
        assert!((found / want - 1.0).abs() < 1e-3 && want > squared, "{found}, not {want}");
        let found = value(loss.of(images.clone(), noise, &sigma, made(predicted)));
        assert!((found / squared - 1.0).abs() < 1e-3, "{found}, not {squared}");
    }

    /// EDM chooses the weight so that the network's own error counts the same at all levels.
    #[test]
    fn the_weight_cancels_c_out() {
        let (loss, precond) = (LossConfig::default(), PrecondConfig::default());
        for sigma in [0.002, 0.1, 0.5, 3.0, 80.0] {
            let c_out = precond.coefficients(sigma).c_out;
            assert!((loss.weight(sigma) * c_out.powi(2) - 1.0).abs() < 1e-12);
        }
    }
}
