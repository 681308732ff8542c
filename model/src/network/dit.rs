//! DiT's block with adaLN-Zero (arXiv 2212.09748), under DiT's tensor names.

use burn::module::Module;
use burn::tensor::{DType, Tensor};

use crate::config::TransformerConfig;
use crate::kernels::{Attention, DropoutKeys, PositionBias, swish};
use crate::network::attention::attend;
use crate::network::block::{Mlp, Transformer};
use crate::network::io::AttentionMaps;
use crate::network::layers::{LayerNorm, Linear};
use crate::network::macs::Macs;
use crate::network::params::{Init, Params};
use crate::network::walk::WalkedBlock;

/// A block of the latent network.
// There are few of them, and they are not moved about.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub(crate) enum LatentBlock {
    Tmsa(Transformer),
    AdaLnZero(DitBlock),
}

impl LatentBlock {
    pub(crate) fn macs(&self, tokens: usize, channels: usize) -> Macs {
        match self {
            LatentBlock::Tmsa(block) => block.macs(tokens, channels),
            LatentBlock::AdaLnZero(block) => block.macs(tokens, channels),
        }
    }
}

impl WalkedBlock for LatentBlock {
    /// Computes the block's output, and with `weights` its attention maps. Neither block has dropout.
    fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        _: Option<DropoutKeys>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        match self {
            LatentBlock::Tmsa(block) => block.forward(x, time, weights),
            LatentBlock::AdaLnZero(block) => block.forward(x, time, weights),
        }
    }
}

/// `x += gate_1 Attention(scale_1 LN(x) + shift_1)`, `x += gate_2 MLP(scale_2 LN(x) + shift_2)`,
/// with shifts, scales and gates from the time token.
#[derive(Module, Debug)]
pub(crate) struct DitBlock {
    norm1: LayerNorm,
    attn: SelfAttention,
    norm2: LayerNorm,
    mlp: Mlp,
    modulation: Modulation,
}

impl DitBlock {
    /// For tokens of `channels`, in windows of `window` tokens a side.
    pub fn new(
        params: &Params,
        config: &TransformerConfig,
        channels: usize,
        window: usize,
    ) -> Self {
        let norm = |name| LayerNorm::of_block(&params.enter(name), config, channels);
        Self {
            norm1: norm("norm1"),
            attn: SelfAttention::new(&params.enter("attn"), config, channels, window),
            norm2: norm("norm2"),
            mlp: Mlp::without_time(&params.enter("mlp"), config, channels, 1.0),
            modulation: Modulation::new(params, channels, 6),
        }
    }

    fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        let [shift_1, scale_1, gate_1, shift_2, scale_2, gate_2] =
            self.modulation.forward(time.clone());
        let h = modulate(self.norm1.forward(x.clone()), shift_1, scale_1);
        let (h, maps) = self.attn.forward(h, weights);
        let x = x + h * gate_1;
        let h = modulate(self.norm2.forward(x.clone()), shift_2, scale_2);
        (x + self.mlp.forward(h, &time) * gate_2, maps)
    }

    fn macs(&self, tokens: usize, channels: usize) -> Macs {
        self.attn.macs(tokens, channels) + self.mlp.macs(tokens) + self.modulation.macs()
    }
}

/// `LN(x) (1 + scale) + shift`, with the normalised `x`.
pub(crate) fn modulate(x: Tensor<4>, shift: Tensor<4>, scale: Tensor<4>) -> Tensor<4> {
    x * (scale + 1.0) + shift
}

/// `Linear(SiLU(time))`, split into vectors of the channels. It starts at zero.
#[derive(Module, Debug)]
pub(crate) struct Modulation {
    linear: Linear,
}

impl Modulation {
    /// For `parts` vectors.
    pub fn new(params: &Params, channels: usize, parts: usize) -> Self {
        // As PyTorch counts them: number 0 is the activation.
        let params = params.enter("adaLN_modulation").enter(1);
        Self { linear: Linear::with_init(&params, [channels, parts * channels], true, Init::Zeros) }
    }

    /// # Shapes
    ///
    /// - time: `[B, C]`; each part of the output: `[B, 1, 1, C]`
    pub fn forward<const N: usize>(&self, time: Tensor<2>) -> [Tensor<4>; N] {
        let [b, c] = time.dims();
        let parts = self.linear.forward(swish(time)).reshape([b, 1, 1, N * c]);
        core::array::from_fn(|i| parts.clone().narrow(3, i * c, c))
    }

    pub(crate) fn macs(&self) -> Macs {
        self.linear.macs(1)
    }
}

/// Multi-head self-attention without a time token and without a position bias.
#[derive(Module, Debug)]
struct SelfAttention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
    window: usize,
}

impl SelfAttention {
    fn new(params: &Params, config: &TransformerConfig, channels: usize, window: usize) -> Self {
        let linear =
            |name, d_out, bias| Linear::new(&params.enter(name), [channels, d_out], bias, 1.0);
        Self {
            qkv: linear("qkv", 3 * channels, config.qkv_bias),
            proj: linear("proj", channels, true),
            heads: channels / config.head_dim,
            window,
        }
    }

    fn forward(&self, x: Tensor<4>, weights: bool) -> (Tensor<4>, Option<AttentionMaps>) {
        let n = self.window.pow(2);
        let device = x.device();
        let attention = Attention {
            qkv: self.qkv.forward(x),
            time: None,
            token: None,
            bias: PositionBias::Values(Tensor::zeros([1, self.heads, n, n], (&device, DType::F32))),
            window: [self.window; 2],
        };
        let (context, maps) = attend(attention, None, weights);
        (self.proj.forward(context), maps)
    }

    fn macs(&self, tokens: usize, channels: usize) -> Macs {
        self.qkv.macs(tokens)
            + self.proj.macs(tokens)
            + Macs::attention(&[2, tokens, self.window.pow(2), channels])
    }
}
