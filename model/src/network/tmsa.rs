//! Time-dependent multi-head self-attention (TMSA), Eq (3)-(6).

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

use crate::config::{Position, TransformerConfig};
use crate::kernels::cpu::Input;
use crate::kernels::{Attention, wide, window_attention};
use crate::network::io::AttentionMaps;
use crate::network::layers::Linear;
use crate::network::macs::Macs;
use crate::network::params::{Init, Params};
use crate::network::window::RelativePositions;

/// Sizes of a transformer block that depend on its place in the network.
#[derive(Clone, Copy)]
pub(crate) struct TransformerShape<'a> {
    /// Channels of a spatial token.
    pub channels: usize,
    /// Width of the time token.
    pub time_width: usize,
    /// Relative positions inside its windows.
    pub positions: &'a RelativePositions,
    /// Factor on the initial weights of the linear maps that end a residual branch.
    pub branch_init: f64,
}

/// Queries, keys and values from the spatial and the time token:
/// `q = x_s W_qs + x_t W_qt`, and so on for `k` and `v` (Eq 3-5), then
/// `softmax(q kᵀ / sqrt(d) + B) v` per head (Eq 6), inside windows.
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
    /// `[B, H, W, C]`.
    pub context: Tensor<4>,
    /// What was attended to, if it was asked for.
    pub attention: Option<AttentionMaps>,
}

impl Tmsa {
    /// For maps of `channels`, a time token of `time_width` and windows with these positions.
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

    /// # Shapes
    ///
    /// - x: `[B, H, W, C]`, the spatial tokens; time: `[B, time width]`, the time token
    /// - context: `[B, H, W, C]`
    pub fn forward(&self, x: Tensor<4>, time: Tensor<2>, weights: bool) -> TmsaOutput {
        let window = self.positions.side;
        let n = window * window;
        let bias = match &self.relative_position_bias_table {
            Some(table) => self.positions.bias(table.val().cast(wide(x.dtype()))),
            None => Tensor::zeros([self.heads, n, n], (&x.device(), DType::F32)),
        };
        let attention = Attention {
            qkv: self.qkv.forward(x),
            time: self.qkv_temb.forward(time),
            bias,
            window: [window, window],
        };
        let why = weights.then(|| {
            (attention.bias.clone(), lengths(attention.qkv.clone(), attention.time.clone()))
        });
        let (context, weights) = window_attention(attention, weights);
        let attention = weights.zip(why).map(|(weights, (bias, lengths))| AttentionMaps {
            weights,
            bias,
            lengths,
            window,
        });
        TmsaOutput { context: self.proj.forward(context), attention }
    }

    /// For a kernel: the time token's part of queries, keys and values, and the parameters but for
    /// those that it came from: `qkv`, the table, `proj`. None without biases.
    pub(crate) fn inputs(&self, time: Tensor<2>) -> Option<(Tensor<2>, [Input; 5])> {
        let table = self.relative_position_bias_table.as_ref()?.val().cast(DType::F32);
        let [qkv, qkv_bias] = self.qkv.inputs()?;
        let [proj, proj_bias] = self.proj.inputs()?;
        let inputs = [qkv, qkv_bias, table.into(), proj, proj_bias];
        Some((self.qkv_temb.forward(time), inputs))
    }

    /// Tokens a side of the window.
    pub(crate) fn window(&self) -> usize {
        self.positions.side
    }

    /// For a map of `tokens`.
    pub(crate) fn macs(&self, tokens: usize, channels: usize) -> Macs {
        self.qkv.macs(tokens)
            + self.qkv_temb.macs(1)
            + self.proj.macs(tokens)
            + Macs::attention(&[2, tokens, self.positions.side.pow(2), channels])
    }
}

/// Lengths of queries, keys and values: their spatial parts `[B, H, W, 3 C]`, as the mean over the
/// map, and their parts from the time token `[B, 3 C]`. The output is `[B, 2, 3]`.
pub(crate) fn lengths(spatial: Tensor<4>, time: Tensor<2>) -> Tensor<3> {
    let [b, h, w, c3] = spatial.dims();
    let length = |x: Tensor<4>| x.square().sum_dim(3).sqrt().mean_dim(1).reshape([b, 1, 3]);
    let spatial = length(spatial.reshape([b, h * w, 3, c3 / 3]));
    let time = length(time.reshape([b, 1, 3, c3 / 3]));
    Tensor::cat(vec![spatial, time], 1)
}
