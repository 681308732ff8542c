//! The data distributions of the playground: sets of points, each with a little spread.

use std::f64::consts::{PI, TAU};

use model::mixture::Mixture;
use serde::{Deserialize, Serialize};

/// A set of points in the plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PointSet {
    /// A spiral from the centre outwards.
    #[default]
    Spiral,
    /// Two half circles that reach into each other.
    Moons,
    /// Eight points on a circle.
    Ring,
    /// A face: a circle, two eyes and a mouth.
    Smiley,
}

impl PointSet {
    /// All sets, with their names in links.
    pub const ALL: [(PointSet, &str); 4] = [
        (PointSet::Spiral, "spiral"),
        (PointSet::Moons, "moons"),
        (PointSet::Ring, "ring"),
        (PointSet::Smiley, "smiley"),
    ];

    /// The labels, in the order of [`PointSet::ALL`].
    pub const LABELS: [&str; 4] = ["Spiral", "Two moons", "Ring of eight", "Smiley"];

    /// Returns the distribution: a Gaussian at each point. Its mean is 0, and its variance is 1 in
    /// the mean of both coordinates, so that it and unit noise fill the same part of the plane.
    pub fn mixture(self) -> Mixture {
        let mut means = self.points();
        let std: f64 = match self {
            PointSet::Ring => 0.1,
            _ => 0.05,
        };
        let n = means.len() as f64;
        for i in 0..2 {
            let centre = means.iter().map(|mean| mean[i]).sum::<f64>() / n;
            means.iter_mut().for_each(|mean| mean[i] -= centre);
        }
        let variance = means.iter().flatten().map(|x| x * x).sum::<f64>() / (2.0 * n);
        let scale = ((1.0 - std * std) / variance).sqrt();
        means.iter_mut().flatten().for_each(|x| *x *= scale);
        Mixture::new(means, std)
    }

    fn points(self) -> Vec<[f64; 2]> {
        let part = |i: usize, n: usize| i as f64 / (n - 1) as f64;
        let on = |centre: [f64; 2], radius: f64, angle: f64| {
            [centre[0] + radius * angle.cos(), centre[1] + radius * angle.sin()]
        };
        let arc = |n: usize, centre, radius, [from, to]: [f64; 2]| {
            (0..n).map(move |i| on(centre, radius, from + (to - from) * part(i, n)))
        };
        // `n` points all around.
        let circle =
            |n: usize, radius| (0..n).map(move |i| on([0.0; 2], radius, TAU * i as f64 / n as f64));
        match self {
            // The length of an Archimedean spiral grows with the square of the angle.
            PointSet::Spiral => (0..64)
                .map(|i| (0.03 + 0.97 * part(i, 64)).sqrt())
                .map(|t| on([0.0; 2], t, 1.8 * TAU * t))
                .collect(),
            PointSet::Moons => arc(24, [-0.5, -0.25], 1.0, [0.0, PI])
                .chain(arc(24, [0.5, 0.25], 1.0, [PI, TAU]))
                .collect(),
            PointSet::Ring => circle(8, 1.0).collect(),
            PointSet::Smiley => circle(32, 1.0)
                .chain(arc(10, [0.0, 0.0], 0.55, [PI + 0.5, TAU - 0.5]))
                .chain([[-0.35, 0.2], [-0.35, 0.4], [0.35, 0.2], [0.35, 0.4]])
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_have_mean_0_and_variance_1_and_fit_on_the_plane() {
        assert_eq!(PointSet::ALL[0].0, PointSet::default());
        for (set, name) in PointSet::ALL {
            let mixture = set.mixture();
            let means = mixture.means();
            let n = means.len() as f64;
            for i in 0..2 {
                let centre = means.iter().map(|mean| mean[i]).sum::<f64>() / n;
                assert!(centre.abs() < 1e-12, "{name}: {centre}");
            }
            let variance = means.iter().flatten().map(|x| x * x).sum::<f64>() / (2.0 * n);
            let variance = variance + mixture.std().powi(2);
            assert!((variance - 1.0).abs() < 1e-12, "{name}: {variance}");
            let most = super::super::EXTENT - 4.0 * mixture.std();
            assert!(means.iter().flatten().all(|x| x.abs() < most), "{name}");
        }
    }
}
