//! Image quality while training: samples of the moving average are compared with reference
//! statistics, and the best state is kept.

use std::ops::ControlFlow;

use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use metrics::network::FeatureNetwork;
use metrics::reference::Reference;
use metrics::store::{Layout, Store};
use model::Model;
use model::config::ModelConfig;
use model::generate::Settings;
use model::vae::Vae;
use serde_json::{Map, json};

use super::session::Session;
use crate::args::{MetricKind, QualityArgs};
use crate::commands::metrics::evaluate::{few_samples, unknown_network};
use crate::commands::metrics::load_network;
use crate::commands::metrics::report::{Score, number};
use crate::commands::metrics::scores::{Plan, Prepared, scores};
use crate::run::checkpoint;
use crate::run::folder::{RunFolder, set_aside};
use crate::run::progress::Measured;
use crate::run::report::warn;
use crate::run::signals::StopSignal;
use crate::samples::generate::one_batch;
use crate::samples::labels::Labels;

/// Batch size of sampling and of the feature network, the default of `trainer evaluate`, which
/// therefore finds the same values.
const BATCH: usize = 32;

/// Maximum number of samples.
const MAX_SAMPLES: u64 = 1_000_000;

/// The files and flags of a measurement, checked before training starts.
pub struct Checked {
    network: FeatureNetwork,
    reference: Reference,
    plan: Plan,
    sampling: Sampling,
    protocol: String,
}

/// The sampling of a measurement: number, settings and classes.
struct Sampling {
    count: usize,
    settings: Settings,
    labels: Labels,
}

/// The measurement of image quality.
pub struct Quality {
    network: FeatureNetwork,
    reference: Prepared,
    plan: Plan,
    sampling: Sampling,
    protocol: String,
    /// The measurement of `best.ckpt`.
    best: Option<Measured>,
}

impl Checked {
    /// Checks the flags and opens the files, if anything is to be measured.
    ///
    /// # Errors
    ///
    /// If flags contradict each other, a file cannot be used, or a metric cannot be computed.
    pub fn open(
        args: &QualityArgs,
        model: &ModelConfig,
        vae: Option<&Vae>,
        device: &Device,
    ) -> anyhow::Result<Option<Self>> {
        let Some(first) = args.metric.first() else { return Ok(None) };
        if args.metric_every == Some(0) {
            return Ok(None);
        }
        ensure!(
            *first != MetricKind::PrecisionRecall,
            "--metric precision-recall has two values, which cannot decide which state is the best; \
             put another metric before it, such as --metric fid,precision-recall"
        );
        let path = args.reference.as_deref().context(
            "--metric needs --reference FILE, reference statistics of `trainer metrics reference`, \
             EDM or ADM",
        )?;
        let count = args.metric_samples;
        let fewest = args.metric.iter().map(|metric| fewest_samples(*metric)).max().unwrap_or(2);
        ensure!(
            (fewest..=MAX_SAMPLES).contains(&count),
            "--metric-samples {count}: these metrics take {fewest} to {MAX_SAMPLES} samples"
        );
        let channels = vae.map_or(model.image_shape()[0], |vae| vae.config.image_channels);
        ensure!(
            channels == 1 || channels == 3,
            "--metric: samples of {channels} channels are not images: give the autoencoder that \
             decodes them with --vae"
        );
        let mut settings = Settings::default();
        settings.use_process_of(model);
        settings.validate_for(model).context("--metric")?;
        let labels = match u32::try_from(model.classes()).unwrap_or(u32::MAX) {
            0 => Labels::Listed(Vec::new()),
            classes => Labels::Random(classes),
        };

        let reference = Reference::open(path).context("--reference")?;
        let network = load_network(&args.network, device)?;
        reference.check(&network.identity, [network.pooled_dim(), network.spatial_dim()])?;
        let plan = Plan::new(&args.metric, &reference, &network)?;
        let notes = few_samples(count as usize).into_iter().chain(unknown_network(&network));
        for note in notes {
            warn(&format!("--metric: {note}"));
        }
        let protocol = format!(
            "{count} samples, reference {}, network {}",
            reference.sha256, network.identity.weights_sha256
        );
        let sampling = Sampling { count: count as usize, settings, labels };
        Ok(Some(Self { network, reference, plan, sampling, protocol }))
    }

    /// Prepares the reference, whose features are computed here if the file has images only.
    ///
    /// # Errors
    ///
    /// If its images cannot be used.
    pub fn prepare(self) -> anyhow::Result<Quality> {
        let Self { network, reference, plan, sampling, protocol } = self;
        let reference = Prepared::new(reference, &plan, &network, None, BATCH)?;
        Ok(Quality { network, reference, plan, sampling, protocol, best: None })
    }
}

/// Returns the number of samples that a metric takes at least.
fn fewest_samples(metric: MetricKind) -> u64 {
    match metric {
        MetricKind::PrecisionRecall => 4,
        MetricKind::FidInfinity => 20,
        MetricKind::Fid | MetricKind::Sfid | MetricKind::Is | MetricKind::Kid => 2,
    }
}

/// Returns whether higher values of a metric are better.
fn higher_is_better(metric: MetricKind) -> bool {
    match metric {
        MetricKind::Is | MetricKind::PrecisionRecall => true,
        MetricKind::Fid | MetricKind::Sfid | MetricKind::Kid | MetricKind::FidInfinity => false,
    }
}

impl Quality {
    /// Returns the measurement of `best.ckpt`.
    pub fn best(&self) -> Option<&Measured> {
        self.best.as_ref()
    }

    /// Returns what is measured, in words.
    pub fn describe(&self) -> String {
        let flags: Vec<String> = self.plan.metrics.iter().map(|metric| metric.flag()).collect();
        format!("{} of {} samples", flags.join(", "), self.sampling.count)
    }

    /// Reads the measurement of an earlier `best.ckpt` of the run. One that cannot be compared with
    /// those to come is renamed.
    ///
    /// # Errors
    ///
    /// If the file cannot be renamed.
    pub fn find_best(&mut self, folder: &RunFolder) -> anyhow::Result<()> {
        let path = folder.best();
        if !path.exists() {
            return Ok(());
        }
        let name = self.decisive_name();
        let problem = match checkpoint::progress(&path).map(|progress| progress.quality) {
            Ok(Some(best)) if best.name == name && best.protocol == self.protocol => {
                self.best = Some(best);
                return Ok(());
            }
            Ok(Some(best)) => format!(
                "its {} is of another metric, another number of samples, or other files",
                best.name
            ),
            Ok(None) => "it has no measurement".into(),
            Err(error) => format!("{error:#}"),
        };
        let aside = set_aside(&path)?;
        warn(&format!(
            "{} cannot be compared with the measurements to come: {problem}; renamed to {}",
            path.display(),
            aside.display()
        ));
        Ok(())
    }

    /// Returns the name of the value that decides which state is the best.
    fn decisive_name(&self) -> String {
        let names = self.network.identity.names();
        match self.plan.metrics[0] {
            MetricKind::Fid => names.frechet,
            MetricKind::Sfid => names.of("sFID"),
            MetricKind::Is => names.of("IS"),
            MetricKind::PrecisionRecall => names.of("precision"),
            MetricKind::Kid => names.of("KID"),
            MetricKind::FidInfinity => names.of("FID-infinity"),
        }
    }

    /// Returns whether a value is better than the best so far.
    fn is_best(&self, value: f64) -> bool {
        let higher = higher_is_better(self.plan.metrics[0]);
        match &self.best {
            None => true,
            Some(best) if higher => value > best.value,
            Some(best) => value < best.value,
        }
    }

    /// Measures a model. `show` receives the state of the measurement. Returns `None` if a signal
    /// stops it.
    ///
    /// # Errors
    ///
    /// If a sample or a value is not finite, or features cannot be stored.
    fn measure(
        &self,
        model: &Model,
        vae: Option<&Vae>,
        stop: &StopSignal,
        device: &Device,
        show: impl Fn(&str),
    ) -> anyhow::Result<Option<Vec<Score>>> {
        let Sampling { count, settings, labels } = &self.sampling;
        let layout =
            Layout { pooled: self.network.pooled_dim(), spatial: self.network.spatial_dim() };
        let mut store = Store::temporary(layout)?;
        let seeds: Vec<u64> = (0..*count as u64).collect();
        let is_stopped = || stop.exit_code().is_some();
        for seeds in seeds.chunks(BATCH) {
            let on_evaluation =
                || if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            let labels = labels.of_all(seeds);
            let images = one_batch(model, vae, settings, seeds, labels, device, on_evaluation)?;
            let Some(images) = images.filter(|_| !is_stopped()) else { return Ok(None) };
            let features = self.network.features(&images);
            // The hashes, which tell the images of a file that is continued, are not needed.
            store.append(&vec![0; images.len()], &features)?;
            show(&format!("image quality: {} of {count} samples", store.len()));
        }
        let announce = |name: &str| show(&format!("image quality: computing {name}"));
        let scores = scores(&self.plan, &store, &self.reference, &self.network, device, announce)?;
        if let Some(score) = scores.iter().find(|score| !score.value.is_finite()) {
            bail!("{} is {}", score.name, score.value);
        }
        Ok(Some(scores))
    }
}

impl Session {
    /// Measures image quality, if the flags ask for it, logs it, and keeps the best state. Training
    /// goes on if that fails.
    pub fn measure(&mut self, stop: &StopSignal) {
        let Some(quality) = &self.quality else { return };
        let images = self.progress.images;
        let status = &self.log.status;
        let show = |text: &str| status.activity(text);
        let (ema, vae) = (self.learner.ema(), self.vae.as_ref());
        let scores = match quality.measure(ema, vae, stop, &self.device, show) {
            Ok(Some(scores)) => scores,
            Ok(None) => {
                status.message(&format!(
                    "after {images} images: the measurement of image quality was stopped; a resumed \
                     run makes up for it"
                ));
                return;
            }
            Err(error) => {
                status.warn(&format!(
                    "warning: no image quality after {images} images: {error:#}; training goes on"
                ));
                return;
            }
        };
        let first = &scores[0];
        let measured = Measured {
            images,
            name: first.name.clone(),
            value: first.value,
            protocol: quality.protocol.clone(),
        };
        let is_best = quality.is_best(measured.value);
        self.progress.quality = Some(measured.clone());
        let mut verdict = String::new();
        if is_best {
            let kept = self.keep_best(measured);
            if kept.is_ok() {
                verdict = format!("the best so far, kept as {}", self.folder.best().display());
            }
            self.report(kept);
        } else if let Some(best) = self.best() {
            verdict = format!("best {} after {} images", number(best.value), best.images);
        }
        self.log_quality(&scores, &verdict);
    }

    /// Writes `best.ckpt`.
    fn keep_best(&mut self, measured: Measured) -> anyhow::Result<()> {
        let path = self.folder.best();
        self.finish_saving();
        if let Err(problem) = self.write(&path)? {
            bail!("cannot keep {}: {problem}", path.display());
        }
        if let Some(quality) = &mut self.quality {
            quality.best = Some(measured);
        }
        Ok(())
    }

    /// Returns the measurement of `best.ckpt`.
    pub fn best(&self) -> Option<&Measured> {
        self.quality.as_ref().and_then(Quality::best)
    }

    /// Writes a measurement to the log and prints it.
    fn log_quality(&mut self, scores: &[Score], verdict: &str) {
        let images = self.progress.images;
        let count = self.quality.as_ref().map_or(0, |quality| quality.sampling.count);
        let mut line = Map::from_iter([
            ("images".to_string(), json!(images)),
            ("metric_samples".to_string(), json!(count)),
            ("seconds".to_string(), json!(self.progress.seconds)),
        ]);
        let mut deviations = Map::new();
        for Score { name, value, deviation } in scores {
            line.insert(name.clone(), json!(value));
            deviations.extend(deviation.map(|deviation| (name.clone(), json!(deviation))));
        }
        if !deviations.is_empty() {
            line.insert("deviations".into(), deviations.into());
        }
        let written = self.log.line(&line.into());
        let scalars: Vec<(&str, f64)> =
            scores.iter().map(|score| (score.name.as_str(), score.value)).collect();
        let written = written.and(self.log.events.scalars(images, &scalars));
        let values: Vec<String> = scores
            .iter()
            .map(|score| {
                let deviation =
                    score.deviation.map_or(String::new(), |d| format!(" ± {}", number(d)));
                format!("{} {}{deviation}", score.name, number(score.value))
            })
            .collect();
        let verdict = if verdict.is_empty() { String::new() } else { format!("; {verdict}") };
        let text =
            format!("after {images} images: {} of {count} samples{verdict}", values.join(", "));
        self.log.status.message(&text);
        self.report(written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest numbers are those with which the functions of `metrics` do not fail.
    #[test]
    fn every_metric_has_a_smallest_number_of_samples() {
        use metrics::extrapolation::distance_at_infinity;
        use metrics::neighbours::precision_recall;
        use metrics::rows::Memory;
        use metrics::statistics::Statistics;

        let rows = |n: u64| {
            let value = |i: u64| ((i * i) % 17) as f32 + i as f32 * 0.1;
            Memory::new((0..2 * n).map(value).collect(), 2)
        };
        let reference =
            || Statistics::of(&rows(30)).and_then(|sums| sums.gaussian()).expect("many");
        let infinity = |n| distance_at_infinity(&rows(n), reference()).is_ok();
        let least = fewest_samples(MetricKind::FidInfinity);
        assert!(infinity(least) && !infinity(least - 1));
        let device = Device::flex();
        let both = |n| precision_recall(&rows(n), &rows(30), 3, &device).is_ok();
        let least = fewest_samples(MetricKind::PrecisionRecall);
        assert!(both(least) && !both(least - 1));
        let covariance = |n| Statistics::of(&rows(n)).and_then(|sums| sums.gaussian()).is_ok();
        let least = fewest_samples(MetricKind::Fid);
        assert!(covariance(least) && !covariance(least - 1));
    }
}
