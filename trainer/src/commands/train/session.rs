//! A training process: its state, and the parts of the training loop.

use std::fs::File;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use burn::tensor::Device;
use model::vae::Vae;
use model::weights::Precision;
use serde_json::json;

use super::change;
use super::grid::sample_grid;
use super::log::Log;
use super::messages;
use super::quality::Quality;
use super::saves::Saves;
use crate::args::OutputArgs;
use crate::config::TrainConfig;
use crate::data::loader::Loader;
use crate::files::atomic::write;
use crate::learner::step::{Learner, Step};
use crate::memory;
use crate::run::folder::RunFolder;
use crate::run::progress::Progress;
use crate::validation::{Validation, ValidationLoss};
use crate::weights;
use crate::weights::card::card;

/// Minimum number of images between two lines of the log.
pub const LOG_INTERVAL: u64 = 1_000;

/// Number of consecutive skipped steps after which training fails.
const MAX_SKIPPED_STEPS: u32 = 10;

/// Numbers of images between two grids, validations and checkpoints.
pub struct Intervals {
    pub sample: u64,
    pub validate: u64,
    pub save: u64,
    /// Between two snapshots of moving averages; `None` without any.
    pub snapshot: Option<u64>,
}

impl Intervals {
    /// Returns the intervals that the flags and the recipe ask for.
    pub fn new(args: &OutputArgs, config: &TrainConfig) -> Self {
        let default_interval = (config.duration / 3).clamp(LOG_INTERVAL, 500_000);
        let sample = args.sample_every.unwrap_or(default_interval).max(1);
        Self {
            sample,
            validate: args.validate_every.unwrap_or(sample).max(1),
            save: args.save_every.unwrap_or(default_interval).max(1),
            snapshot: config.snapshot_interval(),
        }
    }
}

/// A step with its learning rate and time.
pub struct TimedStep {
    step: Step,
    lr: f64,
    time: Duration,
}

/// A training process.
pub struct Session {
    pub args: OutputArgs,
    pub max_time: Option<Duration>,
    pub intervals: Intervals,
    pub progress: Progress,
    pub learner: Learner,
    pub loader: Loader,
    pub validation: Option<Validation>,
    /// The measurement of image quality.
    pub quality: Option<Quality>,
    /// Number of images between two measurements of image quality.
    pub measure_every: u64,
    /// Decoder of latents for grids.
    pub vae: Option<Vae>,
    /// Device of grids and validation.
    pub device: Device,
    pub folder: RunFolder,
    pub log: Log,
    pub started: Instant,
    /// Time spent waiting for batches since the last line of the log.
    pub waited: Duration,
    /// Floating-point operations of forward and backward pass of an image.
    pub flops: f64,
    /// Peak rate of all devices of all machines in floating-point operations per second, where it is
    /// known.
    pub peak: Option<f64>,
    /// Training time of earlier processes of the run, in seconds.
    pub seconds_before: f64,
    pub saves: Saves,
    /// Lock of the run folder, held until the end.
    pub _lock: File,
}

impl Session {
    /// Takes a step. `stopped` says whether a signal asks this process to end, of which the other
    /// machines hear then.
    ///
    /// # Errors
    ///
    /// If an image cannot be read or the connection to another machine is lost, after saving a
    /// checkpoint.
    pub fn step(&mut self, stopped: bool) -> anyhow::Result<TimedStep> {
        let started = Instant::now();
        let ending = self.is_ending(stopped);
        if let Some(nodes) = self.learner.nodes() {
            nodes.ask_to_end(ending);
        }
        let progress = &mut self.progress;
        let (images, batch_size) = (progress.images, progress.config.batch);
        let lr = progress.config.lr(images);
        let mut batch = match self.loader.next() {
            Ok(batch) => batch,
            Err(error) => bail!(self.save_after(&error)),
        };
        self.waited += started.elapsed();
        let progress = &mut self.progress;
        let times = progress.draw_times(&mut batch, self.learner.share(batch_size));
        let step = match self.learner.step(batch, &progress.config, images) {
            Ok(step) => step,
            // Another machine is lost. The step was not taken.
            Err(error) => bail!(self.save_after_loss(&error)),
        };
        let progress = &mut self.progress;
        progress.images += batch_size as u64;
        progress.seconds = self.seconds_before + self.started.elapsed().as_secs_f64();
        if step.taken {
            if let Some(sampler) = &mut progress.times {
                sampler.learn(&times, &step.losses);
            }
            progress.log_window.add(step.loss, batch_size as u64);
            progress.skipped_in_row = 0;
            self.saves.note_step(progress.images);
        } else {
            progress.skipped += 1;
            progress.skipped_in_row += 1;
        }
        let time = started.elapsed();
        tracing::debug!(
            images = progress.images,
            loss = step.loss,
            gradient_norm = step.norm,
            taken = step.taken,
            ?time,
            "step"
        );
        Ok(TimedStep { step, lr, time })
    }

    /// Logs a step.
    ///
    /// # Errors
    ///
    /// If too many steps in a row were skipped.
    pub fn log(&mut self, TimedStep { step, lr, time }: &TimedStep) -> anyhow::Result<()> {
        let progress = &mut self.progress;
        let images = progress.images;
        let status = &mut self.log.status;
        let values = [step.loss, step.norm, *lr];
        status.step(images, progress.config.batch, *time, values, memory::peak());
        if !step.taken {
            status.warn(&format!(
                "after {images} images: skipped a step with loss {} and gradient norm {} ({} of \
                 {MAX_SKIPPED_STEPS} in a row)",
                step.loss, step.norm, progress.skipped_in_row
            ));
        }
        if progress.skipped_in_row >= MAX_SKIPPED_STEPS {
            status.finish();
            self.finish_saving();
            let progress = &self.progress;
            let unconfirmed = self.saves.unconfirmed();
            let batch = self.loader.indices(images - progress.config.batch as u64..images);
            bail!(messages::too_many_skipped_steps(
                progress,
                &self.folder,
                unconfirmed,
                *lr,
                &batch,
                &step.losses
            ));
        }
        if progress.log_window.images() < LOG_INTERVAL {
            return Ok(());
        }
        let loss = progress.end_log_window();
        let rate = status.rate();
        let times = self.learner.take_times();
        let flops = rate * self.flops;
        let mut line = json!({
            "images": images,
            "loss": loss,
            "gradient_norm": step.norm,
            "lr": lr,
            "skipped_steps": progress.skipped,
            "images_per_second": rate,
            "gflops_per_second": flops * 1e-9,
            "data_wait": std::mem::take(&mut self.waited).as_secs_f64(),
            "forward_backward": times.gradients.as_secs_f64(),
            "optimizer": times.update.as_secs_f64(),
            "peak_memory": memory::peak(),
            "seconds": progress.seconds,
        });
        if let Some(peak) = self.peak {
            line["share_of_peak"] = (flops / peak).into();
        }
        let written = self.log.line(&line);
        let scalars = [("loss", loss), ("gradient_norm", step.norm), ("lr", *lr)];
        let written = written.and(self.log.events.scalars(images, &scalars));
        self.report(written);
        Ok(())
    }

    /// Returns whether this process is to end: it was stopped, or its time is over.
    fn is_ending(&self, stopped: bool) -> bool {
        stopped || self.max_time.is_some_and(|max| self.started.elapsed() >= max)
    }

    /// Returns whether the run has seen all of its images.
    pub fn is_complete(&self) -> bool {
        self.progress.images >= self.progress.config.duration
    }

    /// Returns whether this was the last step: the run is complete, or this process is to end, or with
    /// several machines, any of them was to end before the step. A run that is skipping steps, which is
    /// not saved, is not stopped before it takes a step again or fails.
    pub fn is_last(&mut self, stopped: bool) -> bool {
        let ending = match self.learner.nodes() {
            Some(nodes) => nodes.is_ending(),
            None => self.is_ending(stopped),
        };
        self.is_complete() || (ending && self.progress.skipped_in_row == 0)
    }

    /// Returns whether the last step passed a multiple of `interval` images.
    pub fn is_due(&self, interval: u64) -> bool {
        let images = self.progress.images;
        images / interval != (images - self.progress.config.batch as u64) / interval
    }

    /// Returns whether a checkpoint is due, also because the last save was refused or failed.
    pub fn must_save(&self) -> bool {
        let every = self.intervals.save;
        let again = self.saves.retry(every).is_some_and(|every| self.is_due(every));
        again || self.is_due(every) || self.saves.refused().is_some()
    }

    /// Returns whether image quality is to be measured: every so many images, and at the end of the
    /// run. If only this process ends, a resumed run measures.
    pub fn must_measure(&self, last: bool) -> bool {
        self.quality.is_some() && (self.is_complete() || (!last && self.is_due(self.measure_every)))
    }

    /// Returns whether an earlier process ended before a measurement of image quality that was due.
    pub fn has_missed_a_measurement(&self) -> bool {
        let measured = self.progress.quality.as_ref().map_or(0, |measured| measured.images);
        self.quality.is_some()
            && self.progress.images / self.measure_every > measured / self.measure_every
    }

    /// Writes snapshots of the moving averages with power-function profiles, if there are any.
    pub fn write_snapshots(&mut self) {
        let written = self.try_write_snapshots();
        self.report(written);
    }

    fn try_write_snapshots(&self) -> anyhow::Result<()> {
        let Progress { images, config, .. } = &self.progress;
        for (average, std) in self.learner.averages().zip(config.profile_stds()) {
            self.folder.write_snapshot(*images, *std, average, &card(&self.progress))?;
        }
        Ok(())
    }

    /// Measures the validation loss, if the recipe has validation images.
    pub fn validate(&mut self) {
        let Some(validation) = &self.validation else { return };
        let progress = &mut self.progress;
        let images = progress.images;
        let measured = validation.loss(self.learner.ema(), &progress.config, &self.device);
        let ValidationLoss { mean: loss, levels } = match measured {
            Ok(loss) => loss,
            Err(error) => return self.report(Err(error).context("no validation loss")),
        };
        progress.validation_loss = Some(loss);
        let seconds = progress.seconds;
        self.log.status.validation_loss = Some(loss);
        self.log.status.message(&format!("after {images} images: validation loss {loss:.4}"));
        let line = json!({
            "images": images,
            "validation_loss": loss,
            "validation_levels": levels,
            "seconds": seconds,
        });
        let written = self.log.line(&line);
        let written = written.and(self.log.events.scalars(images, &[("validation_loss", loss)]));
        self.report(written);
    }

    /// Writes a grid of samples, unless grids are disabled.
    pub fn sample(&mut self) {
        if self.args.grid > 0 {
            let written = self.write_samples();
            self.report(written);
        }
    }

    fn write_samples(&mut self) -> anyhow::Result<()> {
        let Progress { images, classes, .. } = &self.progress;
        let (ema, vae) = (self.learner.ema(), self.vae.as_ref());
        let grid = match sample_grid(ema, vae, classes, self.args.grid, &self.device) {
            Ok(grid) => grid,
            // Training can recover from it, so that it goes on.
            Err(error) => {
                self.log.status.message(&format!("no samples after {images} images: {error}"));
                return Ok(());
            }
        };
        let png = grid.to_png(None)?;
        let path = self.folder.grid(*images);
        write(&path, &png).with_context(|| format!("cannot write {}", path.display()))?;
        self.log.events.image(*images, "pictures", [grid.width, grid.height], png)?;
        self.log.status.message(&format!("samples: {}", path.display()));
        Ok(())
    }

    /// Ends the process. Writes the weights file, unless a signal stopped the run, whose exit code
    /// is `stopped`.
    ///
    /// # Errors
    ///
    /// If the weights file cannot be written, or the run is not in a state to write it.
    pub fn finish(mut self, stopped: Option<ExitCode>) -> anyhow::Result<ExitCode> {
        self.log.status.finish();
        self.learner.disconnect();
        if let Some(problem) = self.saves.refused() {
            let unconfirmed = self.saves.unconfirmed();
            let message = messages::unusable(&self.progress, &self.folder, problem, unconfirmed);
            let Some(code) = stopped else { bail!(message) };
            self.log.status.warn(&message);
            return Ok(code);
        }
        self.remove_old_checkpoints();
        if let Some(code) = stopped {
            messages::stopped(&self.progress, &self.folder);
            return Ok(code);
        }
        let card = card(&self.progress);
        weights::save::save(&self.folder.weights(), self.learner.ema(), &card, Precision::F32)?;
        if !self.args.no_result {
            let change =
                change::between_grids(&self.folder, &self.progress, self.args.grid as usize);
            let change = change.unwrap_or_else(|error| {
                self.log.status.warn(&format!("warning: {error:#}"));
                None
            });
            let best = self.best();
            messages::result(&self.progress, &self.folder, best, &self.args, change.as_ref());
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn intervals(flags: &[&str], duration: u64) -> [u64; 3] {
        let args = Args::parse_from([&["trainer", "train"], flags].concat());
        let Some(Command::Train(args)) = args.command else { panic!("trainer train") };
        let preset = TrainConfig::preset("tiny").expect("a preset");
        let config = TrainConfig { duration, ..preset };
        let Intervals { sample, validate, save, .. } = Intervals::new(&args.output, &config);
        [sample, validate, save]
    }

    #[test]
    fn intervals_default_to_a_third_of_the_run_within_bounds() {
        assert_eq!(intervals(&[], 30_000), [10_000; 3]);
        assert_eq!(intervals(&[], 16), [LOG_INTERVAL; 3]);
        assert_eq!(intervals(&[], 200_000_000), [500_000; 3]);
        assert_eq!(intervals(&["--sample-every", "2k"], 30_000), [2_000, 2_000, 10_000]);
        let all = ["--sample-every", "0", "--validate-every", "5", "--save-every", "7"];
        assert_eq!(intervals(&all, 30_000), [1, 5, 7]);
    }
}
