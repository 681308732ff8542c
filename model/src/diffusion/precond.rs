//! Preconditioning, which turns the network F into the denoiser D: `D(x; σ) = c_skip x + c_out
//! F(c_in x; c_noise)`.
//!
//! Coefficients are computed in `f64` on the host, one set per picture.

use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::config::check::{ConfigError, check, positive};
use crate::diffusion::discrete::LinearBetas;
use crate::diffusion::vp::VpSchedule;

/// Preconditioning: how the network's output is combined with its input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PrecondConfig {
    /// EDM (arXiv 2206.00364, table 1).
    Edm {
        /// Expected standard deviation of the data.
        sigma_data: f64,
    },
    /// Variance preserving, with the network predicting the noise (EDM, table 1, first column).
    Vp {
        /// The noise schedule.
        #[serde(default)]
        schedule: VpSchedule,
    },
    /// Variance exploding, with the network predicting the noise (EDM, table 1, second column).
    Ve {
        /// Lowest noise level.
        #[serde(default = "ve_sigma_min")]
        sigma_min: f64,
        /// Highest noise level.
        #[serde(default = "ve_sigma_max")]
        sigma_max: f64,
    },
    /// Variance preserving in discrete time: the network predicts the noise from the index of the
    /// step and, optionally, the variance in further channels (ADM, arXiv 2105.05233).
    Adm {
        /// The noise schedule.
        #[serde(default)]
        betas: LinearBetas,
    },
}

/// Default lowest noise level of the variance exploding process.
pub(crate) fn ve_sigma_min() -> f64 {
    0.02
}

/// Default highest noise level of the variance exploding process.
pub(crate) fn ve_sigma_max() -> f64 {
    100.0
}

/// Checks the noise levels of the variance exploding process.
pub(crate) fn validate_ve(sigma_min: f64, sigma_max: f64) -> Result<(), ConfigError> {
    positive("sigma_min", sigma_min)?;
    positive("sigma_max", sigma_max)?;
    check(sigma_min < sigma_max, || {
        format!("sigma_min {sigma_min} is not below sigma_max {sigma_max}")
    })
}

impl Default for PrecondConfig {
    fn default() -> Self {
        Self::Edm { sigma_data: 0.5 }
    }
}

/// Preconditioning coefficients at one noise level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// Factor of the noisy picture in the denoised picture.
    pub c_skip: f64,
    /// Factor of the network's output.
    pub c_out: f64,
    /// Factor of the noisy picture in the network's input.
    pub c_in: f64,
    /// The network's time input.
    pub c_noise: f64,
}

impl PrecondConfig {
    /// Checks the ranges of all fields.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let checked = match self {
            Self::Edm { sigma_data } => positive("sigma_data", *sigma_data),
            Self::Vp { schedule } => schedule.validate(),
            Self::Ve { sigma_min, sigma_max } => validate_ve(*sigma_min, *sigma_max),
            Self::Adm { betas } => betas.validate(),
        };
        checked.map_err(|ConfigError(reason)| ConfigError(format!("precond: {reason}")))
    }

    /// Computes the coefficients at noise level `sigma`, which is positive.
    pub fn coefficients(&self, sigma: f64) -> Coefficients {
        match *self {
            // EDM, table 1
            PrecondConfig::Edm { sigma_data } => {
                let total = sigma.hypot(sigma_data);
                Coefficients {
                    c_skip: (sigma_data / total).powi(2),
                    c_out: sigma * sigma_data / total,
                    c_in: 1.0 / total,
                    c_noise: sigma.ln() / 4.0,
                }
            }
            PrecondConfig::Vp { schedule } => Coefficients {
                c_skip: 1.0,
                c_out: -sigma,
                c_in: 1.0 / sigma.hypot(1.0),
                c_noise: (schedule.steps - 1) as f64 * schedule.time(sigma),
            },
            PrecondConfig::Adm { betas } => Coefficients {
                c_skip: 1.0,
                c_out: -sigma,
                c_in: 1.0 / sigma.hypot(1.0),
                c_noise: betas.time(sigma),
            },
            PrecondConfig::Ve { .. } => {
                Coefficients { c_skip: 1.0, c_out: sigma, c_in: 1.0, c_noise: (0.5 * sigma).ln() }
            }
        }
    }

    /// Returns the timestep of noise level `sigma` in the model's discrete process or, under EDM
    /// and VE, in that of 1000 steps with the default linear betas. Timestep 0 has the least noise.
    pub fn time_step(&self, sigma: f64) -> f64 {
        match *self {
            PrecondConfig::Vp { .. } | PrecondConfig::Adm { .. } => {
                self.coefficients(sigma).c_noise
            }
            PrecondConfig::Edm { .. } | PrecondConfig::Ve { .. } => {
                LinearBetas::default().time(sigma)
            }
        }
    }

    /// Returns the number of timesteps of the discrete process that [`PrecondConfig::time_step`]
    /// refers to.
    pub fn time_steps(&self) -> usize {
        match *self {
            PrecondConfig::Vp { schedule } => schedule.steps,
            PrecondConfig::Adm { betas } => betas.steps,
            PrecondConfig::Edm { .. } | PrecondConfig::Ve { .. } => LinearBetas::default().steps,
        }
    }

    /// Returns the range of noise levels that the denoiser is defined for.
    pub fn sigma_range(&self) -> RangeInclusive<f64> {
        match *self {
            PrecondConfig::Edm { .. } => f64::MIN_POSITIVE..=f64::MAX,
            PrecondConfig::Vp { schedule } => {
                schedule.sigma(schedule.epsilon_t)..=schedule.sigma(1.0)
            }
            PrecondConfig::Ve { sigma_min, sigma_max } => sigma_min..=sigma_max,
            PrecondConfig::Adm { betas } => {
                let sigmas = betas.sigmas();
                sigmas[0]..=sigmas[sigmas.len() - 1]
            }
        }
    }

    /// Returns the standard deviation of the noise that sampling from noise level `sigma` starts
    /// with: `sigma`, or for ADM `sqrt(σ² + 1)`, which is unit noise in the network's input.
    pub fn initial_std(&self, sigma: f64) -> f64 {
        match self {
            PrecondConfig::Adm { .. } => sigma.hypot(1.0),
            _ => sigma,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The published ends of the schedules (EDM, table 1 and appendix C).
    #[test]
    fn schedules_have_the_published_ends() {
        let schedule = VpSchedule::default();
        assert!((schedule.sigma(1.0) - 152.166).abs() < 1e-2);
        assert!((schedule.sigma(1e-5) - 1e-3).abs() < 1e-5);
        let coefficients = PrecondConfig::Vp { schedule }.coefficients(schedule.sigma(1.0));
        assert!((coefficients.c_noise - 999.0).abs() < 1e-9);
        let ve = PrecondConfig::Ve { sigma_min: 0.02, sigma_max: 100.0 };
        assert_eq!(ve.coefficients(2.0).c_noise, 0.0);
    }

    /// The input of ADM's network is `x_t` of its process, and its time input the index of the
    /// step.
    #[test]
    fn adm_inputs_are_those_of_the_discrete_process() {
        let betas = LinearBetas::default();
        let precond = PrecondConfig::Adm { betas };
        let diffusion = crate::diffusion::discrete::Diffusion::new(&betas);
        for (t, sigma) in diffusion.sigmas().into_iter().enumerate().step_by(37) {
            let c = precond.coefficients(sigma);
            assert_eq!(c.c_noise, t as f64);
            assert!((c.c_in / diffusion.alphas_bar()[t].sqrt() - 1.0).abs() < 1e-12);
            assert!((c.c_in * precond.initial_std(sigma) - 1.0).abs() < 1e-12);
        }
        assert!((precond.sigma_range().start() - 0.010_000_5).abs() < 1e-7);
        assert!(precond.sigma_range().contains(&157.4));
    }

    proptest! {
        #[test]
        fn time_is_the_inverse_of_the_noise_level(t in 1e-6f64..1.0) {
            let schedule = VpSchedule::default();
            prop_assert!((schedule.time(schedule.sigma(t)) / t - 1.0).abs() < 1e-9);
        }

        /// A network that predicts the noise exactly, up to its sign, denoises perfectly under VP,
        /// VE and ADM.
        #[test]
        fn exact_noise_gives_the_exact_picture(
            y in -1.0f64..1.0, n in -3.0f64..3.0, sigma in 0.02f64..100.0,
        ) {
            let x = y + sigma * n;
            for (precond, raw) in [
                (PrecondConfig::Vp { schedule: VpSchedule::default() }, n),
                (PrecondConfig::Ve { sigma_min: 0.02, sigma_max: 100.0 }, -n),
                (PrecondConfig::Adm { betas: LinearBetas::default() }, n),
            ] {
                let c = precond.coefficients(sigma);
                prop_assert!((c.c_skip * x + c.c_out * raw - y).abs() < 1e-9 * sigma.max(1.0));
            }
        }

        /// The three requirements from which EDM derives the coefficients (its appendix B.6).
        #[test]
        fn edm_coefficients_meet_their_requirements(sigma in 1e-3f64..100.0, sigma_data in 0.1f64..2.0) {
            let c = PrecondConfig::Edm { sigma_data }.coefficients(sigma);
            // The network's input has unit variance.
            let input = c.c_in.powi(2) * (sigma_data.powi(2) + sigma.powi(2));
            prop_assert!((input - 1.0).abs() < 1e-12);
            // So has its target, (y - c_skip (y + n)) / c_out.
            let target = ((1.0 - c.c_skip).powi(2) * sigma_data.powi(2)
                + c.c_skip.powi(2) * sigma.powi(2)) / c.c_out.powi(2);
            prop_assert!((target - 1.0).abs() < 1e-9);
            // c_skip minimises c_out, and with it the influence of the network's errors.
            for other in [c.c_skip - 0.01, c.c_skip + 0.01] {
                let c_out = ((1.0 - other).powi(2) * sigma_data.powi(2)
                    + other.powi(2) * sigma.powi(2)).sqrt();
                prop_assert!(c_out > c.c_out);
            }
        }
    }
}
