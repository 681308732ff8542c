//! Reconstruction of a moving average from stored ones.

use super::profile::{Profile, inner_product};

/// The combination of stored averages that is nearest to another average.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconstruction {
    /// Weight of each stored average. Their sum is 1.
    pub weights: Vec<f64>,
    /// Distance between the profile of the combination and that of the average, relative to the norm
    /// of the latter: 0 if they are the same.
    pub residual: f64,
}

/// Finds the combination of stored averages, each a profile and the number of images of its end, whose
/// profile has the least squared distance from that of `target`. Returns `None` if there are none, or
/// two are the same.
///
/// The weights `x` solve `A x = b` with the inner products `A` of the stored profiles and `b` of these
/// with the target. They are divided by their sum, so that constant weights stay as they are.
pub fn reconstruct(stored: &[(Profile, u64)], target: (Profile, u64)) -> Option<Reconstruction> {
    // Times relative to the end.
    let relative = |(profile, images): (Profile, u64)| (profile, images as f64 / target.1 as f64);
    let stored: Vec<_> = stored.iter().map(|&average| relative(average)).collect();
    let target = relative(target);
    let n = stored.len();
    let inner: Vec<Vec<f64>> =
        stored.iter().map(|&a| stored.iter().map(|&b| inner_product(a, b)).collect()).collect();
    let with_target: Vec<f64> = stored.iter().map(|&a| inner_product(a, target)).collect();
    // Profiles of norm 1, since those of early averages are much larger than those of late ones.
    let scale: Vec<f64> = (0..n).map(|i| inner[i][i].sqrt().recip()).collect();
    let rows = (0..n).map(|i| (0..n).map(|j| inner[i][j] * scale[i] * scale[j]).collect());
    let right = (0..n).map(|i| with_target[i] * scale[i]).collect();
    let mut weights = solve(rows.collect(), right)?;
    weights.iter_mut().zip(&scale).for_each(|(weight, scale)| *weight *= scale);
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    if !weights.iter().all(|weight| weight.is_finite()) {
        return None;
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let squares: f64 = weights.iter().zip(&inner).map(|(w, row)| w * dot(row, &weights)).sum();
    let whole = inner_product(target, target);
    let residual = ((whole - 2.0 * dot(&weights, &with_target) + squares) / whole).max(0.0).sqrt();
    Some(Reconstruction { weights, residual })
}

/// Solves a system of linear equations by Gaussian elimination with partial pivoting. Returns `None` if
/// it is singular, or there are no equations.
fn solve(mut rows: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let n = right.len();
    for column in 0..n {
        let size = |row: &usize| rows[*row][column].abs();
        let pivot = (column..n).max_by(|a, b| size(a).total_cmp(&size(b)))?;
        if size(&pivot).is_nan() || size(&pivot) <= f64::EPSILON {
            return None;
        }
        rows.swap(column, pivot);
        right.swap(column, pivot);
        let (done, below) = rows.split_at_mut(column + 1);
        let first = &done[column];
        for (i, row) in below.iter_mut().enumerate() {
            let factor = row[column] / first[column];
            for (value, of_first) in row[column..].iter_mut().zip(&first[column..]) {
                *value -= factor * of_first;
            }
            right[column + 1 + i] -= factor * right[column];
        }
    }
    for column in (0..n).rev() {
        let known: f64 = (column + 1..n).map(|j| rows[column][j] * right[j]).sum();
        right[column] = (right[column] - known) / rows[column][column];
    }
    (n > 0).then_some(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::noise::{Random, Stream};
    use proptest::prelude::*;

    fn profile(std: f64) -> Profile {
        Profile::of_std(std).expect("within the range")
    }

    /// The average of `values`, one for each step, after every step, computed as training does.
    fn averages(values: &[f64], profile: Profile) -> Vec<f64> {
        let mut average = 0.0;
        let step = |(k, value): (usize, &f64)| {
            let beta = profile.beta(k as u64 + 1, 1);
            average = beta * average + (1.0 - beta) * value;
            average
        };
        values.iter().enumerate().map(step).collect()
    }

    /// Weights in training: they converge, wander and are noisy.
    fn trajectory(steps: usize, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed, Stream::Start, 0);
        let mut wandered = 0.0;
        (1..=steps)
            .map(|step| {
                wandered += random.normal() / (steps as f64).sqrt();
                let time = step as f64 / steps as f64;
                (-4.0 * time).exp() + 0.3 * wandered + 0.1 * random.normal()
            })
            .collect()
    }

    /// The stored averages with relative standard deviations `stds` after each multiple of `every`
    /// steps, and their values.
    fn stored(values: &[f64], stds: &[f64], every: usize) -> (Vec<(Profile, u64)>, Vec<f64>) {
        let of = |std: &f64| {
            let profile = profile(*std);
            let all = averages(values, profile);
            let ends = (every..=values.len()).step_by(every);
            ends.map(move |end| ((profile, end as u64), all[end - 1])).collect::<Vec<_>>()
        };
        stds.iter().flat_map(of).unzip()
    }

    #[test]
    fn an_average_that_was_not_stored_is_reconstructed() {
        let values = trajectory(640, 3);
        let (averages_of, stored_values) = stored(&values, &[0.05, 0.1], 10);
        for (std, tolerance) in [
            (0.02, 2e-3),
            (0.03, 5e-4),
            (0.05, 1e-9),
            (0.07, 1e-4),
            (0.1, 1e-9),
            (0.15, 1e-4),
            (0.2, 1e-3),
            (0.25, 1e-2),
        ] {
            let target = profile(std);
            let want = *averages(&values, target).last().expect("some steps");
            let Reconstruction { weights, residual } =
                reconstruct(&averages_of, (target, 640)).expect("independent");
            let found: f64 = weights.iter().zip(&stored_values).map(|(w, value)| w * value).sum();
            assert!((found - want).abs() < tolerance, "{std}: {found}, not {want}");
            assert!(residual < 0.02, "{std}: {residual}");
            // The stored average nearest to it is much farther away, unless it is one of them.
            let nearest = |value: &f64| (value - want).abs();
            let last = [stored_values[63], stored_values[127]];
            let nearest = last.iter().map(nearest).fold(f64::INFINITY, f64::min);
            assert!(
                [0.05, 0.1].contains(&std) || (found - want).abs() < 0.2 * nearest,
                "{std}: {found}, not {want}; the nearest is off by {nearest}"
            );
        }
    }

    #[test]
    fn the_residual_grows_with_the_distance_from_what_is_stored() {
        let values = trajectory(64, 5);
        let residual = |every, std| {
            let (stored, _) = stored(&values, &[0.05, 0.1], every);
            reconstruct(&stored, (profile(std), 64)).expect("independent").residual
        };
        assert!(residual(2, 0.07) < residual(2, 0.02) && residual(2, 0.02) < residual(2, 0.01));
        assert!(residual(2, 0.2) < residual(2, 0.25));
        // More snapshots help.
        assert!(residual(2, 0.15) < residual(8, 0.15) && residual(8, 0.15) < residual(32, 0.15));
    }

    #[test]
    fn nothing_is_reconstructed_from_nothing_or_from_copies() {
        let average = (profile(0.05), 100);
        assert_eq!(reconstruct(&[], average), None);
        assert_eq!(reconstruct(&[average, average], (profile(0.1), 100)), None);
        let one = reconstruct(&[average], (profile(0.1), 100)).expect("one");
        assert!(one.weights == [1.0] && one.residual > 0.3, "{one:?}");
    }

    #[test]
    fn equations_are_solved() {
        let rows = vec![vec![0.0, 2.0, 1.0], vec![1.0, 0.0, 0.0], vec![3.0, 1.0, -1.0]];
        let found = solve(rows, vec![7.0, 1.0, 2.0]).expect("regular");
        for (found, want) in found.iter().zip([1.0, 2.0, 3.0]) {
            assert!((found - want).abs() < 1e-12, "{found}, not {want}");
        }
        assert_eq!(solve(vec![vec![1.0, 2.0], vec![2.0, 4.0]], vec![1.0, 2.0]), None);
        assert_eq!(solve(vec![vec![f64::NAN]], vec![1.0]), None);
    }

    proptest! {
        /// A stored average is reconstructed as itself.
        #[test]
        fn stored_averages_are_found(
            first in 0.02f64..0.1,
            ratio in 1.3f64..2.5,
            snapshots in 2usize..40,
            at in 1usize..40,
            second: bool,
        ) {
            let (at, every) = (at.min(snapshots), 8);
            let stds = [first, first * ratio];
            let values = trajectory(snapshots * every, 7);
            let (all, stored_values) = stored(&values, &stds, every);
            let end = (at * every) as u64;
            let kept: Vec<usize> = (0..all.len()).filter(|&i| all[i].1 <= end).collect();
            let stored: Vec<_> = kept.iter().map(|&i| all[i]).collect();
            let target = (profile(stds[usize::from(second)]), end);
            let Reconstruction { weights, residual } =
                reconstruct(&stored, target).expect("independent");
            prop_assert!(residual < 1e-5, "{residual}");
            prop_assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            for (weight, average) in weights.iter().zip(&stored) {
                let want = f64::from(u8::from(*average == target));
                prop_assert!((weight - want).abs() < 1e-6, "{weight}, not {want}");
            }
            let found: f64 = weights.iter().zip(&kept).map(|(w, &i)| w * stored_values[i]).sum();
            let want = stored_values[all.iter().position(|a| *a == target).expect("stored")];
            prop_assert!((found - want).abs() < 1e-7, "{found}, not {want}");
        }
    }
}
