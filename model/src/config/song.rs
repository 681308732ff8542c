//! Configuration of DDPM++ and NCSN++, the baselines of the paper's Table 5.

use serde::{Deserialize, Serialize};

use crate::config::block::Position;
use crate::config::check::{
    ConfigError, MAX_BLOCKS, MAX_CHANNELS, MAX_CLASSES, MAX_RESOLUTION, MAX_WINDOW, check,
    is_default, positive, product, within,
};
use crate::config::image::GroupNormConfig;

/// EDM's `SongUNet` (arXiv 2011.13456, 2206.00364): DDPM++ and NCSN++. The defaults are those of
/// DDPM++ in EDM's configuration A, without augmentation labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SongConfig {
    /// Height and width of the images, in pixels.
    pub resolution: usize,
    /// Colour channels of the images.
    pub image_channels: usize,
    /// Channels of the first level, before [`SongConfig::channel_mult`].
    pub model_channels: usize,
    /// Channels of each level, in units of `model_channels`, finest level first. Each level works
    /// at half the resolution of the one before.
    pub channel_mult: Vec<usize>,
    /// Width of the time token, in units of `model_channels`.
    pub channel_mult_emb: usize,
    /// Values of the noise level's embedding, in units of `model_channels`.
    pub channel_mult_noise: usize,
    /// Blocks of each encoder level. A decoder level has one more.
    pub num_blocks: usize,
    /// Resolutions at which the blocks have self-attention. The lowest level has one attention
    /// layer in any case.
    pub attn_resolutions: Vec<usize>,
    /// Attention heads.
    pub heads: usize,
    /// Self-attention.
    pub attention: SongAttention,
    /// Embedding of the noise level.
    pub embedding: SongEmbedding,
    /// Encoder.
    pub encoder: SongEncoder,
    /// Filter for changes of resolution, along each axis. It is normalised to a sum of 1.
    pub resample_filter: Vec<f64>,
    /// Dropout probability.
    pub dropout: f64,
    /// Augmentation labels, added to the embedding by a bias-free linear map; 0 for none.
    pub augment_labels: usize,
    /// Number of classes; 0 for an unconditional network.
    #[serde(skip_serializing_if = "is_default")]
    pub classes: usize,
}

/// Self-attention of a [`SongConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SongAttention {
    /// Queries, keys and values from the map alone.
    #[default]
    Plain,
    /// Queries, keys and values from the map and the time token (Eq 3-6).
    Tmsa {
        /// Relative position bias.
        position: Position,
    },
}

/// Embedding of the noise level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SongEmbedding {
    /// A sinusoid whose frequencies fall from 1 to `1 / max_period`, both included.
    Positional {
        /// Inverse of the lowest frequency.
        max_period: f64,
    },
    /// Random Fourier features. The frequencies are stored in the weights file and not trained.
    Fourier {
        /// Standard deviation of the frequencies.
        scale: f64,
    },
}

/// Encoder of a [`SongConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SongEncoder {
    /// Blocks only.
    #[default]
    Standard,
    /// The input, convolved and downsampled level by level, is added at the entry of each level.
    Residual,
}

impl Default for SongConfig {
    fn default() -> Self {
        Self {
            resolution: 32,
            image_channels: 3,
            model_channels: 128,
            channel_mult: vec![1, 2, 2, 2],
            channel_mult_emb: 4,
            channel_mult_noise: 1,
            num_blocks: 4,
            attn_resolutions: vec![16],
            heads: 1,
            attention: SongAttention::default(),
            embedding: SongEmbedding::Positional { max_period: 10_000.0 },
            encoder: SongEncoder::default(),
            resample_filter: vec![1.0, 1.0],
            dropout: 0.1,
            augment_labels: 0,
            classes: 0,
        }
    }
}

impl SongConfig {
    /// NCSN++ in EDM's configuration A, without augmentation labels.
    pub fn ncsnpp() -> Self {
        Self {
            channel_mult_noise: 2,
            embedding: SongEmbedding::Fourier { scale: 16.0 },
            encoder: SongEncoder::Residual,
            resample_filter: vec![1.0, 3.0, 3.0, 1.0],
            ..Self::default()
        }
    }

    /// Height and width of the map at `level`.
    pub(crate) fn side(&self, level: usize) -> usize {
        u32::try_from(level).ok().and_then(|i| self.resolution.checked_shr(i)).unwrap_or(0)
    }

    /// Channels of the blocks of `level`.
    fn channels(&self, level: usize) -> usize {
        self.model_channels.saturating_mul(self.channel_mult[level])
    }

    /// Width of the time token.
    pub(crate) fn time_width(&self) -> usize {
        self.model_channels * self.channel_mult_emb
    }

    /// Values of the noise level's embedding.
    pub(crate) fn noise_channels(&self) -> usize {
        self.model_channels * self.channel_mult_noise
    }

    /// Values of the largest intermediate result for one image: the input of a decoder block;
    /// queries, keys and values together; or attention weights.
    pub(crate) fn largest_map(&self) -> u64 {
        let levels = self.channel_mult.len();
        let level = |i: usize| {
            let (side, channels) = (self.side(i), self.channels(i));
            let nearby = i.saturating_sub(1)..levels.min(i + 2);
            let widest = nearby.map(|i| self.channels(i)).max().unwrap_or(channels);
            let features = product(&[side, side, channels.saturating_add(widest)]);
            if !(self.attn_resolutions.contains(&side) || i + 1 == levels) {
                return features;
            }
            let qkv = product(&[side, side, channels, 3]);
            features.max(qkv).max(product(&[self.heads, side, side, side, side]))
        };
        (0..levels).map(level).max().unwrap_or(0)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let levels = self.channel_mult.len();
        check((1..=8).contains(&levels), || {
            format!("channel_mult lists {levels} levels, not 1 to 8")
        })?;
        within("resolution", self.resolution, 1, MAX_RESOLUTION)?;
        check(self.resolution.is_multiple_of(1 << (levels - 1)), || {
            format!("resolution {} cannot be halved {} times", self.resolution, levels - 1)
        })?;
        within("image_channels", self.image_channels, 1, 64)?;
        within("model_channels", self.model_channels, 1, MAX_CHANNELS)?;
        within("num_blocks", self.num_blocks, 1, MAX_BLOCKS)?;
        within("heads", self.heads, 1, MAX_CHANNELS)?;
        within("augment_labels", self.augment_labels, 0, 1_024)?;
        within("classes", self.classes, 0, MAX_CLASSES)?;
        for (i, &mult) in self.channel_mult.iter().enumerate() {
            within(&format!("channel_mult[{i}]"), mult, 1, MAX_CHANNELS)?;
            let channels = format!("model_channels * channel_mult[{i}]");
            within(&channels, self.channels(i), 1, MAX_CHANNELS)?;
        }
        within("channel_mult_emb", self.channel_mult_emb, 1, MAX_CHANNELS)?;
        within("channel_mult_noise", self.channel_mult_noise, 1, MAX_CHANNELS)?;
        within("model_channels * channel_mult_emb", self.time_width(), 1, MAX_CHANNELS)?;
        let noise = self.noise_channels();
        within("model_channels * channel_mult_noise", noise, 4, MAX_CHANNELS)?;
        check(noise.is_multiple_of(2), || {
            format!("model_channels * channel_mult_noise is {noise}, which is odd")
        })?;
        check((0.0..1.0).contains(&self.dropout), || {
            format!("dropout is {}, not within 0 to 1", self.dropout)
        })?;
        match self.embedding {
            SongEmbedding::Positional { max_period } => {
                check(max_period.is_finite() && max_period >= 1.0, || {
                    format!("embedding.max_period is {max_period}, which is below 1")
                })?;
            }
            SongEmbedding::Fourier { scale } => positive("embedding.scale", scale)?,
        }
        if let SongAttention::Tmsa { position: Position::Relative { init_std } } = self.attention {
            check((0.0..=1.0).contains(&init_std), || {
                format!("attention.position.init_std is {init_std}, not within 0 to 1")
            })?;
        }
        let taps = self.resample_filter.len();
        check((2..=16).contains(&taps) && taps.is_multiple_of(2), || {
            format!("resample_filter has {taps} values, not an even number from 2 to 16")
        })?;
        check(self.resample_filter.iter().all(|value| value.is_finite()), || {
            "resample_filter holds a value that is not a finite number".into()
        })?;
        positive("the sum of resample_filter", self.resample_filter.iter().sum())?;
        for &side in &self.attn_resolutions {
            check((0..levels).any(|level| self.side(level) == side), || {
                format!("attn_resolutions lists {side}, and no level has a map of {side}x{side}")
            })?;
        }
        let groups_divide = |channels: usize| {
            let groups = GroupNormConfig::default().groups(channels);
            check(channels.is_multiple_of(groups), || {
                format!(
                    "{groups} groups of the group normalisation do not divide {channels} channels"
                )
            })
        };
        for block in self.encoder_blocks().iter().chain(&self.decoder_blocks()) {
            groups_divide(block.channels_in)?;
            groups_divide(block.channels)?;
            if block.attention {
                within("the side of a map with attention", block.side, 1, MAX_WINDOW)?;
                check(block.channels.is_multiple_of(self.heads), || {
                    format!("heads {} does not divide {} channels", self.heads, block.channels)
                })?;
            }
        }
        Ok(())
    }

    /// The blocks of the encoder, in the order of execution.
    pub(crate) fn encoder_blocks(&self) -> Vec<SongBlockPlan> {
        let mut blocks = Vec::new();
        let mut channels = self.model_channels;
        for level in 0..self.channel_mult.len() {
            let side = self.side(level);
            if level > 0 {
                blocks.push(SongBlockPlan {
                    name: format!("{side}x{side}_down"),
                    side,
                    channels_in: channels,
                    channels,
                    skip: false,
                    resample: Some(Direction::Down),
                    attention: false,
                });
            }
            for i in 0..self.num_blocks {
                blocks.push(SongBlockPlan {
                    name: format!("{side}x{side}_block{i}"),
                    side,
                    channels_in: channels,
                    channels: self.channels(level),
                    skip: false,
                    resample: None,
                    attention: self.attn_resolutions.contains(&side),
                });
                channels = self.channels(level);
            }
        }
        blocks
    }

    /// The blocks of the decoder, in the order of execution.
    pub(crate) fn decoder_blocks(&self) -> Vec<SongBlockPlan> {
        let mut skips = vec![self.model_channels];
        skips.extend(self.encoder_blocks().iter().map(|block| block.channels));
        let levels = self.channel_mult.len();
        let mut blocks = Vec::new();
        let mut channels = self.channels(levels - 1);
        for level in (0..levels).rev() {
            let side = self.side(level);
            let entry = |name: &str, resample, attention| SongBlockPlan {
                name: format!("{side}x{side}_{name}"),
                side,
                channels_in: channels,
                channels,
                skip: false,
                resample,
                attention,
            };
            if level + 1 == levels {
                blocks.extend([entry("in0", None, true), entry("in1", None, false)]);
            } else {
                blocks.push(entry("up", Some(Direction::Up), false));
            }
            for i in 0..=self.num_blocks {
                let skip = skips.pop().expect("the encoder has as many outputs");
                blocks.push(SongBlockPlan {
                    name: format!("{side}x{side}_block{i}"),
                    side,
                    channels_in: channels + skip,
                    channels: self.channels(level),
                    skip: true,
                    resample: None,
                    attention: i == self.num_blocks && self.attn_resolutions.contains(&side),
                });
                channels = self.channels(level);
            }
        }
        blocks
    }
}

/// A change of resolution by a factor of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To half the height and width.
    Down,
    /// To twice the height and width.
    Up,
}

/// Sizes of one block.
// Without the network, only the validation reads it, and not every field.
#[cfg_attr(not(feature = "tensor"), allow(dead_code))]
#[derive(Clone, Debug)]
pub(crate) struct SongBlockPlan {
    /// Name in the weights file.
    pub name: String,
    /// Height and width of its output.
    pub side: usize,
    /// Channels of its input, encoder features included.
    pub channels_in: usize,
    /// Channels of its output.
    pub channels: usize,
    /// Whether encoder features are concatenated to its input.
    pub skip: bool,
    /// The change of resolution inside it.
    pub resample: Option<Direction>,
    /// Whether it ends with self-attention.
    pub attention: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_values_are_reported() {
        assert_eq!(SongConfig::default().validate(), Ok(()));
        let cases: [(fn(&mut SongConfig), &str); 9] = [
            (|c| c.resolution = 20, "resolution 20 cannot be halved 3 times"),
            (|c| c.channel_mult = vec![], "channel_mult lists 0 levels"),
            (|c| c.channel_mult[1] = 1 << 40, "channel_mult[1] is 1099511627776"),
            (|c| c.model_channels = 200, "32 groups of the group normalisation do not divide 200"),
            (|c| c.num_blocks = 1 << 40, "num_blocks is 1099511627776"),
            (|c| c.attn_resolutions = vec![16, 12], "attn_resolutions lists 12"),
            (|c| c.heads = 3, "heads 3 does not divide 256 channels"),
            (|c| c.resample_filter = vec![1.0, 2.0, 1.0], "resample_filter has 3 values"),
            (|c| c.resample_filter = vec![1.0, -1.0], "the sum of resample_filter is 0"),
        ];
        for (edit, message) in cases {
            let mut config = SongConfig::default();
            edit(&mut config);
            let error = config.validate().expect_err(message).to_string();
            assert!(error.contains(message), "{error:?} does not contain {message:?}");
        }
    }

    #[test]
    fn the_largest_map_is_a_decoder_input_or_attention() {
        let config = SongConfig::default();
        // The first decoder block at 32x32, on 256 + 128 channels.
        assert_eq!(config.largest_map(), 32 * 32 * 384);
        let attends = SongConfig { attn_resolutions: vec![32], heads: 2, ..config.clone() };
        assert_eq!(attends.largest_map(), 2 << 20);
        // A hostile configuration saturates instead of overflowing.
        let hostile = SongConfig { resolution: usize::MAX, ..config };
        assert_eq!(hostile.largest_map(), u64::MAX);
    }
}
