//! The curve of the loss.

/// Weight of a new loss in the moving average.
const NEW: f64 = 0.05;

/// The losses of a run, and their exponential moving average without the bias of its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    losses: Vec<f64>,
    smooth: Vec<f64>,
    /// The average before its correction.
    sum: f64,
    /// The weight that the average has not got yet.
    missing: f64,
}

impl Curve {
    /// Adds the loss of a step.
    pub fn push(&mut self, loss: f64) {
        if self.losses.is_empty() {
            self.missing = 1.0;
        }
        self.sum = (1.0 - NEW) * self.sum + NEW * loss;
        self.missing *= 1.0 - NEW;
        self.losses.push(loss);
        self.smooth.push(self.sum / (1.0 - self.missing));
    }

    /// Returns the number of steps.
    pub fn steps(&self) -> usize {
        self.losses.len()
    }

    /// Returns the smoothed loss of the last step.
    pub fn last(&self) -> Option<f64> {
        self.smooth.last().copied()
    }

    /// Returns the smoothed losses as points in a box of `width` by `height`, with the step on the
    /// horizontal axis up to `steps` and the logarithm of the loss between `range` on the vertical one;
    /// at most one for each unit of the width.
    pub fn line(&self, steps: usize, range: [f64; 2], width: f64, height: f64) -> Vec<[f64; 2]> {
        points(&self.smooth, steps, range, width, height)
    }

    /// Returns the losses themselves, as [`Curve::line`] does.
    pub fn dots(&self, steps: usize, range: [f64; 2], width: f64, height: f64) -> Vec<[f64; 2]> {
        points(&self.losses, steps, range, width, height)
    }

    /// Returns the range of the vertical axis: powers of ten around all losses.
    pub fn range(&self) -> [f64; 2] {
        let known = || self.smooth.iter().copied().filter(|loss| loss.is_finite() && *loss > 0.0);
        let low = known().fold(0.1, f64::min).log10().floor();
        let high = known().fold(1.0, f64::max).log10().ceil();
        [10f64.powf(low), 10f64.powf(high)]
    }
}

fn points(
    losses: &[f64],
    steps: usize,
    [low, high]: [f64; 2],
    width: f64,
    height: f64,
) -> Vec<[f64; 2]> {
    let last = steps.max(losses.len()).max(2) - 1;
    let stride = (losses.len() as f64 / width.max(1.0)).ceil().max(1.0) as usize;
    // The last step is always a point.
    let chosen = losses.iter().enumerate().rev().step_by(stride);
    let place = |loss: f64| ((loss / low).ln() / (high / low).ln()).clamp(0.0, 1.0);
    let mut points: Vec<[f64; 2]> = chosen
        .filter(|(_, loss)| loss.is_finite() && **loss > 0.0)
        .map(|(i, &loss)| [width * i as f64 / last as f64, height * (1.0 - place(loss))])
        .collect();
    points.reverse();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_of_equal_losses_is_that_loss() {
        let mut curve = Curve::default();
        assert_eq!((curve.last(), curve.range()), (None, [0.1, 1.0]));
        for _ in 0..50 {
            curve.push(0.25);
            assert!((curve.last().expect("a loss") - 0.25).abs() < 1e-12);
        }
        // A jump is followed slowly.
        curve.push(20.25);
        let after = curve.last().expect("a loss");
        assert!(after > 1.0 && after < 2.0, "{after}");
        assert_eq!(curve.range(), [0.1, 10.0]);
    }

    #[test]
    fn the_line_goes_from_edge_to_edge() {
        let mut curve = Curve::default();
        for i in 0..1000 {
            curve.push(if i == 0 { 1.0 } else { 0.1 });
        }
        let line = curve.line(1000, [0.1, 1.0], 100.0, 40.0);
        assert!(line.len() <= 100 && line.is_sorted_by(|a, b| a[0] < b[0]));
        assert!((line.last().expect("points")[0] - 100.0).abs() < 1e-9);
        let dots = curve.dots(2000, [0.1, 1.0], 5000.0, 40.0);
        assert_eq!((dots.len(), dots[0]), (1000, [0.0, 0.0]));
        assert!((dots[999][0] - 5000.0 * 999.0 / 1999.0).abs() < 1e-9 && dots[999][1] == 40.0);
    }

    #[test]
    fn losses_that_cannot_be_drawn_are_left_out() {
        let mut curve = Curve::default();
        for loss in [0.5, f64::NAN, f64::INFINITY, 0.0, -1.0] {
            curve.push(loss);
        }
        assert_eq!(curve.dots(5, [0.1, 1.0], 10.0, 10.0).len(), 1);
        assert!(curve.line(0, curve.range(), 10.0, 10.0).iter().flatten().all(|x| x.is_finite()));
        assert!(Curve::default().line(0, [0.1, 1.0], 0.0, 0.0).is_empty());
    }
}
