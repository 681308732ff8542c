//! Timestep samplers of discrete-time training: uniform, or loss-aware (arXiv 2102.09672, section
//! 3.3).

use serde::{Deserialize, Serialize};

use crate::config::check::{ConfigError, check, within};
use crate::diffusion::noise::Random;

/// Distribution from which timesteps are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum TimeSampling {
    /// All timesteps with the same probability.
    #[default]
    Uniform,
    /// In proportion to the root mean square of the last losses of each timestep, once every
    /// timestep has a full history.
    Importance {
        /// Number of losses kept per timestep.
        #[serde(default = "history")]
        history: usize,
        /// Fraction of the draws that stays uniform.
        #[serde(default = "uniform")]
        uniform: f64,
    },
}

fn history() -> usize {
    10
}

fn uniform() -> f64 {
    0.001
}

impl TimeSampling {
    /// Returns [`TimeSampling::Importance`] with ADM's values.
    pub fn importance() -> Self {
        Self::Importance { history: history(), uniform: uniform() }
    }

    /// Checks the ranges of all fields.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let TimeSampling::Importance { history, uniform } = *self else { return Ok(()) };
        within("importance.history", history, 1, 1_000)?;
        // Without uniform draws, a timestep whose losses were all 0 would never be drawn again.
        check(uniform > 0.0 && uniform <= 1.0, || {
            format!("importance.uniform is {uniform}, not above 0 and at most 1")
        })
    }
}

/// A timestep drawn by a [`TimeSampler`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledTimestep {
    /// Index of the timestep.
    pub time: usize,
    /// Importance weight of the loss, which keeps the mean that of uniform draws.
    pub weight: f64,
}

/// Timestep sampler, which adapts to the losses it is given. It has no random state of its own; the
/// recorded losses are part of a training run's state and can be serialised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimeSampler {
    sampling: TimeSampling,
    /// The last losses of each timestep, oldest first.
    losses: Vec<Vec<f64>>,
    /// Cumulative probabilities of the timesteps; empty while they are drawn uniformly.
    cumulative: Vec<f64>,
}

impl TimeSampler {
    /// Creates a sampler for a process of `steps` timesteps.
    ///
    /// # Panics
    ///
    /// If `steps` is 0, or `sampling` is not valid.
    pub fn new(sampling: TimeSampling, steps: usize) -> Self {
        assert!(steps > 0, "a process has at least one step");
        sampling.validate().expect("valid");
        Self { sampling, losses: vec![Vec::new(); steps], cumulative: Vec::new() }
    }

    /// Returns whether another sampler has the same distribution and number of timesteps.
    pub fn is_like(&self, other: &Self) -> bool {
        self.sampling == other.sampling && self.losses.len() == other.losses.len()
    }

    /// Returns the probability of each timestep.
    pub fn probabilities(&self) -> Vec<f64> {
        let steps = self.losses.len() as f64;
        let equal = vec![1.0 / steps; self.losses.len()];
        let TimeSampling::Importance { history, uniform } = self.sampling else { return equal };
        if self.losses.iter().any(|losses| losses.len() < history) {
            return equal;
        }
        let square = |losses: &Vec<f64>| losses.iter().map(|l| l * l).sum::<f64>();
        let roots: Vec<f64> =
            self.losses.iter().map(|losses| (square(losses) / history as f64).sqrt()).collect();
        let total: f64 = roots.iter().sum();
        // The losses are all 0, or one is not finite.
        if !(total > 0.0 && total.is_finite()) {
            return equal;
        }
        roots.iter().map(|root| root / total * (1.0 - uniform) + uniform / steps).collect()
    }

    /// Draws a timestep.
    pub fn draw(&self, random: &mut Random) -> SampledTimestep {
        let steps = self.losses.len();
        let Some(total) = self.cumulative.last() else {
            let time = (random.uniform() * steps as f64) as usize;
            return SampledTimestep { time, weight: 1.0 };
        };
        let point = random.uniform() * total;
        let time = self.cumulative.partition_point(|&end| end <= point).min(steps - 1);
        let before = if time == 0 { 0.0 } else { self.cumulative[time - 1] };
        let probability = (self.cumulative[time] - before) / total;
        SampledTimestep { time, weight: 1.0 / (steps as f64 * probability) }
    }

    /// Records the unweighted losses of a batch.
    ///
    /// # Panics
    ///
    /// If there are not as many losses as timesteps, or a timestep is not one of the process.
    pub fn learn(&mut self, times: &[usize], losses: &[f64]) {
        assert_eq!(times.len(), losses.len(), "one loss per step");
        let TimeSampling::Importance { history, .. } = self.sampling else { return };
        for (&time, &loss) in times.iter().zip(losses) {
            let recorded = &mut self.losses[time];
            if recorded.len() == history {
                recorded.remove(0);
            }
            recorded.push(loss);
        }
        if self.losses.iter().all(|losses| losses.len() == history) {
            self.cumulative = self
                .probabilities()
                .iter()
                .scan(0.0, |sum, probability| {
                    *sum += probability;
                    Some(*sum)
                })
                .collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::noise::Stream;

    fn random() -> Random {
        Random::new(3, Stream::Training, 0)
    }

    /// Returns a sampler with full histories of the losses 1, 2, .. of its timesteps.
    fn learned(steps: usize, history: usize, uniform: f64) -> TimeSampler {
        let mut sampler = TimeSampler::new(TimeSampling::Importance { history, uniform }, steps);
        for round in 0..history {
            assert_eq!(sampler.probabilities(), vec![1.0 / steps as f64; steps], "{round}");
            let times: Vec<usize> = (0..steps).collect();
            let losses: Vec<f64> = times.iter().map(|&t| (t + 1) as f64).collect();
            sampler.learn(&times, &losses);
        }
        sampler
    }

    #[test]
    fn probabilities_are_proportional_to_the_losses() {
        let sampler = learned(4, 10, 1e-15);
        for (found, want) in sampler.probabilities().iter().zip([0.1, 0.2, 0.3, 0.4]) {
            assert!((found - want).abs() < 1e-12);
        }
        let sampler = learned(4, 10, 0.2);
        for (found, want) in sampler.probabilities().iter().zip([0.13, 0.21, 0.29, 0.37]) {
            assert!((found - want).abs() < 1e-12);
        }
    }

    #[test]
    fn old_losses_are_forgotten() {
        let mut sampler = learned(2, 3, 1e-15);
        // Squares of step 0: 1, 1, 1, then 1, 1, 25, then 1, 25, 25.
        sampler.learn(&[0, 0], &[5.0, 5.0]);
        let (a, b) = (17f64.sqrt(), 2.0);
        assert!((sampler.probabilities()[0] - a / (a + b)).abs() < 1e-12);
    }

    /// Timesteps drawn more often have a lower weight, so that the mean of any loss is that over
    /// all timesteps.
    #[test]
    fn draws_are_unbiased() {
        for sampler in [TimeSampler::new(TimeSampling::Uniform, 4), learned(4, 2, 0.1)] {
            let probabilities = sampler.probabilities();
            let mut random = random();
            let (mut counts, mut sum) = ([0usize; 4], 0.0);
            const N: usize = 40_000;
            let loss = |t: usize| [3.0, -1.0, 0.5, 2.0][t];
            for _ in 0..N {
                let SampledTimestep { time, weight } = sampler.draw(&mut random);
                assert!((weight * 4.0 * probabilities[time] - 1.0).abs() < 1e-12);
                counts[time] += 1;
                sum += weight * loss(time);
            }
            for (count, p) in counts.iter().zip(&probabilities) {
                assert!((*count as f64 / N as f64 - p).abs() < 0.01);
            }
            assert!((sum / N as f64 - 4.5 / 4.0).abs() < 0.05);
        }
    }

    #[test]
    fn samplers_round_trip_through_json() {
        let mut sampler = learned(3, 2, 0.001);
        let text = serde_json::to_string(&sampler).expect("plain data");
        let mut again: TimeSampler = serde_json::from_str(&text).expect("its own JSON");
        for s in [&mut sampler, &mut again] {
            s.learn(&[1], &[0.125]);
        }
        assert_eq!(sampler, again);
        let (mut a, mut b) = (random(), random());
        assert!((0..100).all(|_| sampler.draw(&mut a) == again.draw(&mut b)));
    }

    #[test]
    fn invalid_samplings_are_rejected() {
        for (history, uniform, message) in
            [(0, 0.1, "history is 0"), (10, 0.0, "uniform is 0"), (10, f64::NAN, "uniform is NaN")]
        {
            let error = TimeSampling::Importance { history, uniform }.validate();
            assert!(error.expect_err(message).to_string().contains(message));
        }
        let text = r#"{"kind": "importance"}"#;
        let sampling: TimeSampling = serde_json::from_str(text).expect("all fields have defaults");
        assert_eq!((&sampling, sampling.validate()), (&TimeSampling::importance(), Ok(())));
    }

    #[test]
    fn zero_and_non_finite_losses_leave_the_draws_uniform() {
        for loss in [0.0, f64::INFINITY, f64::NAN] {
            let mut sampler = TimeSampler::new(TimeSampling::importance(), 2);
            sampler.learn(&[0, 1].repeat(10), &[loss; 20]);
            assert_eq!(sampler.probabilities(), [0.5, 0.5]);
            assert_eq!(sampler.draw(&mut random()).weight, 1.0);
        }
    }
}
