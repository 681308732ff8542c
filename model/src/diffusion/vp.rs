//! The variance-preserving process in continuous time.

use serde::{Deserialize, Serialize};

use crate::config::check::{ConfigError, check, positive, within};

/// Noise schedule of the variance preserving process over time 0 to 1 (EDM, table 1):
/// `σ(t) = sqrt(exp(beta_d t² / 2 + beta_min t) - 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VpSchedule {
    /// Increase of the noise rate from time 0 to time 1.
    pub beta_d: f64,
    /// Noise rate at time 0.
    pub beta_min: f64,
    /// Lowest time that is used.
    pub epsilon_t: f64,
    /// Number of timesteps of the discrete process, in which the network's time input is counted.
    pub steps: usize,
}

impl Default for VpSchedule {
    fn default() -> Self {
        Self { beta_d: 19.9, beta_min: 0.1, epsilon_t: 1e-5, steps: 1000 }
    }
}

impl VpSchedule {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        positive("schedule.beta_d", self.beta_d)?;
        positive("schedule.beta_min", self.beta_min)?;
        positive("schedule.epsilon_t", self.epsilon_t)?;
        check(self.epsilon_t < 1.0, || {
            format!("schedule.epsilon_t is {}, not below 1", self.epsilon_t)
        })?;
        within("schedule.steps", self.steps, 2, 1_000_000)
    }

    /// Returns the noise level at time `t`.
    pub fn sigma(&self, t: f64) -> f64 {
        (0.5 * self.beta_d * t * t + self.beta_min * t).exp_m1().sqrt()
    }

    /// Returns the time of noise level `sigma`.
    pub fn time(&self, sigma: f64) -> f64 {
        // The root of beta_d t² / 2 + beta_min t = ln(1 + σ²), without cancellation near 0.
        let log = (sigma * sigma).ln_1p();
        2.0 * log / (self.beta_min + (self.beta_min.powi(2) + 2.0 * self.beta_d * log).sqrt())
    }
}
