//! Kinds of encoder and decoder of the image-space network, and the sizes that follow from them.

use serde::{Deserialize, Serialize};

use crate::config::check::{ConfigError, MAX_CHANNELS, MAX_TOKENS_PER_SIDE, check, within};
use crate::config::{ImageConfig, Resample, Skip, TimeAdd};

/// Blocks of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockKind {
    /// DiffiT ResBlocks, Eq (9)-(10). The first one of a stage changes the number of channels.
    #[default]
    Residual,
    /// Plain transformer blocks, without a convolution and without the time token. The convolution
    /// before the stage changes the number of channels.
    Vit,
}

/// The encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EncoderConfig {
    /// Each stage after the first works at half the resolution of the one before.
    Stages {
        /// Blocks of all stages.
        #[serde(default)]
        block: BlockKind,
    },
    /// A vision transformer: all stages, of plain transformer blocks, work on one map of patches,
    /// to which a learned embedding of positions is added.
    Isotropic {
        /// Height and width of a patch.
        patch: usize,
    },
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self::Stages { block: BlockKind::Residual }
    }
}

/// The decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DecoderConfig {
    /// The mirror image of the encoder without its bottleneck.
    Unet {
        /// Blocks of all stages.
        #[serde(default)]
        block: BlockKind,
    },
    /// Multi-level aggregation of the outputs of all encoder stages, as in SETR.
    Mla {
        /// Channels to which each output is brought.
        width: usize,
        /// Channels of each output when they are concatenated.
        head_width: usize,
    },
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self::Unet { block: BlockKind::Residual }
    }
}

impl ImageConfig {
    /// Height and width of the map at `stage`.
    pub fn side(&self, stage: usize) -> usize {
        match self.encoder {
            EncoderConfig::Stages { .. } => self.resolution >> stage,
            EncoderConfig::Isotropic { patch } => self.resolution / patch.max(1),
        }
    }

    fn has_equal_channels(&self) -> bool {
        self.channels.iter().all(|channels| *channels == self.channels[0])
    }

    /// Checks that all stages have a map. There is at least one.
    pub(crate) fn validate_encoder(&self) -> Result<(), ConfigError> {
        match self.encoder {
            EncoderConfig::Stages { .. } => {
                let halvings = self.channels.len() - 1;
                check(self.resolution.is_multiple_of(1 << halvings), || {
                    format!("resolution {} cannot be halved {halvings} times", self.resolution)
                })
            }
            EncoderConfig::Isotropic { patch } => {
                within("encoder.patch", patch, 1, 64)?;
                check(self.resolution.is_multiple_of(patch), || {
                    format!("encoder.patch {patch} does not divide resolution {}", self.resolution)
                })?;
                within("resolution / encoder.patch", self.side(0), 1, MAX_TOKENS_PER_SIDE)?;
                check(self.has_equal_channels(), || {
                    format!("encoder is isotropic, and channels are {:?}", self.channels)
                })?;
                check(matches!(self.decoder, DecoderConfig::Mla { .. }), || {
                    "encoder is isotropic, and decoder is not mla".into()
                })
            }
        }
    }

    /// Checks that encoder and decoder fit together, where each of them fits.
    pub(crate) fn validate_parts(&self) -> Result<(), ConfigError> {
        let c = &self.channels;
        let mut vit = self.encoder == EncoderConfig::Stages { block: BlockKind::Vit };
        let mut groups = Vec::new();
        match self.decoder {
            DecoderConfig::Unet { block: BlockKind::Vit } => {
                check(self.skip == Skip::Stage, || {
                    "decoder.block is vit, and skip is not stage".into()
                })?;
                vit = true;
            }
            DecoderConfig::Unet { block: BlockKind::Residual } => {}
            DecoderConfig::Mla { width, head_width } => {
                within("decoder.width", width, 1, MAX_CHANNELS)?;
                within("decoder.head_width", head_width, 1, MAX_CHANNELS)?;
                groups.extend([width, head_width]);
            }
        }
        check(!vit || self.has_equal_channels() || self.resample == Resample::Convolution, || {
            format!(
                "resample is bilinear, and nothing changes the channels {c:?} between vit stages"
            )
        })?;
        for stage in [self.encoder_plan(), self.decoder_plan()].concat() {
            if stage.kind == BlockKind::Residual {
                groups.extend(stage.blocks.iter().map(BlockPlan::channels_in));
            }
        }
        if matches!(self.decoder, DecoderConfig::Unet { .. }) {
            groups.push(c[0]);
        }
        for channels in groups {
            let groups = self.group_norm.groups(channels);
            check(channels.is_multiple_of(groups), || {
                format!("{groups} groups of group_norm do not divide {channels} channels")
            })?;
        }
        Ok(())
    }

    /// The stages of the encoder, finest first; in a U-Net the last one is the bottleneck.
    pub(crate) fn encoder_plan(&self) -> Vec<StagePlan> {
        let (kind, changes) = match self.encoder {
            EncoderConfig::Stages { block } => (block, true),
            EncoderConfig::Isotropic { .. } => (BlockKind::Vit, false),
        };
        let adds = matches!(self.time_add, TimeAdd::Encoder | TimeAdd::Both);
        let stage = |i: usize| {
            let (before, channels) = (self.channels[i.saturating_sub(1)], self.channels[i]);
            let channels_in = if kind == BlockKind::Vit { channels } else { before };
            StagePlan {
                index: i,
                kind,
                resample: (i > 0 && changes).then_some([before, channels_in]),
                time: adds.then_some(channels_in),
                merge: None,
                blocks: blocks(self.blocks[i], [channels_in, channels], |_| 0),
            }
        };
        (0..self.channels.len()).map(stage).collect()
    }

    /// The stages of a U-Net's decoder, coarsest first: those of the encoder without its
    /// bottleneck, in reverse.
    pub(crate) fn decoder_plan(&self) -> Vec<StagePlan> {
        let DecoderConfig::Unet { block: kind } = self.decoder else { return Vec::new() };
        let adds = matches!(self.time_add, TimeAdd::Decoder | TimeAdd::Both);
        let stage = |i: usize| {
            let (before, channels) = (self.channels[i + 1], self.channels[i]);
            let vit = kind == BlockKind::Vit;
            let channels_in = if vit { channels } else { before };
            let skip = |j| !vit && (j == 0 || self.skip == Skip::Block);
            StagePlan {
                index: i,
                kind,
                resample: Some([before, channels_in]),
                time: adds.then_some(channels_in),
                merge: vit.then_some([2 * channels, channels]),
                blocks: blocks(self.blocks[i], [channels_in, channels], |j| {
                    if skip(j) { channels } else { 0 }
                }),
            }
        };
        (0..self.channels.len() - 1).rev().map(stage).collect()
    }
}

/// So many blocks, of which the first one takes `channels_in` and all give `channels`; encoder
/// features are concatenated to the input of block `j` with `skip(j)` channels.
fn blocks(
    count: usize,
    [channels_in, channels]: [usize; 2],
    skip: impl Fn(usize) -> usize,
) -> Vec<BlockPlan> {
    let block = |j| BlockPlan {
        channels_in: if j == 0 { channels_in } else { channels },
        channels_skip: skip(j),
        channels,
    };
    (0..count).map(block).collect()
}

/// Sizes of one stage of the encoder or the decoder.
#[cfg_attr(not(feature = "tensor"), allow(dead_code))]
#[derive(Clone, Debug)]
pub(crate) struct StagePlan {
    /// Index of its resolution: 0 is the finest.
    pub index: usize,
    /// Its kind of blocks.
    pub kind: BlockKind,
    /// Channels before and after the convolution that changes the resolution, if it changes.
    pub resample: Option<[usize; 2]>,
    /// Channels of the map to which the time token is added, if it is.
    pub time: Option<usize>,
    /// Channels of the linear map that merges encoder features, if one does: of both, and after.
    pub merge: Option<[usize; 2]>,
    /// Its blocks, in the order of execution.
    pub blocks: Vec<BlockPlan>,
}

/// Channels of one block.
#[cfg_attr(not(feature = "tensor"), allow(dead_code))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPlan {
    /// Channels from the block before.
    pub channels_in: usize,
    /// Channels of encoder features, concatenated to those; 0 if there are none.
    pub channels_skip: usize,
    /// Channels of its output.
    pub channels: usize,
}

impl BlockPlan {
    /// Channels of the block's input, encoder features included.
    pub fn channels_in(&self) -> usize {
        self.channels_in + self.channels_skip
    }
}
