//! Attention with its maps.

use burn::tensor::Tensor;

use crate::kernels::{Attention, window_attention};
use crate::network::io::AttentionMaps;

/// Computes attention, and with `weights` its maps. `value` is added to the output for all tokens.
///
/// # Shapes
///
/// - value: `[B, C]`
/// - output: `[B, H, W, C]`
pub(crate) fn attend(
    attention: Attention,
    value: Option<Tensor<2>>,
    weights: bool,
) -> (Tensor<4>, Option<AttentionMaps>) {
    let window = attention.window[0];
    let details = weights.then(|| {
        let zeros = |v: &Tensor<2>| v.zeros_like();
        let of_value = value.as_ref().map(|v| Tensor::cat(vec![zeros(v), zeros(v), v.clone()], 1));
        let time = attention.time.clone().or(attention.token.clone()).or(of_value);
        (attention.bias.clone().values(), norms(attention.qkv.clone(), time))
    });
    let (mut context, weights) = window_attention(attention, weights);
    if let Some(value) = value {
        let [b, c] = value.dims();
        context = context + value.reshape([b, 1, 1, c]);
    }
    let maps = weights.zip(details).map(|(weights, (bias, lengths))| AttentionMaps {
        weights,
        bias: bias.narrow(3, 0, window * window),
        lengths,
        window,
    });
    (context, maps)
}

/// Computes the norms of queries, keys and values: of the spatial tokens' part `[B, H, W, 3 C]`, as
/// the mean over the map, and of the time token's part `[B, 3 C]`, or 0. The output is `[B, 2, 3]`.
fn norms(spatial: Tensor<4>, time: Option<Tensor<2>>) -> Tensor<3> {
    let [b, h, w, c3] = spatial.dims();
    let norm = |x: Tensor<4>| x.square().sum_dim(3).sqrt().mean_dim(1).reshape([b, 1, 3]);
    let spatial = norm(spatial.reshape([b, h * w, 3, c3 / 3]));
    let time = match time {
        Some(time) => norm(time.reshape([b, 1, 3, c3 / 3])),
        None => spatial.zeros_like(),
    };
    Tensor::cat(vec![spatial, time], 1)
}
