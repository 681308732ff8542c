//! Tables of a comparison, as Markdown and CSV.

use std::fmt::Write as _;

use super::difference::{Difference, Verdict, deviation, mean};
use super::plan::{Plan, PlannedNetwork};
use super::result::RunResult;

/// The results of a comparison so far.
pub struct Tables<'a> {
    plan: &'a Plan,
    /// Networks that have results, in the order of the plan, with those of each seed.
    networks: Vec<(&'a PlannedNetwork, Vec<&'a RunResult>)>,
    /// Loss of the Wiener filter at each noise level.
    wiener: Option<&'a [f64]>,
}

impl<'a> Tables<'a> {
    /// Collects results.
    pub fn new(plan: &'a Plan, results: &'a [RunResult], wiener: Option<&'a [f64]>) -> Self {
        let of = |network: &PlannedNetwork| {
            let own = |seed: &u64| {
                let mut found = results.iter();
                found.find(|r| r.network == network.name && r.config.seed == *seed)
            };
            plan.seeds.iter().filter_map(own).collect::<Vec<_>>()
        };
        let networks = plan.networks.iter().map(|network| (network, of(network)));
        Self { plan, networks: networks.filter(|(_, runs)| !runs.is_empty()).collect(), wiener }
    }

    /// Returns the networks that have results, with those of each seed.
    pub fn networks(&self) -> &[(&'a PlannedNetwork, Vec<&'a RunResult>)] {
        &self.networks
    }

    /// Returns the loss of the Wiener filter at each noise level.
    pub fn wiener(&self) -> Option<&[f64]> {
        self.wiener
    }

    /// Returns the results of the reference network.
    pub fn reference(&self) -> Option<&[&'a RunResult]> {
        let mut networks = self.networks.iter();
        let found = networks.find(|(network, _)| network.name == self.plan.reference);
        found.map(|(_, runs)| &runs[..])
    }

    /// Returns the tables as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n", self.plan.title);
        if !self.plan.description.is_empty() {
            text += &format!("{}\n\n", self.plan.description);
        }
        let Some((_, runs)) = self.networks.first() else {
            return text + "No run is complete.\n";
        };
        let first = runs[0];
        let sigma = &first.sigma;
        writeln!(
            text,
            "Each network is trained on {} images per seed. The loss is the training objective of \
             the moving average of the weights on {} held-out images, each at {} noise levels from \
             {:.3} to {:.3}; noise and levels are the same for all networks.\n",
            first.images,
            first.by_image().len(),
            sigma.len(),
            sigma[0],
            sigma[sigma.len() - 1],
        )
        .expect("a String");
        text += &self.main_table();
        text += &self.pairs();
        text += &self.levels();
        text
    }

    /// Returns the table with a row for each network.
    fn main_table(&self) -> String {
        let reference = &self.plan.reference;
        let published = self.plan.published.as_deref();
        let mut header: Vec<String> = vec![
            "network".into(),
            "parameters".into(),
            "multiply-adds".into(),
            "seeds".into(),
            "loss".into(),
            "spread over seeds".into(),
            format!("difference from {reference}"),
            "95 % over images".into(),
            format!("against {reference}"),
            "images/s".into(),
        ];
        let time = self.equal_time();
        header.extend(time.map(|seconds| format!("validation loss after {seconds:.0} s")));
        header.extend(published.map(|name| format!("{name} (published)")));
        let mut rows = Vec::new();
        for (network, runs) in &self.networks {
            let losses: Vec<f64> = runs.iter().map(|run| run.loss()).collect();
            let difference = self
                .reference()
                .filter(|_| network.name != *reference)
                .and_then(|reference| Difference::new(runs, reference));
            let rate: Vec<f64> = runs.iter().map(|run| run.images as f64 / run.seconds).collect();
            let mut row = vec![
                network.name.clone(),
                thousands(runs[0].parameters),
                format!("{:.4} G", runs[0].macs as f64 / 1e9),
                runs.len().to_string(),
                format!("{:.5}", mean(&losses)),
                deviation(&losses).map_or("-".into(), |spread| format!("{spread:.5}")),
            ];
            row.extend(self.difference_cells(difference.as_ref()));
            row.push(format!("{:.1}", mean(&rate)));
            row.extend(time.map(|seconds| {
                let found = runs.iter().map(|run| run.loss_after(seconds));
                let found: Option<Vec<f64>> = found.collect();
                found.map_or("-".into(), |losses| format!("{:.5}", mean(&losses)))
            }));
            row.extend(
                published.map(|_| network.published.map_or("-".into(), |value| value.to_string())),
            );
            rows.push(row);
        }
        if let Some(losses) = self.wiener {
            let mut row = vec!["Wiener filter".to_string()];
            row.resize(header.len(), "-".into());
            row[4] = format!("{:.5}", mean(losses));
            rows.push(row);
        }
        table(&header, &rows)
            + "\nA difference is paired by seed, image and noise level. An order is stated only if \
               all seeds agree, the difference is more than twice its spread over seeds, and the \
               interval excludes 0. The Wiener filter is the best linear denoiser for the mean and \
               covariance of the training images.\n"
    }

    /// Returns the cells of a difference from the reference: size, interval, verdict.
    fn difference_cells(&self, difference: Option<&Difference>) -> [String; 3] {
        let Some(difference) = difference else { return ["-".into(), "-".into(), "-".into()] };
        let base: Vec<f64> = self.reference().into_iter().flatten().map(|run| run.loss()).collect();
        let percent = |value: f64| format!("{:+.2} %", 100.0 * value / mean(&base));
        let [low, high] = difference.interval.map(percent);
        let verdict = match difference.verdict() {
            Verdict::Lower => "lower loss",
            Verdict::Higher => "higher loss",
            Verdict::Open => "open",
            Verdict::OneSeed => "open (one seed)",
        };
        [percent(difference.mean), format!("{low} to {high}"), verdict.into()]
    }

    /// Returns the training time of the fastest network, at which losses are compared too. `None`
    /// without measurements of the validation loss.
    fn equal_time(&self) -> Option<f64> {
        let last = |run: &RunResult| run.curve.last().map(|point| point.seconds);
        let runs = self.networks.iter().flat_map(|(_, runs)| runs);
        let times: Option<Vec<f64>> = runs.map(|run| last(run)).collect();
        times?.into_iter().min_by(f64::total_cmp)
    }

    /// Returns the table of the differences of all pairs.
    fn pairs(&self) -> String {
        if self.networks.len() < 3 {
            return String::new();
        }
        let mut header = vec!["loss of row - loss of column".to_string()];
        header.extend(self.networks.iter().map(|(network, _)| network.name.clone()));
        let rows = self.networks.iter().map(|(network, a)| {
            let mut row = vec![network.name.clone()];
            for (other, b) in &self.networks {
                let difference = Difference::new(a, b).filter(|_| network.name != other.name);
                row.push(difference.map_or(String::new(), |difference| {
                    let losses: Vec<f64> = b.iter().map(|run| run.loss()).collect();
                    let mark = match difference.verdict() {
                        Verdict::Lower | Verdict::Higher => "**",
                        Verdict::Open | Verdict::OneSeed => "",
                    };
                    format!("{mark}{:+.2} %{mark}", 100.0 * difference.mean / mean(&losses))
                }));
            }
            row
        });
        format!(
            "\n## All pairs\n\n{}\nBold: an order by the rule above.\n",
            table(&header, &rows.collect::<Vec<_>>())
        )
    }

    /// Returns the table of the loss at each noise level, averaged over seeds.
    fn levels(&self) -> String {
        let mut header = vec!["sigma".to_string()];
        header.extend(self.networks.iter().map(|(network, _)| network.name.clone()));
        header.extend(self.wiener.map(|_| "Wiener filter".into()));
        let columns: Vec<Vec<f64>> =
            self.networks.iter().map(|(_, runs)| mean_by_level(runs)).collect();
        let sigma = &self.networks[0].1[0].sigma;
        let rows = sigma.iter().enumerate().map(|(level, sigma)| {
            let mut row = vec![format!("{sigma:.4}")];
            let wiener = self.wiener.map(|losses| losses[level]);
            let losses = columns.iter().map(|column| column[level]).chain(wiener);
            row.extend(losses.map(|loss| format!("{loss:.5}")));
            row
        });
        format!("\n## By noise level\n\n{}", table(&header, &rows.collect::<Vec<_>>()))
    }

    /// Returns the loss of each network, seed and noise level as CSV.
    pub fn csv(&self) -> String {
        let mut text =
            "network,seed,parameters,multiply_adds,images,seconds,sigma,loss\n".to_string();
        for (network, runs) in &self.networks {
            for run in runs {
                for (sigma, loss) in run.sigma.iter().zip(run.by_level()) {
                    writeln!(
                        text,
                        "{},{},{},{},{},{:.1},{sigma},{loss}",
                        network.name,
                        run.config.seed,
                        run.parameters,
                        run.macs,
                        run.images,
                        run.seconds,
                    )
                    .expect("a String");
                }
            }
        }
        text
    }
}

/// Returns the loss at each noise level, averaged over runs.
pub fn mean_by_level(runs: &[&RunResult]) -> Vec<f64> {
    let levels: Vec<Vec<f64>> = runs.iter().map(|run| run.by_level()).collect();
    let at = |level: usize| mean(&levels.iter().map(|run| run[level]).collect::<Vec<_>>());
    (0..levels.first().map_or(0, Vec::len)).map(at).collect()
}

/// Returns a Markdown table. The first column is aligned left, the others right.
pub fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> =
        (0..header.len()).map(|i| if i == 0 { "---".into() } else { "---:".into() }).collect();
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{}{rows}", line(header), line(&rule))
}

/// Returns a number with commas between groups of three digits.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::result::tests::result;
    use serde_json::json;

    fn plan() -> Plan {
        serde_json::from_value(json!({
            "title": "Where time enters",
            "networks": [
                { "name": "H", "preset": "tiny", "published": 1.95 },
                { "name": "F", "preset": "tiny" },
                { "name": "none", "preset": "tiny" },
            ],
            "reference": "H",
            "seeds": [0, 1],
            "published": "FID",
        }))
        .expect("a plan")
    }

    fn losses(base: f32) -> Vec<Vec<f32>> {
        vec![vec![base, base + 0.5], vec![base + 1.0, base + 1.5]]
    }

    #[test]
    fn tables_state_differences_with_their_errors() {
        let results = [
            result("H", 0, losses(1.0)),
            result("H", 1, losses(1.02)),
            result("F", 0, losses(1.1)),
            result("F", 1, losses(1.12)),
            result("none", 0, losses(1.2)),
        ];
        let plan = plan();
        let wiener = [2.0, 3.0];
        let tables = Tables::new(&plan, &results, Some(&wiener));
        let text = tables.markdown();
        // Mean losses 1.75 and 1.77; the difference of F is 0.1 for both seeds.
        let rows = [
            "| H | 1,234,567 | 0.0700 G | 2 | 1.76000 | 0.01414 | - | - | - | 10.0 | 0.80000 | 1.95 |",
            "| F | 1,234,567 | 0.0700 G | 2 | 1.86000 | 0.01414 | +5.68 % | +5.68 % to +5.68 % | \
             higher loss | 10.0 | 0.80000 | - |",
            "| none | 1,234,567 | 0.0700 G | 1 | 1.95000 | - | +11.36 % | +11.36 % to +11.36 % | \
             open (one seed) | 10.0 | 0.80000 | - |",
            "| Wiener filter | - | - | - | 2.50000 | - | - | - | - | - | - | - |",
            "| H |  | **-5.38 %** | -10.26 % |",
            "| 0.1000 | 1.26000 | 1.36000 | 1.45000 | 2.00000 |",
            "| 0.2000 | 2.26000 | 2.36000 | 2.45000 | 3.00000 |",
        ];
        for row in rows {
            assert!(text.contains(row), "{row}\n{text}");
        }
        let csv = tables.csv();
        assert_eq!(csv.lines().count(), 1 + 2 * 5);
        assert!(csv.contains("\nF,1,1234567,70000000,200,20.0,0.2,"), "{csv}");
    }

    #[test]
    fn a_comparison_without_results_says_so() {
        let plan = plan();
        let text = Tables::new(&plan, &[], None).markdown();
        assert!(text.contains("No run is complete."), "{text}");
    }

    #[test]
    fn digits_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (28_702_339, "28,702,339")] {
            assert_eq!(thousands(n), text);
        }
    }
}
