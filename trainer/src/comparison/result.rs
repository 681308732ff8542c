//! The result of a training run of a comparison.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use model::Model;
use model::weights::shape_of;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::TrainConfig;
use crate::files::atomic::write;
use crate::validation::{Noisy, Validation, levels};

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunResult {
    /// Name of the network.
    pub network: String,
    /// Recipe, with the seed.
    pub config: TrainConfig,
    /// Number of parameters.
    pub parameters: usize,
    /// Multiply-adds of a forward pass on one image.
    pub macs: u64,
    /// Number of images seen.
    pub images: u64,
    /// Training time in seconds.
    pub seconds: f64,
    /// Noise levels of the evaluation, lowest first.
    pub sigma: Vec<f64>,
    /// Weighted loss of the moving average for each noise level and image, averaged over values.
    pub losses: Vec<Vec<f32>>,
    /// Validation loss while training.
    pub curve: Vec<CurvePoint>,
}

/// A validation loss while training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Number of images seen.
    pub images: u64,
    /// Training time in seconds.
    pub seconds: f64,
    /// Validation loss.
    pub validation_loss: f64,
}

impl RunResult {
    /// Evaluates the moving average of a run at `n` noise levels on all validation images.
    ///
    /// # Errors
    ///
    /// If a loss is not finite.
    pub fn evaluate(
        network: &str,
        model: &Model,
        config: &TrainConfig,
        validation: &Validation,
        n: usize,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let sigma = levels(config, n);
        let mut losses = Vec::with_capacity(n);
        for (level, &sigma) in sigma.iter().enumerate() {
            let found =
                validation.losses(model, config, device, &noisy(validation, level, sigma))?;
            ensure!(
                found.iter().all(|loss| loss.is_finite()),
                "{network}: the loss at sigma {sigma:.3} is not finite"
            );
            losses.push(found.into_iter().map(|loss| loss as f32).collect());
        }
        let shape = shape_of(&config.model);
        Ok(Self {
            network: network.into(),
            config: config.clone(),
            parameters: shape.parameter_count(),
            macs: shape.macs().total(),
            images: 0,
            seconds: 0.0,
            sigma,
            losses,
            curve: Vec::new(),
        })
    }

    /// Returns the loss of each image, averaged over the noise levels.
    pub fn by_image(&self) -> Vec<f64> {
        let n = self.losses.len() as f64;
        let images = self.losses.first().map_or(0, Vec::len);
        let of = |i: usize| self.losses.iter().map(|level| f64::from(level[i])).sum::<f64>() / n;
        (0..images).map(of).collect()
    }

    /// Returns the loss at each noise level, averaged over the images.
    pub fn by_level(&self) -> Vec<f64> {
        let mean = |losses: &Vec<f32>| {
            losses.iter().copied().map(f64::from).sum::<f64>() / losses.len() as f64
        };
        self.losses.iter().map(mean).collect()
    }

    /// Returns the loss, averaged over noise levels and images.
    pub fn loss(&self) -> f64 {
        self.by_level().iter().sum::<f64>() / self.losses.len() as f64
    }

    /// Returns the validation loss after `seconds` of training, interpolated linearly. `None`
    /// outside of the measured times.
    pub fn loss_after(&self, seconds: f64) -> Option<f64> {
        self.curve.windows(2).find_map(|pair| {
            let [a, b] = [pair[0], pair[1]];
            if !(a.seconds..=b.seconds).contains(&seconds) || a.seconds == b.seconds {
                return None;
            }
            let t = (seconds - a.seconds) / (b.seconds - a.seconds);
            Some(a.validation_loss + t * (b.validation_loss - a.validation_loss))
        })
    }

    /// Reads a result. `None` if there is no file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is not that of a run with this recipe.
    pub fn read(path: &Path, config: &TrainConfig, levels: usize) -> anyhow::Result<Option<Self>> {
        let context = || path.display().to_string();
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            result => result.with_context(context)?,
        };
        let result: Self = serde_json::from_slice(&bytes).with_context(context)?;
        ensure!(
            result.config == *config && result.losses.len() == levels,
            "{}: the result of another plan; use another --out, or remove this file and its run",
            path.display()
        );
        let images = result.by_image().len();
        ensure!(
            images > 0 && result.losses.iter().all(|level| level.len() == images),
            "{}: damaged: noise levels have different numbers of images",
            path.display()
        );
        Ok(Some(result))
    }

    /// Writes the result.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write(path, serde_json::to_string(self)?.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Returns the validation images at a noise level. Each pair of image and level has noise of its own.
pub fn noisy(validation: &Validation, level: usize, sigma: f64) -> Vec<Noisy> {
    let n = validation.len();
    (0..n).map(|image| Noisy { image, sigma, noise: (level * n + image) as u64 }).collect()
}

/// Reads the validation losses of a run from its `stats.jsonl`.
///
/// # Errors
///
/// If the file cannot be read.
pub fn curve(stats: &Path) -> anyhow::Result<Vec<CurvePoint>> {
    let text = fs::read_to_string(stats).with_context(|| stats.display().to_string())?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(lines.filter_map(|line| serde_json::from_value(line).ok()).collect())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A result with the given losses by level and image.
    pub fn result(network: &str, seed: u64, losses: Vec<Vec<f32>>) -> RunResult {
        let preset = TrainConfig::preset("tiny").expect("a preset");
        let point = |images: u64| CurvePoint {
            images,
            seconds: images as f64 / 10.0,
            validation_loss: 1.0 - images as f64 / 1000.0,
        };
        RunResult {
            network: network.into(),
            config: TrainConfig { seed, ..preset },
            parameters: 1_234_567,
            macs: 70_000_000,
            images: 200,
            seconds: 20.0,
            sigma: (0..losses.len()).map(|level| 0.1 * (level + 1) as f64).collect(),
            losses,
            curve: vec![point(100), point(200)],
        }
    }

    #[test]
    fn losses_are_averaged_over_levels_and_images() {
        let result = result("E", 0, vec![vec![1.0, 2.0, 6.0], vec![3.0, 4.0, 8.0]]);
        assert_eq!(result.by_image(), [2.0, 3.0, 7.0]);
        assert_eq!(result.by_level(), [3.0, 5.0]);
        assert_eq!(result.loss(), 4.0);
    }

    #[test]
    fn the_curve_is_interpolated_between_measured_times() {
        let result = result("E", 0, vec![vec![1.0]]);
        for (seconds, loss) in [(10.0, Some(0.9)), (15.0, Some(0.85)), (9.0, None), (21.0, None)] {
            let found = result.loss_after(seconds);
            match loss {
                Some(want) => assert!((found.expect("measured") - want).abs() < 1e-12),
                None => assert_eq!(found, None),
            }
        }
    }

    #[test]
    fn results_are_read_again_and_those_of_other_recipes_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("E-seed0.json");
        let result = result("E", 0, vec![vec![1.5, 0.1], vec![0.25, 3.0]]);
        assert_eq!(RunResult::read(&path, &result.config, 2).expect("no file"), None);
        result.write(&path).expect("written");
        let again = RunResult::read(&path, &result.config, 2).expect("valid");
        assert_eq!(again, Some(result.clone()));
        let other = TrainConfig { batch: 3, ..result.config.clone() };
        for (config, levels) in [(&other, 2), (&result.config, 3)] {
            let error = RunResult::read(&path, config, levels).expect_err("another plan");
            assert!(error.to_string().contains("another plan"), "{error}");
        }
        fs::write(&path, "{").expect("written");
        assert!(RunResult::read(&path, &result.config, 2).is_err());
    }
}
