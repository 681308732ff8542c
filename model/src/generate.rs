//! From seeds to pictures: the one path that the command line and the page both take.

use core::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::model::{Conditioning, Model};
use crate::noise::{churn_noise, start_noise};
use crate::sampler::{Churn, Evaluation, Method, sample};
use crate::schedule::Schedule;

/// How pictures are made, all but the seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Number of steps.
    pub steps: usize,
    /// How a step is taken.
    pub method: Method,
    /// Noise levels.
    pub schedule: Schedule,
    /// Noise added on the way.
    pub churn: Churn,
}

impl Default for Settings {
    /// The paper's settings for CIFAR-10: 18 steps of Heun, 35 evaluations, no churn.
    fn default() -> Self {
        Self {
            steps: 18,
            method: Method::Heun,
            schedule: Schedule::default(),
            churn: Churn::default(),
        }
    }
}

/// Why [`Settings`] cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl Settings {
    /// Steps at the most.
    pub const MAX_STEPS: usize = 1000;

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range, with the range.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let check = |holds: bool, message: String| {
            if holds { Ok(()) } else { Err(SettingsError(message)) }
        };
        let Schedule::Edm { sigma_min, sigma_max, rho } = self.schedule;
        let Churn { s_churn, s_min, s_max, s_noise } = self.churn;
        check(
            (1..=Self::MAX_STEPS).contains(&self.steps),
            format!("steps is {}, not within 1 to {}", self.steps, Self::MAX_STEPS),
        )?;
        check(
            sigma_min > 0.0 && sigma_min < sigma_max && sigma_max.is_finite(),
            format!("sigma_min {sigma_min} and sigma_max {sigma_max} do not rise from above 0"),
        )?;
        check((0.1..=100.0).contains(&rho), format!("rho is {rho}, not within 0.1 to 100"))?;
        for (name, value) in
            [("s_churn", s_churn), ("s_min", s_min), ("s_max", s_max), ("s_noise", s_noise)]
        {
            check(value >= 0.0 && value.is_finite(), format!("{name} is {value}, not 0 or more"))?;
        }
        Ok(())
    }
}

/// One picture per seed, `[seeds, C, H, W]`, or `None` if `on_step` broke off.
///
/// # Errors
///
/// What `on_step` fails with.
///
/// # Panics
///
/// If there is no seed, or the settings are not valid.
pub async fn generate<E>(
    model: &Model,
    settings: &Settings,
    seeds: &[u64],
    device: &Device,
    on_step: impl AsyncFnMut(Evaluation<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Tensor<4>>, E> {
    let [c, h, w] = model.config.image_shape();
    let pictures = |noise: &dyn Fn(u64) -> Vec<f32>| {
        let values: Vec<f32> = seeds.iter().flat_map(|&seed| noise(seed)).collect();
        Tensor::<4>::from_data(TensorData::new(values, [seeds.len(), c, h, w]), device)
    };
    let schedule = settings.schedule.within(model.config.precond.sigma_range());
    let sigmas = schedule.sigmas(settings.steps);
    let start = pictures(&|seed| start_noise(seed, c * h * w)) * sigmas[0];
    sample(
        settings.method,
        &settings.churn,
        &sigmas,
        start,
        |step| pictures(&|seed| churn_noise(seed, step, c * h * w)),
        async |x: &Tensor<4>, sigma| {
            let sigma = vec![sigma; seeds.len()];
            Ok(model.denoise(x.clone(), &sigma, Conditioning::default()).denoised)
        },
        on_step,
    )
    .await
}
