//! Time-dependent multi-head self-attention (TMSA), Eq (3)-(6).

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

use crate::config::{Position, TimeEntry, TransformerConfig};
use crate::kernels::cpu::Input;
use crate::kernels::{Attention, PositionBias, at_least_f32};
use crate::network::attention::attend;
use crate::network::io::AttentionMaps;
use crate::network::layers::{Around, Linear};
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

impl TransformerShape<'_> {
    /// The linear map of the time token to `channels` values that the block has if the time token
    /// enters it at `place`.
    pub(crate) fn time_map(
        &self,
        params: Params,
        config: &TransformerConfig,
        place: TimeEntry,
        channels: usize,
    ) -> Option<Linear> {
        // Queries, keys and values have biases or not; what is added elsewhere has.
        let attends = [TimeEntry::Qkv, TimeEntry::Token, TimeEntry::Additive].contains(&place);
        let bias = config.qkv_bias || !attends;
        // A bias table of its own begins near none, as the one that all pictures share.
        let init = match place {
            TimeEntry::Bias => Init::Normal { std: 0.02 },
            _ => Init::XavierUniform { gain: 1.0 },
        };
        (config.time_entry == place)
            .then(|| Linear::with_init(&params, [self.time_width, channels], bias, init))
    }
}

/// Adds the map of the time token, if there is one, to every place of a map.
pub(crate) fn plus_time(x: Tensor<4>, map: &Option<Linear>, time: &Tensor<2>) -> Tensor<4> {
    let Some(map) = map else { return x };
    let [b, .., c] = x.dims();
    x + map.forward(time.clone()).reshape([b, 1, 1, c])
}

/// The TMSA layer. Queries, keys and values are computed from the spatial tokens and the time
/// token, `q = x_s W_qs + x_t W_qt` and likewise `k` and `v` (Eq 3-5); each head computes
/// `softmax(q kᵀ / sqrt(d) + B) v` inside windows (Eq 6).
///
/// [`TimeEntry`] lists the alternatives, each with a linear map of its own instead of `qkv_temb`.
#[derive(Module, Debug)]
pub struct Tmsa {
    qkv: Linear,
    qkv_temb: Option<Linear>,
    relative_position_bias_table: Option<Param<Tensor<2>>>,
    proj: Linear,
    /// To the table of the relative position bias.
    bias_temb: Option<Linear>,
    /// To queries, keys and values of the time token.
    qkv_token: Option<Linear>,
    /// The bias from a spatial to the time token, back, and from the time token to itself; only
    /// the first has an effect as long as the time token's output is not used.
    token_bias_table: Option<Param<Tensor<2>>>,
    /// To what is added to the values that were attended to.
    value_temb: Option<Linear>,
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
        let TransformerShape { channels, positions, branch_init, .. } = *shape;
        let heads = channels / config.head_dim;
        let offsets = (2 * positions.side - 1).pow(2);
        let time_map =
            |name, place, d_out| shape.time_map(params.enter(name), config, place, d_out);
        let table = |name, rows| match config.position {
            Position::Relative { init_std } => {
                Some(params.tensor(name, [rows, heads], Init::Normal { std: init_std }))
            }
            Position::None => None,
        };
        let dims = [channels, 3 * channels];
        Self {
            qkv: Linear::new(&params.enter("qkv"), dims, config.qkv_bias, 1.0),
            qkv_temb: time_map("qkv_temb", TimeEntry::Qkv, 3 * channels),
            relative_position_bias_table: table("relative_position_bias_table", offsets),
            proj: Linear::new(&params.enter("proj"), [channels, channels], true, branch_init),
            bias_temb: time_map("bias_temb", TimeEntry::Bias, offsets * heads),
            qkv_token: time_map("qkv_token", TimeEntry::Token, 3 * channels),
            token_bias_table: (config.time_entry == TimeEntry::Token)
                .then(|| table("token_bias_table", 3))
                .flatten(),
            value_temb: time_map("value_temb", TimeEntry::Additive, channels),
            heads,
            positions: positions.clone(),
        }
    }

    /// Computes `TMSA(LN(x), x_t) + ..`, and with `weights` the attention maps. `around` has the
    /// layer normalisation and what is added.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C]`, the spatial tokens; time: `[B, time width]`, the time token
    /// - context: `[B, H, W, C]`
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        weights: bool,
        around: Around<4>,
    ) -> TmsaOutput {
        let Around { norm, adds, .. } = around;
        let window = self.positions.side;
        let map = |map: &Option<Linear>| map.as_ref().map(|map| map.forward(time.clone()));
        let attention = Attention {
            qkv: self.qkv.forward_with(x, Around { norm, ..Around::default() }),
            time: map(&self.qkv_temb),
            token: map(&self.qkv_token),
            bias: self.bias(&time),
            window: [window, window],
        };
        let (context, attention) = attend(attention, map(&self.value_temb), weights);
        let context = self.proj.forward_with(context, Around { adds, ..Around::default() });
        TmsaOutput { context, attention }
    }

    /// B of Eq (6): of all pictures alike, or of each if the time token enters here; with a time
    /// token among the keys, of one key more.
    fn bias(&self, time: &Tensor<2>) -> PositionBias {
        let (heads, n, dtype) =
            (self.heads, self.positions.side.pow(2), at_least_f32(time.dtype()));
        let Some(table) = &self.relative_position_bias_table else {
            let keys = n + usize::from(self.qkv_token.is_some());
            let zeros = Tensor::zeros([1, heads, n, keys], (&time.device(), DType::F32));
            return PositionBias::Values(zeros);
        };
        let table = table.val().cast(dtype);
        let [offsets, _] = table.dims();
        let bias = match &self.bias_temb {
            Some(map) => {
                // (b, offsets heads) -> (offsets, b heads)
                let b = time.dims()[0];
                let own = map.forward(time.clone()).cast(dtype).reshape([b, offsets, heads]);
                let tables = table.unsqueeze_dim::<3>(1) + own.swap_dims(0, 1);
                let bias = self.positions.bias(tables.reshape([offsets, b * heads])).values();
                PositionBias::Values(bias.reshape([b, heads, n, n]))
            }
            None => self.positions.bias(table),
        };
        match &self.token_bias_table {
            Some(table) => {
                let to_time = table.val().cast(dtype).narrow(0, 0, 1).reshape([1, heads, 1, 1]);
                let to_time = to_time.expand([1, heads, n, 1]);
                PositionBias::Values(Tensor::cat(vec![bias.values(), to_time], 3))
            }
            None => bias,
        }
    }

    /// Returns the inputs of a fused kernel: the time token's part of queries, keys and values, and
    /// the parameters of `qkv`, the bias table and the parameters of `proj`. `None` if one of them is
    /// missing, or if the time token enters elsewhere.
    pub(crate) fn inputs(&self, time: Tensor<2>) -> Option<(Tensor<2>, [Input; 5])> {
        let table = self.relative_position_bias_table.as_ref()?.val().cast(DType::F32);
        let [qkv, qkv_bias] = self.qkv.inputs()?;
        let [proj, proj_bias] = self.proj.inputs()?;
        let inputs = [qkv, qkv_bias, table.into(), proj, proj_bias];
        Some((self.qkv_temb.as_ref()?.forward(time), inputs))
    }

    /// Side of the window, in tokens.
    pub(crate) fn window(&self) -> usize {
        self.positions.side
    }

    /// Multiply-adds for a map of `tokens` tokens.
    pub(crate) fn macs(&self, tokens: usize, channels: usize) -> Macs {
        let Self { qkv_temb, bias_temb, qkv_token, value_temb, .. } = self;
        let of_time = [qkv_temb, bias_temb, qkv_token, value_temb].into_iter().flatten();
        let keys = self.positions.side.pow(2) + usize::from(qkv_token.is_some());
        self.qkv.macs(tokens)
            + of_time.map(|map| map.macs(1)).sum()
            + self.proj.macs(tokens)
            + Macs::attention(&[2, tokens, keys, channels])
    }
}
