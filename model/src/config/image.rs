//! Configuration of the image-space network.

use serde::{Deserialize, Serialize};

use crate::config::block::{TransformerConfig, Window};
use crate::config::check::{
    ConfigError, MAX_BLOCKS, MAX_CHANNELS, MAX_CLASSES, MAX_RESOLUTION, check, is_default,
    positive, within,
};
use crate::config::parts::{DecoderConfig, EncoderConfig};

/// Configuration of the image-space network: tokenizer, encoder stages, decoder stages, head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// Height and width of the pictures, in pixels.
    pub resolution: usize,
    /// Colour channels of the pictures.
    pub image_channels: usize,
    /// Channels of each stage, finest first. Each stage after the first has half the resolution of
    /// the one before.
    pub channels: Vec<usize>,
    /// Number of DiffiT ResBlocks of each stage, L of the paper. The coarsest stage is the
    /// bottleneck and occurs once; the others occur in both the encoder and the decoder.
    pub blocks: Vec<usize>,
    /// Number of classes; 0 for an unconditional network.
    #[serde(skip_serializing_if = "is_default")]
    pub classes: usize,
    /// The time token.
    pub time: TimeConfig,
    /// The DiffiT transformer block.
    pub transformer: TransformerConfig,
    /// Attention window.
    pub window: Window,
    /// Skip connections from the encoder to the decoder.
    pub skip: Skip,
    /// Change of resolution between stages.
    pub resample: Resample,
    /// The outer residual of Eq (10).
    pub residual: Residual,
    /// Group normalisation before each convolution.
    pub group_norm: GroupNormConfig,
    /// Probability of dropout between Swish and the convolution of Eq (9).
    pub dropout: f64,
    /// Factor on the initial weights of the last layer of each residual branch, and of the head.
    pub branch_init: f64,
    /// Stages that add the time token to their map.
    #[serde(skip_serializing_if = "is_default")]
    pub time_add: TimeAdd,
    /// The encoder.
    #[serde(skip_serializing_if = "is_default")]
    pub encoder: EncoderConfig,
    /// The decoder.
    #[serde(skip_serializing_if = "is_default")]
    pub decoder: DecoderConfig,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            resolution: 32,
            image_channels: 3,
            channels: vec![128, 256, 256],
            blocks: vec![4, 4, 4],
            classes: 0,
            time: TimeConfig::default(),
            transformer: TransformerConfig::default(),
            window: Window::Size(4),
            skip: Skip::Stage,
            resample: Resample::Convolution,
            residual: Residual::Projection,
            group_norm: GroupNormConfig::default(),
            dropout: 0.13,
            branch_init: 1e-5,
            time_add: TimeAdd::default(),
            encoder: EncoderConfig::default(),
            decoder: DecoderConfig::default(),
        }
    }
}

/// Stages that add the time token to their input: `x + g (W x_t + b)`, with
/// `g` a learned factor for each channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeAdd {
    /// None.
    #[default]
    None,
    /// The encoder's.
    Encoder,
    /// The decoder's.
    Decoder,
    /// All.
    Both,
}

/// Configuration of the time token: a sinusoidal embedding of the noise level, then an MLP with
/// Swish (EDM's mapping network).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeConfig {
    /// Channels of the sinusoidal embedding: half sines, half cosines.
    pub channels: usize,
    /// Frequencies of the sinusoid.
    #[serde(skip_serializing_if = "is_default")]
    pub embedding: TimeFrequencies,
    /// Longest period of the positional frequencies, which fall from 1 to `1 / max_period`.
    pub max_period: f64,
    /// Width of the MLP and of the time token.
    pub width: usize,
    /// Number of augmentation labels, which a bias-free linear layer adds to the sinusoidal
    /// embedding; 0 for none.
    pub augment_labels: usize,
}

impl Default for TimeConfig {
    fn default() -> Self {
        Self {
            channels: 128,
            embedding: TimeFrequencies::default(),
            max_period: 10_000.0,
            width: 512,
            augment_labels: 9,
        }
    }
}

/// Frequencies of the sinusoid of the noise level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeFrequencies {
    /// A geometric sequence.
    #[default]
    Positional,
    /// `2 pi f` with `f` drawn from `N(0, 16^2)` once; they are stored with the weights and not
    /// trained.
    Fourier,
}

/// Skip connections from the encoder to the decoder, which concatenates their features to its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// The output of a stage, at the first block of the decoder stage of the same resolution.
    Stage,
    /// The output of every block, at the mirrored block of the decoder (as EDM has it).
    Block,
}

/// Change of resolution between stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resample {
    /// Down: a 3x3 convolution of stride 2. Up: nearest neighbour x2, then a 3x3 convolution.
    Convolution,
    /// Bilinear interpolation, without learned weights.
    Bilinear,
}

/// The outer residual of Eq (10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Residual {
    /// The block's input, through a 1x1 convolution where the channels change.
    Projection,
    /// No outer residual: the block is Eq (9) followed by the transformer.
    None,
}

/// Configuration of group normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupNormConfig {
    /// Maximum number of groups.
    pub max_groups: usize,
    /// Minimum number of channels per group.
    pub min_group_channels: usize,
    /// Epsilon added to the variance.
    pub eps: f64,
}

impl Default for GroupNormConfig {
    fn default() -> Self {
        Self { max_groups: 32, min_group_channels: 4, eps: 1e-6 }
    }
}

impl GroupNormConfig {
    /// Returns the number of groups for `channels` channels.
    pub fn groups(&self, channels: usize) -> usize {
        self.max_groups.min(channels / self.min_group_channels).max(1)
    }
}

impl ImageConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let stages = self.channels.len();
        check(stages > 0 && stages <= 8, || format!("channels lists {stages} stages, not 1 to 8"))?;
        check(self.blocks.len() == stages, || {
            format!(
                "blocks lists {} stages and channels {stages}; both need one entry per stage",
                self.blocks.len()
            )
        })?;
        within("resolution", self.resolution, 1, MAX_RESOLUTION)?;
        within("image_channels", self.image_channels, 1, 64)?;
        within("classes", self.classes, 0, MAX_CLASSES)?;
        self.validate_encoder()?;
        within("time.width", self.time.width, 1, MAX_CHANNELS)?;
        within("time.channels", self.time.channels, 4, MAX_CHANNELS)?;
        within("time.augment_labels", self.time.augment_labels, 0, 1_024)?;
        check(self.time.channels.is_multiple_of(2), || {
            format!("time.channels is {}, which is odd; it must be even", self.time.channels)
        })?;
        check(self.time.max_period.is_finite() && self.time.max_period >= 1.0, || {
            format!(
                "time.max_period is {}, not a finite number of at least 1",
                self.time.max_period
            )
        })?;
        self.transformer.validate()?;
        within("group_norm.max_groups", self.group_norm.max_groups, 1, MAX_CHANNELS)?;
        within(
            "group_norm.min_group_channels",
            self.group_norm.min_group_channels,
            1,
            MAX_CHANNELS,
        )?;
        positive("group_norm.eps", self.group_norm.eps)?;
        check((0.0..1.0).contains(&self.dropout), || {
            format!("dropout is {}, not at least 0 and below 1", self.dropout)
        })?;
        check((0.0..=1.0).contains(&self.branch_init), || {
            format!("branch_init is {}, not within 0 to 1", self.branch_init)
        })?;
        for stage in 0..stages {
            let (c, blocks) = (self.channels[stage], self.blocks[stage]);
            within(&format!("channels[{stage}]"), c, 1, MAX_CHANNELS)?;
            within(&format!("blocks[{stage}]"), blocks, 1, MAX_BLOCKS)?;
            self.transformer.divides(&format!("channels[{stage}]"), c)?;
            self.window.divides(self.side(stage), &format!("map of stage {stage}"))?;
        }
        self.validate_parts()
    }
}
