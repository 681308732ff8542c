//! From seeds to pictures: the one path that the command line and the page both take.

use core::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;
use crate::guidance::Guidance;
use crate::model::{Conditioning, Model};
use crate::noise::{churn_noise, start_noise};
use crate::sampler::{Churn, Evaluation, Method, Prediction, sample};
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
    /// Whether every denoised picture is clipped to -1 to 1 before the step is taken.
    pub clip_denoised: bool,
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
            clip_denoised: false,
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
        let Churn { s_churn, s_min, s_max, s_noise } = self.churn;
        check(
            (1..=Self::MAX_STEPS).contains(&self.steps),
            format!("steps is {}, not within 1 to {}", self.steps, Self::MAX_STEPS),
        )?;
        match &self.schedule {
            &Schedule::Edm { sigma_min, sigma_max, rho } => {
                check(
                    sigma_min > 0.0 && sigma_min < sigma_max && sigma_max.is_finite(),
                    format!(
                        "sigma_min {sigma_min} and sigma_max {sigma_max} do not rise from above 0"
                    ),
                )?;
                check(
                    (0.1..=100.0).contains(&rho),
                    format!("rho is {rho}, not within 0.1 to 100"),
                )?;
            }
            Schedule::Adm { betas, spacing } => {
                betas.validate().map_err(|e| SettingsError(e.to_string()))?;
                let indices = spacing.indices(self.steps, betas.steps);
                indices.map_err(|e| SettingsError(e.to_string()))?;
            }
        }
        for (name, value) in
            [("s_churn", s_churn), ("s_min", s_min), ("s_max", s_max), ("s_noise", s_noise)]
        {
            check(value >= 0.0 && value.is_finite(), format!("{name} is {value}, not 0 or more"))?;
        }
        if let Method::Ddim { .. } | Method::Ddpm { .. } = self.method {
            let message = "churn is for euler and heun; ddim and ddpm have noise of their own";
            check(s_churn == 0.0, message.into())?;
        }
        if let Method::Ddim { eta } = self.method {
            check((0.0..=1.0).contains(&eta), format!("eta is {eta}, not within 0 to 1"))?;
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
    let precond = &model.config.precond;
    let sigmas = settings.schedule.sigmas_within(precond.sigma_range(), settings.steps);
    let start = pictures(&|seed| start_noise(seed, c * h * w)) * precond.start(sigmas[0]);
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
            let output = match &settings.guidance {
                Some(guidance) => guidance.denoise(model, x.clone(), &sigma, conditioning),
                None => model.denoise(x.clone(), &sigma, conditioning),
            };
            let variance = output.variance();
            let denoised = output.denoised;
            let denoised =
                if settings.clip_denoised { denoised.clamp(-1.0, 1.0) } else { denoised };
            Ok(Prediction { denoised, variance })
        },
        on_step,
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LinearBetas, ModelConfig, NetworkConfig, PrecondConfig, Window};
    use crate::discrete::Spacing;
    use crate::sampler::Variance;
    use core::convert::Infallible;

    /// As pictures made before there were other schedules than EDM's carry them.
    const OLD: &str = r#"{"steps":18,"method":"heun",
        "schedule":{"kind":"edm","sigma_min":0.002,"sigma_max":80.0,"rho":7.0},
        "churn":{"s_churn":0.0,"s_min":0.0,"s_max":1.7976931348623157e308,"s_noise":1.0}}"#;

    fn adm(spacing: Spacing) -> Schedule {
        Schedule::Adm { betas: LinearBetas::default(), spacing }
    }

    #[test]
    fn settings_of_old_pictures_can_be_read() {
        assert_eq!(serde_json::from_str::<Settings>(OLD).expect("old"), Settings::default());
    }

    #[test]
    fn all_settings_survive_their_json() {
        for method in [
            Method::Euler,
            Method::Heun,
            Method::Ddim { eta: 0.25 },
            Method::Ddpm { variance: Variance::Learned },
        ] {
            for schedule in [Schedule::default(), adm(Spacing::Sections(vec![10, 8]))] {
                let settings = Settings { method, schedule, ..Settings::default() };
                settings.validate().expect("fit");
                let text = serde_json::to_string(&settings).expect("plain data");
                assert_eq!(serde_json::from_str::<Settings>(&text).expect(&text), settings);
            }
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let cases: [(fn(&mut Settings), &str); 6] = [
            (|s| s.method = Method::Ddim { eta: f64::NAN }, "eta is NaN"),
            (
                |s| {
                    s.method = Method::Ddpm { variance: Variance::Small };
                    s.churn.s_churn = 1.0;
                },
                "churn is for euler and heun",
            ),
            (|s| s.schedule = adm(Spacing::Sections(vec![10])), "10 steps together, and 18"),
            (|s| (s.schedule, s.steps) = (adm(Spacing::Ddim), 300), "no whole stride"),
            (
                |s| {
                    let betas = LinearBetas { last: 1.0, ..LinearBetas::default() };
                    s.schedule = Schedule::Adm { betas, spacing: Spacing::Even };
                },
                "betas.last is 1",
            ),
            (|s| s.steps = 1001, "steps is 1001"),
        ];
        for (edit, message) in cases {
            let mut settings = Settings::default();
            edit(&mut settings);
            let error = settings.validate().expect_err(message).to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    /// Every method with every schedule drives networks of every kind of preconditioning.
    #[test]
    fn every_sampler_drives_every_network() {
        let mut image = crate::config::ImageConfig {
            resolution: 4,
            channels: vec![16],
            blocks: vec![1],
            window: Window::Size(4),
            ..Default::default()
        };
        image.transformer.head_dim = 8;
        // A head that does something.
        image.branch_init = 1.0;
        let device = Device::flex();
        for precond in [
            PrecondConfig::default(),
            PrecondConfig::Vp { schedule: Default::default() },
            PrecondConfig::Ve { sigma_min: 0.02, sigma_max: 100.0 },
            PrecondConfig::Adm { betas: LinearBetas::default() },
        ] {
            let network = NetworkConfig::Image(image.clone());
            let config = ModelConfig { network, precond: precond.clone() };
            let model = Model::new(config, 0, &device).expect("small");
            for method in [
                Method::Euler,
                Method::Heun,
                Method::Ddim { eta: 0.5 },
                Method::Ddpm { variance: Variance::Learned },
            ] {
                for schedule in [Schedule::default(), adm(Spacing::Even)] {
                    let settings = Settings {
                        steps: 4,
                        method,
                        schedule,
                        clip_denoised: true,
                        ..Settings::default()
                    };
                    let make = |seeds: &[u64]| {
                        let pictures = pollster::block_on(generate(
                            &model,
                            &settings,
                            seeds,
                            &device,
                            async |_| Ok::<_, Infallible>(ControlFlow::Continue(())),
                        ));
                        let pictures = pictures.expect("infallible").expect("not cancelled");
                        pictures.into_data().try_into_vec::<f32>().expect("f32")
                    };
                    let two = make(&[3, 9]);
                    assert!(
                        two.iter().all(|v| v.is_finite() && v.abs() < 2.0),
                        "{precond:?} {settings:?}"
                    );
                    // A picture is its seed's, whatever is made beside it.
                    let alone = make(&[9]);
                    for (a, b) in two[alone.len()..].iter().zip(&alone) {
                        assert!((a - b).abs() < 1e-4, "{a} {b} {precond:?} {settings:?}");
                    }
                }
            }
        }
    }
}
