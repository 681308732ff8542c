//! Configuration of the image-space network.

use serde::{Deserialize, Serialize};

use crate::config::block::{TransformerConfig, Window};
use crate::config::check::{
    ConfigError, MAX_BLOCKS, MAX_CHANNELS, MAX_CLASSES, MAX_RESOLUTION, check, is_zero, positive,
    within,
};

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
    #[serde(skip_serializing_if = "is_zero")]
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
        }
    }
}

/// Configuration of the time token: a sinusoidal embedding of the noise level, then an MLP with
/// Swish (EDM's mapping network).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeConfig {
    /// Channels of the sinusoidal embedding: half sines, half cosines.
    pub channels: usize,
    /// Longest period of the embedding: frequencies fall from 1 to `1 / max_period`, which is
    /// included.
    pub max_period: f64,
    /// Width of the MLP and of the time token.
    pub width: usize,
    /// Number of augmentation labels, which a bias-free linear layer adds to the sinusoidal
    /// embedding; 0 for none.
    pub augment_labels: usize,
}

impl Default for TimeConfig {
    fn default() -> Self {
        Self { channels: 128, max_period: 10_000.0, width: 512, augment_labels: 9 }
    }
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
    /// Returns the height and width of the map at `stage`.
    pub fn side(&self, stage: usize) -> usize {
        self.resolution >> stage
    }

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
        check(self.resolution.is_multiple_of(1 << (stages - 1)), || {
            format!("resolution {} cannot be halved {} times", self.resolution, stages - 1)
        })?;
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
        let stages = [self.encoder(), self.decoder()].concat();
        let blocks = stages.iter().flat_map(|stage| &stage.blocks);
        for channels in blocks.map(BlockPlan::channels_in).chain([self.channels[0]]) {
            let groups = self.group_norm.groups(channels);
            check(channels.is_multiple_of(groups), || {
                format!("{groups} groups of group_norm do not divide {channels} channels")
            })?;
        }
        Ok(())
    }

    /// Returns the stages of the encoder, finest first; the last one is the bottleneck.
    pub(crate) fn encoder(&self) -> Vec<StagePlan> {
        let stage = |i: usize| {
            let channels = self.channels[i];
            let channels_in = self.channels[i.saturating_sub(1)];
            let block = |j| BlockPlan {
                channels_in: if j == 0 { channels_in } else { channels },
                channels_skip: 0,
                channels,
            };
            let blocks = (0..self.blocks[i]).map(block).collect();
            StagePlan { index: i, channels_in, blocks }
        };
        (0..self.channels.len()).map(stage).collect()
    }

    /// Returns the stages of the decoder, coarsest first: those of the encoder in reverse, without
    /// the bottleneck.
    pub(crate) fn decoder(&self) -> Vec<StagePlan> {
        let stage = |i: usize| {
            let (channels, channels_in) = (self.channels[i], self.channels[i + 1]);
            let block = |j| BlockPlan {
                channels_in: if j == 0 { channels_in } else { channels },
                channels_skip: if j == 0 || self.skip == Skip::Block { channels } else { 0 },
                channels,
            };
            let blocks = (0..self.blocks[i]).map(block).collect();
            StagePlan { index: i, channels_in, blocks }
        };
        (0..self.channels.len() - 1).rev().map(stage).collect()
    }
}

/// Sizes of one stage of the encoder or the decoder.
#[derive(Clone, Debug)]
// Without tensors, `validate` alone reads it.
#[cfg_attr(not(feature = "tensor"), allow(dead_code))]
pub(crate) struct StagePlan {
    /// Index of the resolution; 0 is the finest.
    pub index: usize,
    /// Channels of the stage's input, before and after the change of resolution.
    pub channels_in: usize,
    /// Blocks in order of execution.
    pub blocks: Vec<BlockPlan>,
}

/// Channels of one block.
#[derive(Clone, Copy, Debug)]
// Without tensors, `validate` alone reads it.
#[cfg_attr(not(feature = "tensor"), allow(dead_code))]
pub(crate) struct BlockPlan {
    /// Channels of the previous block's output.
    channels_in: usize,
    /// Channels of the concatenated encoder features; 0 for none.
    pub channels_skip: usize,
    /// Channels of the block's output.
    pub channels: usize,
}

impl BlockPlan {
    /// Returns the channels of the block's input, encoder features included.
    pub fn channels_in(&self) -> usize {
        self.channels_in + self.channels_skip
    }
}
