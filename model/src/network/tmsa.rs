//! Time-dependent multi-head self-attention (TMSA), Eq (3)-(6).

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

use crate::config::{Position, TransformerConfig};
use crate::kernels::cpu::Input;
use crate::kernels::{Attention, at_least_f32, window_attention};
use crate::network::io::AttentionMaps;
use crate::network::layers::Linear;
use crate::network::macs::Macs;
use crate::network::params::{Init, Params};
use crate::network::window::RelativePositions;

/// The sizes of a transformer block that depend on its position in the network.
#[derive(Clone, Copy)]
pub(crate) struct TransformerShape<'a> {
    /// Channels of a spatial token.
    pub channels: usize,
    /// Width of the time token.
    pub time_width: usize,
    /// Relative positions inside a window.
    pub positions: &'a RelativePositions,
    /// Factor on the initial weights of the linear maps that end a residual branch.
    pub branch_init: f64,
}

/// The TMSA layer. Queries, keys and values are computed from the spatial tokens and the time
/// token, `q = x_s W_qs + x_t W_qt` and likewise `k` and `v` (Eq 3-5); each head computes
/// `softmax(q kᵀ / sqrt(d) + B) v` inside windows (Eq 6).
#[derive(Module, Debug)]
pub struct Tmsa {
    qkv: Linear,
    qkv_temb: Linear,
    relative_position_bias_table: Option<Param<Tensor<2>>>,
    proj: Linear,
    heads: usize,
    positions: RelativePositions,
}

/// The result of [`Tmsa::forward`].
pub struct TmsaOutput {
    /// Output of the layer, `[B, H, W, C]`.
    pub context: Tensor<4>,
    /// Attention maps, if requested.
    pub attention: Option<AttentionMaps>,
}

impl Tmsa {
    /// A layer of the given sizes.
    pub(crate) fn new(
        params: &Params,
        config: &TransformerConfig,
        shape: &TransformerShape,
    ) -> Self {
        let TransformerShape { channels, time_width, positions, branch_init } = *shape;
        let heads = channels / config.head_dim;
        let linear = |name, d_in, d_out, gain| {
            Linear::new(&params.enter(name), [d_in, d_out], config.qkv_bias, gain)
        };
        Self {
            qkv: linear("qkv", channels, 3 * channels, 1.0),
            qkv_temb: linear("qkv_temb", time_width, 3 * channels, 1.0),
            relative_position_bias_table: match config.position {
                Position::Relative { init_std } => Some(params.tensor(
                    "relative_position_bias_table",
                    [(2 * positions.side - 1).pow(2), heads],
                    Init::Normal { std: init_std },
                )),
                Position::None => None,
            },
            proj: Linear::new(&params.enter("proj"), [channels, channels], true, branch_init),
            heads,
            positions: positions.clone(),
        }
    }

    /// Computes the output, and with `weights` the attention maps.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C]`, the spatial tokens; time: `[B, time width]`, the time token
    /// - context: `[B, H, W, C]`
    pub fn forward(&self, x: Tensor<4>, time: Tensor<2>, weights: bool) -> TmsaOutput {
        let window = self.positions.side;
        let n = window * window;
        let bias = match &self.relative_position_bias_table {
            Some(table) => self.positions.bias(table.val().cast(at_least_f32(x.dtype()))),
            None => Tensor::zeros([self.heads, n, n], (&x.device(), DType::F32)),
        };
        let attention = Attention {
            qkv: self.qkv.forward(x),
            time: self.qkv_temb.forward(time),
            bias,
            window: [window, window],
        };
        let details = weights.then(|| {
            (attention.bias.clone(), norms(attention.qkv.clone(), attention.time.clone()))
        });
        let (context, weights) = window_attention(attention, weights);
        let attention = weights.zip(details).map(|(weights, (bias, lengths))| AttentionMaps {
            weights,
            bias,
            lengths,
            window,
        });
        TmsaOutput { context: self.proj.forward(context), attention }
    }

    /// Inputs of the fused kernel: the time token's part of queries, keys and values, and the
    /// parameters `qkv`, the relative position table and `proj`. `None` if the layer lacks a bias
    /// or the table.
    pub(crate) fn inputs(&self, time: Tensor<2>) -> Option<(Tensor<2>, [Input; 5])> {
        let table = self.relative_position_bias_table.as_ref()?.val().cast(DType::F32);
        let [qkv, qkv_bias] = self.qkv.inputs()?;
        let [proj, proj_bias] = self.proj.inputs()?;
        let inputs = [qkv, qkv_bias, table.into(), proj, proj_bias];
        Some((self.qkv_temb.forward(time), inputs))
    }

    /// Side of the window, in tokens.
    pub(crate) fn window(&self) -> usize {
        self.positions.side
    }

    /// Multiply-adds for a map of `tokens` tokens.
    pub(crate) fn macs(&self, tokens: usize, channels: usize) -> Macs {
        self.qkv.macs(tokens)
            + self.qkv_temb.macs(1)
            + self.proj.macs(tokens)
            + Macs::attention(&[2, tokens, self.positions.side.pow(2), channels])
    }
}

/// Computes the norms of queries, keys and values: of the spatial tokens' part `[B, H, W, 3 C]`, as
/// the mean over the map, and of the time token's part `[B, 3 C]`. The output is `[B, 2, 3]`.
pub(crate) fn norms(spatial: Tensor<4>, time: Tensor<2>) -> Tensor<3> {
    let [b, h, w, c3] = spatial.dims();
    let norm = |x: Tensor<4>| x.square().sum_dim(3).sqrt().mean_dim(1).reshape([b, 1, 3]);
    let spatial = norm(spatial.reshape([b, h * w, 3, c3 / 3]));
    let time = norm(time.reshape([b, 1, 3, c3 / 3]));
    Tensor::cat(vec![spatial, time], 1)
}
