//! The report of an evaluation: the values, and everything that makes them comparable.

use std::path::Path;

use anstream::println;
use metrics::inception_score::SPLIT;
use metrics::kernel::{SUBSET, SUBSETS};
use metrics::neighbours::NEIGHBOURS;
use metrics::network::Identity;
use model::card::{Metric, Quality};
use model::generate::Settings;
use model::guidance::Guidance;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A value of a metric.
pub struct Score {
    /// Name.
    pub name: String,
    /// Value.
    pub value: f64,
    /// Standard deviation over splits or subsets.
    pub deviation: Option<f64>,
}

impl Score {
    /// Creates a value without a deviation.
    pub fn new(name: String, value: f64) -> Self {
        Self { name, value, deviation: None }
    }
}

/// Where the samples come from.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Source {
    /// They were generated.
    Generated {
        /// Name of the model.
        model: String,
        /// SHA-256 of the weights file.
        weights_sha256: String,
        /// SHA-256 of the autoencoder.
        #[serde(skip_serializing_if = "Option::is_none")]
        vae_sha256: Option<String>,
        /// Seeds, as on the command line.
        seeds: String,
        /// Number of classes that random ones are drawn from.
        #[serde(skip_serializing_if = "Option::is_none")]
        random_classes: Option<u32>,
        /// Sampling settings.
        settings: Box<Settings>,
        /// Number of evaluations of the model for each sample.
        evaluations: usize,
    },
    /// They were read.
    Images {
        /// Folder or file.
        images: String,
    },
}

/// The report of an evaluation.
pub struct Report {
    /// Values.
    pub scores: Vec<Score>,
    /// Number of samples.
    pub count: usize,
    /// Where they come from.
    pub source: Source,
    /// Feature network.
    pub network: Identity,
    /// Path of the reference file.
    pub reference: String,
    /// SHA-256 of the reference file.
    pub reference_sha256: String,
    /// Number of images of the reference, if it is known.
    pub reference_images: Option<usize>,
    /// What limits comparisons.
    pub notes: Vec<String>,
}

impl Report {
    /// Prints a JSON object.
    pub fn print_json(&self) -> anyhow::Result<()> {
        let mut results = Map::new();
        for Score { name, value, deviation } in &self.scores {
            let mut entry = Map::from_iter([("value".to_string(), json!(value))]);
            if let Some(deviation) = deviation {
                entry.insert("deviation".into(), json!(deviation));
            }
            results.insert(name.clone(), Value::Object(entry));
        }
        let report = json!({
            "results": results,
            "samples": { "count": self.count, "source": self.source },
            "network": { "name": self.network.kind.name(), "identity": self.network },
            "reference": {
                "path": self.reference,
                "sha256": self.reference_sha256,
                "images": self.reference_images,
            },
            "protocol": {
                "inception_score_split": SPLIT,
                "neighbours": NEIGHBOURS,
                "kid_subsets": SUBSETS,
                "kid_subset_size": SUBSET,
            },
            "notes": self.notes,
            "made_with": format!("trainer {}", env!("CARGO_PKG_VERSION")),
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        Ok(())
    }

    /// Returns the values for the model card; `None` if the images were not generated.
    pub fn quality(&self) -> Option<Quality> {
        let Source::Generated { settings, evaluations, .. } = &self.source else { return None };
        let metric = |score: &Score| Metric {
            name: score.name.clone(),
            value: score.value,
            deviation: score.deviation,
        };
        let name = Path::new(&self.reference).file_name().unwrap_or_default().to_string_lossy();
        let images = self.reference_images.map_or_else(String::new, |n| format!(", {n} images"));
        let (steps, method) = (settings.steps, method(settings));
        let guidance = settings.guidance.map_or_else(String::new, |guidance| {
            let Guidance { scale, sigma_low, sigma_high, .. } = guidance;
            let levels = match (sigma_low, sigma_high) {
                (0.0, f64::MAX) => String::new(),
                (low, f64::MAX) => format!(" above sigma {low}"),
                (low, high) => format!(" from sigma {low} to {high}"),
            };
            format!(", guidance of scale {scale}{levels}")
        });
        Some(Quality {
            metrics: self.scores.iter().map(metric).collect(),
            samples: self.count,
            sampling: format!("{method}, {steps} steps, {evaluations} evaluations{guidance}"),
            reference: format!("{name}{images}"),
        })
    }

    /// Prints a table.
    pub fn print_table(&self) {
        let width = self.scores.iter().map(|score| score.name.len()).max().unwrap_or(0);
        for Score { name, value, deviation } in &self.scores {
            let deviation = deviation.map_or_else(String::new, |d| format!("  ± {}", number(d)));
            println!("{name:<width$}  {}{deviation}", number(*value));
        }
        match &self.source {
            Source::Generated { model, seeds, settings, evaluations, .. } => println!(
                "samples    {} of {model}, seeds {seeds}: {} steps of {}, {evaluations} evaluations \
                 each",
                self.count,
                settings.steps,
                method(settings)
            ),
            Source::Images { images } => println!("samples    {} of {images}", self.count),
        }
        let images = self.reference_images.map_or_else(String::new, |n| format!(" of {n} images"));
        let (reference, hash) = (&self.reference, &self.reference_sha256);
        println!("reference  {reference}{images}, SHA-256 {hash}");
        let (name, hash) = (self.network.kind.name(), &self.network.file_sha256);
        println!("features   {name}, SHA-256 {hash}");
    }
}

/// Returns the name of the sampler.
fn method(settings: &Settings) -> String {
    match serde_json::to_value(settings.method) {
        Ok(Value::String(name)) => name,
        Ok(Value::Object(fields)) => fields.keys().cloned().collect::<Vec<_>>().join(" "),
        _ => "the sampler".into(),
    }
}

/// Returns a number with four decimals, or in scientific notation if that would hide it.
pub fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 { format!("{value:.3e}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_not_hidden() {
        let texts = [12.345_678, 0.0, -0.25, 0.000_123_4].map(number);
        assert_eq!(texts, ["12.3457", "0.0000", "-0.2500", "1.234e-4"]);
    }
}
