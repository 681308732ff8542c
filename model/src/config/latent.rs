//! Configuration of the latent network.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::block::{Position, TimeEntry, TransformerConfig, Window};
use crate::config::check::{
    ConfigError, MAX_BLOCKS, MAX_CHANNELS, MAX_CLASSES, MAX_RESOLUTION, MAX_TOKENS_PER_SIDE, check,
    is_default, within,
};

/// Configuration of the latent network: patch embedding, a stack of DiffiT transformer blocks, and
/// a linear output layer. The defaults are those of the preset `latent256`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LatentConfig {
    /// Height and width of a latent, an eighth of the picture's.
    pub resolution: usize,
    /// Channels of a latent.
    pub channels: usize,
    /// Height and width of a patch. Each patch becomes a token.
    pub patch: usize,
    /// Channels of a token, and width of the time and class embeddings.
    pub width: usize,
    /// Number of transformer blocks.
    pub depth: usize,
    /// Number of classes; 0 for an unconditional network.
    pub classes: usize,
    /// Channels of the sinusoidal timestep embedding: half cosines, half sines.
    pub time_channels: usize,
    /// Longest period of the timestep embedding: frequencies fall from 1 towards `1 / max_period`,
    /// which is not included.
    pub max_period: f64,
    /// Conditioning of the blocks on time and class.
    #[serde(skip_serializing_if = "is_default")]
    pub modulation: Modulation,
    /// The DiffiT transformer block.
    #[serde(deserialize_with = "transformer")]
    pub transformer: TransformerConfig,
    /// Attention window.
    pub window: Window,
    /// Prediction of the variance of a step, as a position between its bounds, in as many channels
    /// again: whether the network has it.
    pub learned_variance: bool,
}

/// Conditioning of the latent network's blocks on the embeddings of time and class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modulation {
    /// In queries, keys and values, as in the paper.
    #[default]
    Tmsa,
    /// By shifts, scales and gates around attention and MLP, as in DiT. There is no relative position
    /// bias then.
    AdalnZero,
}

/// Deserialises the `transformer` object. Missing fields take the defaults of the latent network,
/// which differ from those of [`TransformerConfig`].
fn transformer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TransformerConfig, D::Error> {
    let given = serde_json::Map::deserialize(deserializer)?;
    let default = LatentConfig::default().transformer;
    let mut fields = serde_json::to_value(default).map_err(D::Error::custom)?;
    if let Some(fields) = fields.as_object_mut() {
        fields.extend(given);
    }
    serde_json::from_value(fields).map_err(D::Error::custom)
}

impl Default for LatentConfig {
    fn default() -> Self {
        Self {
            resolution: 32,
            channels: 4,
            patch: 2,
            width: 1152,
            depth: 28,
            classes: 1000,
            time_channels: 256,
            max_period: 10_000.0,
            modulation: Modulation::default(),
            transformer: TransformerConfig {
                head_dim: 72,
                layer_norm_affine: false,
                ..TransformerConfig::default()
            },
            window: Window::Global,
            learned_variance: true,
        }
    }
}

impl LatentConfig {
    /// Returns the number of tokens per side of the map.
    pub fn side(&self) -> usize {
        self.resolution / self.patch
    }

    /// Returns the number of output channels: those of the prediction, then those of the variance.
    pub fn channels_out(&self) -> usize {
        if self.learned_variance { 2 * self.channels } else { self.channels }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        within("resolution", self.resolution, 1, MAX_RESOLUTION)?;
        within("channels", self.channels, 1, 64)?;
        within("patch", self.patch, 1, 64)?;
        check(self.resolution.is_multiple_of(self.patch), || {
            format!("patch {} does not divide resolution {}", self.patch, self.resolution)
        })?;
        within("resolution / patch", self.side(), 1, MAX_TOKENS_PER_SIDE)?;
        within("width", self.width, 4, MAX_CHANNELS)?;
        check(self.width.is_multiple_of(4), || {
            format!(
                "width is {}, not a multiple of 4: the position embedding has 4 equal parts",
                self.width
            )
        })?;
        within("depth", self.depth, 1, MAX_BLOCKS)?;
        within("classes", self.classes, 0, MAX_CLASSES)?;
        within("time_channels", self.time_channels, 2, MAX_CHANNELS)?;
        check(self.time_channels.is_multiple_of(2), || {
            format!("time_channels is {}, which is odd; it must be even", self.time_channels)
        })?;
        check(self.max_period.is_finite() && self.max_period >= 1.0, || {
            format!("max_period is {}, not a finite number of at least 1", self.max_period)
        })?;
        self.transformer.validate()?;
        let no_bias = self.transformer.position == Position::None;
        check(self.modulation == Modulation::Tmsa || no_bias, || {
            "modulation adaln-zero has no position bias: transformer.position must be none".into()
        })?;
        let plain = self.transformer.time_entry == TimeEntry::default();
        check(self.modulation == Modulation::Tmsa || plain, || {
            "modulation adaln-zero brings time into each block: transformer.time_entry must be qkv, \
             its default"
                .into()
        })?;
        self.transformer.divides("width", self.width)?;
        self.window.divides(self.side(), "map of tokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_adaln_zero_would_ignore_are_errors() {
        let transformer =
            TransformerConfig { position: Position::None, ..LatentConfig::default().transformer };
        let dit =
            LatentConfig { modulation: Modulation::AdalnZero, transformer, ..Default::default() };
        assert!(dit.validate().is_ok());
        let mut other = dit.clone();
        other.transformer.time_entry = TimeEntry::None;
        let error = other.validate().expect_err("ignored").to_string();
        assert!(error.contains("transformer.time_entry must be qkv"), "{error}");
        let mut other = dit;
        other.transformer.position = Position::Relative { init_std: 0.02 };
        let error = other.validate().expect_err("ignored").to_string();
        assert!(error.contains("transformer.position must be none"), "{error}");
    }
}
