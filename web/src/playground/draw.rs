//! Geometry of the playground's drawing: the plane, the axis of noise levels, the arrows.
//!
//! Positions are shown divided by `√(1 + σ²)`, as noisy pictures are, so that noise of any level and
//! the data fill the same part of the plane.

use std::fmt::Write;

use model::mixture::Mixture;

use super::EXTENT;

/// Units of the drawing in a unit of the plane.
const SCALE: f64 = 200.0;

/// A point of the drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point([i32; 2]);

impl Point {
    /// The point of the drawing for one of the plane. The drawing's second axis points down.
    fn of([x, y]: [f64; 2]) -> Self {
        // The conversion saturates, so that a position that is not finite cannot do harm.
        Self([(x * SCALE).round() as i32, (-y * SCALE).round() as i32])
    }

    /// Appends a move to this point to the `d` attribute of an SVG path.
    pub fn start(self, path: &mut String) {
        self.put(path, 'M');
    }

    /// Appends a line to this point.
    pub fn go_on(self, path: &mut String) {
        self.put(path, 'L');
    }

    /// Appends a dot at this point.
    pub fn dot(self, path: &mut String) {
        self.start(path);
        path.push_str("h0");
    }

    fn put(self, path: &mut String, letter: char) {
        let [x, y] = self.0;
        // Writing to a string does not fail.
        let _ = write!(path, "{letter}{x} {y}");
    }

    /// Returns the point a fraction `part` of the way to another.
    pub fn towards(self, to: Self, part: f64) -> Self {
        let mix = |i: usize| {
            let [from, to] = [self.0[i], to.0[i]].map(f64::from);
            (from + part * (to - from)).round() as i32
        };
        Self([mix(0), mix(1)])
    }
}

/// Returns where a position at a noise level is shown.
pub fn shown(x: [f64; 2], sigma: f64) -> Point {
    Point::of(x.map(|x| x / sigma.hypot(1.0)))
}

/// Returns the `viewBox` attribute of the plane.
pub fn view_box() -> String {
    let half = (EXTENT * SCALE) as i32;
    format!("{} {} {} {}", -half, -half, 2 * half, 2 * half)
}

/// Returns the points of the data as the `d` attribute of an SVG path that is a dot at each.
pub fn data(mixture: &Mixture) -> String {
    let mut path = String::new();
    mixture.means().iter().for_each(|&mean| shown(mean, 0.0).dot(&mut path));
    path
}

/// Returns arrows along the probability flow at a noise level: the direction in which the position
/// on the plane moves as the noise level falls, `D / √(1 + σ²) - y / (1 + σ²)` for a logarithmic
/// change of σ.
pub fn arrows(mixture: &Mixture, sigma: f64) -> String {
    /// Arrows from the centre to the border.
    const HALF: i32 = 6;
    /// Distance of two arrows, and the length that none exceeds.
    const CELL: f64 = 0.4;
    /// Speed of an arrow of half that length.
    const SPEED: f64 = 0.5;
    let scale = sigma.hypot(1.0);
    let mut path = String::new();
    for i in -HALF..=HALF {
        for j in -HALF..=HALF {
            let at = [i, j].map(|i| CELL * f64::from(i));
            let denoised = mixture.denoise(at.map(|y| y * scale), sigma);
            let flow = [0, 1].map(|d| denoised[d] / scale - at[d] / (scale * scale));
            let speed = flow[0].hypot(flow[1]);
            // Half of the arrow.
            let [x, y] = flow.map(|f| 0.5 * CELL * f / (speed + SPEED));
            if x.hypot(y) < 0.02 {
                continue;
            }
            let point = |along: f64, across: f64| {
                Point::of([at[0] + along * x - across * y, at[1] + along * y + across * x])
            };
            point(-1.0, 0.0).start(&mut path);
            point(1.0, 0.0).go_on(&mut path);
            point(0.4, 0.4).start(&mut path);
            point(1.0, 0.0).go_on(&mut path);
            point(0.4, -0.4).go_on(&mut path);
        }
    }
    path
}

/// The axis of noise levels: logarithmic from the highest level at 0 to the lowest, and from there to
/// zero at 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    high: f64,
    low: f64,
}

impl Axis {
    /// Place of the lowest level above zero.
    const LOWEST: f64 = 0.93;

    /// The axis of these noise levels.
    pub fn of(sigmas: impl IntoIterator<Item = f64>) -> Self {
        let (mut high, mut low) = (f64::MIN_POSITIVE, f64::MAX);
        for sigma in sigmas.into_iter().filter(|&sigma| sigma > 0.0) {
            (high, low) = (high.max(sigma), low.min(sigma));
        }
        Self { high, low: low.min(high) }
    }

    /// Returns the place of a noise level.
    pub fn place(&self, sigma: f64) -> f64 {
        let range = (self.high / self.low).ln();
        if sigma <= 0.0 {
            1.0
        } else if range > 0.0 {
            Self::LOWEST * ((self.high / sigma).ln() / range).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// Returns the noise level of a place.
    pub fn sigma(&self, place: f64) -> f64 {
        if place >= Self::LOWEST {
            self.low * (1.0 - place.min(1.0)) / (1.0 - Self::LOWEST)
        } else {
            self.high * (self.low / self.high).powf(place / Self::LOWEST)
        }
    }

    /// Returns marks at noise levels as the `d` attribute of an SVG path, `width` by `height`.
    pub fn marks(&self, sigmas: &[f64], width: f64, height: i32) -> String {
        let mut path = String::new();
        for &sigma in sigmas {
            let x = (width * self.place(sigma)).round() as i32;
            // Writing to a string does not fail.
            let _ = write!(path, "M{x} 0v{height}");
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playground::PointSet;
    use proptest::prelude::*;

    #[test]
    fn points_are_placed_on_the_drawing() {
        let mut path = String::new();
        shown([3.0, -4.0], 0.0).start(&mut path);
        shown([3.0, -4.0], 3.0f64.sqrt()).go_on(&mut path);
        shown([0.0, 0.0], 1.0).dot(&mut path);
        assert_eq!(path, "M600 800L300 400M0 0h0");
        // What is not finite is a point too.
        shown([f64::NAN, f64::INFINITY], 0.0).start(&mut path);
        assert_eq!(view_box(), "-520 -520 1040 1040");
        let from = Point([0, 10]);
        assert_eq!(from.towards(Point([100, -10]), 0.25), Point([25, 5]));
    }

    #[test]
    fn arrows_point_to_the_data_and_vanish_with_the_noise() {
        // A single point right of the centre: at a low level all arrows point to it.
        let mixture = Mixture::new(vec![[10.0, 0.0]], 0.01);
        let path = arrows(&mixture, 0.5);
        let first: Vec<i32> =
            path[1..].split(['L', ' ', 'M']).take(4).map(|n| n.parse().expect("whole")).collect();
        assert!(first[2] > first[0], "{first:?}");
        assert_eq!(path.matches('M').count(), 2 * 13 * 13);
        // Unit noise around the data is at rest on the plane.
        assert_eq!(arrows(&PointSet::Ring.mixture(), 0.0), "");
        assert!(arrows(&PointSet::Ring.mixture(), 80.0).matches('M').count() < 20);
    }

    #[test]
    fn the_axis_goes_from_the_highest_level_to_zero() {
        let axis = Axis::of([80.0, 0.8, 0.008, 0.0]);
        assert_eq!([80.0, 0.008, 0.0].map(|sigma| axis.place(sigma)), [0.0, Axis::LOWEST, 1.0]);
        assert!((axis.place(0.8) - Axis::LOWEST / 2.0).abs() < 1e-12);
        assert_eq!(axis.sigma(1.0), 0.0);
        assert_eq!(axis.marks(&[80.0, 0.0], 1000.0, 8), "M0 0v8M1000 0v8");
        // A single level, and none.
        for axis in [Axis::of([3.0, 0.0]), Axis::of([])] {
            assert_eq!((axis.place(3.0), axis.place(0.0)), (0.0, 1.0));
            assert!(axis.sigma(0.5).is_finite());
        }
    }

    proptest! {
        #[test]
        fn places_and_levels_belong_together(place in 0.0f64..1.0, low in 1e-4f64..1.0) {
            let axis = Axis::of([80.0, low]);
            prop_assert!((axis.place(axis.sigma(place)) - place.min(Axis::LOWEST)).abs() < 1e-9);
        }
    }
}
