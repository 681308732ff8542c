//! Classifier-free guidance (arXiv 2207.12598): the denoiser with a class, moved further away from
//! the denoiser without one, `D = D_null + s (D_class - D_null)`.
//!
//! The preconditioner is the same for both and linear in the network's output, so that this is also
//! `eps = eps_null + s (eps_class - eps_null)`, as it is usually written.

use serde::{Deserialize, Serialize};

use crate::diffusion::precond::PrecondConfig;

/// How far, when, and in which channels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guidance {
    /// The scale w: 1 is the model with its class, 0 the one without.
    pub scale: f64,
    /// How the scale changes with time.
    pub course: GuidanceSchedule,
    /// Which channels are guided.
    pub channels: GuidedChannels,
    /// Guidance is left out up to this noise level (arXiv 2404.07724) ..
    pub sigma_low: f64,
    /// .. and above this one.
    pub sigma_high: f64,
}

/// How the scale changes with time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum GuidanceSchedule {
    /// `s = w`: what the paper has at 512x512, with w = 1.49.
    Constant,
    /// `s(t) = 1 + (w - 1) (1 - cos(π (1 - t/T)^p)) / 2` for `T` time steps, from 1 at the noisiest time step to w
    /// at the last: what the paper has at 256x256.
    PowerCosine {
        /// The power p.
        power: f64,
    },
}

/// Which channels are guided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuidedChannels {
    /// The first three, as in the release, which has it from code for pictures in colour: of a
    /// latent, the fourth stays that of the model with its class.
    Three,
    /// All of them.
    All,
}

impl Default for Guidance {
    /// The released settings for 256x256.
    fn default() -> Self {
        Self {
            scale: 4.4,
            course: GuidanceSchedule::PowerCosine { power: 4.0 },
            channels: GuidedChannels::Three,
            sigma_low: 0.0,
            sigma_high: f64::MAX,
        }
    }
}

impl Guidance {
    /// Checks every field; the error names the first that is out of its range.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let Self { scale, course, sigma_low, sigma_high, .. } = *self;
        let check = |holds: bool, message: String| if holds { Ok(()) } else { Err(message) };
        check((0.0..=1000.0).contains(&scale), format!("guidance scale {scale}, not 0 to 1000"))?;
        if let GuidanceSchedule::PowerCosine { power } = course {
            check(
                power > 0.0 && power <= 100.0,
                format!("guidance power {power}, not above 0 and up to 100"),
            )?;
        }
        check(
            sigma_low >= 0.0 && sigma_low <= sigma_high && sigma_high.is_finite(),
            format!("guidance from sigma {sigma_low} to {sigma_high}, which do not rise from 0"),
        )
    }

    /// The scale s at noise level `sigma`.
    pub fn scale_at(&self, precond: &PrecondConfig, sigma: f64) -> f64 {
        if sigma <= self.sigma_low || sigma > self.sigma_high {
            return 1.0;
        }
        match self.course {
            GuidanceSchedule::Constant => self.scale,
            GuidanceSchedule::PowerCosine { power } => {
                let steps = precond.time_steps() as f64;
                let t = precond.time_step(sigma).clamp(0.0, steps);
                let angle = core::f64::consts::PI * (1.0 - t / steps).powf(power);
                1.0 + (self.scale - 1.0) * 0.5 * (1.0 - angle.cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::vp::VpSchedule;
    use proptest::prelude::*;

    fn vp() -> PrecondConfig {
        PrecondConfig::Vp { schedule: VpSchedule::default() }
    }

    #[test]
    fn the_course_runs_from_1_to_w() {
        let guidance = Guidance { scale: 3.0, ..Guidance::default() };
        let at = |t: f64| guidance.scale_at(&vp(), VpSchedule::default().sigma(t / 999.0));
        assert!((at(999.0) - 1.0).abs() < 1e-9);
        assert!((at(1e-3) - 3.0).abs() < 1e-6);
        // Half of the way where (1 - t/1000)^4 is 1/2.
        assert!((at(1000.0 * (1.0 - 0.5f64.powf(0.25))) - 2.0).abs() < 1e-9);
    }

    /// A process of another length has its own last time step.
    #[test]
    fn time_is_counted_in_the_model_s_steps() {
        use crate::diffusion::discrete::LinearBetas;
        let guidance = Guidance { scale: 3.0, ..Guidance::default() };
        let betas = LinearBetas { steps: 200, ..LinearBetas::default() };
        let half = 200.0 * (1.0 - 0.5f64.powf(0.25));
        let sigmas = betas.sigmas();
        let (low, high) = (sigmas[half as usize], sigmas[half as usize + 1]);
        let sigma = low * (high / low).powf(half.fract());
        let scale = guidance.scale_at(&PrecondConfig::Adm { betas }, sigma);
        assert!((scale - 2.0).abs() < 1e-9, "{scale}");
    }

    proptest! {
        #[test]
        fn the_scale_is_between_1_and_w_and_falls_with_the_noise(
            scale in 0.0f64..10.0, power in 0.1f64..8.0, a in 1e-3f64..150.0, b in 1e-3f64..150.0,
            edm: bool,
        ) {
            let precond = if edm { PrecondConfig::default() } else { vp() };
            let guidance =
                Guidance { scale, course: GuidanceSchedule::PowerCosine { power }, ..Guidance::default() };
            let [low, high] = [a.min(b), a.max(b)].map(|sigma| guidance.scale_at(&precond, sigma));
            for s in [low, high] {
                prop_assert!(s >= scale.min(1.0) - 1e-12 && s <= scale.max(1.0) + 1e-12);
            }
            // The more noise, the nearer to 1.
            prop_assert!((high - 1.0).abs() <= (low - 1.0).abs() + 1e-12);
        }

        #[test]
        fn outside_its_interval_there_is_no_guidance(
            low in 0.01f64..1.0, high in 1.0f64..50.0, sigma in 1e-3f64..150.0,
        ) {
            let course = GuidanceSchedule::Constant;
            let guidance = Guidance {
                scale: 2.0, course, sigma_low: low, sigma_high: high, ..Guidance::default()
            };
            let inside = sigma > low && sigma <= high;
            prop_assert_eq!(guidance.scale_at(&vp(), sigma), if inside { 2.0 } else { 1.0 });
        }
    }
}
