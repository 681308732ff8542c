//! The image-space network: tokenizer, encoder, decoder, head.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::config::{DecoderConfig, EncoderConfig, ImageConfig, Skip, StagePlan};
use crate::kernels::{at_least_f32, join};
use crate::network::io::{BlockInfo, NetworkInput, NetworkOutput};
use crate::network::layers::{Conv3x3, GroupNorm, Linear};
use crate::network::macs::Macs;
use crate::network::mla::MlaDecoder;
use crate::network::params::{Init, Params};
use crate::network::stage::Stage;
use crate::network::time::TimeEmbedding;
use crate::network::walk::Walk;
use crate::network::window::RelativePositions;

/// The tokenizer: from images to the first map.
#[derive(Module, Debug)]
enum Tokenizer {
    /// A convolution at the resolution of the images.
    Conv(Conv3x3),
    /// A linear map of patches.
    Patches(Patches),
}

/// A linear map of patches, and a learned vector for each position.
#[derive(Module, Debug)]
struct Patches {
    map: Linear,
    positions: Param<Tensor<2>>,
    side: usize,
}

impl Tokenizer {
    fn new(params: &Params, config: &ImageConfig) -> Self {
        let params = params.enter("tokenizer");
        let channels @ [c_image, c] = [config.image_channels, config.channels[0]];
        match config.encoder {
            EncoderConfig::Stages { .. } => Self::Conv(Conv3x3::new(&params, channels, 1, 1.0)),
            EncoderConfig::Isotropic { patch } => {
                let side = config.side(0);
                let init = Init::Normal { std: 0.02 };
                Self::Patches(Patches {
                    map: Linear::of_patches(&params, [c_image, patch, c]),
                    positions: params.tensor("positions", [side * side, c], init),
                    side,
                })
            }
        }
    }

    /// # Shapes
    ///
    /// - x: `[B, image channels, H, W]`
    /// - output: `[B, h, w, C]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            // (b, c, h, w) -> (b, h, w, c)
            Self::Conv(conv) => conv.forward(x.permute([0, 2, 3, 1])),
            Self::Patches(Patches { map, positions, side }) => {
                let patch = x.dims()[2] / side;
                let x = map.forward(Linear::patches(x, patch));
                let [_, h, w, c] = x.dims();
                let positions = positions.val().cast(x.dtype()).reshape([1, h, w, c]);
                x + positions
            }
        }
    }

    fn macs(&self, resolution: usize) -> Macs {
        match self {
            Self::Conv(conv) => conv.macs(resolution.pow(2)),
            Self::Patches(patches) => patches.map.macs(patches.side.pow(2)),
        }
    }
}

/// From the encoder's outputs to pictures.
// There is one of them.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
enum Decoder {
    Unet(UnetDecoder),
    Mla(MlaDecoder),
}

/// The mirror image of the encoder, and the head.
#[derive(Module, Debug)]
struct UnetDecoder {
    /// Coarsest stage first: the encoder without its bottleneck, in reverse.
    stages: Vec<Stage>,
    head_norm: GroupNorm,
    head: Conv3x3,
}

/// The image-space network of the paper's Fig 4 and tables S.2, S.3.
#[derive(Module, Debug)]
pub struct UNet {
    time: TimeEmbedding,
    tokenizer: Tokenizer,
    /// Finest stage first. In front of a U-Net's decoder the last one is the bottleneck.
    encoder: Vec<Stage>,
    decoder: Decoder,
    #[module(skip)]
    config: ImageConfig,
}

impl UNet {
    /// The network of a valid configuration.
    pub(crate) fn new(params: &Params, config: &ImageConfig) -> Self {
        let c = &config.channels;
        let positions: Vec<RelativePositions> = (0..c.len())
            .map(|i| RelativePositions::new(config.window.on(config.side(i)), params))
            .collect();
        let stages = |part, plans: Vec<StagePlan>, resample| -> Vec<Stage> {
            let stage = |(i, plan): (usize, &StagePlan)| {
                let params = params.enter(part).enter(i);
                Stage::new(&params, config, plan, resample, &positions[plan.index])
            };
            plans.iter().enumerate().map(stage).collect()
        };
        let encoder = stages("encoder", config.encoder_plan(), ("down", 2));
        let decoder = stages("decoder", config.decoder_plan(), ("up", 1));
        let [c_first, c_image] = [c[0], config.image_channels];
        let head = params.enter("head");
        Self {
            time: TimeEmbedding::new(&params.enter("time"), &config.time, config.classes),
            tokenizer: Tokenizer::new(params, config),
            encoder,
            decoder: match config.decoder {
                DecoderConfig::Unet { .. } => Decoder::Unet(UnetDecoder {
                    stages: decoder,
                    head_norm: GroupNorm::new(&head.enter("norm"), c_first, &config.group_norm),
                    head: Conv3x3::new(
                        &head.enter("conv"),
                        [c_first, c_image],
                        1,
                        config.branch_init,
                    ),
                }),
                DecoderConfig::Mla { width, head_width } => {
                    Decoder::Mla(MlaDecoder::new(params, config, [width, head_width]))
                }
            },
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
        let mut walk = Walk::new(&options, time.clone());

        let mut x = self.tokenizer.forward(x);
        let mut skips: Vec<Vec<Tensor<4>>> = Vec::new();
        for stage in &self.encoder {
            x = stage.add_time(stage.resample(x), &time);
            let mut outputs = Vec::new();
            for block in &stage.blocks {
                x = walk.run(block, x);
                outputs.push(x.clone());
            }
            skips.push(outputs);
        }
        let x = match &self.decoder {
            Decoder::Unet(UnetDecoder { stages, head_norm, head }) => {
                // The bottleneck has no skip connection: its output is the input of the decoder.
                skips.pop();
                for stage in stages {
                    let mut outputs =
                        skips.pop().expect("every decoder stage has an encoder stage");
                    let mut with_skip = |x: Tensor<4>| {
                        let skip = outputs
                            .pop()
                            .expect("every block of the decoder has a skip connection");
                        join(x, skip)
                    };
                    x = stage.resample(x);
                    if let Some(merge) = &stage.merge {
                        x = merge.forward(with_skip(x));
                    }
                    x = stage.add_time(x, &time);
                    for (j, block) in stage.blocks.iter().enumerate() {
                        let first = j == 0 && stage.merge.is_none();
                        if first || self.config.skip == Skip::Block {
                            x = with_skip(x);
                        }
                        x = walk.run(block, x);
                    }
                }
                head.forward(head_norm.forward(x))
            }
            Decoder::Mla(decoder) => {
                let last = |mut outputs: Vec<_>| outputs.pop().expect("every stage has a block");
                decoder.forward(skips.into_iter().map(last).collect())
            }
        };
        // (b, h, w, c) -> (b, c, h, w)
        walk.finish(x.permute([0, 3, 1, 2]))
    }

    pub(crate) fn macs(&self) -> Macs {
        let decoder = match &self.decoder {
            Decoder::Unet(UnetDecoder { stages, head, .. }) => {
                stages.iter().map(Stage::macs).sum::<Macs>()
                    + head.macs(self.config.resolution.pow(2))
            }
            Decoder::Mla(decoder) => decoder.macs(),
        };
        self.time.macs()
            + self.tokenizer.macs(self.config.resolution)
            + self.encoder.iter().map(Stage::macs).sum()
            + decoder
    }

    pub(crate) fn blocks(&self) -> Vec<BlockInfo> {
        let config = &self.config;
        let info = |part| {
            move |plan: StagePlan| {
                let side = config.side(plan.index);
                let channels = config.channels[plan.index];
                let block = BlockInfo { part, side, channels, window: config.window.on(side) };
                vec![block; plan.blocks.len()]
            }
        };
        let encoder = config.encoder_plan().into_iter().flat_map(info("encoder"));
        encoder.chain(config.decoder_plan().into_iter().flat_map(info("decoder"))).collect()
    }
}
