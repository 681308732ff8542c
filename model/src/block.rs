//! The DiffiT transformer block (Eq 7-8) and the DiffiT ResBlock (Eq 9-10).

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use crate::config::{Activation, ImageConfig, Residual, TransformerConfig};
use crate::layers::{Conv3x3, GroupNorm, LayerNorm, Linear};
use crate::macs::Macs;
use crate::network::AttentionMaps;
use crate::ops::{self, DropoutKeys};
use crate::params::Params;
use crate::tmsa::{Tmsa, TmsaOutput};
use crate::window::Offsets;

/// Two linear maps with an activation between them.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    fn new(params: &Params, config: &TransformerConfig, channels: usize, branch_init: f64) -> Self {
        let hidden = config.mlp_ratio * channels;
        Self {
            fc1: Linear::new(&params.enter("fc1"), [channels, hidden], true, 1.0),
            fc2: Linear::new(&params.enter("fc2"), [hidden, channels], true, branch_init),
            activation: config.activation,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.fc1.forward(x);
        let x = match self.activation {
            Activation::GeluTanh => ops::gelu_tanh(x),
            Activation::Gelu => activation::gelu(x),
        };
        self.fc2.forward(x)
    }

    fn macs(&self, tokens: usize) -> Macs {
        self.fc1.macs(tokens) + self.fc2.macs(tokens)
    }
}

/// `h = TMSA(LN(x), x_t) + x` (Eq 7), `MLP(LN(h)) + h` (Eq 8).
#[derive(Module, Debug)]
pub struct Transformer {
    norm1: LayerNorm,
    attn: Tmsa,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Transformer {
    pub(crate) fn new(
        params: &Params,
        config: &TransformerConfig,
        channels: usize,
        time_width: usize,
        offsets: &Offsets,
        branch_init: f64,
    ) -> Self {
        let norm = |name| {
            let TransformerConfig { layer_norm_affine, layer_norm_eps, .. } = *config;
            LayerNorm::new(&params.enter(name), channels, layer_norm_affine, layer_norm_eps)
        };
        let attn = params.enter("attn");
        Self {
            norm1: norm("norm1"),
            attn: Tmsa::new(&attn, config, channels, time_width, offsets, branch_init),
            norm2: norm("norm2"),
            mlp: Mlp::new(&params.enter("mlp"), config, channels, branch_init),
        }
    }

    /// The output, and what was attended to if it was asked for.
    ///
    /// # Shapes
    ///
    /// - x, output: `[B, H, W, C]`; time: `[B, time width]`
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        let TmsaOutput { context, attention } =
            self.attn.forward(self.norm1.forward(x.clone()), time, weights);
        let h = context + x;
        (self.mlp.forward(self.norm2.forward(h.clone())) + h, attention)
    }

    pub(crate) fn macs(&self, tokens: usize, channels: usize) -> Macs {
        self.attn.macs(tokens, channels) + self.mlp.macs(tokens)
    }
}

/// `h = Conv3x3(Swish(GN(x)))` (Eq 9), `Transformer(h, x_t) + x` (Eq 10).
#[derive(Module, Debug)]
pub struct ResBlock {
    norm: GroupNorm,
    conv: Conv3x3,
    transformer: Transformer,
    /// The 1x1 convolution of the residual, where the channels change.
    residual: Option<Linear>,
    has_residual: bool,
    dropout: f64,
    channels: usize,
}

impl ResBlock {
    /// A block that turns maps of `c_in` into maps of `c_out` channels.
    pub(crate) fn new(
        params: &Params,
        config: &ImageConfig,
        [c_in, c_out]: [usize; 2],
        offsets: &Offsets,
    ) -> Self {
        let has_residual = config.residual == Residual::Projection;
        Self {
            norm: GroupNorm::new(&params.enter("norm"), c_in, &config.group_norm),
            conv: Conv3x3::new(&params.enter("conv"), [c_in, c_out], 1, 1.0),
            transformer: Transformer::new(
                &params.enter("transformer"),
                &config.transformer,
                c_out,
                config.time.width,
                offsets,
                config.branch_init,
            ),
            residual: (has_residual && c_in != c_out)
                .then(|| Linear::new(&params.enter("residual"), [c_in, c_out], true, 1.0)),
            has_residual,
            dropout: config.dropout,
            channels: c_out,
        }
    }

    /// The output, and what was attended to if it was asked for.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C_in]`; time: `[B, time width]`
    /// - output: `[B, H, W, C_out]`
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        dropout: Option<DropoutKeys>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        let h = self.norm.swish(x.clone());
        let h = match dropout {
            Some(keys) if self.dropout > 0.0 => ops::dropout(h, self.dropout, keys),
            _ => h,
        };
        let h = self.conv.forward(h);
        let (h, attention) = self.transformer.forward(h, time, weights);
        let output = match (&self.residual, self.has_residual) {
            (_, false) => h,
            (Some(projection), true) => h + projection.forward(x),
            (None, true) => h + x,
        };
        (output, attention)
    }

    pub(crate) fn macs(&self, pixels: usize) -> Macs {
        self.conv.macs(pixels)
            + self.transformer.macs(pixels, self.channels)
            + self.residual.iter().map(|linear| linear.macs(pixels)).sum::<Macs>()
    }
}
