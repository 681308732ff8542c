//! Errors of this crate.

use std::path::{Path, PathBuf};

use crate::linear::NotConverged;

/// Reason why a metric cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// I/O error.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A file that cannot be used.
    #[error("{path}: {reason}")]
    File {
        /// File.
        path: PathBuf,
        /// Reason, and what to do.
        reason: String,
    },
    /// Weights of a feature network that are not the published ones.
    #[error(
        "{path}: the file has SHA-256 {found}, not {expected} of the published weights of {network}: \
         it is damaged, or holds other weights, whose distances cannot be compared with published \
         ones; {how_to_get}, --allow-unknown-network uses this one under another name"
    )]
    Hash {
        /// File.
        path: PathBuf,
        /// Name of the network.
        network: &'static str,
        /// SHA-256 of the file.
        found: String,
        /// SHA-256 of the published file.
        expected: &'static str,
        /// How to get the published file.
        how_to_get: &'static str,
    },
    /// Two sets of features of different dimensions.
    #[error("features of {found} values cannot be compared with features of {expected} values")]
    Dimensions {
        /// Dimension of the samples.
        found: usize,
        /// Dimension of the reference.
        expected: usize,
    },
    /// Too few images for a metric.
    #[error("{metric} takes at least {needed} images, but there are {found}")]
    TooFew {
        /// Metric.
        metric: &'static str,
        /// Smallest number of images.
        needed: usize,
        /// Number of images.
        found: usize,
    },
    /// Features or statistics that are not finite.
    #[error("{0} are not finite")]
    NotFinite(String),
}

impl MetricsError {
    /// Makes an I/O error.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Makes an error of a file.
    pub fn file(path: &Path, reason: impl ToString) -> Self {
        Self::File { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl From<NotConverged> for MetricsError {
    fn from(_: NotConverged) -> Self {
        Self::NotFinite("the covariances".into())
    }
}
