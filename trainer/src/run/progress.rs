//! Progress of a run.

use std::ops::Range;
use std::path::PathBuf;

use model::card::ClassGroup;
use model::importance::{SampledTimestep, TimeSampler};
use model::noise::{Random, Stream};
use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::data::dataset::Fingerprint;
use crate::data::loader::Batch;

/// Progress of a run. Checkpoints store it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Recipe.
    pub config: TrainConfig,
    /// Name of the initial weights; empty for random weights.
    pub started_from: String,
    /// Number of images seen.
    pub images: u64,
    /// Training time in seconds.
    pub seconds: f64,
    /// Hardware that trained it, one machine after the other; empty in checkpoints of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hardware: String,
    /// Mean loss of the last log window.
    pub loss: Option<f64>,
    /// Latest validation loss.
    #[serde(default)]
    pub validation_loss: Option<f64>,
    /// Latest measurement of image quality. In `best.ckpt`, that of its own state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Measured>,
    /// Steps since the last line of the log.
    #[serde(rename = "stretch")]
    pub log_window: LogWindow,
    /// Number of skipped steps, whose loss or gradient was not finite.
    #[serde(default)]
    pub skipped: u64,
    /// Number of consecutive skipped steps.
    #[serde(default)]
    pub skipped_in_row: u32,
    /// SHA-256 of the images and of the autoencoder of a latent dataset. `None` for images.
    #[serde(default)]
    pub latents_of: Option<[String; 2]>,
    /// Fingerprint of a dataset of images. `None` for latents, and in checkpoints of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// Names of the classes.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Groups of the classes.
    #[serde(default)]
    pub class_groups: Vec<ClassGroup>,
    /// The loss-aware timestep sampler, if the recipe has one.
    #[serde(default)]
    pub times: Option<TimeSampler>,
}

/// A measurement of image quality, by the metric that decides which state of a run is the best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Number of images seen.
    pub images: u64,
    /// Name of the metric.
    pub name: String,
    /// Value.
    pub value: f64,
    /// Number of samples, reference and feature network. Values can be compared only if these are
    /// equal.
    pub protocol: String,
}

/// Sum of the losses since the last line of the log, and the number of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogWindow(pub f64, pub u64);

impl LogWindow {
    /// Adds a step with the given mean loss.
    pub fn add(&mut self, loss: f64, images: u64) {
        self.0 += loss * images as f64;
        self.1 += images;
    }

    /// Returns the number of images.
    pub fn images(&self) -> u64 {
        self.1
    }
}

impl Progress {
    /// Starts a run.
    pub fn new(config: TrainConfig, started_from: String) -> Self {
        Self {
            times: config.loss.time_sampler(None),
            config,
            started_from,
            images: 0,
            seconds: 0.0,
            hardware: String::new(),
            loss: None,
            validation_loss: None,
            quality: None,
            log_window: LogWindow::default(),
            skipped: 0,
            skipped_in_row: 0,
            latents_of: None,
            fingerprint: None,
            classes: Vec::new(),
            class_groups: Vec::new(),
        }
    }

    /// Notes the hardware that goes on with the run.
    pub fn add_hardware(&mut self, hardware: &str) {
        if self.hardware.is_empty() {
            self.hardware = hardware.into();
        } else if !self.hardware.split("; ").any(|known| known == hardware) {
            self.hardware += &format!("; {hardware}");
        }
    }

    /// Draws the timesteps of the next batch with the loss-aware sampler, if there is one, and
    /// returns them. Sets the noise levels and loss weights of `batch`, which is the given share of
    /// the whole batch.
    pub fn draw_times(&self, batch: &mut Batch, share: Range<usize>) -> Vec<usize> {
        let Some(times) = &self.times else { return Vec::new() };
        let draw = |k| times.draw(&mut Random::new(self.config.seed, Stream::Time, k));
        let drawn: Vec<SampledTimestep> =
            (self.images..).take(self.config.batch).map(draw).collect();
        for (i, drawn) in drawn[share].iter().enumerate() {
            batch.sigma[i] = self.config.loss.sigma_of(drawn.time);
            batch.weight[i] = drawn.weight;
        }
        drawn.into_iter().map(|drawn| drawn.time).collect()
    }

    /// Returns everything that machines training together must agree on, as text: the recipe
    /// without paths and the micro-batch, the data, and the progress.
    ///
    /// # Errors
    ///
    /// If it cannot be serialised.
    pub fn identity(&self) -> anyhow::Result<String> {
        let (data, micro_batch) = (PathBuf::new(), None);
        let mut config = TrainConfig { data, micro_batch, ..self.config.clone() };
        if let Some(path) = config.validation.as_mut().and_then(|v| v.data.as_mut()) {
            path.clear();
        }
        // Not all machines may have the images in memory, so that their names are compared.
        let images = self.fingerprint.as_ref().map(|of| (of.images, &of.names_sha256));
        let data = (&self.latents_of, images);
        Ok(serde_json::to_string(&(config, self.images, data, &self.times))?)
    }

    /// Ends the log window and returns its mean loss.
    pub fn end_log_window(&mut self) -> f64 {
        let LogWindow(sum, images) = std::mem::take(&mut self.log_window);
        let loss = sum / images as f64;
        self.loss = Some(loss);
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::LinearBetas;
    use model::importance::TimeSampling;
    use model::loss::LossConfig;
    use proptest::num::f64;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn each_machine_is_noted_once() {
        let config = TrainConfig::preset("tiny").expect("a preset");
        let mut progress = Progress::new(config, String::new());
        for machine in ["2 cores of A", "1 x H100", "2 cores of A"] {
            progress.add_hardware(machine);
        }
        assert_eq!(progress.hardware, "2 cores of A; 1 x H100");
    }

    proptest! {
        /// Resuming is exact only if sums are restored exactly.
        #[test]
        fn numbers_are_restored_exactly(seconds in f64::NORMAL, sum in f64::NORMAL) {
            let config = TrainConfig::preset("tiny").expect("a preset");
            let progress = Progress::new(config, String::new());
            let progress = Progress { seconds, log_window: LogWindow(sum, 3), ..progress };
            let text = serde_json::to_string(&progress).expect("plain data");
            prop_assert_eq!(serde_json::from_str::<Progress>(&text).expect("its own"), progress);
        }
    }

    /// The JSON of checkpoints is a file format: older checkpoints must stay readable.
    #[test]
    fn the_log_window_is_stored_as_before() {
        let config = TrainConfig::preset("tiny").expect("a preset");
        let mut progress = Progress::new(config, String::new());
        progress.log_window.add(0.5, 3);
        let value = serde_json::to_value(&progress).expect("plain data");
        assert_eq!(value["stretch"], json!([1.5, 3]));
        progress.log_window.add(1.0, 1);
        assert_eq!(progress.log_window.images(), 4);
        assert_eq!((progress.end_log_window(), progress.loss), (0.625, Some(0.625)));
        assert_eq!(progress.log_window, LogWindow::default());
    }

    #[test]
    fn timesteps_with_high_loss_are_drawn_more_often_with_lower_weight() {
        let mut config = TrainConfig::preset("latent-tiny").expect("a preset");
        let betas = LinearBetas { steps: 4, ..LinearBetas::default() };
        let times = TimeSampling::Importance { history: 1, uniform: 1e-3 };
        config.loss = LossConfig::Adm { betas, times };
        let mut progress = Progress::new(config, String::new());
        progress.times.as_mut().expect("it learns").learn(&[0, 1, 2, 3], &[1.0, 1.0, 1.0, 7.0]);
        let n = 1000;
        progress.config.batch = n;
        let mut batch = Batch { sigma: vec![0.0; n], weight: vec![0.0; n], ..Batch::default() };
        let drawn = progress.draw_times(&mut batch, 0..n);
        let hard = drawn.iter().filter(|&&time| time == 3).count();
        assert!(hard.abs_diff(700) < 60, "{hard}");
        for ((time, sigma), weight) in drawn.iter().zip(batch.sigma).zip(batch.weight) {
            assert_eq!(sigma, betas.sigmas()[*time]);
            let want = if *time == 3 { 0.25 / 0.7 } else { 0.25 / 0.1 };
            assert!((weight / want - 1.0).abs() < 0.01, "{time}: {weight}");
        }
        // Another batch is drawn for other images, and the same one for the same.
        let mut again = Batch { sigma: vec![0.0; n], weight: vec![0.0; n], ..Batch::default() };
        assert_eq!(progress.draw_times(&mut again, 0..n), drawn);
        let mut part = Batch { sigma: vec![0.0; 10], weight: vec![0.0; 10], ..Batch::default() };
        assert_eq!(progress.draw_times(&mut part, 500..510), drawn);
        assert_eq!(part.sigma, again.sigma[500..510]);
        progress.images = n as u64;
        assert_ne!(progress.draw_times(&mut again, 0..n), drawn);
    }
}
