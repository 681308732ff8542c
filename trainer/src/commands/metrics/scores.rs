//! Which metrics can be computed, and their values.

use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::Device;
use metrics::extrapolation::distance_at_infinity;
use metrics::frechet;
use metrics::inception_score::{SPLIT, Scorer};
use metrics::kernel::{SUBSET, SUBSETS, kernel_distance};
use metrics::neighbours::{NEIGHBOURS, precision_recall};
use metrics::network::FeatureNetwork;
use metrics::reference::Reference;
use metrics::rows::{BLOCK, Memory, Rows, blocks};
use metrics::statistics::{Gaussian, Statistics};
use metrics::store::Store;
use serde_json::json;

use super::collect::Collector;
use super::report::Score;
use super::state_of_reference;
use crate::args::MetricKind;
use crate::run::report::print_message;

/// Metrics that are computed without a list of them.
const DEFAULT: [MetricKind; 5] = [
    MetricKind::Fid,
    MetricKind::Sfid,
    MetricKind::Is,
    MetricKind::PrecisionRecall,
    MetricKind::Kid,
];

/// The metrics to compute, and the reasons why others are not.
pub struct Plan {
    /// Metrics to compute.
    pub metrics: Vec<MetricKind>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl Plan {
    /// Chooses the metrics.
    ///
    /// # Errors
    ///
    /// If the reference does not allow a metric of the list.
    pub fn new(
        asked: &[MetricKind],
        reference: &Reference,
        network: &FeatureNetwork,
    ) -> anyhow::Result<Self> {
        let path = reference.path.display();
        let missing = |metric: MetricKind| match metric {
            MetricKind::Sfid if network.spatial_dim() == 0 => {
                Some("sFID: this feature network has no spatial features".to_string())
            }
            MetricKind::Sfid if reference.spatial.is_none() && !computed(reference) => {
                Some(format!(
                    "sFID: {path} has no statistics of spatial features (arrays mu_s and sigma_s)"
                ))
            }
            MetricKind::Is if network.classes() == 0 => {
                Some("IS: this is a score of Inception only".to_string())
            }
            MetricKind::PrecisionRecall | MetricKind::Kid
                if reference.features.is_none() && !reference.has_images =>
            {
                Some(format!(
                    "precision, recall and KID: {path} has statistics only, neither features nor \
                     images (array features or arr_0)"
                ))
            }
            _ => None,
        };
        if !asked.is_empty() {
            if let Some(reason) = asked.iter().copied().find_map(missing) {
                bail!("cannot compute {reason}");
            }
            return Ok(Self { metrics: asked.to_vec(), notes: Vec::new() });
        }
        let (metrics, left_out): (Vec<_>, Vec<_>) =
            DEFAULT.into_iter().partition(|metric| missing(*metric).is_none());
        let mut notes: Vec<String> = left_out
            .into_iter()
            .filter_map(missing)
            .map(|reason| format!("not computed: {reason}"))
            .collect();
        notes.dedup();
        Ok(Self { metrics, notes })
    }

    /// Returns whether the plan has one of these metrics.
    fn has(&self, metrics: &[MetricKind]) -> bool {
        self.metrics.iter().any(|metric| metrics.contains(metric))
    }
}

/// Returns whether the statistics of the reference have to be computed from its images.
fn computed(reference: &Reference) -> bool {
    reference.pooled.is_none()
}

/// The reference as the metrics take it.
pub struct Prepared {
    pooled: Gaussian,
    spatial: Option<Gaussian>,
    features: Option<Features>,
}

/// Features of images of the reference.
enum Features {
    Memory(Memory),
    Store(Store),
}

impl Prepared {
    /// Prepares a reference. Computes the features of its images if they are needed.
    ///
    /// # Errors
    ///
    /// If its images cannot be used.
    pub fn new(
        reference: Reference,
        plan: &Plan,
        network: &FeatureNetwork,
        state: Option<&Path>,
        batch: usize,
    ) -> anyhow::Result<Self> {
        let mut features = reference.features.map(Features::Memory);
        let (mut pooled, mut spatial) = (reference.pooled, reference.spatial);
        let path = &reference.path;
        if needs_store(plan, pooled.is_none(), features.is_none()) {
            print_message!("features of the images of {}", path.display());
            let source = json!({ "reference": reference.sha256 });
            let state = state.map(state_of_reference);
            let mut collector = Collector::new(network, state.as_deref(), &source, batch, None)?;
            collector.add_all(path)?;
            let store = collector.finish()?;
            if pooled.is_none() {
                let of = |rows: &dyn Rows| {
                    Statistics::of(rows)
                        .and_then(|sums| sums.gaussian())
                        .with_context(|| path.display().to_string())
                };
                pooled = Some(of(&store.pooled())?);
                spatial = Some(of(&store.spatial())?);
            }
            features = Some(Features::Store(store));
        }
        let pooled = pooled.with_context(|| format!("{}: no statistics", path.display()))?;
        Ok(Self { pooled, spatial, features })
    }

    /// Passes the features of images to a function.
    fn with_features<T>(&self, each: impl FnOnce(&dyn Rows) -> T) -> anyhow::Result<T> {
        match &self.features {
            Some(Features::Memory(memory)) => Ok(each(memory)),
            Some(Features::Store(store)) => Ok(each(&store.pooled())),
            None => bail!("the reference has no features"),
        }
    }
}

/// Returns whether the features of the reference's images have to be computed.
fn needs_store(plan: &Plan, no_statistics: bool, no_features: bool) -> bool {
    no_statistics || (no_features && plan.has(&[MetricKind::PrecisionRecall, MetricKind::Kid]))
}

/// Computes all metrics of a plan. `announce` receives the name of each before it is computed.
///
/// # Errors
///
/// If there are too few samples, or values are not finite.
pub fn scores(
    plan: &Plan,
    samples: &Store,
    reference: &Prepared,
    network: &FeatureNetwork,
    device: &Device,
    announce: impl Fn(&str),
) -> anyhow::Result<Vec<Score>> {
    let names = network.identity.names();
    let pooled = samples.pooled();
    let mut scores = Vec::new();
    for metric in &plan.metrics {
        match metric {
            MetricKind::Fid => {
                announce(&names.frechet);
                let value = frechet::distance(
                    Statistics::of(&pooled)?.gaussian()?,
                    reference.pooled.clone(),
                )?;
                scores.push(Score::new(names.frechet.clone(), value));
            }
            MetricKind::Sfid => {
                announce(&names.of("sFID"));
                let spatial = reference.spatial.clone().context("no spatial statistics")?;
                let value =
                    frechet::distance(Statistics::of(&samples.spatial())?.gaussian()?, spatial)?;
                scores.push(Score::new(names.of("sFID"), value));
            }
            MetricKind::Is => {
                announce(&names.of("IS"));
                let mut scorer = Scorer::new(network.classes(), SPLIT);
                for block in blocks(pooled.len(), BLOCK) {
                    scorer.add(&network.logits(&pooled.read(block)?));
                }
                let score = scorer.score()?;
                let deviation = (score.splits.len() > 1).then_some(score.deviation);
                scores.push(Score { name: names.of("IS"), value: score.mean, deviation });
            }
            MetricKind::PrecisionRecall => {
                announce("precision and recall");
                let found = reference.with_features(|features| {
                    precision_recall(&pooled, features, NEIGHBOURS, device)
                })??;
                scores.push(Score::new(names.of("precision"), found.precision));
                scores.push(Score::new(names.of("recall"), found.recall));
            }
            MetricKind::Kid => {
                announce(&names.of("KID"));
                let found = reference.with_features(|features| {
                    kernel_distance(&pooled, features, SUBSETS, SUBSET)
                })??;
                let deviation = (found.subsets > 1).then_some(found.deviation);
                scores.push(Score { name: names.of("KID"), value: found.mean, deviation });
            }
            MetricKind::FidInfinity => {
                announce(&names.of("FID-infinity"));
                let value = distance_at_infinity(&pooled, reference.pooled.clone())?;
                scores.push(Score::new(names.of("FID-infinity"), value));
            }
        }
    }
    Ok(scores)
}
