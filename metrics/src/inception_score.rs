//! Inception Score (Salimans et al., arXiv 1606.03498), as ADM's evaluator computes it.
//!
//! `IS = exp(mean_i KL(p(y | x_i) || p(y)))`, with `p(y)` the mean over a split of the samples. The
//! probabilities are the softmax of the 1008 logits of Inception without their bias. Splits are of
//! 5,000 samples in the given order; a short last one counts as much as the others.

use crate::MetricsError;

/// Number of samples of a split.
pub const SPLIT: usize = 5_000;

/// An Inception Score.
#[derive(Clone, Debug, PartialEq)]
pub struct InceptionScore {
    /// Mean over the splits.
    pub mean: f64,
    /// Standard deviation over the splits.
    pub deviation: f64,
    /// The splits.
    pub splits: Vec<f64>,
}

/// The sums from which the Inception Score follows, sample by sample.
#[derive(Clone, Debug)]
pub struct Scorer {
    split: usize,
    /// Number of samples of the current split.
    count: usize,
    /// Sum of the probabilities of the current split.
    sum: Vec<f64>,
    /// Sum of `Σ_j p_j ln p_j` over the current split.
    negative_entropy: f64,
    scores: Vec<f64>,
}

impl Scorer {
    /// Creates the sums of no samples, for splits of `split` samples.
    pub fn new(classes: usize, split: usize) -> Self {
        let sum = vec![0.0; classes];
        Self { split: split.max(1), count: 0, sum, negative_entropy: 0.0, scores: Vec::new() }
    }

    /// Adds logits, `[N, classes]`.
    ///
    /// # Panics
    ///
    /// If they are no whole rows.
    pub fn add(&mut self, logits: &[f32]) {
        let classes = self.sum.len();
        assert!(classes > 0 && logits.len().is_multiple_of(classes), "logits are whole rows");
        for row in logits.chunks_exact(classes) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let shifted = || row.iter().map(|value| f64::from(*value) - f64::from(largest));
            let normaliser = shifted().map(f64::exp).sum::<f64>().ln();
            for (sum, value) in self.sum.iter_mut().zip(shifted()) {
                let log = value - normaliser;
                let p = log.exp();
                *sum += p;
                self.negative_entropy += p * log;
            }
            self.count += 1;
            if self.count == self.split {
                self.end_split();
            }
        }
    }

    /// Adds the score of the current split, and starts the next.
    fn end_split(&mut self) {
        let n = self.count as f64;
        let of_mean: f64 = self
            .sum
            .iter()
            .map(|sum| sum / n)
            // p ln p is 0 for p = 0.
            .map(|p| if p > 0.0 { p * p.ln() } else { 0.0 })
            .sum();
        self.scores.push((self.negative_entropy / n - of_mean).exp());
        self.sum.fill(0.0);
        (self.count, self.negative_entropy) = (0, 0.0);
    }

    /// Returns the score of all samples.
    ///
    /// # Errors
    ///
    /// If there are none, or logits were not finite.
    pub fn score(mut self) -> Result<InceptionScore, MetricsError> {
        if self.count > 0 {
            self.end_split();
        }
        let splits = self.scores;
        if splits.is_empty() {
            return Err(MetricsError::TooFew {
                metric: "the Inception Score",
                needed: 1,
                found: 0,
            });
        }
        if !splits.iter().all(|score| score.is_finite()) {
            return Err(MetricsError::NotFinite("logits".into()));
        }
        let n = splits.len() as f64;
        let mean = splits.iter().sum::<f64>() / n;
        let variance = splits.iter().map(|score| (score - mean) * (score - mean)).sum::<f64>() / n;
        Ok(InceptionScore { mean, deviation: variance.sqrt(), splits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, features};

    /// Values computed with NumPy.
    #[test]
    fn scores_are_those_of_numpy() {
        let logits = features("logits", 600, 3.0, 0.0);
        let mut scorer = Scorer::new(10, 25);
        for part in logits.chunks(70) {
            scorer.add(part);
        }
        let found = scorer.score().expect("samples");
        assert_close("splits", &found.splits, &[2.088_324, 2.009_450, 1.971_962], 1e-6);
        assert_close("mean", &[found.mean], &[2.023_245], 1e-6);
    }

    #[test]
    fn certain_and_different_classes_give_their_number() {
        let mut logits = vec![0.0; 16];
        (0..4).for_each(|i| logits[i * 5] = 1e4);
        let mut scorer = Scorer::new(4, SPLIT);
        scorer.add(&logits);
        let found = scorer.score().expect("samples");
        assert_close("score", &[found.mean], &[4.0], 1e-12);
        assert_eq!(found.deviation, 0.0);
    }

    #[test]
    fn no_samples_and_logits_that_are_not_finite_are_errors() {
        assert!(Scorer::new(4, SPLIT).score().is_err());
        let mut scorer = Scorer::new(2, SPLIT);
        scorer.add(&[f32::NAN, 0.0]);
        assert!(scorer.score().is_err());
    }
}
