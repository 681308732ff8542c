//! Inputs and outputs of a network.

use std::borrow::Cow;

use burn::tensor::{DType, Tensor};

use crate::diffusion::label::Label;

/// What a network computes from. It computes in the type of `x`: parameters are brought to that
/// type where they meet it, while normalisation and softmax are computed in `f32`.
#[derive(Clone, Debug)]
pub struct NetworkInput {
    /// Noisy pictures, scaled by the preconditioner, `[B, C, H, W]`.
    pub x: Tensor<4>,
    /// Their noise levels, as the preconditioner expresses them, one a picture.
    pub c_noise: Vec<f64>,
    /// Conditioning, training mechanics and inspection.
    pub options: NetworkOptions,
}

/// What a network computes.
#[derive(Clone, Debug)]
pub struct NetworkOutput {
    /// `[B, C, H, W]`; with a learned variance, `[B, 2 C, H, W]`: the prediction, then the place of
    /// the variance between its bounds, -1 to 1.
    pub x: Tensor<4>,
    /// Attention maps of the block that was asked for.
    pub attention: Option<AttentionMaps>,
}

/// What the tokens of a block attend to, and why.
#[derive(Clone, Debug)]
pub struct AttentionMaps {
    /// `[B, windows, heads, N, N]`: row `i` holds the weights with which token `i` of a window
    /// takes up the values of the others, and sums to 1. Windows are counted row after row, and
    /// so are the tokens inside one. If the time token is one of a window's, its weight is left out
    /// and makes up the difference to 1.
    pub weights: Tensor<5>,
    /// B of Eq (6), `[1, heads, N, N]`; if the time token enters there, `[B, heads, N, N]`.
    pub bias: Tensor<4>,
    /// Lengths of the two parts of queries, keys and values (Eq 3-5), `[B, 2, 3]`: of the spatial
    /// token, as the mean over the map, and of the time token, 0 if it has none.
    pub lengths: Tensor<3>,
    /// Tokens a side of a window.
    pub window: usize,
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// `encoder` or `decoder`; `stack` in the latent network, which has one part.
    pub part: &'static str,
    /// Tokens a side of its map.
    pub side: usize,
    /// Channels of a token.
    pub channels: usize,
    /// Tokens a side of its attention window.
    pub window: usize,
}

/// Options of a forward pass, besides the noisy pictures and their noise levels.
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions {
    /// What the pictures are conditioned on.
    pub conditioning: Conditioning,
    /// Dropout and gradient checkpointing; the default is inference.
    pub training: TrainingOptions,
    /// What is recorded or switched off to look inside.
    pub inspection: Inspection,
}

/// What pictures are conditioned on.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// The label of each picture; one without a class is the null class of classifier-free
    /// guidance. If the list is empty, no picture has a class.
    pub labels: Vec<Label>,
    /// Augmentation labels, `[B, labels]`; `None` when sampling.
    pub augment: Option<Tensor<2>>,
}

/// Mechanics of training. The default is inference.
#[derive(Clone, Debug, Default)]
pub struct TrainingOptions {
    /// Dropout key of each picture; `None` disables dropout.
    pub dropout: Option<Vec<u32>>,
    /// Gradient-checkpointing recorder; `None` trains normally.
    #[cfg(feature = "train")]
    pub recompute: Option<crate::training::recompute::Recompute>,
}

/// Inspection of a forward pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inspection {
    /// The block whose attention maps are returned, counted in the order of execution.
    pub attention_of: Option<usize>,
    /// Whether the time token is replaced by zeros.
    pub silence_time: bool,
}

impl From<Conditioning> for NetworkOptions {
    fn from(conditioning: Conditioning) -> Self {
        Self { conditioning, ..Self::default() }
    }
}

impl Conditioning {
    /// The labels of `b` pictures.
    pub(crate) fn labels_of(&self, b: usize) -> Cow<'_, [Label]> {
        if self.labels.is_empty() { vec![Label::NONE; b].into() } else { (&self.labels[..]).into() }
    }
}

impl NetworkOptions {
    /// The time token as the blocks receive it, in the type of a map.
    pub(crate) fn time_token(&self, time: Tensor<2>, dtype: DType) -> Tensor<2> {
        let time = time.cast(dtype);
        let time = if self.inspection.silence_time { time.zeros_like() } else { time };
        #[cfg(feature = "train")]
        if let Some(recompute) = &self.training.recompute {
            return recompute.time(time);
        }
        time
    }
}
