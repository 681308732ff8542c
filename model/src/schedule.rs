//! Noise levels that a sampler steps through: plain `f64`, largest first, ending in 0.

use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// How noise levels are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// `σ_i = (σ_max^(1/ρ) + i / (N - 1) (σ_min^(1/ρ) - σ_max^(1/ρ)))^ρ` (EDM, eq 5).
    Edm {
        /// Noise level of the last step but one.
        sigma_min: f64,
        /// Noise level of the start.
        sigma_max: f64,
        /// How much the steps crowd towards low noise.
        rho: f64,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 }
    }
}

impl Schedule {
    /// The same spacing between the noise levels that a denoiser is defined for, as EDM's sampler
    /// has it.
    pub fn within(self, range: RangeInclusive<f64>) -> Self {
        let Self::Edm { sigma_min, sigma_max, rho } = self;
        Self::Edm {
            sigma_min: sigma_min.max(*range.start()),
            sigma_max: sigma_max.min(*range.end()),
            rho,
        }
    }

    /// `steps + 1` noise levels, the last of them 0.
    ///
    /// # Panics
    ///
    /// If `steps` is 0.
    pub fn sigmas(&self, steps: usize) -> Vec<f64> {
        assert!(steps > 0, "a schedule has at least one step");
        let Schedule::Edm { sigma_min, sigma_max, rho } = *self;
        let (high, low) = (sigma_max.powf(1.0 / rho), sigma_min.powf(1.0 / rho));
        let mut sigmas: Vec<f64> = (0..steps)
            .map(|i| match i {
                // The ends are exact, whatever rounding does in between.
                0 => sigma_max,
                i if i == steps - 1 => sigma_min,
                i => (high + i as f64 / (steps - 1) as f64 * (low - high)).powf(rho),
            })
            .collect();
        sigmas.push(0.0);
        sigmas
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn levels_stay_where_the_denoiser_is_defined() {
        let sigmas = Schedule::default().within(0.02..=50.0).sigmas(5);
        assert_eq!((sigmas[0], sigmas[4], sigmas[5]), (50.0, 0.02, 0.0));
        assert_eq!(Schedule::default().within(0.0..=100.0), Schedule::default());
    }

    #[test]
    fn edm_levels_of_four_steps() {
        // (80^(1/7) + i/3 (0.002^(1/7) - 80^(1/7)))^7, computed apart.
        let want = [80.0, 9.723_201, 0.469_979, 0.002, 0.0];
        for (sigma, want) in Schedule::default().sigmas(4).into_iter().zip(want) {
            assert!((sigma - want).abs() <= 1e-6 * want, "{sigma} is not {want}");
        }
    }

    proptest! {
        #[test]
        fn levels_fall_from_end_to_end(
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
