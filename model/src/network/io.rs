//! Inputs and outputs of a network.

use std::borrow::Cow;

use burn::tensor::{DType, Tensor, TensorData};

use crate::diffusion::label::Label;

/// The input of a network. The network computes in the type of `x`: parameters are cast to it when
/// they are used. Normalisation and softmax are computed in `f32`.
#[derive(Clone, Debug)]
pub struct NetworkInput {
    /// Noisy pictures, scaled by the preconditioner, `[B, C, H, W]`.
    pub x: Tensor<4>,
    /// Noise level of each picture as `c_noise` of the preconditioner.
    pub c_noise: Vec<f64>,
    /// Conditioning, options of training, and inspection.
    pub options: NetworkOptions,
}

/// The output of a network.
#[derive(Clone, Debug)]
pub struct NetworkOutput {
    /// Prediction, `[B, C, H, W]`. With a learned variance `[B, 2 C, H, W]`: the prediction, then
    /// the position of the variance between its bounds, -1 to 1.
    pub x: Tensor<4>,
    /// Attention maps of the requested block, if any.
    pub attention: Option<AttentionMaps>,
    /// Summary of the attention of each block, if requested: an element per block in the order of
    /// execution, `None` for one without attention. [`AttentionMaps::summary`] has their shape.
    pub summaries: Vec<Option<Tensor<2>>>,
}

/// Attention maps of a block, and what they were computed from.
#[derive(Clone, Debug)]
pub struct AttentionMaps {
    /// Attention weights, `[B, windows, heads, N, N]`: row `i` holds the weights of all tokens'
    /// values in the output of token `i`, and sums to 1. Windows, and tokens inside a window, are
    /// in row-major order. If the time token is one of a window's tokens, its weight is left out
    /// and makes up the difference to 1.
    pub weights: Tensor<5>,
    /// Relative position bias, B of Eq (6), `[1, heads, N, N]`, or `[B, heads, N, N]` if the time
    /// token enters there.
    pub bias: Tensor<4>,
    /// Norms of the two parts of queries, keys and values (Eq 3-5), `[B, 2, 3]`: the part of the
    /// spatial tokens, as the mean over the map, and the part of the time token, 0 if there is none.
    pub lengths: Tensor<3>,
    /// Side of a window, in tokens.
    pub window: usize,
}

impl AttentionMaps {
    /// Number of values in a summary.
    pub const SUMMARY: usize = 8;

    /// Summarises the maps of each picture, `[B, 8]`: the six values of `lengths`; the entropy of the
    /// attention weights as a fraction of its maximum; the distance between a token and those that it
    /// attends to, in tokens, weighted by attention. The last two are means over tokens, windows and
    /// heads.
    pub fn summary(&self) -> Tensor<2> {
        let weights = self.weights.clone().cast(DType::F32);
        let [b, windows, heads, n, _] = weights.dims();
        let mean = |per_pair: Tensor<5>| {
            // [B, windows, heads, N, N] -> [B, 1]
            per_pair.reshape([b, windows * heads * n * n]).sum_dim(1) / (windows * heads * n) as f64
        };
        let options = (&weights.device(), DType::F32);
        let distances =
            Tensor::<1>::from_data(TensorData::new(distances(self.window), [n * n]), options);
        let distance = mean(weights.clone() * distances.reshape([1, 1, 1, n, n]));
        // 0 log 0 is 0.
        let entropy = mean(weights.clone().clamp_min(1e-30).log() * weights).neg();
        let most = if n > 1 { (n as f64).ln() } else { 1.0 };
        let lengths = self.lengths.clone().cast(DType::F32).reshape([b, 6]);
        Tensor::cat(vec![lengths, entropy / most, distance], 1)
    }
}

/// The distances between all pairs of tokens of a window of `side` by `side`, in row-major order.
fn distances(side: usize) -> Vec<f32> {
    let place = |token: usize| [token / side, token % side].map(|place| place as f32);
    let between = |i, j| {
        let ([y, x], [v, u]) = (place(i), place(j));
        (y - v).hypot(x - u)
    };
    let n = side * side;
    (0..n * n).map(|pair| between(pair / n, pair % n)).collect()
}

/// The position and size of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Part of the network: `encoder` or `decoder`; `stack` in the latent network.
    pub part: &'static str,
    /// Side of its map, in tokens.
    pub side: usize,
    /// Channels of a token.
    pub channels: usize,
    /// Side of its attention window, in tokens; 0 if the block has no attention.
    pub window: usize,
}

/// Options of a forward pass, besides the noisy pictures and their noise levels.
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions {
    /// Labels of the pictures.
    pub conditioning: Conditioning,
    /// Dropout and gradient checkpointing; the default is inference.
    pub training: TrainingOptions,
    /// Attention maps to return, and parts to switch off.
    pub inspection: Inspection,
}

/// The conditioning of a batch: class labels and augmentation labels.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// Label of each picture. A label without a class is the null class of classifier-free
    /// guidance. If the list is empty, no picture has a class.
    pub labels: Vec<Label>,
    /// Augmentation labels, `[B, labels]`; `None` when sampling.
    pub augment: Option<Tensor<2>>,
}

/// Options of a forward pass in training. The default is inference.
#[derive(Clone, Debug, Default)]
pub struct TrainingOptions {
    /// Dropout key of each picture; `None` disables dropout.
    pub dropout: Option<Vec<u32>>,
    /// Gradient-checkpointing recorder; `None` trains normally.
    #[cfg(feature = "train")]
    pub recompute: Option<crate::training::recompute::Recompute>,
}

/// Options that inspect a forward pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inspection {
    /// Index of the block whose attention maps are returned, in the order of execution.
    pub attention_of: Option<usize>,
    /// Request for a summary of the attention of every block.
    pub summaries: bool,
    /// Whether the time token is replaced by zeros.
    pub silence_time: bool,
}

impl From<Conditioning> for NetworkOptions {
    fn from(conditioning: Conditioning) -> Self {
        Self { conditioning, ..Self::default() }
    }
}

impl Conditioning {
    /// The label of each of `b` pictures.
    pub(crate) fn labels_of(&self, b: usize) -> Cow<'_, [Label]> {
        if self.labels.is_empty() { vec![Label::NONE; b].into() } else { (&self.labels[..]).into() }
    }
}

impl NetworkOptions {
    /// The time token as the blocks receive it, cast to `dtype`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// A window of 2x2 tokens: head 0 attends to the token itself, head 1 to all of them alike.
    #[test]
    fn a_summary_has_norms_entropy_and_distance() {
        let device = Device::flex();
        let eye = Tensor::<2>::eye(4, &device).reshape([1, 1, 1, 4, 4]);
        let even = Tensor::<5>::full([1, 1, 1, 4, 4], 0.25, &device);
        let lengths = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &device);
        let summary = |weights: Vec<Tensor<5>>| -> Vec<f32> {
            let maps = AttentionMaps {
                weights: Tensor::cat(weights, 2),
                bias: Tensor::zeros([1, 1, 4, 4], &device),
                lengths: lengths.clone().reshape([1, 2, 3]),
                window: 2,
            };
            maps.summary().into_data().try_into_vec().expect("f32")
        };
        let (own, all) = (summary(vec![eye.clone()]), summary(vec![even.clone()]));
        let both = summary(vec![eye, even]);
        assert_eq!(own[..6], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        // The distances from a corner are 0, 1, 1 and the square root of 2.
        let distance = (2.0 + 2f32.sqrt()) / 4.0;
        let want = [(own, [0.0, 0.0]), (all, [1.0, distance]), (both, [0.5, distance / 2.0])];
        for (found, want) in want {
            assert_eq!(found.len(), AttentionMaps::SUMMARY);
            for (found, want) in found[6..].iter().zip(want) {
                assert!((found - want).abs() < 1e-6, "{found} and {want}");
            }
        }
    }
}
