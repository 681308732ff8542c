//! How pictures are made: plain values, which programs without tensors share.

use serde::{Deserialize, Serialize};

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
    /// Whether the time token is zero everywhere, so that the network is not told the noise level.
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
            silence_time: false,
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

/// How one step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Euler: first order, one evaluation a step.
    Euler,
    /// Heun: second order, two evaluations a step but one in the last (EDM, algorithm 1).
    Heun,
}

impl Method {
    /// Evaluations of the denoiser in `steps` steps.
    pub fn evaluations(self, steps: usize) -> usize {
        match self {
            Method::Euler => steps,
            Method::Heun => 2 * steps - 1,
        }
    }
}

/// Noise that is added before a step and removed by it ("churn"; EDM, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Churn {
    /// Amount over all steps; 0 for none, which makes the sampler deterministic.
    pub s_churn: f64,
    /// Lowest noise level it is added at.
    pub s_min: f64,
    /// Highest noise level it is added at.
    pub s_max: f64,
    /// Standard deviation of the added noise.
    pub s_noise: f64,
}

impl Default for Churn {
    fn default() -> Self {
        Self { s_churn: 0.0, s_min: 0.0, s_max: f64::MAX, s_noise: 1.0 }
    }
}

#[cfg(feature = "tensor")]
impl Churn {
    /// The raised noise level for a step from `sigma`, of `steps` in all.
    pub(crate) fn raise(&self, sigma: f64, steps: usize) -> f64 {
        if self.s_churn > 0.0 && (self.s_min..=self.s_max).contains(&sigma) {
            sigma * (1.0 + (self.s_churn / steps as f64).min(core::f64::consts::SQRT_2 - 1.0))
        } else {
            sigma
        }
    }
}
