//! Classifier-free guidance (arXiv 2207.12598): extrapolation from the denoiser without a class to
//! the denoiser with one, `D = D_null + s (D_class - D_null)`.
//!
//! The preconditioner is the same for both and linear in the network's output, so this equals the
//! usual form `eps = eps_null + s (eps_class - eps_null)`.

use serde::{Deserialize, Serialize};

use crate::diffusion::precond::PrecondConfig;

/// Settings of classifier-free guidance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guidance {
    /// Guidance scale w: 1 gives the class-conditional model, 0 the unconditional one.
    pub scale: f64,
    /// Guidance schedule: the scale as a function of time.
    #[serde(rename = "course")]
    pub schedule: GuidanceSchedule,
    /// Channels to which guidance is applied.
    pub channels: GuidedChannels,
    /// Lower end of the guidance interval (arXiv 2404.07724): no guidance at this noise level and
    /// below.
    pub sigma_low: f64,
    /// Upper end of the guidance interval: no guidance above this noise level.
    pub sigma_high: f64,
}

/// Guidance schedule: the scale as a function of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum GuidanceSchedule {
    /// `s = w`: the paper's choice at 512x512, with w = 1.49.
    Constant,
    /// `s(t) = 1 + (w - 1) (1 - cos(π (1 - t/T)^p)) / 2` for `T` timesteps, from 1 at the noisiest
    /// timestep to w at the last: the paper's choice at 256x256.
    PowerCosine {
        /// The exponent p.
        power: f64,
    },
}

/// Channels to which guidance is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuidedChannels {
    /// The first three, as in the release, whose code was written for RGB pictures: the fourth
    /// channel of a latent stays that of the class-conditional model.
    Three,
    /// All channels.
    All,
}

impl Default for Guidance {
    /// The released settings for 256x256.
    fn default() -> Self {
        Self {
            scale: 4.4,
            schedule: GuidanceSchedule::PowerCosine { power: 4.0 },
            channels: GuidedChannels::Three,
            sigma_low: 0.0,
            sigma_high: f64::MAX,
        }
    }
}

impl Guidance {
    /// Checks every field. The error names the first one that is out of its range.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let Self { scale, schedule, sigma_low, sigma_high, .. } = *self;
        let check = |holds: bool, message: String| if holds { Ok(()) } else { Err(message) };
        check(
            (0.0..=1000.0).contains(&scale),
            format!("guidance scale {scale} is not within 0 to 1000"),
        )?;
        if let GuidanceSchedule::PowerCosine { power } = schedule {
            check(
                power > 0.0 && power <= 100.0,
                format!("guidance power {power} is not above 0 and at most 100"),
            )?;
        }
        check(
            sigma_low >= 0.0 && sigma_low <= sigma_high && sigma_high.is_finite(),
            format!(
                "guidance from sigma {sigma_low} to {sigma_high} is not valid: both ends must be \
                 finite and at least 0, the first not above the second"
            ),
        )
    }

    /// Returns the scale s at noise level `sigma`; 1 outside the guidance interval.
    pub fn scale_at(&self, precond: &PrecondConfig, sigma: f64) -> f64 {
        if sigma <= self.sigma_low || sigma > self.sigma_high {
            return 1.0;
        }
        match self.schedule {
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
    fn the_power_cosine_schedule_runs_from_1_to_w() {
        let guidance = Guidance { scale: 3.0, ..Guidance::default() };
        let at = |t: f64| guidance.scale_at(&vp(), VpSchedule::default().sigma(t / 999.0));
        assert!((at(999.0) - 1.0).abs() < 1e-9);
        assert!((at(1e-3) - 3.0).abs() < 1e-6);
        // Halfway where (1 - t/1000)^4 is 1/2.
        assert!((at(1000.0 * (1.0 - 0.5f64.powf(0.25))) - 2.0).abs() < 1e-9);
    }

    /// T is the number of timesteps of the model's own process.
    #[test]
    fn the_schedule_uses_the_model_s_timesteps() {
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
        fn the_scale_is_between_1_and_w_and_approaches_1_with_noise(
            scale in 0.0f64..10.0, power in 0.1f64..8.0, a in 1e-3f64..150.0, b in 1e-3f64..150.0,
            edm: bool,
        ) {
            let precond = if edm { PrecondConfig::default() } else { vp() };
            let guidance =
                Guidance { scale, schedule: GuidanceSchedule::PowerCosine { power }, ..Guidance::default() };
            let [low, high] = [a.min(b), a.max(b)].map(|sigma| guidance.scale_at(&precond, sigma));
            for s in [low, high] {
                prop_assert!(s >= scale.min(1.0) - 1e-12 && s <= scale.max(1.0) + 1e-12);
            }
            // The more noise, the closer to 1.
            prop_assert!((high - 1.0).abs() <= (low - 1.0).abs() + 1e-12);
        }

        #[test]
        fn outside_its_interval_there_is_no_guidance(
            low in 0.01f64..1.0, high in 1.0f64..50.0, sigma in 1e-3f64..150.0,
        ) {
            let schedule = GuidanceSchedule::Constant;
            let guidance = Guidance {
                scale: 2.0, schedule, sigma_low: low, sigma_high: high, ..Guidance::default()
            };
            let inside = sigma > low && sigma <= high;
            prop_assert_eq!(guidance.scale_at(&vp(), sigma), if inside { 2.0 } else { 1.0 });
        }
    }
}
