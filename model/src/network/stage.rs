//! A stage of the image-space network: a change of resolution, the time token, blocks.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::config::{BlockKind, BlockPlan, ImageConfig, Resample, StagePlan, TimeEntry};
use crate::kernels::{DropoutKeys, downsample_bilinear, upsample_bilinear};
use crate::network::block::{ResBlock, Transformer};
use crate::network::io::AttentionMaps;
use crate::network::layers::{Conv3x3, Linear};
use crate::network::macs::Macs;
use crate::network::params::Params;
use crate::network::time::StageTime;
use crate::network::tmsa::TransformerShape;
use crate::network::walk::WalkedBlock;
use crate::network::window::RelativePositions;

/// A block of a stage.
// Blocks stay where they are made.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub(crate) enum Block {
    /// A DiffiT ResBlock.
    Residual(ResBlock),
    /// A transformer block that takes no time token.
    Vit(Transformer),
}

impl Block {
    fn new(
        params: &Params,
        config: &ImageConfig,
        (kind, plan): (BlockKind, &BlockPlan),
        positions: &RelativePositions,
    ) -> Self {
        match kind {
            BlockKind::Residual => {
                let channels = [plan.channels_in(), plan.channels];
                Self::Residual(ResBlock::new(params, config, channels, positions))
            }
            BlockKind::Vit => {
                let mut transformer = config.transformer.clone();
                transformer.time_entry = TimeEntry::None;
                let shape = TransformerShape {
                    channels: plan.channels,
                    time_width: config.time.width,
                    positions,
                    branch_init: config.branch_init,
                };
                Self::Vit(Transformer::new(params, &transformer, &shape))
            }
        }
    }

    fn macs(&self, pixels: usize, channels: usize) -> Macs {
        match self {
            Self::Residual(block) => block.macs(pixels),
            Self::Vit(block) => block.macs(pixels, channels),
        }
    }
}

impl WalkedBlock for Block {
    fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        dropout: Option<DropoutKeys>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        match self {
            Self::Residual(block) => block.forward(x, time, dropout, weights),
            Self::Vit(block) => block.forward(x, time, weights),
        }
    }
}

/// One stage of the encoder, or of the decoder.
#[derive(Module, Debug)]
pub(crate) struct Stage {
    /// The convolution that follows, or does, the change of resolution on the way in.
    resample: Option<Conv3x3>,
    /// The map of the stage's input and encoder features, where blocks do not take both.
    pub merge: Option<Linear>,
    time: Option<StageTime>,
    pub blocks: Vec<Block>,
    /// Height and width of the maps.
    pub side: usize,
    channels: usize,
}

impl Stage {
    /// `resample` is the name of the convolution that changes the resolution, and its stride.
    pub(crate) fn new(
        params: &Params,
        config: &ImageConfig,
        plan: &StagePlan,
        (name, stride): (&str, usize),
        positions: &RelativePositions,
    ) -> Self {
        let convolves = config.resample == Resample::Convolution;
        let block = |(j, block): (usize, &BlockPlan)| {
            Block::new(&params.enter("blocks").enter(j), config, (plan.kind, block), positions)
        };
        Self {
            resample: (plan.resample.filter(|_| convolves))
                .map(|channels| Conv3x3::new(&params.enter(name), channels, stride, 1.0)),
            merge: (plan.merge).map(|dims| Linear::new(&params.enter("merge"), dims, true, 1.0)),
            time: (plan.time)
                .map(|channels| StageTime::new(&params.enter("time"), config.time.width, channels)),
            blocks: plan.blocks.iter().enumerate().map(block).collect(),
            side: config.side(plan.index),
            channels: config.channels[plan.index],
        }
    }

    /// A map from the stage before, at the resolution of this one.
    pub(crate) fn resample(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, side, ..] = x.dims();
        match &self.resample {
            _ if side == self.side => x,
            Some(conv) if side > self.side => conv.forward(x),
            Some(conv) => conv.forward_upsampled(x),
            None if side > self.side => downsample_bilinear(x),
            None => upsample_bilinear(x),
        }
    }

    /// Adds the time token, if this stage does.
    pub(crate) fn add_time(&self, x: Tensor<4>, time: &Tensor<2>) -> Tensor<4> {
        match &self.time {
            Some(add) => add.forward(x, time.clone()),
            None => x,
        }
    }

    pub(crate) fn macs(&self) -> Macs {
        let pixels = self.side * self.side;
        self.resample.iter().map(|conv| conv.macs(pixels)).sum::<Macs>()
            + self.merge.iter().map(|linear| linear.macs(pixels)).sum()
            + self.time.iter().map(StageTime::macs).sum()
            + self.blocks.iter().map(|block| block.macs(pixels, self.channels)).sum()
    }
}
