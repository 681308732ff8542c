//! Sampling settings, as plain values that programs without tensors share.

use serde::{Deserialize, Serialize};

use crate::config::{ModelConfig, NetworkConfig, PrecondConfig};
use crate::diffusion::discrete::Spacing;
use crate::diffusion::guidance::{Guidance, GuidanceSchedule};
use crate::diffusion::label::Label;
use crate::diffusion::schedule::Schedule;

pub use crate::diffusion::method::{Churn, Method, Variance};
use crate::weights::classes;

/// Sampling settings: everything but the model and the seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Number of steps.
    pub steps: usize,
    /// Sampling method.
    pub method: Method,
    /// Noise schedule.
    pub schedule: Schedule,
    /// Noise added before steps.
    pub churn: Churn,
    /// Labels of the pictures. With `n` labels, the picture of seed `s` has label number `s mod n`,
    /// however the seeds are batched. Empty for pictures without a class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Label>,
    /// Classifier-free guidance towards the class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<Guidance>,
    /// Whether every denoised picture is clipped to -1 to 1 before the step is taken.
    pub clip_denoised: bool,
    /// Whether the time token is zero everywhere, which hides the noise level from the network.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub silence_time: bool,
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
            silence_time: false,
        }
    }
}

/// Error for [`Settings`] that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl Settings {
    /// Maximum number of steps.
    pub const MAX_STEPS: usize = 1000;

    /// Returns the initial settings for interactive use of a model: [`Settings::paper_for`] if it
    /// has discrete time, otherwise [`Settings::quick`], which among the settings with few
    /// evaluations come closest to the pictures of many steps (docs/solvers.md).
    pub fn first_for(config: &ModelConfig) -> Self {
        match config.precond {
            PrecondConfig::Adm { .. } => Self::paper_for(config),
            _ => Self::quick(),
        }
    }

    /// Returns settings of twelve evaluations, with the method whose pictures are then closest to
    /// those of many steps.
    pub fn quick() -> Self {
        Self { steps: 12, method: Method::Ipndm { order: 4 }, ..Self::default() }
    }

    /// Returns the paper's settings for a model. For the many steps of a discrete-time model these
    /// are 50 steps of DDIM, which come close to the paper's 250.
    pub fn paper_for(config: &ModelConfig) -> Self {
        let PrecondConfig::Adm { betas } = config.precond else { return Self::default() };
        let guidance = match &config.network {
            NetworkConfig::Latent(latent) if latent.classes > 0 => Some(match latent.resolution {
                // Pictures of 512x512.
                64.. => Guidance {
                    scale: 1.49,
                    schedule: GuidanceSchedule::Constant,
                    ..Guidance::default()
                },
                _ => Guidance::default(),
            }),
            _ => None,
        };
        // DDIM's spacing, if a whole stride takes exactly this many of the model's steps.
        let steps = betas.steps.min(50);
        let ddim = Spacing::Ddim.indices(steps, betas.steps).is_ok();
        Self {
            steps,
            method: Method::Ddim { eta: 0.0 },
            schedule: Schedule::Adm {
                betas,
                spacing: if ddim { Spacing::Ddim } else { Spacing::Even },
            },
            guidance,
            ..Self::default()
        }
    }

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
        let check_sigmas = |sigma_min: f64, sigma_max: f64| {
            check(
                sigma_min > 0.0 && sigma_min < sigma_max && sigma_max.is_finite(),
                format!(
                    "sigma_min {sigma_min} and sigma_max {sigma_max} are not valid: both must be \
                     finite and above 0, and sigma_min below sigma_max"
                ),
            )
        };
        match &self.schedule {
            &Schedule::LogSnr { sigma_min, sigma_max } => check_sigmas(sigma_min, sigma_max)?,
            &Schedule::Edm { sigma_min, sigma_max, rho } => {
                check_sigmas(sigma_min, sigma_max)?;
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
            check(
                value >= 0.0 && value.is_finite(),
                format!("{name} is {value}, not a finite number of at least 0"),
            )?;
        }
        if !self.method.takes_churn() {
            let message = "churn is for euler and heun only: ddim and ddpm add noise themselves, \
                           and it would invalidate the history of ipndm and dpmpp; set churn to 0";
            check(s_churn == 0.0, message.into())?;
        }
        if let Method::Ddim { eta } = self.method {
            check((0.0..=1.0).contains(&eta), format!("eta is {eta}, not within 0 to 1"))?;
        }
        if let Some((order, orders)) = self.method.order() {
            let (lowest, highest) = (orders.start(), orders.end());
            check(
                orders.contains(&order),
                format!("order is {order}, not within {lowest} to {highest}"),
            )?;
        }
        match &self.guidance {
            Some(guidance) => guidance.validate().map_err(SettingsError),
            None => Ok(()),
        }
    }

    /// Checks that the settings fit a model: its classes and its noise levels.
    ///
    /// # Errors
    ///
    /// The first class that the model does not have, guidance without a class, or a schedule
    /// outside the model's noise levels.
    pub fn validate_for(&self, config: &ModelConfig) -> Result<(), SettingsError> {
        let known = config.classes();
        let mut classes = self.classes.iter().flat_map(Label::parts);
        if let Some((class, _)) = classes.find(|(class, _)| *class >= known) {
            return Err(SettingsError(format!(
                "class {class}: {}",
                classes::describe_count(known)
            )));
        }
        if self.guidance.is_some() && self.classes.is_empty() {
            return Err(SettingsError(
                "guidance needs a class: choose one, or leave guidance out".into(),
            ));
        }
        self.sigmas(&config.precond, None).map(|_| ())
    }

    /// Takes over the discrete-time process of the model, if both have one: a respacing selects
    /// timesteps of the model's own betas.
    pub fn use_process_of(&mut self, config: &ModelConfig) {
        if let (Schedule::Adm { betas, .. }, PrecondConfig::Adm { betas: own }) =
            (&mut self.schedule, &config.precond)
        {
            *betas = *own;
        }
    }

    /// Returns the noise levels of the steps for a model with this preconditioner, the last of them
    /// 0. `highest` limits them, for sampling that starts from a picture with noise of that level.
    ///
    /// # Errors
    ///
    /// If the schedule lies outside the noise levels that the model is defined for, or outside
    /// those up to `highest`.
    ///
    /// # Panics
    ///
    /// If the settings are not valid.
    pub fn sigmas(
        &self,
        precond: &PrecondConfig,
        highest: Option<f64>,
    ) -> Result<Vec<f64>, SettingsError> {
        let (low, high) = precond.sigma_range().into_inner();
        let high = highest.map_or(high, |highest| high.min(highest));
        let sigmas = self.schedule.sigmas_within(low..=high, self.steps);
        sigmas.map_err(|error| SettingsError(error.to_string()))
    }

    /// Returns the label of each seed's picture; empty if there are no classes.
    pub fn labels_of(&self, seeds: &[u64]) -> Vec<Label> {
        match self.classes.len() as u64 {
            0 => Vec::new(),
            n => seeds.iter().map(|seed| self.classes[(seed % n) as usize].clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ImageConfig, LatentConfig, LinearBetas};

    /// Settings as stored in pictures from before there were schedules other than EDM's.
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
    fn initial_settings_are_valid_for_every_model() {
        let adm = PrecondConfig::Adm { betas: LinearBetas::default() };
        let latent = |resolution, classes| ModelConfig {
            network: NetworkConfig::Latent(LatentConfig {
                resolution,
                classes,
                ..LatentConfig::default()
            }),
            precond: adm.clone(),
        };
        let image = ModelConfig {
            network: NetworkConfig::Image(ImageConfig::default()),
            precond: PrecondConfig::default(),
        };
        assert_eq!(Settings::paper_for(&image), Settings::default());
        let quick = Settings::first_for(&image);
        assert_eq!((quick.validate(), quick.method.evaluations(quick.steps)), (Ok(()), 12));
        let scale = |config: &ModelConfig| {
            let settings = Settings::first_for(config);
            assert_eq!(settings, Settings::paper_for(config));
            assert_eq!((settings.validate(), settings.steps), (Ok(()), 50));
            settings.guidance.map(|guidance| guidance.scale)
        };
        // A model's own process, with another number of steps and other betas.
        for (steps, spacing) in [(400, Spacing::Ddim), (30, Spacing::Ddim), (77, Spacing::Even)] {
            let betas = LinearBetas { steps, first: 2e-4, last: 0.03 };
            let precond = PrecondConfig::Adm { betas };
            let config = ModelConfig { precond, ..latent(32, 0) };
            let settings = Settings::first_for(&config);
            assert_eq!(settings.schedule, Schedule::Adm { betas, spacing });
            assert_eq!((settings.validate(), settings.validate_for(&config)), (Ok(()), Ok(())));
            assert_eq!(settings.steps, steps.min(50));
            let other = Schedule::Adm { betas: LinearBetas::default(), spacing: Spacing::Even };
            let mut respaced = Settings { schedule: other, ..Settings::default() };
            let own = Schedule::Adm { betas, spacing: Spacing::Even };
            respaced.use_process_of(&config);
            assert_eq!(respaced.schedule, own);
        }
        // The paper's scales at 256x256 and 512x512; none for a model without classes.
        let scales = [latent(32, 1000), latent(64, 1000), latent(32, 0)].map(|c| scale(&c));
        assert_eq!(scales, [Some(4.4), Some(1.49), None]);
    }

    #[test]
    fn schedules_outside_the_model_s_noise_levels_are_rejected() {
        let network = NetworkConfig::Image(ImageConfig::default());
        let precond = PrecondConfig::Adm { betas: LinearBetas::default() };
        let model = ModelConfig { network, precond };
        let with = |sigma_min, sigma_max| Settings {
            schedule: Schedule::Edm { sigma_min, sigma_max, rho: 7.0 },
            ..Settings::default()
        };
        // The lowest level of this process is 0.01.
        let error = with(0.002, 0.009).validate_for(&model).expect_err("below the model's levels");
        assert!(error.to_string().contains("do not fit"), "{error}");
        assert_eq!(with(0.002, 80.0).validate_for(&model), Ok(()));
        let from = |sigma| with(0.002, 80.0).sigmas(&model.precond, Some(sigma));
        assert!(from(0.009).is_err());
        assert_eq!(from(0.5).expect("within")[0], 0.5);
    }

    #[test]
    fn settings_round_trip_through_json() {
        for method in [
            Method::Euler,
            Method::Heun,
            Method::Ipndm { order: 3 },
            Method::Dpmpp { order: 2 },
            Method::Ddim { eta: 0.25 },
            Method::Ddpm { variance: Variance::Learned },
        ] {
            let even = Schedule::LogSnr { sigma_min: 0.01, sigma_max: 50.0 };
            for schedule in [Schedule::default(), even, adm(Spacing::Sections(vec![10, 8]))] {
                let settings = Settings { method, schedule, ..Settings::default() };
                settings.validate().expect("fit");
                let text = serde_json::to_string(&settings).expect("plain data");
                assert_eq!(serde_json::from_str::<Settings>(&text).expect(&text), settings);
            }
        }
    }

    #[test]
    fn invalid_settings_are_rejected() {
        let cases: [(fn(&mut Settings), &str); 11] = [
            (|s| s.method = Method::Ipndm { order: 0 }, "order is 0, not within 1 to 4"),
            (|s| s.method = Method::Ipndm { order: 5 }, "order is 5"),
            (|s| s.method = Method::Dpmpp { order: 1 }, "order is 1, not within 2 to 3"),
            (
                |s| {
                    s.method = Method::Ipndm { order: 4 };
                    s.churn.s_churn = 1.0;
                },
                "churn is for euler and heun",
            ),
            (
                |s| s.schedule = Schedule::LogSnr { sigma_min: 0.0, sigma_max: 80.0 },
                "sigma_min 0 and sigma_max 80",
            ),
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
}
