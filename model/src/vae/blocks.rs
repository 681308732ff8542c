//! The building blocks of the autoencoder. Maps are channels-last, `[B, H, W, C]`.

use burn::module::{Module, Param};
use burn::tensor::ops::PadMode;
use burn::tensor::{Tensor, activation, module};

use super::config::VaeConfig;
use super::names::Names;
use crate::kernels::upsample_nearest;
use crate::network::layers::{Conv3x3, GroupNorm, Linear};
use crate::network::macs::Macs;
use crate::network::params::{Init, Params};

/// A 1x1 convolution, stored as `[out, in, 1, 1]`.
#[derive(Module, Debug)]
pub(super) struct Conv1x1 {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

impl Conv1x1 {
    pub fn new(params: &Params, [c_in, c_out]: [usize; 2]) -> Self {
        let init = Init::XavierUniform { gain: 1.0 };
        Self {
            weight: params.tensor("weight", [c_out, c_in, 1, 1], init),
            bias: params.tensor("bias", [c_out], Init::Zeros),
        }
    }

    /// Applies the convolution.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C_in]`
    /// - output: `[B, H, W, C_out]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let [c_out, c_in, ..] = weight.dims();
        let [b, h, w, _] = x.dims();
        let weight = weight.reshape([c_out, c_in]).swap_dims(0, 1);
        let y = module::linear(x.reshape([b * h * w, c_in]), weight, Some(self.bias.val()));
        y.reshape([b, h, w, c_out])
    }

    /// Multiply-adds for a map of `pixels` pixels.
    pub fn macs(&self, pixels: usize) -> Macs {
        Macs::weights(&[pixels, self.weight.lazy_shape().num_elements()])
    }
}

/// A residual block, `x + Conv3x3(Swish(GN(Conv3x3(Swish(GN(x))))))`, with a 1x1 convolution on the
/// shortcut `x` if the number of channels changes.
#[derive(Module, Debug)]
pub(super) struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv3x3,
    norm2: GroupNorm,
    conv2: Conv3x3,
    shortcut: Option<Conv1x1>,
}

impl ResBlock {
    pub fn new(params: &Params, config: &VaeConfig, [c_in, c_out]: [usize; 2]) -> Self {
        let norm = config.group_norm();
        Self {
            norm1: GroupNorm::new(&params.enter("norm1"), c_in, &norm),
            conv1: Conv3x3::new(&params.enter("conv1"), [c_in, c_out], 1, 1.0),
            norm2: GroupNorm::new(&params.enter("norm2"), c_out, &norm),
            conv2: Conv3x3::new(&params.enter("conv2"), [c_out, c_out], 1, 1.0),
            shortcut: (c_in != c_out)
                .then(|| Conv1x1::new(&params.enter("conv_shortcut"), [c_in, c_out])),
        }
    }

    /// Applies the block.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C_in]`
    /// - output: `[B, H, W, C_out]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.conv1.forward(self.norm1.swish(x.clone()));
        let h = self.conv2.forward(self.norm2.swish(h));
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(x) + h,
            None => x + h,
        }
    }

    /// Multiply-adds for a map of `pixels` pixels.
    pub fn macs(&self, pixels: usize) -> Macs {
        let shortcut = self.shortcut.iter().map(|shortcut| shortcut.macs(pixels)).sum();
        self.conv1.macs(pixels) + self.conv2.macs(pixels) + shortcut
    }
}

/// Maximum number of attention weights in memory at once: 64 MiB, all weights of one picture of
/// 512x512 pixels.
const MAX_WEIGHTS: usize = 1 << 24;

/// A residual attention layer, `x + Attention(GN(x))`, with one head over the whole map.
#[derive(Module, Debug)]
struct Attention {
    norm: GroupNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    channels: usize,
}

impl Attention {
    fn new(params: &Params, config: &VaeConfig, channels: usize, names: Names) -> Self {
        let [q, k, v, out] = names
            .attention()
            .map(|name| Linear::new(&params.enter(name), [channels, channels], true, 1.0));
        let norm = GroupNorm::new(&params.enter("group_norm"), channels, &config.group_norm());
        Self { norm, q, k, v, out, channels }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.attend(x, MAX_WEIGHTS)
    }

    /// Computes the layer with at most about this number of attention weights in memory at once.
    fn attend(&self, x: Tensor<4>, weights: usize) -> Tensor<4> {
        let [b, h, w, c] = x.dims();
        let tokens = self.norm.forward(x.clone()).reshape([b, h * w, c]);
        let q = self.q.forward(tokens.clone()) * (c as f64).powf(-0.5);
        let k = self.k.forward(tokens.clone()).swap_dims(1, 2);
        let v = self.v.forward(tokens);
        // In groups of queries, because the number of all weights grows with the fourth power of
        // the side.
        let queries = (weights / (b * h * w)).clamp(1, h * w);
        let context = q
            .split(queries, 1)
            .into_iter()
            .map(|q| activation::softmax(q.matmul(k.clone()), 2).matmul(v.clone()))
            .collect();
        x + self.out.forward(Tensor::cat(context, 1)).reshape([b, h, w, c])
    }

    fn macs(&self, tokens: usize) -> Macs {
        let maps = [&self.q, &self.k, &self.v, &self.out];
        maps.into_iter().map(|map| map.macs(tokens)).sum::<Macs>()
            + Macs::attention(&[2, tokens, tokens, self.channels])
    }
}

/// The coarsest stage of encoder and decoder: a residual block, attention, a residual block.
#[derive(Module, Debug)]
pub(super) struct Middle {
    before: ResBlock,
    attention: Attention,
    after: ResBlock,
}

impl Middle {
    pub fn new(params: &Params, config: &VaeConfig, channels: usize, names: Names) -> Self {
        let block = |i: usize| {
            ResBlock::new(&params.enter("resnets").enter(i), config, [channels, channels])
        };
        Self {
            before: block(0),
            attention: {
                let params = params.enter("attentions").enter(0);
                Attention::new(&params, config, channels, names)
            },
            after: block(1),
        }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.after.forward(self.attention.forward(self.before.forward(x)))
    }

    pub fn macs(&self, pixels: usize) -> Macs {
        self.before.macs(pixels) + self.attention.macs(pixels) + self.after.macs(pixels)
    }
}

/// Downsampling by 2: a 3x3 convolution of stride 2 that pads with zeros after the last row and
/// column only.
#[derive(Module, Debug)]
pub(super) struct Down {
    conv: Conv3x3,
}

impl Down {
    pub fn new(params: &Params, channels: usize) -> Self {
        Self { conv: Conv3x3::new(&params.enter("conv"), [channels, channels], 2, 1.0) }
    }

    /// Halves height and width.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C]`
    /// - output: `[B, H / 2, W / 2, C]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, h, w, _] = x.dims();
        // `conv` pads all sides. With one more row and column of zeros on each side, its second row
        // of output starts at the first row of `x`; the first row of output is dropped.
        let padded = x.pad([(1, 1), (1, 1), (0, 0)], PadMode::Constant(0.0));
        self.conv.forward(padded).narrow(1, 1, h / 2).narrow(2, 1, w / 2)
    }

    /// Multiply-adds for an output of `pixels` pixels.
    pub fn macs(&self, pixels: usize) -> Macs {
        self.conv.macs(pixels)
    }
}

/// Upsampling by 2: nearest neighbour, then a 3x3 convolution.
#[derive(Module, Debug)]
pub(super) struct Up {
    conv: Conv3x3,
}

impl Up {
    pub fn new(params: &Params, channels: usize) -> Self {
        Self { conv: Conv3x3::new(&params.enter("conv"), [channels, channels], 1, 1.0) }
    }

    /// Doubles height and width.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C]`
    /// - output: `[B, 2 H, 2 W, C]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(upsample_nearest(x))
    }

    /// Multiply-adds for an output of `pixels` pixels.
    pub fn macs(&self, pixels: usize) -> Macs {
        self.conv.macs(pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::noise::start_noise;
    use crate::network::params::Source;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn attention_in_groups_of_queries_matches_attention() {
        let device = Device::flex();
        let params = Params::new(&device, &Source::Random { seed: 1 });
        let attention = Attention::new(&params, &VaeConfig::tiny(), 16, Names::New);
        let data = TensorData::new(start_noise(0, 2 * 5 * 7 * 16), [2, 5, 7, 16]);
        let x = Tensor::<4>::from_data(data, &device);
        let whole = attention.attend(x.clone(), usize::MAX);
        // Groups of all queries, of several with a remainder, and of one.
        for weights in [2 * 35 * 35, 2 * 35 * 8, 1] {
            let off = (attention.attend(x.clone(), weights) - whole.clone()).abs().max();
            assert!(off.into_scalar::<f32>() < 1e-6);
        }
    }
}
