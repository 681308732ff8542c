//! Sampling methods and their options, as plain values.

use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Sampling method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Method {
    /// Euler: first order, one evaluation per step.
    Euler,
    /// Heun: second order, two evaluations per step but one in the last (EDM, algorithm 1).
    Heun,
    /// iPNDM (arXiv 2204.13902): multistep, uses the last slopes, one evaluation per step.
    Ipndm {
        /// Number of slopes used, 1 to 4: its order on levels of equal widths.
        order: usize,
    },
    /// DPM-Solver++ (arXiv 2211.01095): multistep (2M, 3M), uses the last denoised pictures, one
    /// evaluation per step.
    Dpmpp {
        /// Order, 2 or 3.
        order: usize,
    },
    /// DDIM (arXiv 2010.02502): a step to the next noise level, with a part of the noise fresh.
    Ddim {
        /// Amount of fresh noise: 0 for none, which is Euler's step; 1 for the variance of
        /// [`Variance::Small`].
        eta: f64,
    },
    /// Ancestral sampling (DDPM, arXiv 2006.11239): a draw from the posterior at the next noise
    /// level, with the denoised picture in place of the picture.
    Ddpm {
        /// Variance of the draw.
        variance: Variance,
    },
}

impl Method {
    /// Returns the number of denoiser evaluations in `steps` steps.
    pub fn evaluations(self, steps: usize) -> usize {
        match self {
            Method::Heun => 2 * steps - 1,
            _ => steps,
        }
    }

    /// Returns whether churn can add noise before the steps: only if the method adds no noise
    /// itself and has no history, which fresh noise would invalidate.
    pub fn takes_churn(self) -> bool {
        matches!(self, Method::Euler | Method::Heun)
    }

    /// Returns the order and the possible orders, if the method has a choice of orders.
    pub fn order(self) -> Option<(usize, RangeInclusive<usize>)> {
        match self {
            Method::Ipndm { order } => Some((order, 1..=4)),
            Method::Dpmpp { order } => Some((order, 2..=3)),
            _ => None,
        }
    }

    /// Returns this method with another order; unchanged if it has no choice of orders.
    pub fn of_order(self, order: usize) -> Self {
        match self {
            Method::Ipndm { .. } => Method::Ipndm { order },
            Method::Dpmpp { .. } => Method::Dpmpp { order },
            other => other,
        }
    }
}

/// Variance of an ancestral step. See `sampler::StepVariance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variance {
    /// Between the two others, as predicted by the network for each value (ADM); the small one if
    /// the network predicts no variance.
    #[default]
    Learned,
    /// Variance of the posterior: optimal if the data are a single picture.
    Small,
    /// Beta: optimal if the data are themselves unit noise.
    Large,
}

/// Noise that is added before a step of Euler or Heun and removed by it ("churn"; EDM,
/// algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Churn {
    /// Total amount over all steps; 0 for none, which makes the sampler deterministic.
    pub s_churn: f64,
    /// Lowest noise level at which noise is added.
    pub s_min: f64,
    /// Highest noise level at which noise is added.
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
    /// Returns the raised noise level for a step from `sigma`, one of `steps` steps.
    pub(crate) fn raise(&self, sigma: f64, steps: usize) -> f64 {
        if self.s_churn > 0.0 && (self.s_min..=self.s_max).contains(&sigma) {
            sigma * (1.0 + (self.s_churn / steps as f64).min(core::f64::consts::SQRT_2 - 1.0))
        } else {
            sigma
        }
    }
}
