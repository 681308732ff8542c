//! Discrete-time diffusion as in ADM (arXiv 2105.05233): a list of betas and the quantities derived
//! from it, in `f64` on the host.
//!
//! At step `t`, `x_t = sqrt(ᾱ_t) y + sqrt(1 - ᾱ_t) ε` with `ᾱ_t` the product of `1 - β` up to `t`.
//! Divided by `sqrt(ᾱ_t)` this is `y + σ_t ε` with `σ_t² = 1 / ᾱ_t - 1`, so the samplers and
//! denoisers of this crate, which work with noise levels only, apply to it too.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::check::{ConfigError, check, within};

/// Linear beta schedule of a discrete-time process. See [`crate::diffusion::discrete`] for the
/// quantities derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearBetas {
    /// Number of steps.
    pub steps: usize,
    /// Beta of the first step.
    pub first: f64,
    /// Beta of the last step.
    pub last: f64,
}

impl Default for LinearBetas {
    fn default() -> Self {
        Self { steps: 1000, first: 1e-4, last: 0.02 }
    }
}

impl LinearBetas {
    /// Checks the ranges of all fields.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        within("betas.steps", self.steps, 2, 10_000)?;
        for (field, beta) in [("betas.first", self.first), ("betas.last", self.last)] {
            check(beta > 0.0 && beta < 1.0, || format!("{field} is {beta}, not between 0 and 1"))?;
        }
        let sigma_max = self.sigmas()[self.steps - 1];
        check(sigma_max.is_finite(), || {
            format!(
                "{} betas up to {} reduce ᾱ to 0: use fewer steps or a smaller betas.last",
                self.steps, self.last
            )
        })
    }
}

impl LinearBetas {
    /// Returns the beta of every step, first step first.
    pub fn betas(&self) -> Vec<f64> {
        let increment = (self.last - self.first) / (self.steps - 1) as f64;
        (0..self.steps).map(|t| self.first + t as f64 * increment).collect()
    }

    /// Returns the noise level of every step, in ascending order.
    pub fn sigmas(&self) -> Vec<f64> {
        Diffusion::new(self).sigmas()
    }

    /// Returns the step of noise level `sigma`, as a fraction: a whole number at the levels of the
    /// process, interpolated in the logarithm of the level between them, and clamped to the first
    /// and the last step.
    pub fn time(&self, sigma: f64) -> f64 {
        let sigmas = self.sigmas();
        match sigmas.partition_point(|&level| level <= sigma) {
            0 => 0.0,
            above if above == sigmas.len() => (sigmas.len() - 1) as f64,
            above => {
                let (low, high) = (sigmas[above - 1], sigmas[above]);
                (above - 1) as f64 + (sigma / low).ln() / (high / low).ln()
            }
        }
    }
}

/// Selection of the steps that a respaced process keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spacing {
    /// From the first to the last step, as evenly as whole numbers allow.
    #[default]
    Even,
    /// The first step and every n-th after it, with the stride n that gives the requested number of
    /// steps (DDIM).
    Ddim,
    /// The process divided into as many equal sections as there are entries; each entry is the
    /// number of evenly spaced steps kept of its section.
    Sections(Vec<usize>),
}

/// Error for a spacing that a process does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpacingError {
    /// Text that is not in ADM's notation.
    #[error(
        "respacing {0:?} is not valid: give a number of steps (250), ddim and a number (ddim50), \
         or numbers of steps for equal sections of the process (10,15,20)"
    )]
    Syntax(String),
    /// More steps than the process or section has.
    #[error("{wanted} steps cannot be taken from {of}")]
    TooMany {
        /// Requested steps.
        wanted: usize,
        /// Steps of the process, or of the section.
        of: usize,
    },
    /// No stride of DDIM's spacing gives the requested number of steps.
    #[error(
        "no whole stride takes exactly {wanted} of {of} steps: use another number, or even spacing"
    )]
    NoStride {
        /// Requested steps.
        wanted: usize,
        /// Steps of the process.
        of: usize,
    },
    /// The sections' steps do not add up to the requested number.
    #[error("the sections have {parts} steps together, and {steps} are requested: they must agree")]
    Sum {
        /// Steps of all sections together.
        parts: usize,
        /// Requested steps.
        steps: usize,
    },
}

impl Spacing {
    /// Returns the indices of the kept steps of a process of `of` steps, in ascending order.
    ///
    /// # Errors
    ///
    /// If the spacing does not give exactly `steps` steps.
    pub fn indices(&self, steps: usize, of: usize) -> Result<Vec<usize>, SpacingError> {
        match self {
            Spacing::Even => sections(&[steps], of),
            Spacing::Ddim => (1..=of)
                .find(|stride| of.div_ceil(*stride) == steps)
                .map(|stride| (0..of).step_by(stride).collect())
                .ok_or(SpacingError::NoStride { wanted: steps, of }),
            Spacing::Sections(counts) => {
                let parts = counts.iter().fold(0usize, |sum, count| sum.saturating_add(*count));
                if parts != steps {
                    return Err(SpacingError::Sum { parts, steps });
                }
                sections(counts, of)
            }
        }
    }
}

/// Returns `counts[i]` evenly spaced steps from the `i`-th of equal sections of `of` steps. Where
/// the sections cannot be equal, the first ones are longer by one.
fn sections(counts: &[usize], of: usize) -> Result<Vec<usize>, SpacingError> {
    let mut indices = Vec::new();
    let mut start = 0;
    for (i, &count) in counts.iter().enumerate() {
        let size = of / counts.len() + usize::from(i < of % counts.len());
        if count == 0 || count > size {
            return Err(SpacingError::TooMany { wanted: count, of: size });
        }
        let stride = if count > 1 { (size - 1) as f64 / (count - 1) as f64 } else { 1.0 };
        // Strides are summed and halves rounded to even, as ADM does, to reproduce its steps.
        let mut position = 0.0f64;
        for _ in 0..count {
            indices.push(start + position.round_ties_even() as usize);
            position += stride;
        }
        start += size;
    }
    Ok(indices)
}

/// Spacing and number of steps, parsed from ADM's notation: `250`, `ddim50` or `10,15,20`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respacing {
    /// Selection of the kept steps.
    pub spacing: Spacing,
    /// Number of kept steps.
    pub steps: usize,
}

impl FromStr for Respacing {
    type Err = SpacingError;

    fn from_str(text: &str) -> Result<Self, SpacingError> {
        let syntax = || SpacingError::Syntax(text.into());
        let number = |text: &str| match text.trim().parse() {
            Ok(0) | Err(_) => Err(syntax()),
            Ok(steps) => Ok(steps),
        };
        if let Some(steps) = text.strip_prefix("ddim") {
            return Ok(Self { spacing: Spacing::Ddim, steps: number(steps)? });
        }
        let counts = text.split(',').map(number).collect::<Result<Vec<usize>, _>>()?;
        let steps = counts.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
        let steps = steps.ok_or_else(syntax)?;
        let spacing = if counts.len() == 1 { Spacing::Even } else { Spacing::Sections(counts) };
        Ok(Self { spacing, steps })
    }
}

/// A discrete-time diffusion process, with all of its steps or a respaced selection.
#[derive(Clone, Debug, PartialEq)]
pub struct Diffusion {
    indices: Vec<usize>,
    betas: Vec<f64>,
    alphas_bar: Vec<f64>,
}

/// Parameters of the posterior `q(x_{t-1} | x_t, y)`, which is normal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// Coefficient of the picture `y` in the mean.
    pub c_picture: f64,
    /// Coefficient of `x_t` in the mean.
    pub c_noisy: f64,
    /// The variance; 0 at the first step.
    pub variance: f64,
    /// Logarithm of the variance, or at the first step that of the second step's: the lower bound
    /// of a learned variance.
    pub log_small: f64,
    /// Logarithm of beta: the upper bound of a learned variance.
    pub log_large: f64,
}

impl Diffusion {
    /// Creates the process with all of its steps.
    pub fn new(betas: &LinearBetas) -> Self {
        let betas = betas.betas();
        let alphas_bar = betas
            .iter()
            .scan(1.0, |product, beta| {
                *product *= 1.0 - beta;
                Some(*product)
            })
            .collect();
        Self { indices: (0..betas.len()).collect(), betas, alphas_bar }
    }

    /// Returns this process respaced to `steps` of its steps. The betas are recomputed from the
    /// kept ᾱ.
    ///
    /// # Errors
    ///
    /// If the spacing does not give exactly `steps` steps.
    pub fn respaced(&self, spacing: &Spacing, steps: usize) -> Result<Self, SpacingError> {
        let kept = spacing.indices(steps, self.len())?;
        let alphas_bar: Vec<f64> = kept.iter().map(|&t| self.alphas_bar[t]).collect();
        let mut previous = 1.0;
        let betas = alphas_bar
            .iter()
            .map(|&alpha_bar| 1.0 - alpha_bar / core::mem::replace(&mut previous, alpha_bar))
            .collect();
        Ok(Self { indices: kept.iter().map(|&t| self.indices[t]).collect(), betas, alphas_bar })
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.betas.len()
    }

    /// Returns whether there are no steps.
    pub fn is_empty(&self) -> bool {
        self.betas.is_empty()
    }

    /// Returns the index of every step in the whole process, which is the network's time input.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Returns the beta of every step, first step first.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// Returns ᾱ of every step: the remaining fraction of the picture's variance.
    pub fn alphas_bar(&self) -> &[f64] {
        &self.alphas_bar
    }

    /// Returns the noise level of every step, in ascending order.
    pub fn sigmas(&self) -> Vec<f64> {
        self.alphas_bar.iter().map(|alpha_bar| ((1.0 - alpha_bar) / alpha_bar).sqrt()).collect()
    }

    /// Returns the posterior of step `t`.
    ///
    /// # Panics
    ///
    /// If there is no such step.
    pub fn posterior(&self, t: usize) -> Posterior {
        let (beta, alpha_bar) = (self.betas[t], self.alphas_bar[t]);
        let previous = |t: usize| if t == 0 { 1.0 } else { self.alphas_bar[t - 1] };
        let variance = |t: usize| self.betas[t] * (1.0 - previous(t)) / (1.0 - self.alphas_bar[t]);
        let smallest = if t == 0 && self.len() > 1 { variance(1) } else { variance(t) };
        Posterior {
            c_picture: beta * previous(t).sqrt() / (1.0 - alpha_bar),
            c_noisy: (1.0 - previous(t)) * (1.0 - beta).sqrt() / (1.0 - alpha_bar),
            variance: variance(t),
            // A process of a single step has no second one; beta takes its place.
            log_small: if smallest > 0.0 { smallest.ln() } else { beta.ln() },
            log_large: beta.ln(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Vec<usize>, SpacingError> {
        let Respacing { spacing, steps } = text.parse()?;
        spacing.indices(steps, 1000)
    }

    #[test]
    fn spacings_match_adm() {
        assert_eq!(parse("1000").expect("all"), (0..1000).collect::<Vec<_>>());
        let even = parse("250").expect("even");
        // The stride is 999 / 249, and both ends are kept.
        assert_eq!((even.len(), &even[..4], even[249]), (250, &[0, 4, 8, 12][..], 999));
        assert_eq!(even[125], (125.0f64 * 999.0 / 249.0).round() as usize);
        assert_eq!(parse("ddim50").expect("stride 20"), (0..1000).step_by(20).collect::<Vec<_>>());
        // Sections of 334, 333 and 333 steps.
        let parts = parse("10,15,20").expect("parts");
        assert_eq!((parts.len(), parts[0], parts[9], parts[10], parts[24]), (45, 0, 333, 334, 666));
        assert_eq!((parts[25], parts[44]), (667, 999));
        assert_eq!(parse("2,1").expect("one of a part is its first"), [0, 499, 500]);
    }

    #[test]
    fn impossible_spacings_are_rejected() {
        for (text, message) in [
            ("1001", "1001 steps cannot be taken from 1000"),
            ("300,400,300", "400 steps cannot be taken from 333"),
            ("ddim300", "no whole stride takes exactly 300"),
            ("ddim0", "is not valid"),
            ("0", "is not valid"),
            ("", "is not valid"),
            ("10,", "is not valid"),
            ("ten", "is not valid"),
            ("-5", "is not valid"),
            ("18446744073709551615,2", "is not valid"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
        let sum = Spacing::Sections(vec![10, 20]).indices(31, 1000);
        assert_eq!(sum, Err(SpacingError::Sum { parts: 30, steps: 31 }));
    }

    #[test]
    fn the_adm_process_has_the_published_ends() {
        let diffusion = Diffusion::new(&LinearBetas::default());
        assert_eq!((diffusion.betas()[0], diffusion.len()), (1e-4, 1000));
        assert!((diffusion.betas()[999] - 0.02).abs() < 1e-15);
        assert!((diffusion.alphas_bar()[0] - 0.9999).abs() < 1e-15);
        let sigmas = diffusion.sigmas();
        // EDM's paper gives 157.4 as the end of this process.
        assert!((sigmas[999] - 157.407).abs() < 1e-2, "{}", sigmas[999]);
        assert!(sigmas.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(diffusion.posterior(0).variance, 0.0);
        assert_eq!(diffusion.posterior(0).log_small, diffusion.posterior(1).log_small);
    }

    #[test]
    fn respacing_to_all_steps_changes_nothing() {
        let whole = Diffusion::new(&LinearBetas::default());
        let same = whole.respaced(&Spacing::Even, 1000).expect("all of them");
        assert_eq!((same.indices(), same.alphas_bar()), (whole.indices(), whole.alphas_bar()));
        for (a, b) in same.betas().iter().zip(whole.betas()) {
            assert!((a / b - 1.0).abs() < 1e-11);
        }
    }

    proptest! {
        #[test]
        fn even_steps_ascend_and_have_the_requested_number(steps in 1usize..=1000) {
            let indices = Spacing::Even.indices(steps, 1000).expect("as many as there are");
            prop_assert_eq!(indices.len(), steps);
            prop_assert!(indices.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(steps == 1 || indices[steps - 1] == 999);
        }

        #[test]
        fn respaced_betas_reproduce_the_kept_alphas(steps in 1usize..200) {
            let whole = Diffusion::new(&LinearBetas::default());
            let some = whole.respaced(&Spacing::Even, steps).expect("fewer");
            let mut product = 1.0;
            for (t, beta) in some.betas().iter().enumerate() {
                product *= 1.0 - beta;
                prop_assert!((product / some.alphas_bar()[t] - 1.0).abs() < 1e-10);
                prop_assert_eq!(some.alphas_bar()[t], whole.alphas_bar()[some.indices()[t]]);
            }
        }

        /// The posterior by Bayes' rule: precisions add, and so do precisions times means.
        #[test]
        fn posteriors_follow_bayes_rule(t in 1usize..50, y in -1.0f64..1.0, x in -3.0f64..3.0) {
            let d = Diffusion::new(&LinearBetas::default()).respaced(&Spacing::Ddim, 50).expect("50");
            let (beta, before) = (d.betas()[t], d.alphas_bar()[t - 1]);
            let precision = (1.0 - beta) / beta + 1.0 / (1.0 - before);
            let mean = ((1.0 - beta).sqrt() * x / beta + before.sqrt() * y / (1.0 - before)) / precision;
            let p = d.posterior(t);
            prop_assert!((p.variance * precision - 1.0).abs() < 1e-9);
            prop_assert!((p.c_picture * y + p.c_noisy * x - mean).abs() < 1e-9);
            prop_assert!(p.log_small < p.log_large && p.log_small == p.variance.ln());
        }

        #[test]
        fn time_is_whole_at_the_levels_and_interpolated_between(t in 0usize..999, part in 0.001f64..0.999) {
            let betas = LinearBetas::default();
            let sigmas = betas.sigmas();
            prop_assert_eq!(betas.time(sigmas[t]), t as f64);
            let between = betas.time(sigmas[t] * (sigmas[t + 1] / sigmas[t]).powf(part));
            prop_assert!((between - t as f64 - part).abs() < 1e-6);
            prop_assert_eq!((betas.time(0.0), betas.time(1e9)), (0.0, 999.0));
        }
    }
}
