//! Paired differences of two networks, with their errors.

use model::noise::{Random, Stream};

use super::result::RunResult;

/// Number of resamples of the bootstrap.
const RESAMPLES: u64 = 2_000;

/// The difference of the losses of two networks, paired by seed, image and noise level.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Mean difference.
    pub mean: f64,
    /// Bootstrap interval over the images, of 95 %. It does not cover the spread over seeds.
    pub interval: [f64; 2],
    /// Mean difference for each seed.
    pub seeds: Vec<f64>,
}

/// What a difference shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first network has a lower loss.
    Lower,
    /// The first network has a higher loss.
    Higher,
    /// The difference is not larger than its errors.
    Open,
    /// There is a single seed, so that nothing is known about the spread over seeds.
    OneSeed,
}

impl Difference {
    /// Compares networks `a` and `b`, `a - b`. Results are paired by seed; others are ignored. `None`
    /// if they have no seed in common.
    pub fn new(a: &[&RunResult], b: &[&RunResult]) -> Option<Self> {
        let mut seeds = Vec::new();
        let mut images: Vec<f64> = Vec::new();
        for a in a {
            let Some(b) = b.iter().find(|b| b.config.seed == a.config.seed) else { continue };
            let difference = a.by_image().into_iter().zip(b.by_image()).map(|(a, b)| a - b);
            let difference: Vec<f64> = difference.collect();
            seeds.push(mean(&difference));
            images.resize(difference.len(), 0.0);
            images.iter_mut().zip(difference).for_each(|(sum, value)| *sum += value);
        }
        let n = seeds.len() as f64;
        images.iter_mut().for_each(|sum| *sum /= n);
        let interval = bootstrap(&images);
        (!seeds.is_empty()).then(|| Self { mean: mean(&seeds), interval, seeds })
    }

    /// Returns the sample standard deviation over seeds. `None` for one seed.
    pub fn spread(&self) -> Option<f64> {
        deviation(&self.seeds)
    }

    /// Returns what the difference shows: an order only if all seeds agree, the difference is more
    /// than twice the spread over seeds, and the bootstrap interval excludes 0.
    pub fn verdict(&self) -> Verdict {
        let Some(spread) = self.spread() else { return Verdict::OneSeed };
        let [low, high] = self.interval;
        let agree = self.seeds.iter().all(|seed| seed.signum() == self.mean.signum());
        if !agree || self.mean.abs() <= 2.0 * spread || (low <= 0.0 && high >= 0.0) {
            Verdict::Open
        } else if self.mean < 0.0 {
            Verdict::Lower
        } else {
            Verdict::Higher
        }
    }
}

/// Returns the mean.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Returns the sample standard deviation. `None` for fewer than two values.
pub fn deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Returns the 2.5 % and 97.5 % quantiles of the mean over resampled images.
fn bootstrap(images: &[f64]) -> [f64; 2] {
    let Ok(n) = u32::try_from(images.len()) else { return [f64::NAN; 2] };
    if n == 0 {
        return [f64::NAN; 2];
    }
    let resample = |k| {
        let mut random = Random::new(0, Stream::Bootstrap, k);
        (0..n).map(|_| images[random.below(n) as usize]).sum::<f64>() / f64::from(n)
    };
    let mut means: Vec<f64> = (0..RESAMPLES).map(resample).collect();
    means.sort_by(f64::total_cmp);
    [0.025, 0.975].map(|p| means[(p * (RESAMPLES - 1) as f64).round() as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::result::tests::result;
    use proptest::prelude::*;

    #[test]
    fn the_interval_is_that_of_the_normal_distribution_for_many_images() {
        let mut random = Random::new(5, Stream::Start, 0);
        let images: Vec<f64> = (0..2_000).map(|_| 0.3 + 2.0 * random.normal()).collect();
        let [low, high] = bootstrap(&images);
        // 1.96 standard errors on either side of the mean, within the error of 2,000 resamples.
        let error = deviation(&images).expect("many") / 2_000f64.sqrt();
        let middle = mean(&images);
        assert!(((middle - low) / error - 1.96).abs() < 0.12, "{low}");
        assert!(((high - middle) / error - 1.96).abs() < 0.12, "{high}");
    }

    #[test]
    fn differences_are_paired_by_seed() {
        let losses = |value: f32| vec![vec![value, value + 1.0], vec![value, value + 1.0]];
        let [a0, a1] = [(0, 1.0), (1, 5.0)].map(|(seed, value)| result("A", seed, losses(value)));
        let [b1, b0] = [(1, 4.5), (0, 0.25)].map(|(seed, value)| result("B", seed, losses(value)));
        let found = Difference::new(&[&a0, &a1], &[&b1, &b0]).expect("two seeds");
        assert_eq!((found.mean, &found.seeds[..]), (0.625, &[0.75, 0.5][..]));
        // Every image has the same difference.
        assert_eq!(found.interval, [0.625; 2]);
        assert_eq!(found.verdict(), Verdict::Higher);
        let one = Difference::new(&[&a0], &[&b0, &b1]).expect("one seed");
        assert_eq!((one.mean, one.verdict()), (0.75, Verdict::OneSeed));
        assert_eq!(Difference::new(&[&a0], &[&b1]), None);
    }

    #[test]
    fn an_order_needs_seeds_that_agree_and_a_difference_beyond_their_spread() {
        let found = |seeds: &[f64], interval| Difference {
            mean: mean(seeds),
            interval,
            seeds: seeds.to_vec(),
        };
        for (seeds, interval, want) in [
            (&[-0.2, -0.21, -0.19][..], [-0.22, -0.18], Verdict::Lower),
            (&[0.2, 0.21], [0.18, 0.22], Verdict::Higher),
            (&[0.2, -0.01], [0.05, 0.1], Verdict::Open),
            (&[0.1, 0.4], [0.2, 0.3], Verdict::Open),
            (&[0.2, 0.21], [-0.01, 0.4], Verdict::Open),
            (&[0.2], [0.1, 0.3], Verdict::OneSeed),
        ] {
            assert_eq!(found(seeds, interval).verdict(), want, "{seeds:?}");
        }
    }

    proptest! {
        #[test]
        fn the_interval_contains_the_mean_of_most_samples(
            images in prop::collection::vec(-10.0f64..10.0, 2..40)
        ) {
            let [low, high] = bootstrap(&images);
            prop_assert!(low <= high);
            let slack = 1e-9;
            let [min, max] = images.iter().fold([f64::MAX, f64::MIN], |[a, b], v| [a.min(*v), b.max(*v)]);
            prop_assert!(low >= min - slack && high <= max + slack);
        }
    }
}
