//! Charts of the log of a run.

use crate::args::Quantity;
use crate::plot::{Axis, Chart, Mark, Point, Series};
use crate::run::history::{History, smoothed};

/// Range of values above which their axis is logarithmic.
const LOG_RANGE: f64 = 6.0;

/// Returns the chart of a value over the images seen, of one run or of several with their names. `None`
/// if no run has logged it.
pub fn chart(quantity: Quantity, runs: &[(String, History)]) -> Option<Chart> {
    let mut series = Vec::new();
    for (name, history) in runs {
        let named = |what: &str| match runs.len() {
            1 => what.to_string(),
            _ if what.is_empty() => name.clone(),
            _ => format!("{name}, {what}"),
        };
        let values = history.get(quantity.field());
        let noisy = matches!(quantity, Quantity::Loss | Quantity::GradientNorm);
        let trend = if noisy { smoothed(values) } else { values.to_vec() };
        if noisy && runs.len() == 1 && values.len() >= 40 {
            series.push(line("", values, Mark::Background));
        }
        let validation = history.get("validation_loss");
        if quantity != Quantity::Loss {
            series.push(line(&named(""), &trend, Mark::Line));
            continue;
        }
        series.push(line(&named("training"), &trend, Mark::Line));
        if !validation.is_empty() {
            series.push(line(&named("validation"), validation, Mark::Line));
        }
    }
    of_series(&quantity.to_string(), series)
}

/// Returns the chart of another value of the log, such as a metric, of one run or of several with
/// their names. `None` if no run has logged it.
pub fn named(name: &str, runs: &[(String, History)]) -> Option<Chart> {
    let label = |run: &String| if runs.len() == 1 { String::new() } else { run.clone() };
    let series = runs
        .iter()
        .filter(|(_, history)| !history.get(name).is_empty())
        .map(|(run, history)| line(&label(run), history.get(name), Mark::Line));
    of_series(&name.replace('_', " "), series.collect())
}

fn line(name: &str, values: &[(f64, f64)], mark: Mark) -> Series {
    let points = values.iter().map(|&(x, y)| Point::new(x, y)).collect();
    Series { name: name.into(), points, mark }
}

fn of_series(label: &str, series: Vec<Series>) -> Option<Chart> {
    let values = || series.iter().flat_map(|s| &s.points).map(|p| p.y).filter(|y| y.is_finite());
    let (low, high) = values().fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
    let log = low > 0.0 && high > LOG_RANGE * low;
    values().next()?;
    Some(Chart {
        title: format!("{label} over the number of images seen"),
        x: Axis::linear("images seen"),
        y: if log { Axis::log(label) } else { Axis::linear(label) },
        series,
        ..Chart::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::folder::RunFolder;

    fn history(lines: &str) -> History {
        let out = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::create(out.path(), "x").expect("made");
        std::fs::write(folder.path().join("stats.jsonl"), lines).expect("written");
        History::read(&folder).expect("readable")
    }

    fn names(chart: &Chart) -> Vec<&str> {
        chart.series.iter().map(|series| series.name.as_str()).collect()
    }

    #[test]
    fn charts_show_what_was_logged() {
        let mut lines = String::new();
        for i in 1..=50 {
            lines += &format!("{{\"images\":{i},\"loss\":{},\"lr\":1e-3}}\n", 10.0 / f64::from(i));
        }
        let plain = vec![("a".to_string(), history(&lines))];
        let loss = chart(Quantity::Loss, &plain).expect("logged");
        assert_eq!(names(&loss), ["", "training"]);
        assert!(loss.y.log && loss.series[0].mark == Mark::Background);
        let rate = chart(Quantity::Lr, &plain).expect("logged");
        assert_eq!((names(&rate), rate.y.log), (vec![""], false));
        assert!(chart(Quantity::Speed, &plain).is_none());

        lines += "{\"images\":50,\"validation_loss\":0.4,\"fid_5k\":7.5}\n";
        let both = vec![plain[0].clone(), ("b".into(), history(&lines))];
        let loss = chart(Quantity::Loss, &both).expect("logged");
        assert_eq!(names(&loss), ["a, training", "b, training", "b, validation"]);
        let other = named("fid_5k", &both).expect("logged");
        assert_eq!((other.y.label.as_str(), other.series[0].points.len()), ("fid 5k", 1));
        assert_eq!(names(&other), ["b"]);
        assert_eq!(names(&named("fid_5k", &both[1..]).expect("logged")), [""]);
        assert!(named("kid", &both).is_none());
        assert!(chart(Quantity::Loss, &[]).is_none());
    }
}
