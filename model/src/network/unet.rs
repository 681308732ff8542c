//! The U-shaped image-space network: tokenizer, encoder, decoder, head.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::config::{BlockPlan, ImageConfig, Resample, Skip, StagePlan};
use crate::kernels::{
    DropoutKeys, at_least_f32, downsample_bilinear, upsample_bilinear, upsample_nearest,
};
use crate::network::block::ResBlock;
use crate::network::io::{BlockInfo, NetworkInput, NetworkOutput};
use crate::network::layers::{Conv3x3, GroupNorm};
use crate::network::macs::Macs;
use crate::network::params::Params;
use crate::network::time::TimeEmbedding;
use crate::network::window::RelativePositions;

/// A stage of the encoder or of the decoder.
#[derive(Module, Debug)]
struct Stage {
    /// The convolution that halves the resolution before the blocks (encoder), or that follows
    /// upsampling (decoder). `None` in the first stage, and if resampling is bilinear.
    resample: Option<Conv3x3>,
    blocks: Vec<ResBlock>,
    /// Side of the stage's maps, in pixels.
    side: usize,
}

impl Stage {
    fn macs(&self) -> Macs {
        let pixels = self.side * self.side;
        self.resample.iter().map(|conv| conv.macs(pixels)).sum::<Macs>()
            + self.blocks.iter().map(|block| block.macs(pixels)).sum()
    }
}

/// The image-space network of the paper's Fig 4 and tables S.2, S.3.
#[derive(Module, Debug)]
pub struct UNet {
    time: TimeEmbedding,
    tokenizer: Conv3x3,
    /// Finest stage first. The last one is the bottleneck.
    encoder: Vec<Stage>,
    /// Coarsest stage first: the encoder without its bottleneck, in reverse.
    decoder: Vec<Stage>,
    head_norm: GroupNorm,
    head: Conv3x3,
    #[module(skip)]
    config: ImageConfig,
}

impl UNet {
    /// The network of a valid configuration.
    pub(crate) fn new(params: &Params, config: &ImageConfig) -> Self {
        let c = &config.channels;
        let convolves = config.resample == Resample::Convolution;
        let positions: Vec<RelativePositions> = (0..c.len())
            .map(|i| RelativePositions::new(config.window.on(config.side(i)), params))
            .collect();
        let stage = |params: &Params, plan: &StagePlan, resample: Option<(&str, usize)>| {
            let conv = |(name, stride)| {
                let channels = [plan.channels_in; 2];
                Conv3x3::new(&params.enter(name), channels, stride, 1.0)
            };
            let block = |(j, block): (usize, &BlockPlan)| {
                let params = params.enter("blocks").enter(j);
                let channels = [block.channels_in(), block.channels];
                ResBlock::new(&params, config, channels, &positions[plan.index])
            };
            Stage {
                resample: resample.filter(|_| convolves).map(conv),
                blocks: plan.blocks.iter().enumerate().map(block).collect(),
                side: config.side(plan.index),
            }
        };
        let encoder = (config.encoder().iter().enumerate())
            .map(|(i, plan)| {
                let down = (i > 0).then_some(("down", 2));
                stage(&params.enter("encoder").enter(i), plan, down)
            })
            .collect();
        let decoder = (config.decoder().iter().enumerate())
            .map(|(i, plan)| stage(&params.enter("decoder").enter(i), plan, Some(("up", 1))))
            .collect();
        let [c_first, c_image] = [c[0], config.image_channels];
        let head = params.enter("head");
        Self {
            time: TimeEmbedding::new(&params.enter("time"), &config.time, config.classes),
            tokenizer: Conv3x3::new(&params.enter("tokenizer"), [c_image, c_first], 1, 1.0),
            encoder,
            decoder,
            head_norm: GroupNorm::new(&head.enter("norm"), c_first, &config.group_norm),
            head: Conv3x3::new(&head.enter("conv"), [c_first, c_image], 1, config.branch_init),
            config: config.clone(),
        }
    }

    pub(crate) fn forward(&self, input: NetworkInput) -> NetworkOutput {
        let NetworkInput { x, c_noise, options } = input;
        let conditioning = &options.conditioning;
        let target = (&x.device(), at_least_f32(x.dtype()));
        let labels = conditioning.labels_of(c_noise.len());
        let time = self.time.forward(&c_noise, &labels, conditioning.augment.clone(), target);
        let time = options.time_token(time, x.dtype());
        let mut attention = None;
        let mut number = 0;
        let mut run = |block: &ResBlock, x: Tensor<4>| {
            let wanted = options.inspection.attention_of == Some(number);
            let dropout =
                options.training.dropout.as_ref().map(|keys| DropoutKeys::new(keys, number));
            number += 1;
            #[cfg(feature = "train")]
            if let Some(recompute) = &options.training.recompute {
                return recompute.block(block, x, time.clone(), move |block, x, time| {
                    block.forward(x, time, dropout.clone(), false).0
                });
            }
            let (x, maps) = block.forward(x, time.clone(), dropout, wanted);
            attention = attention.take().or(maps);
            x
        };

        // (b, c, h, w) -> (b, h, w, c)
        let mut x = self.tokenizer.forward(x.permute([0, 2, 3, 1]));
        let mut skips: Vec<Vec<Tensor<4>>> = Vec::new();
        for (i, stage) in self.encoder.iter().enumerate() {
            if i > 0 {
                x = match &stage.resample {
                    Some(conv) => conv.forward(x),
                    None => downsample_bilinear(x),
                };
            }
            let mut outputs = Vec::new();
            for block in &stage.blocks {
                x = run(block, x);
                outputs.push(x.clone());
            }
            skips.push(outputs);
        }
        // The bottleneck has no skip connection: its output is the input of the decoder.
        skips.pop();
        for stage in &self.decoder {
            x = match &stage.resample {
                Some(conv) => conv.forward(upsample_nearest(x)),
                None => upsample_bilinear(x),
            };
            let mut outputs = skips.pop().expect("every decoder stage has an encoder stage");
            for (j, block) in stage.blocks.iter().enumerate() {
                if j == 0 || self.config.skip == Skip::Block {
                    let skip =
                        outputs.pop().expect("every block of the decoder has a skip connection");
                    x = Tensor::cat(vec![x, skip], 3);
                }
                x = run(block, x);
            }
        }
        let x = self.head.forward(self.head_norm.forward(x));
        // (b, h, w, c) -> (b, c, h, w)
        NetworkOutput { x: x.permute([0, 3, 1, 2]), attention }
    }

    pub(crate) fn macs(&self) -> Macs {
        let pixels = self.config.resolution.pow(2);
        self.time.macs()
            + self.tokenizer.macs(pixels)
            + self.encoder.iter().chain(&self.decoder).map(Stage::macs).sum()
            + self.head.macs(pixels)
    }

    pub(crate) fn blocks(&self) -> Vec<BlockInfo> {
        let stages = |stages: &[Stage], part: &'static str| {
            let config = &self.config;
            // Each stage has half the side of the one before.
            let channels =
                |side: usize| config.channels[(config.resolution / side).ilog2() as usize];
            stages
                .iter()
                .flat_map(|stage| vec![stage.side; stage.blocks.len()])
                .map(|side| BlockInfo {
                    part,
                    side,
                    channels: channels(side),
                    window: config.window.on(side),
                })
                .collect::<Vec<_>>()
        };
        let mut blocks = stages(&self.encoder, "encoder");
        blocks.extend(stages(&self.decoder, "decoder"));
        blocks
    }
}
