//! The residual block of DDPM++ and NCSN++, with self-attention or TMSA.

use core::f64::consts::FRAC_1_SQRT_2;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

use crate::config::{
    Direction, GroupNormConfig, Position, SongAttention, SongBlockPlan, SongConfig,
};
use crate::kernels::{self, Attention, DropoutKeys, PositionBias, at_least_f32};
use crate::network::attention::attend;
use crate::network::io::AttentionMaps;
use crate::network::layers::{Conv3x3, GroupNorm, Linear};
use crate::network::macs::Macs;
use crate::network::params::{Init, Params};
use crate::network::song::resample::Filter;
use crate::network::walk::WalkedBlock;
use crate::network::window::RelativePositions;

/// Factor on the initial weights of the layers that end a residual branch, and of the last one.
pub(super) const BRANCH_INIT: f64 = 1e-5;

/// `h = Conv1(SiLU(GN(Conv0(SiLU(GN(x))) + W x_t)))`, `y = (h + x) / sqrt(2)`, then attention.
/// `Conv0` and the shortcut change the resolution where the block does.
#[derive(Module, Debug)]
pub(crate) struct SongBlock {
    norm0: GroupNorm,
    conv0: Conv3x3,
    affine: Linear,
    norm1: GroupNorm,
    conv1: Conv3x3,
    /// The 1x1 convolution of the shortcut, where channels or resolution change.
    skip: Option<Linear>,
    attention: Option<SelfAttention>,
    dropout: f64,
    #[module(skip)]
    filter: Filter,
    #[module(skip)]
    plan: SongBlockPlan,
}

impl SongBlock {
    pub(crate) fn new(params: &Params, config: &SongConfig, plan: &SongBlockPlan) -> Self {
        let SongBlockPlan { channels_in, channels, resample, .. } = *plan;
        let norm = |name, c| GroupNorm::new(&params.enter(name), c, &GroupNormConfig::default());
        let conv = |name, ends, gain| Conv3x3::new(&params.enter(name), ends, 1, gain);
        let affine = params.enter("affine");
        Self {
            norm0: norm("norm0", channels_in),
            conv0: conv("conv0", [channels_in, channels], 1.0),
            affine: Linear::new(&affine, [config.time_width(), channels], true, 1.0),
            norm1: norm("norm1", channels),
            conv1: conv("conv1", [channels; 2], BRANCH_INIT),
            skip: (channels_in != channels || resample.is_some())
                .then(|| Linear::conv1x1(&params.enter("skip"), [channels_in, channels], 1.0)),
            attention: plan.attention.then(|| SelfAttention::new(params, config, plan)),
            dropout: config.dropout,
            filter: Filter::new(&config.resample_filter),
            plan: plan.clone(),
        }
    }

    fn resample(&self, x: Tensor<4>) -> Tensor<4> {
        match self.plan.resample {
            Some(Direction::Down) => self.filter.down(x),
            Some(Direction::Up) => self.filter.up(x),
            None => x,
        }
    }

    /// Its sizes.
    pub(crate) fn plan(&self) -> &SongBlockPlan {
        &self.plan
    }

    pub(crate) fn macs(&self) -> Macs {
        let pixels = self.plan.side.pow(2);
        let attention = self.attention.iter().map(|attention| attention.macs(self.plan.channels));
        self.conv0.macs(pixels)
            + self.affine.macs(1)
            + self.conv1.macs(pixels)
            + self.skip.iter().map(|conv| conv.macs(pixels)).sum::<Macs>()
            + attention.sum()
    }
}

impl WalkedBlock for SongBlock {
    fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        dropout: Option<DropoutKeys>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        let h = self.conv0.forward(self.resample(self.norm0.swish(x.clone())));
        let [b, _, _, c] = h.dims();
        let h = h + self.affine.forward(time.clone()).reshape([b, 1, 1, c]);
        let h = self.norm1.swish(h);
        let h = match dropout {
            Some(keys) if self.dropout > 0.0 => kernels::dropout(h, self.dropout, keys),
            _ => h,
        };
        let shortcut = match &self.skip {
            Some(conv) => conv.forward(self.resample(x)),
            None => x,
        };
        let y = (self.conv1.forward(h) + shortcut) * FRAC_1_SQRT_2;
        match &self.attention {
            Some(attention) => attention.forward(y, time, weights),
            None => (y, None),
        }
    }
}

/// Self-attention over the whole map, `(proj(attention(GN(y))) + y) / sqrt(2)`, without an MLP.
/// With TMSA, the time token is added to queries, keys and values (Eq 3-5), and there may be a
/// relative position bias (Eq 6).
#[derive(Module, Debug)]
struct SelfAttention {
    norm2: GroupNorm,
    qkv: Linear,
    qkv_temb: Option<Linear>,
    relative_position_bias_table: Option<Param<Tensor<2>>>,
    positions: Option<RelativePositions>,
    proj: Linear,
    heads: usize,
    /// Height and width of the map.
    side: usize,
}

impl SelfAttention {
    fn new(params: &Params, config: &SongConfig, plan: &SongBlockPlan) -> Self {
        let (side, heads, c) = (plan.side, config.heads, plan.channels);
        let gain = 0.2f64.sqrt();
        let norm2 = GroupNorm::new(&params.enter("norm2"), c, &GroupNormConfig::default());
        let qkv = Linear::conv1x1(&params.enter("qkv"), [c, 3 * c], gain);
        let (qkv_temb, init_std) = match config.attention {
            SongAttention::Plain => (None, None),
            SongAttention::Tmsa { position } => {
                let dims = [config.time_width(), 3 * c];
                let init_std = match position {
                    Position::Relative { init_std } => Some(init_std),
                    Position::None => None,
                };
                (Some(Linear::new(&params.enter("qkv_temb"), dims, true, gain)), init_std)
            }
        };
        Self {
            norm2,
            qkv,
            qkv_temb,
            relative_position_bias_table: init_std.map(|std| {
                let shape = [(2 * side - 1).pow(2), heads];
                params.tensor("relative_position_bias_table", shape, Init::Normal { std })
            }),
            positions: init_std.map(|_| RelativePositions::new(side, params)),
            proj: Linear::conv1x1(&params.enter("proj"), [c, c], BRANCH_INIT),
            heads,
            side,
        }
    }

    fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        let ([b, h, w, c], n) = (x.dims(), self.side.pow(2));
        // (.., heads d 3) -> (.., 3 heads d): EDM stores a channel's query, key and value together.
        let qkv = self.qkv.forward(self.norm2.forward(x.clone()));
        let qkv = qkv.reshape([b, h * w, c, 3]).swap_dims(2, 3).reshape([b, h, w, 3 * c]);
        let time = self.qkv_temb.as_ref().map(|linear| {
            let time = linear.forward(time);
            time.reshape([b, c, 3]).swap_dims(1, 2).reshape([b, 3 * c])
        });
        let bias = match (&self.relative_position_bias_table, &self.positions) {
            (Some(table), Some(positions)) => {
                let table = table.val().cast(at_least_f32(x.dtype()));
                positions.bias(table)
            }
            _ => PositionBias::Values(Tensor::zeros(
                [1, self.heads, n, n],
                (&x.device(), DType::F32),
            )),
        };
        let attention = Attention { qkv, time, token: None, bias, window: [self.side; 2] };
        let (context, maps) = attend(attention, None, weights);
        ((self.proj.forward(context) + x) * FRAC_1_SQRT_2, maps)
    }

    fn macs(&self, channels: usize) -> Macs {
        let tokens = self.side.pow(2);
        self.qkv.macs(tokens)
            + self.qkv_temb.iter().map(|linear| linear.macs(1)).sum()
            + self.proj.macs(tokens)
            + Macs::attention(&[2, tokens, tokens, channels])
    }
}
