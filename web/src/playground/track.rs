//! The particles of a panel on their way from noise to data.

use super::draw::{Axis, Point, shown};
use super::{Outcome, PARTICLES};

/// The result of a panel, with the positions of its particles on the plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// The result.
    pub outcome: Outcome,
    /// The positions at every knot, particle after particle.
    knots: Vec<Vec<Point>>,
    /// The exact end points.
    exact: Vec<Point>,
}

impl Track {
    /// Reads the bytes that the worker sent for both panels. Returns `None` if their number does not
    /// match the knots, or there are none.
    pub fn both(outcomes: [Outcome; 2], bytes: &[u8]) -> Option<[Self; 2]> {
        const KNOT: usize = 2 * 4 * PARTICLES;
        let value = |b: &[u8]| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let positions = |bytes: &[u8], sigma: f64| {
            let position = |b: &[u8]| shown([value(b), value(&b[4..])], sigma);
            bytes.chunks_exact(8).map(position).collect::<Vec<Point>>()
        };
        let count = |outcome: &Outcome| outcome.sigmas.len() + 1;
        if outcomes.iter().any(|outcome| outcome.sigmas.is_empty())
            || bytes.len() != KNOT * outcomes.iter().map(count).sum::<usize>()
        {
            return None;
        }
        let mut parts = bytes.chunks_exact(KNOT);
        Some(outcomes.map(|outcome| {
            let sigmas = &outcome.sigmas;
            let knots = parts.by_ref().zip(sigmas).map(|(b, &s)| positions(b, s)).collect();
            let exact = parts.next().map_or(Vec::new(), |b| positions(b, 0.0));
            Self { outcome, knots, exact }
        }))
    }

    /// Returns the noise levels of the schedule, without those that churn raised.
    pub fn levels(&self) -> Vec<f64> {
        let sigmas = &self.outcome.sigmas;
        (0..sigmas.len()).filter(|&k| !self.jumps(k)).map(|k| sigmas[k]).collect()
    }

    /// Returns whether churn leads to a knot: its noise level is above that of the knot before.
    fn jumps(&self, knot: usize) -> bool {
        knot > 0 && self.outcome.sigmas[knot] > self.outcome.sigmas[knot - 1]
    }

    /// Returns the distance between two particles that have trails: with churn, or with very many
    /// steps, some have none.
    fn stride(&self) -> usize {
        /// Particles with trails if churn moves them, so that each can be followed.
        const FEW: usize = 20;
        /// Maximum number of points of all trails.
        const MOST: usize = 12_000;
        if (0..self.knots.len()).any(|knot| self.jumps(knot)) {
            PARTICLES / FEW
        } else {
            (self.knots.len() * PARTICLES).div_ceil(MOST).max(1)
        }
    }

    /// Returns the place of each knot on the axis. A jump takes no way on it.
    pub fn places(&self, axis: &Axis) -> Vec<f64> {
        let mut last = 0.0f64;
        let mut place = |&sigma: &f64| {
            last = last.max(axis.place(sigma));
            last
        };
        self.outcome.sigmas.iter().map(&mut place).collect()
    }

    /// Returns the parts of the plane's drawing that change with the knots: the trails of the first
    /// `done` knots, and the jumps between them.
    pub fn trails(&self, done: usize) -> [String; 2] {
        let done = done.min(self.knots.len());
        let [mut trails, mut jumps] = [String::new(), String::new()];
        for particle in (0..PARTICLES).step_by(self.stride()) {
            for knot in 0..done {
                let at = self.knots[knot][particle];
                if self.jumps(knot) {
                    at_line(&mut jumps, self.knots[knot - 1][particle], at);
                    at.start(&mut trails);
                } else if knot == 0 {
                    at.start(&mut trails);
                } else {
                    at.go_on(&mut trails);
                }
            }
        }
        [trails, jumps]
    }

    /// Returns the way since the last knot and the particles, at a place between `done - 1` and
    /// `done`, the fraction `part` of the way.
    pub fn heads(&self, done: usize, part: f64) -> [String; 2] {
        let [mut ways, mut dots] = [String::new(), String::new()];
        let last = done.clamp(1, self.knots.len()) - 1;
        let next = self.knots.get(last + 1).filter(|_| part > 0.0);
        let stride = self.stride();
        for (particle, &from) in self.knots[last].iter().enumerate() {
            let at = match next {
                Some(next) => {
                    let at = from.towards(next[particle], part);
                    if particle.is_multiple_of(stride) {
                        at_line(&mut ways, from, at);
                    }
                    at
                }
                None => from,
            };
            at.dot(&mut dots);
        }
        [ways, dots]
    }

    /// Returns the lines from the end points to the exact ones; nothing if the sampler added fresh
    /// noise, so that it leads elsewhere.
    pub fn errors(&self) -> String {
        let mut lines = String::new();
        if let Some(ends) = self.knots.last().filter(|_| !self.outcome.random) {
            for (&end, &exact) in ends.iter().zip(&self.exact) {
                at_line(&mut lines, end, exact);
            }
        }
        lines
    }
}

fn at_line(path: &mut String, from: Point, to: Point) {
    from.start(path);
    to.go_on(path);
}

/// Returns the number of knots up to a place, and the fraction of the way to the next.
pub fn progress(places: &[f64], at: f64) -> (usize, f64) {
    let done = places.iter().take_while(|&&place| place <= at).count().max(1);
    match (places.get(done - 1), places.get(done)) {
        (Some(last), Some(next)) if next > last => {
            (done, ((at - last) / (next - last)).clamp(0.0, 1.0))
        }
        _ => (done, 0.0),
    }
}

/// Says which panel ends closer to the exact points, and by how much.
pub fn verdict(outcomes: [&Outcome; 2]) -> String {
    let [a, b] = outcomes;
    let evaluations = if a.evaluations == b.evaluations {
        format!("With {} evaluations each, ", a.evaluations)
    } else {
        format!("With {} evaluations in A and {} in B, ", a.evaluations, b.evaluations)
    };
    if a.random || b.random {
        return format!(
            "{evaluations}{} of the particles of A and {} of those of B end off the data.",
            percent(a.off),
            percent(b.off)
        );
    }
    let [closer, farther, ratio] = if a.distance < b.distance {
        ["A", "B", &times(b.distance / a.distance)]
    } else {
        ["B", "A", &times(a.distance / b.distance)]
    };
    if ratio.is_empty() {
        format!("{evaluations}both end equally far from the exact points.")
    } else {
        format!(
            "{evaluations}{closer} ends {ratio} times closer to the exact points than {farther}."
        )
    }
}

/// Formats a ratio of at least 1; nothing if it is close to 1 or no number.
fn times(ratio: f64) -> String {
    match ratio {
        r if r >= 9.95 => format!("{r:.0}"),
        r if r >= 1.05 => format!("{r:.1}"),
        _ => String::new(),
    }
}

/// Formats a share.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Formats a distance with two significant digits.
pub fn distance(distance: f64) -> String {
    match distance {
        d if d >= 0.1 => format!("{d:.2}"),
        d if d >= 0.01 => format!("{d:.3}"),
        d => format!("{d:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(sigmas: &[f64]) -> Outcome {
        Outcome { sigmas: sigmas.into(), evaluations: 5, distance: 0.5, off: 0.25, random: false }
    }

    /// Two panels: one with a jump, one of a single step. Particle `i` of knot `k` is at `(k, i)`.
    fn tracks() -> [Track; 2] {
        let outcomes = [outcome(&[4.0, 1.0, 1.5, 0.0]), outcome(&[4.0, 0.0])];
        let position = |k: usize| (0..PARTICLES).flat_map(move |i| [k as f32, i as f32]);
        let bytes: Vec<u8> =
            (0..8).flat_map(position).flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(Track::both(outcomes.clone(), &bytes[8..]), None);
        assert_eq!(Track::both([outcome(&[]), outcomes[1].clone()], &bytes), None);
        Track::both(outcomes, &bytes).expect("as many bytes as knots")
    }

    #[test]
    fn positions_are_scaled_to_unit_variance() {
        let [a, b] = tracks();
        assert_eq!((a.knots.len(), b.knots.len(), a.exact.len()), (4, 2, PARTICLES));
        assert_eq!(a.knots[1][0], shown([1.0, 0.0], 1.0));
        assert_eq!(a.exact[3], shown([4.0, 3.0], 0.0));
        assert_eq!(b.knots[0][2], shown([5.0, 2.0], 4.0));
        assert_eq!(b.exact[1], shown([7.0, 1.0], 0.0));
    }

    #[test]
    fn a_jump_takes_no_way_on_the_axis_and_has_a_line_of_its_own() {
        let [a, _] = tracks();
        assert_eq!(a.levels(), [4.0, 1.0, 0.0]);
        let places = a.places(&Axis::of([4.0, 1.0, 0.0]));
        assert!(places[0] == 0.0 && places[1] == places[2] && places[3] == 1.0, "{places:?}");
        let [trails, jumps] = a.trails(4);
        let count = |path: &str, letter: char| path.matches(letter).count();
        // Of twenty particles: from noise to the first level, and from the raised level to the end.
        assert_eq!((count(&trails, 'M'), count(&trails, 'L')), (40, 40));
        assert_eq!((count(&jumps, 'M'), count(&jumps, 'L')), (20, 20));
        assert_eq!(a.trails(1)[1], "");
        let errors = a.errors();
        assert_eq!(count(&errors, 'L'), PARTICLES);
        let random = Track { outcome: Outcome { random: true, ..a.outcome.clone() }, ..a };
        assert_eq!(random.errors(), "");
    }

    #[test]
    fn particles_move_from_knot_to_knot() {
        let places = [0.0, 0.5, 0.5, 1.0];
        for (at, want) in [(0.0, (1, 0.0)), (0.25, (1, 0.5)), (0.5, (3, 0.0)), (1.0, (4, 0.0))] {
            assert_eq!(progress(&places, at), want, "at {at}");
        }
        assert_eq!(progress(&[], 0.3), (1, 0.0));
        let [a, b] = tracks();
        assert_eq!(a.heads(1, 0.0)[0], "");
        assert_eq!(a.heads(9, 0.0)[1].matches('M').count(), PARTICLES);
        assert_eq!(b.heads(1, 0.5)[0].matches('L').count(), PARTICLES);
        assert_eq!(a.heads(1, 0.5)[0].matches('L').count(), 20);
    }

    #[test]
    fn the_verdict_says_the_numbers() {
        let a = Outcome { evaluations: 17, distance: 0.36, ..outcome(&[1.0, 0.0]) };
        let b = Outcome { distance: 0.03, ..a.clone() };
        assert_eq!(
            verdict([&a, &b]),
            "With 17 evaluations each, B ends 12 times closer to the exact points than A."
        );
        assert!(verdict([&b, &a]).contains("A ends 12 times closer to the exact points than B"));
        assert!(verdict([&a, &a]).ends_with("both end equally far from the exact points."));
        let exact = Outcome { distance: 0.0, ..a.clone() };
        assert!(verdict([&exact, &exact]).ends_with("equally far from the exact points."));
        let random = Outcome { evaluations: 9, random: true, off: 0.01, ..a.clone() };
        assert_eq!(
            verdict([&a, &random]),
            "With 17 evaluations in A and 9 in B, 25 % of the particles of A and 1 % of those of B \
             end off the data."
        );
        assert_eq!([0.3123, 0.0345, 0.00067].map(distance), ["0.31", "0.035", "0.0007"]);
    }
}
