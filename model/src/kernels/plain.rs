//! Reference implementations of the network's operations, made of tensor operations, for every
//! backend.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Int, Tensor, TensorData, activation, module};

use crate::kernels::scramble::SCRAMBLE;

/// Computes Swish, `x · sigmoid(x)`.
pub(crate) fn swish<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

/// Returns the type of computations that 16 bits are too few for: `f32`, or `f64` if `dtype` is
/// that.
pub(crate) fn at_least_f32(dtype: DType) -> DType {
    if dtype == DType::F64 { dtype } else { DType::F32 }
}

/// Casts `x` to [`at_least_f32`] of its type.
pub(crate) fn widen<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let dtype = at_least_f32(x.dtype());
    x.cast(dtype)
}

/// The arguments of [`window_attention`].
pub(crate) struct Attention {
    /// Spatial part of queries, keys and values, `[B, H, W, 3 C]`.
    pub qkv: Tensor<4>,
    /// Time token's part of queries, keys and values, `[B, 3 C]`, if it has one.
    pub time: Option<Tensor<2>>,
    /// Queries, keys and values of a further token in every window, `[B, 3 C]`. The tokens of the
    /// map attend to it; its own output is not computed.
    pub token: Option<Tensor<2>>,
    pub bias: PositionBias,
    /// Height and width of a window; they divide those of the map.
    pub window: [usize; 2],
}

/// The position bias of attention: what is added to the logit of each pair of tokens.
// There is one of them for each attention.
#[allow(clippy::large_enum_variant)]
#[derive(Clone)]
pub(crate) enum PositionBias {
    /// To be looked up, for all pictures alike.
    Table {
        /// `[offsets, heads]`.
        table: Tensor<2>,
        /// The row for each pair of the `N` tokens of a window, `[N N]`.
        index: Tensor<1, Int>,
    },
    /// `[1 or B, heads, N, K]` for `N` tokens in a window and `K` keys: `N`, and one for the
    /// further token.
    Values(Tensor<4>),
}

impl PositionBias {
    /// Returns the values, `[1 or B, heads, N, K]`.
    pub(crate) fn values(self) -> Tensor<4> {
        match self {
            Self::Table { table, index } => {
                let [_, heads] = table.dims();
                let n = index.dims()[0].isqrt();
                // (n n, heads) -> (1, heads, n, n)
                table.select(0, index).swap_dims(0, 1).reshape([1, heads, n, n])
            }
            Self::Values(values) => values,
        }
    }

    /// How many there are: one, or one for each picture.
    pub(crate) fn tables(&self) -> usize {
        match self {
            Self::Table { .. } => 1,
            Self::Values(values) => values.dims()[0],
        }
    }
}

/// Computes `tanh` of the argument clamped to -15 to 15, beyond which it is ±1 to 13 digits. WebGPU
/// and Vulkan leave the result for large arguments undefined.
pub(crate) fn tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clamp(-15.0, 15.0).tanh()
}

/// [`super::gelu_tanh`] with tensor operations.
pub(crate) fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    // The cube is written as products because a power is computed with a logarithm and an
    // exponential.
    let cube = x.clone() * x.clone() * x.clone();
    let u = (x.clone() + cube * 0.044715) * (2.0 / core::f64::consts::PI).sqrt();
    x * (tanh(u) + 1.0) * 0.5
}

/// [`super::layer_norm`] with tensor operations.
pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    module::layer_norm(x, weight, Some(bias), eps)
}

/// [`super::group_norm`] with tensor operations.
pub(crate) fn group_norm(
    x: Tensor<4>,
    groups: usize,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
    with_swish: bool,
) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    // (b, h w, groups, c / groups)
    let x = x.reshape([b, h * w, groups, c / groups]);
    let mean = x.clone().mean_dim(3).mean_dim(1);
    let x = x - mean;
    let var = x.clone().square().mean_dim(3).mean_dim(1);
    let x = (x / (var + eps).sqrt()).reshape([b, h, w, c]);
    let x = x * weight.reshape([1, 1, 1, c]) + bias.reshape([1, 1, 1, c]);
    if with_swish { swish(x) } else { x }
}

/// [`super::dropout`] with tensor operations. Values whose 31-bit hash is below `below` are
/// dropped, and the others multiplied by `scale`.
pub(crate) fn dropout(x: Tensor<4>, keys: &[u32], below: u32, scale: f64) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let device = x.device().without_autodiff();
    // As i32: its products wrap around to the same bits as those of u32.
    let keys: Vec<i32> = keys.iter().map(|&key| key as i32).collect();
    let keys = TensorData::new(keys, [b, 1, 1, 1]);
    let keys = Tensor::<4, Int>::from_data(keys, (&device, DType::I32));
    let values = Tensor::<1, Int>::arange(0..(h * w * c) as i64, (&device, DType::I32));
    let shift = |x: Tensor<4, Int>, n: u32| {
        // Shifting a signed number fills in copies of its sign bit; the mask clears them.
        let low = ((1u64 << (32 - n)) - 1) as i32;
        x.bitwise_right_shift_scalar(n as i32).bitwise_and_scalar(low)
    };
    let [golden, first, second] = SCRAMBLE.map(|multiplier| multiplier as i32);
    let x0 = (values * golden).reshape([1, h, w, c]).expand([b, h, w, c]);
    let x1 = x0.bitwise_xor(keys.expand([b, h, w, c]));
    let x2 = x1.clone().bitwise_xor(shift(x1, 16)) * first;
    let x3 = x2.clone().bitwise_xor(shift(x2, 15)) * second;
    let x4 = x3.clone().bitwise_xor(shift(x3, 16));
    let dropped = shift(x4, 1).lower_elem(below as i32);
    x.mask_fill(dropped, 0.0) * scale
}

/// [`super::conv3x3`] with tensor operations.
pub(crate) fn conv3x3(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
) -> Tensor<4> {
    let options = ConvOptions::new([stride, stride], [1, 1], [1, 1], 1);
    // (b, h, w, c) -> (b, c, h, w) and back
    module::conv2d(x.permute([0, 3, 1, 2]), weight, Some(bias), options).permute([0, 2, 3, 1])
}

/// [`super::window_attention`] with tensor operations; returns the output and the attention
/// weights.
pub(crate) fn window_attention(attention: Attention) -> (Tensor<4>, Tensor<5>) {
    let Attention { qkv, time, token, bias, window: [wh, ww] } = attention;
    let [b, h, w, c3] = qkv.dims();
    let bias = bias.values();
    let [tables, heads, n, keys] = bias.dims();
    let (rows, columns, d) = (h / wh, w / ww, c3 / 3 / heads);
    let windows = rows * columns;
    // Eq (3)-(5): the spatial and the temporal part of q, k and v are added.
    let qkv = match time {
        Some(time) => qkv + time.reshape([b, 1, 1, c3]),
        None => qkv,
    };
    // (b rows, wh, columns, ww, 3, heads, d) -> (3, b rows, columns, heads, wh, ww, d)
    let qkv = qkv
        .reshape([b * rows, wh, columns, ww, 3, heads, d])
        .permute([4, 0, 2, 5, 1, 3, 6])
        .reshape([3, b * windows, heads, n, d]);
    // (b, 3 heads d) -> (3, b windows, heads, 1, d)
    let token = token.map(|token| {
        let token = token.reshape([b, 1, 3, heads, 1, d]).expand([b, windows, 3, heads, 1, d]);
        token.permute([2, 0, 1, 3, 4, 5]).reshape([3, b * windows, heads, 1, d])
    });
    let slice = |x: &Tensor<5>, i| x.clone().narrow(0, i, 1).squeeze_dim::<4>(0);
    let part = |i| match &token {
        Some(token) if i > 0 => Tensor::cat(vec![slice(&qkv, i), slice(token, i)], 2),
        _ => slice(&qkv, i),
    };
    let (q, k, v) = (part(0), part(1), part(2));
    let scale = (d as f64).powf(-0.5);
    let logits = widen((q * scale).matmul(k.swap_dims(2, 3)));
    let bias = bias.cast(logits.dtype());
    let bias = match tables {
        1 => bias,
        // All windows of an image have its bias.
        _ => (bias.unsqueeze_dim::<5>(1).expand([b, windows, heads, n, keys])).reshape([
            b * windows,
            heads,
            n,
            keys,
        ]),
    };
    let weights = activation::softmax(logits + bias, 3);
    // (b rows, columns, heads, wh, ww, d) -> (b rows, wh, columns, ww, heads, d)
    let context = weights
        .clone()
        .cast(v.dtype())
        .matmul(v)
        .reshape([b * rows, columns, heads, wh, ww, d])
        .permute([0, 3, 1, 4, 2, 5])
        .reshape([b, h, w, heads * d]);
    (context, weights.narrow(3, 0, n).reshape([b, windows, heads, n, n]))
}

/// Doubles height and width by repeating every value.
pub(crate) fn upsample_nearest(x: Tensor<4>) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    x.reshape([b, h, 1, w, 1, c]).expand([b, h, 2, w, 2, c]).reshape([b, 2 * h, 2 * w, c])
}

/// Doubles height and width by bilinear interpolation between the centres of pixels.
pub(crate) fn upsample_bilinear(x: Tensor<4>) -> Tensor<4> {
    /// Doubles dimension `dim`: the neighbours of an even row are the row itself and the one
    /// before it, with weights 3/4 and 1/4; those of an odd row, itself and the one after it.
    fn double(x: Tensor<4>, dim: usize) -> Tensor<4> {
        let n = x.dims()[dim];
        let before =
            Tensor::cat(vec![x.clone().narrow(dim, 0, 1), x.clone().narrow(dim, 0, n - 1)], dim);
        let after = Tensor::cat(
            vec![x.clone().narrow(dim, 1, n - 1), x.clone().narrow(dim, n - 1, 1)],
            dim,
        );
        let x = x * 0.75;
        let even = x.clone() + before * 0.25;
        let odd = x + after * 0.25;
        let mut shape = even.dims();
        shape[dim] = 2 * n;
        Tensor::stack::<5>(vec![even, odd], dim + 1).reshape(shape)
    }
    double(double(x, 1), 2)
}

/// Multiplies height and width by `factor`, by bilinear interpolation between pixel centres.
pub(crate) fn enlarge_bilinear(x: Tensor<4>, factor: usize) -> Tensor<4> {
    if factor == 1 {
        return x;
    }
    let [b, h, w, c] = x.dims();
    let options = (&x.device().without_autodiff(), x.dtype());
    // Row `i` holds the weights of the old pixels in the new pixel `i`.
    let matrix = |n: usize| {
        let mut weights = vec![0.0f32; factor * n * n];
        for (i, row) in weights.chunks_exact_mut(n).enumerate() {
            let position = ((i as f32 + 0.5) / factor as f32 - 0.5).clamp(0.0, (n - 1) as f32);
            let low = position.floor() as usize;
            row[low] += 1.0 - position.fract();
            row[(low + 1).min(n - 1)] += position.fract();
        }
        Tensor::<3>::from_data(TensorData::new(weights, [1, factor * n, n]), options)
    };
    let rows = matrix(h).expand([b, factor * h, h]).matmul(x.reshape([b, h, w * c]));
    let b_rows = b * factor * h;
    let columns = matrix(w).expand([b_rows, factor * w, w]).matmul(rows.reshape([b_rows, w, c]));
    columns.reshape([b, factor * h, factor * w, c])
}

/// Halves height and width by bilinear interpolation, which is the mean of each 2x2 pixels.
pub(crate) fn downsample_bilinear(x: Tensor<4>) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    x.reshape([b, h / 2, 2, w / 2, 2, c]).mean_dim(2).mean_dim(4).reshape([b, h / 2, w / 2, c])
}
