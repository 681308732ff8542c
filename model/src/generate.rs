//! From seeds to pictures: the one path that the command line and the page both take.

use core::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;
use crate::guidance::Guidance;
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
    /// Classes of the pictures: that of seed `s` is number `s mod n` of these `n`, however the
    /// seeds are batched. None are given for pictures of no class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<usize>,
    /// Classifier-free guidance towards the class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<Guidance>,
}

impl Default for Settings {
    /// The paper's settings for CIFAR-10: 18 steps of Heun, 35 evaluations, no churn.
    fn default() -> Self {
        Self {
            steps: 18,
            method: Method::Heun,
            schedule: Schedule::default(),
            churn: Churn::default(),
            classes: Vec::new(),
            guidance: None,
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
        match &self.guidance {
            Some(guidance) => guidance.validate().map_err(SettingsError),
            None => Ok(()),
        }
    }

    /// Checks that a model has the classes that are asked for.
    ///
    /// # Errors
    ///
    /// The first that it has not, or that guidance has no class to go by.
    pub fn validate_for(&self, config: &ModelConfig) -> Result<(), SettingsError> {
        let known = config.classes();
        if let Some(class) = self.classes.iter().find(|&&class| class >= known) {
            return Err(SettingsError(match known {
                0 => format!("class {class}: this model knows of no classes"),
                _ => format!("class {class}: this model has {known}, from 0 to {}", known - 1),
            }));
        }
        if self.guidance.is_some() && self.classes.is_empty() {
            return Err(SettingsError("guidance needs a class to guide to".into()));
        }
        Ok(())
    }

    /// The class of each seed's picture.
    fn classes_of(&self, seeds: &[u64]) -> Vec<Option<usize>> {
        match self.classes.len() as u64 {
            0 => Vec::new(),
            n => seeds.iter().map(|seed| Some(self.classes[(seed % n) as usize])).collect(),
        }
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
/// If there is no seed, or the settings are not valid, or not for this model.
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
    let classes = settings.classes_of(seeds);
    sample(
        settings.method,
        &settings.churn,
        &sigmas,
        start,
        |step| pictures(&|seed| churn_noise(seed, step, c * h * w)),
        async |x: &Tensor<4>, sigma| {
            let sigma = vec![sigma; seeds.len()];
            let conditioning = Conditioning { classes: classes.clone(), ..Conditioning::default() };
            Ok(match &settings.guidance {
                Some(guidance) => guidance.denoise(model, x.clone(), &sigma, conditioning),
                None => model.denoise(x.clone(), &sigma, conditioning),
            }
            .denoised)
        },
        on_step,
    )
    .await
}
