//! The network of the autoencoder: encoder and decoder.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::blocks::{Conv1x1, Down, Middle, ResBlock, Up};
use super::config::VaeConfig;
use super::names::Names;
use crate::network::layers::{Conv3x3, GroupNorm};
use crate::network::macs::Macs;
use crate::network::params::{Params, Source, TensorSpec};

/// A stage of the encoder; all but the last end with downsampling.
#[derive(Module, Debug)]
struct DownStage {
    blocks: Vec<ResBlock>,
    down: Option<Down>,
}

/// A stage of the decoder; all but the last end with upsampling.
#[derive(Module, Debug)]
struct UpStage {
    blocks: Vec<ResBlock>,
    up: Option<Up>,
}

/// The last layers of encoder and decoder: group normalisation, Swish and a 3x3 convolution.
#[derive(Module, Debug)]
struct Head {
    norm: GroupNorm,
    conv: Conv3x3,
}

impl Head {
    fn new(params: &Params, config: &VaeConfig, [c_in, c_out]: [usize; 2]) -> Self {
        Self {
            norm: GroupNorm::new(&params.enter("conv_norm_out"), c_in, &config.group_norm()),
            conv: Conv3x3::new(&params.enter("conv_out"), [c_in, c_out], 1, 1.0),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(self.norm.swish(x))
    }

    fn macs(&self, pixels: usize) -> Macs {
        self.conv.macs(pixels)
    }
}

/// The encoder, from pictures to the moments of latents.
#[derive(Module, Debug)]
struct Encoder {
    conv: Conv3x3,
    stages: Vec<DownStage>,
    middle: Middle,
    head: Head,
}

/// The decoder, from latents to pictures.
#[derive(Module, Debug)]
struct Decoder {
    conv: Conv3x3,
    middle: Middle,
    stages: Vec<UpStage>,
    head: Head,
}

/// Creates `n` residual blocks, of which the first changes the number of channels.
fn res_blocks(
    params: &Params,
    config: &VaeConfig,
    n: usize,
    [c_in, c]: [usize; 2],
) -> Vec<ResBlock> {
    (0..n)
        .map(|j| {
            let c_in = if j == 0 { c_in } else { c };
            ResBlock::new(&params.enter("resnets").enter(j), config, [c_in, c])
        })
        .collect()
}

impl Encoder {
    fn new(params: &Params, config: &VaeConfig, names: Names) -> Self {
        let c = &config.channels;
        let last = c.len() - 1;
        let stages = (0..c.len())
            .map(|i| {
                let params = params.enter("down_blocks").enter(i);
                let c_in = c[i.saturating_sub(1)];
                let down = params.enter("downsamplers").enter(0);
                DownStage {
                    blocks: res_blocks(&params, config, config.layers, [c_in, c[i]]),
                    down: (i < last).then(|| Down::new(&down, c[i])),
                }
            })
            .collect();
        // The mean and the log-variance of each value.
        let moments = 2 * config.latent_channels;
        Self {
            conv: Conv3x3::new(&params.enter("conv_in"), [config.image_channels, c[0]], 1, 1.0),
            stages,
            middle: Middle::new(&params.enter("mid_block"), config, c[last], names),
            head: Head::new(params, config, [c[last], moments]),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = self.conv.forward(x);
        for stage in &self.stages {
            for block in &stage.blocks {
                x = block.forward(x);
            }
            if let Some(down) = &stage.down {
                x = down.forward(x);
            }
        }
        self.head.forward(self.middle.forward(x))
    }

    /// Multiply-adds for a picture of `pixels` pixels.
    fn macs(&self, mut pixels: usize) -> Macs {
        let mut macs = self.conv.macs(pixels);
        for stage in &self.stages {
            macs = macs + stage.blocks.iter().map(|block| block.macs(pixels)).sum();
            if let Some(down) = &stage.down {
                pixels /= 4;
                macs = macs + down.macs(pixels);
            }
        }
        macs + self.middle.macs(pixels) + self.head.macs(pixels)
    }
}

impl Decoder {
    fn new(params: &Params, config: &VaeConfig, names: Names) -> Self {
        // Coarsest stage first.
        let c: Vec<usize> = config.channels.iter().rev().copied().collect();
        let last = c.len() - 1;
        let stages = (0..c.len())
            .map(|i| {
                let params = params.enter("up_blocks").enter(i);
                let c_in = c[i.saturating_sub(1)];
                let up = params.enter("upsamplers").enter(0);
                UpStage {
                    blocks: res_blocks(&params, config, config.layers + 1, [c_in, c[i]]),
                    up: (i < last).then(|| Up::new(&up, c[i])),
                }
            })
            .collect();
        Self {
            conv: Conv3x3::new(&params.enter("conv_in"), [config.latent_channels, c[0]], 1, 1.0),
            middle: Middle::new(&params.enter("mid_block"), config, c[0], names),
            stages,
            head: Head::new(params, config, [c[last], config.image_channels]),
        }
    }

    /// Computes the layers at the resolution of the latent.
    fn start(&self, x: Tensor<4>) -> Tensor<4> {
        self.middle.forward(self.conv.forward(x))
    }

    /// The remaining layers, in order.
    fn rest(&self) -> Vec<Step<'_>> {
        let mut steps: Vec<Step> = Vec::new();
        for stage in &self.stages {
            steps.extend(stage.blocks.iter().map(|block| step(|x| block.forward(x))));
            steps.extend(stage.up.iter().map(|up| step(|x| up.forward(x))));
        }
        // (b, h, w, c) -> (b, c, h, w)
        steps.push(step(|x| self.head.forward(x).permute([0, 3, 1, 2])));
        steps
    }

    /// Multiply-adds for a latent of `pixels` pixels.
    fn macs(&self, mut pixels: usize) -> Macs {
        let mut macs = self.conv.macs(pixels) + self.middle.macs(pixels);
        for stage in &self.stages {
            macs = macs + stage.blocks.iter().map(|block| block.macs(pixels)).sum();
            if let Some(up) = &stage.up {
                pixels *= 4;
                macs = macs + up.macs(pixels);
            }
        }
        macs + self.head.macs(pixels)
    }
}

/// A step of decoding: one layer as a function.
pub(super) type Step<'a> = Box<dyn Fn(Tensor<4>) -> Tensor<4> + 'a>;

/// Boxes a function as a [`Step`].
fn step<'a>(step: impl Fn(Tensor<4>) -> Tensor<4> + 'a) -> Step<'a> {
    Box::new(step)
}

/// Encoder and decoder, and the 1x1 convolutions between them.
#[derive(Module, Debug)]
pub(super) struct Autoencoder {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Conv1x1,
    post_quant_conv: Conv1x1,
    #[module(skip)]
    specs: Vec<TensorSpec>,
}

impl Autoencoder {
    /// Builds the network of a valid configuration.
    pub fn new(config: &VaeConfig, names: Names, device: &Device, source: &Source) -> Self {
        let params = Params::new(device, source);
        let (latent, moments) = (config.latent_channels, 2 * config.latent_channels);
        Self {
            encoder: Encoder::new(&params.enter("encoder"), config, names),
            decoder: Decoder::new(&params.enter("decoder"), config, names),
            quant_conv: Conv1x1::new(&params.enter("quant_conv"), [moments, moments]),
            post_quant_conv: Conv1x1::new(&params.enter("post_quant_conv"), [latent, latent]),
            specs: params.specs(),
        }
    }

    /// The network's tensors, with the names and shapes of published files.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Computes the moments of latents: means, then log-variances.
    ///
    /// # Shapes
    ///
    /// - images: `[B, C, H, W]`
    /// - output: `[B, 2 latent channels, H / factor, W / factor]`
    pub fn encode(&self, images: Tensor<4>) -> Tensor<4> {
        // (b, c, h, w) -> (b, h, w, c) and back
        let x = self.encoder.forward(images.permute([0, 2, 3, 1]));
        self.quant_conv.forward(x).permute([0, 3, 1, 2])
    }

    /// Computes the first part of decoding, at the resolution of the latent. It contains attention,
    /// so it has to see the whole latent.
    ///
    /// # Shapes
    ///
    /// - latents: `[B, latent channels, h, w]`
    /// - output: `[B, h, w, channels of the coarsest stage]`
    pub fn start_decoding(&self, latents: Tensor<4>) -> Tensor<4> {
        // (b, c, h, w) -> (b, h, w, c)
        self.decoder.start(self.post_quant_conv.forward(latents.permute([0, 2, 3, 1])))
    }

    /// The steps of the second part of decoding, to be applied in order. They can be applied to a
    /// tile of the map as well as to the whole.
    ///
    /// # Shapes
    ///
    /// - x: `[B, h, w, channels of the coarsest stage]`
    /// - output: `[B, C, factor h, factor w]`
    pub fn finish_decoding(&self) -> Vec<Step<'_>> {
        self.decoder.rest()
    }

    /// Multiply-adds of encoding a picture of `pixels` pixels and of decoding a latent of `values`
    /// pixels.
    pub fn macs(&self, pixels: usize, values: usize) -> [Macs; 2] {
        let encoder = self.encoder.macs(pixels) + self.quant_conv.macs(values);
        [encoder, self.post_quant_conv.macs(values) + self.decoder.macs(values)]
    }
}

/// Returns the tensors of a valid configuration.
pub(super) fn specs(config: &VaeConfig, names: Names) -> Vec<TensorSpec> {
    Autoencoder::new(config, names, &Device::flex(), &Source::Shapes).specs
}
