//! Plots of a comparison.

use super::difference::mean;
use super::result::{CurvePoint, RunResult};
use super::table::{Tables, mean_by_level};
use crate::plot::{self, Axis, Chart, Mark, Point, Series};

/// Returns the loss of each network at each noise level, relative to the reference network. An error
/// bar is the range over seeds. `None` if the reference has no result.
pub fn levels(tables: &Tables) -> Option<String> {
    let reference = tables.reference()?;
    let base = mean_by_level(reference);
    let mut series = Vec::new();
    for (network, runs) in tables.networks() {
        let paired: Vec<Vec<f64>> =
            runs.iter().filter_map(|run| relative(run, reference)).collect();
        let sigma = &runs[0].sigma;
        let point = |level: usize| {
            let percent: Vec<f64> = paired.iter().map(|run| run[level]).collect();
            let low = percent.iter().copied().fold(f64::INFINITY, f64::min);
            let high = percent.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let error = (percent.len() > 1).then_some([low, high]);
            Point { x: sigma[level], y: mean(&percent), error }
        };
        if !paired.is_empty() {
            let points = (0..sigma.len()).map(point).collect();
            series.push(Series { name: network.name.clone(), points, mark: Mark::Line });
        }
    }
    if let Some(losses) = tables.wiener() {
        let percent = |level: usize| 100.0 * (losses[level] / base[level] - 1.0);
        let sigma = &reference[0].sigma;
        // Far above all networks where it is much worse: the plot is about the networks.
        let limit = 3.0 * series_maximum(&series);
        let points = (0..losses.len()).map(|level| Point::new(sigma[level], percent(level)));
        let points: Vec<Point> = points.filter(|point| point.y <= limit).collect();
        if points.len() > 1 {
            series.push(Series { name: "Wiener filter".into(), points, mark: Mark::Line });
        }
    }
    Some(plot::file(&Chart {
        title: "Loss at each noise level, relative to the reference network".into(),
        x: Axis::log("sigma"),
        y: Axis::linear("difference of the loss, %"),
        series,
        ..Chart::default()
    }))
}

/// Returns the largest distance from 0.
fn series_maximum(series: &[Series]) -> f64 {
    let points = series.iter().flat_map(|series| &series.points);
    points.map(|point| point.y.abs()).fold(1.0, f64::max)
}

/// Returns the difference at each level from the reference of the same seed, in per cent.
fn relative(run: &RunResult, reference: &[&RunResult]) -> Option<Vec<f64>> {
    let other = reference.iter().find(|other| other.config.seed == run.config.seed)?;
    let losses = run.by_level().into_iter().zip(other.by_level());
    Some(losses.map(|(loss, other)| 100.0 * (loss / other - 1.0)).collect())
}

/// Returns the validation loss of each network while training, averaged over seeds. `None` if it was
/// not measured.
pub fn curves(tables: &Tables) -> Option<String> {
    let series = |name: &str, runs: &[&RunResult]| {
        let points = runs[0].curve.iter().filter_map(|&CurvePoint { images, .. }| {
            let at = |run: &&RunResult| {
                run.curve.iter().find(|point| point.images == images).map(|p| p.validation_loss)
            };
            let losses: Option<Vec<f64>> = runs.iter().map(at).collect();
            Some(Point::new(images as f64, mean(&losses?)))
        });
        Series { name: name.into(), points: points.collect(), mark: Mark::Line }
    };
    let networks = tables.networks().iter();
    let series: Vec<Series> = networks.map(|(network, runs)| series(&network.name, runs)).collect();
    if series.iter().all(|series| series.points.len() < 2) {
        return None;
    }
    Some(plot::file(&Chart {
        title: "Validation loss while training".into(),
        x: Axis::linear("images"),
        y: Axis::log("validation loss"),
        series,
        ..Chart::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::plan::Plan;
    use crate::comparison::result::tests::result;
    use serde_json::json;

    #[test]
    fn every_network_is_in_the_plots() {
        let plan: Plan = serde_json::from_value(json!({
            "title": "x",
            "networks": [{ "name": "H", "preset": "tiny" }, { "name": "F+", "preset": "tiny" }],
            "reference": "H",
            "seeds": [0, 1],
        }))
        .expect("a plan");
        let losses = |base: f32| vec![vec![base], vec![2.0 * base], vec![3.0 * base]];
        let results = [
            result("H", 0, losses(1.0)),
            result("H", 1, losses(2.0)),
            result("F+", 0, losses(1.1)),
            result("F+", 1, losses(2.1)),
        ];
        let run = &results[2];
        let found = relative(run, &[&results[1], &results[0]]).expect("the same seed");
        assert!(found.iter().all(|percent| (percent - 10.0).abs() < 1e-4), "{found:?}");
        let wiener = [1.3, 2.6, 900.0];
        let tables = Tables::new(&plan, &results, Some(&wiener));
        let svg = levels(&tables).expect("a plot");
        for name in ["H", "F+", "Wiener filter"] {
            assert!(svg.contains(&format!(">\n{name}\n<")), "{name}: {svg}");
        }
        assert!(curves(&tables).expect("a plot").contains(">\nF+\n<"));
        assert!(levels(&Tables::new(&plan, &results[2..], None)).is_none());
    }
}
