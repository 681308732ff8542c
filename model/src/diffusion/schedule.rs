//! Noise schedules: the noise levels that a sampler steps through, as `f64`, largest first, ending
//! in 0.

use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::diffusion::discrete::{LinearBetas, Spacing};

/// Spacing of the noise levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// `σ_i = (σ_max^(1/ρ) + i / (N - 1) (σ_min^(1/ρ) - σ_max^(1/ρ)))^ρ` (EDM, eq 5).
    Edm {
        /// Lowest noise level above 0.
        sigma_min: f64,
        /// Noise level that sampling starts at.
        sigma_max: f64,
        /// Exponent ρ: the larger it is, the denser the levels at low noise.
        rho: f64,
    },
    /// Even in ln σ, and so in log-SNR: `σ_i = σ_max (σ_min / σ_max)^(i / (N - 1))`, the limit of
    /// EDM's spacing for ρ → ∞.
    LogSnr {
        /// Lowest noise level above 0.
        sigma_min: f64,
        /// Noise level that sampling starts at.
        sigma_max: f64,
    },
    /// The noise levels of selected steps of a discrete-time process (ADM).
    Adm {
        /// Beta schedule of the process.
        #[serde(default)]
        betas: LinearBetas,
        /// Selection of its steps.
        #[serde(default)]
        spacing: Spacing,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 }
    }
}

impl Schedule {
    /// Returns `steps + 1` noise levels, the last of them 0.
    ///
    /// # Panics
    ///
    /// If `steps` is 0, or the spacing does not give that many steps of a discrete-time process.
    pub fn sigmas(&self, steps: usize) -> Vec<f64> {
        assert!(steps > 0, "a schedule has at least one step");
        // The ends are set directly, so that they are free of rounding errors.
        let between = |sigma_min: f64, sigma_max: f64, level: &dyn Fn(f64) -> f64| {
            let level = |i| match i {
                0 => sigma_max,
                i if i == steps - 1 => sigma_min,
                i => level(i as f64 / (steps - 1) as f64),
            };
            (0..steps).map(level).collect()
        };
        let mut sigmas: Vec<f64> = match self {
            &Schedule::Edm { sigma_min, sigma_max, rho } => {
                let (high, low) = (sigma_max.powf(1.0 / rho), sigma_min.powf(1.0 / rho));
                between(sigma_min, sigma_max, &|part| (high + part * (low - high)).powf(rho))
            }
            &Schedule::LogSnr { sigma_min, sigma_max } => {
                let (high, low) = (sigma_max.ln(), sigma_min.ln());
                between(sigma_min, sigma_max, &|part| (high + part * (low - high)).exp())
            }
            Schedule::Adm { betas, spacing } => {
                let indices = spacing.indices(steps, betas.steps).expect("the steps fit");
                let sigmas = betas.sigmas();
                indices.into_iter().rev().map(|t| sigmas[t]).collect()
            }
        };
        sigmas.push(0.0);
        sigmas
    }

    /// Returns the noise levels inside the range that a denoiser is defined for. The ends of the
    /// EDM and log-SNR spacings are clamped to the range, as in EDM's sampler. Each discrete-time
    /// level is clamped to the range on its own; the steps of zero width that result change
    /// nothing.
    ///
    /// # Errors
    ///
    /// If the schedule lies outside the range.
    ///
    /// # Panics
    ///
    /// As [`Schedule::sigmas`].
    pub fn sigmas_within(
        &self,
        range: RangeInclusive<f64>,
        steps: usize,
    ) -> Result<Vec<f64>, OutOfRange> {
        let (low, high) = range.into_inner();
        let whole = self.sigmas(steps);
        let (first, last) = (whole[0], whole[steps - 1]);
        // A single step has a single level, which may lie anywhere in the range.
        let distinct = steps == 1 || first.min(high) > last.max(low);
        if low > high || first < low || last > high || !distinct {
            return Err(OutOfRange { first, last, low, high });
        }
        Ok(match *self {
            Schedule::Edm { sigma_min, sigma_max, rho } => {
                let (sigma_min, sigma_max) = (sigma_min.max(low), sigma_max.min(high));
                Schedule::Edm { sigma_min, sigma_max, rho }.sigmas(steps)
            }
            Schedule::LogSnr { sigma_min, sigma_max } => {
                let (sigma_min, sigma_max) = (sigma_min.max(low), sigma_max.min(high));
                Schedule::LogSnr { sigma_min, sigma_max }.sigmas(steps)
            }
            Schedule::Adm { .. } => {
                let mut sigmas = whole;
                sigmas[..steps].iter_mut().for_each(|sigma| *sigma = sigma.clamp(low, high));
                sigmas
            }
        })
    }
}

/// Error for a schedule outside the noise levels that a model is defined for.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "noise levels from {first} down to {last} do not fit into the usable range, {low} to {high}: \
     choose sigma_min below {high} and sigma_max above {low}"
)]
pub struct OutOfRange {
    /// Highest noise level of the schedule.
    pub first: f64,
    /// Lowest noise level of the schedule above 0.
    pub last: f64,
    /// Lowest noise level that can be used.
    pub low: f64,
    /// Highest noise level that can be used.
    pub high: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn levels_stay_within_the_range() {
        let adm = Schedule::Adm { betas: LinearBetas::default(), spacing: Spacing::Even };
        let even = Schedule::LogSnr { sigma_min: 0.002, sigma_max: 80.0 };
        for schedule in [Schedule::default(), even, adm] {
            let sigmas = schedule.sigmas_within(0.02..=50.0, 5).expect("they overlap");
            assert_eq!((sigmas.len(), sigmas[0], sigmas[4], sigmas[5]), (6, 50.0, 0.02, 0.0));
            assert_eq!(schedule.sigmas_within(0.0..=200.0, 5), Ok(schedule.sigmas(5)));
            // Levels that would ascend or coincide.
            for range in [0.001..=0.0015, 300.0..=400.0, 5.0..=1.0] {
                let error = schedule.sigmas_within(range.clone(), 5).expect_err("outside");
                assert_eq!((error.low, error.high), range.into_inner());
            }
        }
    }

    #[test]
    fn adm_levels_are_those_of_the_selected_steps() {
        let betas = LinearBetas::default();
        let sigmas = Schedule::Adm { betas, spacing: Spacing::Ddim }.sigmas(50);
        assert_eq!(sigmas[49..], [betas.sigmas()[0], 0.0]);
        assert_eq!(sigmas[0], betas.sigmas()[980]);
        let text = r#"{"kind": "adm", "spacing": {"sections": [10, 15, 20]}}"#;
        let schedule: Schedule = serde_json::from_str(text).expect("betas have a default");
        assert_eq!(schedule.sigmas(45).len(), 46);
    }

    #[test]
    fn edm_levels_of_four_steps() {
        // (80^(1/7) + i/3 (0.002^(1/7) - 80^(1/7)))^7, computed independently.
        let want = [80.0, 9.723_201, 0.469_979, 0.002, 0.0];
        for (sigma, want) in Schedule::default().sigmas(4).into_iter().zip(want) {
            assert!((sigma - want).abs() <= 1e-6 * want, "{sigma} is not {want}");
        }
    }

    #[test]
    fn log_snr_levels_fall_by_a_constant_factor() {
        let schedule = Schedule::LogSnr { sigma_min: 0.01, sigma_max: 100.0 };
        let want = [100.0, 10.0, 1.0, 0.1, 0.01, 0.0];
        for (sigma, want) in schedule.sigmas(5).into_iter().zip(want) {
            assert!((sigma - want).abs() <= 1e-12 * want, "{sigma} is not {want}");
        }
        assert_eq!(schedule.sigmas(1), [100.0, 0.0]);
        let text = r#"{"kind":"log-snr","sigma_min":0.01,"sigma_max":100.0}"#;
        assert_eq!(serde_json::from_str::<Schedule>(text).expect("as written"), schedule);
    }

    proptest! {
        /// For any range, the levels descend or an error is returned.
        #[test]
        fn levels_within_a_range_descend(
            steps in 1usize..40, low in 1e-4f64..100.0, high in 1e-4f64..100.0, kind in 0usize..3,
        ) {
            let schedule = match kind {
                0 => Schedule::default(),
                1 => Schedule::LogSnr { sigma_min: 0.01, sigma_max: 50.0 },
                _ => Schedule::Adm { betas: LinearBetas::default(), spacing: Spacing::Even },
            };
            if let Ok(sigmas) = schedule.sigmas_within(low..=high, steps) {
                prop_assert_eq!((sigmas.len(), sigmas[steps]), (steps + 1, 0.0));
                prop_assert!(sigmas.windows(2).all(|w| w[0] >= w[1]));
                prop_assert!(sigmas[..steps].iter().all(|s| (low..=high).contains(s)));
            } else {
                prop_assert!(low >= 0.002f64.min(high) || high <= 0.02);
            }
        }

        #[test]
        fn levels_descend_from_end_to_end(
            steps in 1usize..1000, low in 1e-4f64..0.1, high in 1.0f64..200.0, rho in 1.0f64..10.0,
        ) {
            let schedule = Schedule::Edm { sigma_min: low, sigma_max: high, rho };
            let sigmas = schedule.sigmas(steps);
            prop_assert_eq!(sigmas.len(), steps + 1);
            prop_assert_eq!(sigmas[0], high);
            prop_assert_eq!(sigmas[steps], 0.0);
            if steps > 1 {
                prop_assert_eq!(sigmas[steps - 1], low);
            }
            prop_assert!(sigmas.windows(2).all(|w| w[0] > w[1]));
        }
    }
}
