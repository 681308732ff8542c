//! The network's operations on channels-last maps `[B, H, W, C]`, and the choice of an
//! implementation for each.
//!
//! [`plain`] has a reference implementation of every operation, made of tensor operations, which
//! runs on every backend. [`cpu`] has faster CPU kernels for the operations that take most of the
//! time, and `cube` GPU kernels. `differentiable` makes operations with gradients of both.
//! Normalisation and softmax are computed in `f32` even if the type of a map has fewer bits.

pub(crate) mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod differentiable;
pub(crate) mod plain;
mod scramble;

use burn::tensor::{Tensor, activation, module};

use crate::diffusion::noise::philox4x32;
use plain::widen;
pub(crate) use plain::{
    Attention, PositionBias, at_least_f32, downsample_bilinear, enlarge_bilinear, swish, tanh,
    upsample_bilinear, upsample_nearest,
};

/// Computes GELU in its tanh form.
pub(crate) fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if cpu::supports(&x) {
        return cpu::run(cpu::Gelu, [x.into()]);
    }
    plain::gelu_tanh(x)
}

/// An activation between two linear maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Activate {
    /// GELU in its tanh form.
    GeluTanh,
    /// GELU with the error function.
    Gelu,
    /// Swish.
    Swish,
}

impl Activate {
    /// Computes the activation.
    pub(crate) fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::GeluTanh => gelu_tanh(x),
            Self::Gelu => activation::gelu(x),
            Self::Swish => swish(x),
        }
    }
}

/// Layer normalisation in front of a linear map.
pub(crate) struct Norm {
    /// `[C]`.
    pub weight: Tensor<1>,
    /// `[C]`.
    pub bias: Tensor<1>,
    pub eps: f64,
}

/// The arguments of [`linear`].
pub(crate) struct LinearMap {
    /// `[rows, in]`.
    pub x: Tensor<2>,
    /// Normalises `x` first.
    pub norm: Option<Norm>,
    /// `[in, out]`.
    pub weight: Tensor<2>,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    pub activation: Option<Activate>,
    /// Added at the end, in this order: `[rows, out]` each.
    pub adds: Vec<Tensor<2>>,
}

/// Computes `activation(LN(x) W + b) + ..`, `[rows, out]`. Weight and bias have the type of `x`.
pub(crate) fn linear(map: LinearMap) -> Tensor<2> {
    #[cfg(feature = "cube")]
    if cube::linear_supports(&map) {
        return cube::linear(map);
    }
    let LinearMap { x, norm, weight, bias, activation, adds } = map;
    let x = match norm {
        Some(norm) => layer_norm(x, norm.weight, norm.bias, norm.eps),
        None => x,
    };
    let y = module::linear(x, weight, bias);
    let y = match activation {
        Some(activation) => activation.apply(y),
        None => y,
    };
    adds.into_iter().fold(y, |y, add| y + add)
}

/// Joins maps `[B, H, W, C_a]` and `[B, H, W, C_b]` along their channels.
pub(crate) fn join(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "cube")]
    if cube::supports(&a) {
        return cube::join(a, b);
    }
    Tensor::cat(vec![a, b], 3)
}

/// Computes layer normalisation over the last dimension, with a scale and a shift `[C]`.
pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if cube::supports(&x) {
        return cube::layer_norm(x, &weight, &bias, eps);
    }
    let dtype = x.dtype();
    let x = widen(x);
    let (weight, bias) = (weight.cast(x.dtype()), bias.cast(x.dtype()));
    let y = if cpu::supports(&x) {
        let kernel = cpu::LayerNorm { eps: eps as f32 };
        cpu::run(kernel, [x.into(), weight.into(), bias.into()])
    } else {
        plain::layer_norm(x, weight, bias, eps)
    };
    y.cast(dtype)
}

/// Computes group normalisation over a map, with a scale and a shift `[C]`, then Swish if
/// `with_swish`.
pub(crate) fn group_norm(
    x: Tensor<4>,
    groups: usize,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
    with_swish: bool,
) -> Tensor<4> {
    #[cfg(feature = "cube")]
    if cube::supports(&x)
        && let Some(y) = cube::group_norm(&x, groups, &weight, &bias, eps, with_swish)
    {
        return y;
    }
    let dtype = x.dtype();
    let x = widen(x);
    let (weight, bias) = (weight.cast(x.dtype()), bias.cast(x.dtype()));
    let y = if cpu::supports(&x) {
        let kernel = cpu::GroupNorm { groups, eps: eps as f32, swish: with_swish };
        cpu::run(kernel, [x.into(), weight.into(), bias.into()])
    } else {
        plain::group_norm(x, groups, weight, bias, eps, with_swish)
    };
    y.cast(dtype)
}

/// The dropout keys of a batch in one block, one for each picture. Whether a value is dropped is a
/// function of its picture's key and of its index.
#[derive(Clone, Debug)]
pub(crate) struct DropoutKeys(Vec<u32>);

impl DropoutKeys {
    /// Derives the keys of block number `block` from those of the pictures.
    pub(crate) fn new(pictures: &[u32], block: usize) -> Self {
        let key = |&picture| philox4x32([block as u32, 0, 0, 0], [picture, 0])[0];
        Self(pictures.iter().map(key).collect())
    }
}

/// Replaces values by 0 with probability `p` and scales the others by `1 / (1 - p)`.
///
/// Value `i` of a picture with key `k` is dropped if the upper 31 bits of
/// [`scramble`](scramble::scramble)`(i, k)` are below `p 2^31`. This counter-based generator needs
/// 32-bit integers only, and gives the same mask on every device.
pub(crate) fn dropout(x: Tensor<4>, p: f64, keys: DropoutKeys) -> Tensor<4> {
    if cpu::supports(&x) {
        return cpu::run(dropout_kernel(p, keys), [x.into()]);
    }
    #[cfg(all(feature = "cube", feature = "train"))]
    if cube::supports(&x) {
        return cube::dropout(x, dropout_kernel(p, keys));
    }
    let cpu::Dropout { keys, below, .. } = dropout_kernel(p, keys);
    plain::dropout(x, &keys, below, 1.0 / (1.0 - p))
}

/// The CPU kernel of [`dropout`].
pub(crate) fn dropout_kernel(p: f64, keys: DropoutKeys) -> cpu::Dropout {
    let below = (p * f64::from(1u32 << 31)) as u32;
    cpu::Dropout { keys: keys.0, below, scale: (1.0 / (1.0 - p)) as f32 }
}

/// Computes a 3x3 convolution with zero padding of 1.
///
/// # Shapes
///
/// - x: `[B, H, W, C_in]`, weight: `[C_out, C_in, 3, 3]`, bias: `[C_out]`
/// - output: `[B, H / stride, W / stride, C_out]`
pub(crate) fn conv3x3(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
) -> Tensor<4> {
    #[cfg(feature = "cube")]
    if cube::supports(&x) {
        return cube::conv3x3(x, weight, bias, stride, false);
    }
    if cpu::supports(&x) {
        return cpu::run(cpu::Conv3x3 { stride }, [x.into(), weight.into(), bias.into()]);
    }
    plain::conv3x3(x, weight, bias, stride)
}

/// Computes [`conv3x3`] of stride 1 on a map that is enlarged first by [`upsample_nearest`].
pub(crate) fn upsample_conv3x3(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    #[cfg(feature = "cube")]
    if cube::supports(&x) {
        return cube::conv3x3(x, weight, bias, 1, true);
    }
    conv3x3(upsample_nearest(x), weight, bias, 1)
}

/// Computes attention inside non-overlapping windows, Eq (6). With `weights`, the attention weights
/// `[B, windows, heads, N, N]` between the tokens of a window are returned too, windows in
/// row-major order.
///
/// # Shapes
///
/// - output: `[B, H, W, C]`
pub(crate) fn window_attention(
    attention: Attention,
    weights: bool,
) -> (Tensor<4>, Option<Tensor<5>>) {
    let plain = weights || attention.bias.tables() > 1 || attention.token.is_some();
    #[cfg(feature = "cube")]
    if !plain
        && cube::supports(&attention.qkv)
        && let Attention { qkv, time, bias: PositionBias::Table { table, .. }, window, .. } =
            &attention
        && window[0] == window[1]
        && let Some(context) = cube::window_attention(qkv, time.as_ref(), table, window[0])
    {
        return (context, None);
    }
    if !plain && cpu::supports(&attention.qkv) {
        let Attention { qkv, time, bias, window, .. } = attention;
        let bias = bias.values();
        let heads = bias.dims()[1];
        let [b, _, _, c3] = qkv.dims();
        let time = time.unwrap_or_else(|| Tensor::zeros([b, c3], (&qkv.device(), qkv.dtype())));
        let inputs = [qkv.into(), time.into(), bias.squeeze_dim::<3>(0).into()];
        return (cpu::run(cpu::WindowAttention { window, heads }, inputs), None);
    }
    let (context, maps) = plain::window_attention(attention);
    (context, weights.then_some(maps))
}

#[cfg(all(test, feature = "train"))]
mod tests {
    use super::*;
    use crate::diffusion::noise::{Random, Stream};
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    /// A tensor of normal values from a fixed seed on the autodiff CPU device, which requires a
    /// gradient.
    fn normal<const D: usize>(shape: [usize; D], index: u64) -> Tensor<D> {
        let mut values = vec![0.0; shape.iter().product()];
        Random::new(1, Stream::Start, index).fill_normal(&mut values);
        let device = Device::flex().autodiff();
        Tensor::from_data(TensorData::new(values, shape), &device).require_grad()
    }

    fn close<const D: usize>(what: &str, a: Tensor<D>, b: Tensor<D>) {
        let (a, b): (Vec<f32>, Vec<f32>) =
            (a.into_data().try_to_vec().expect("f32"), b.into_data().try_to_vec().expect("f32"));
        let scale = b.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
        assert_eq!(a.len(), b.len());
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            // Each difference is compared: `max` would ignore NaN.
            let error = (a - b).abs();
            assert!(
                error <= 1e-5 * scale,
                "{what}[{i}]: off by {error} where values reach {scale}"
            );
        }
    }

    /// Compares the outputs and all gradients of a kernel and its reference implementation.
    macro_rules! compare {
    ($inputs:expr, |$($x:ident),+| $fast:expr, $plain:expr) => {{
        let ($($x,)+) = $inputs;
        let fast = { $(let $x = $x.clone();)+ $fast };
        let plain = { $(let $x = $x.clone();)+ $plain };
        close("output", fast.clone().inner(), plain.clone().inner());
        let cotangent = normal(plain.dims(), 99).detach();
        let fast = (fast * cotangent.clone()).sum().backward();
        let plain = (plain * cotangent).sum().backward();
        $(close(
            concat!("gradient of ", stringify!($x)),
            $x.grad(&fast).expect("a gradient"),
            $x.grad(&plain).expect("a gradient"),
        );)+
    }};
}

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn gelu_matches_plain(n in 1usize..200, c in 1usize..120) {
            compare!(((normal([n, c], 1) * 3.0).detach().require_grad(),),
                |x| gelu_tanh(x), plain::gelu_tanh(x));
        }

        #[test]
        fn layer_norm_matches_plain(n in 1usize..600, c in 2usize..80) {
            compare!((normal([n, c], 1), normal([c], 2), normal([c], 3)),
                |x, w, b| layer_norm(x, w, b, 1e-3), plain::layer_norm(x, w, b, 1e-3));
        }

        #[test]
        fn group_norm_matches_plain(
            b in 1usize..4, side in 1usize..9, groups in 1usize..5, width in 2usize..9,
            with_swish: bool,
        ) {
            let c = groups * width;
            compare!((normal([b, side, side + 1, c], 1), normal([c], 2), normal([c], 3)),
                |x, w, bias| group_norm(x, groups, w, bias, 1e-3, with_swish),
                plain::group_norm(x, groups, w, bias, 1e-3, with_swish));
        }

        #[test]
        fn conv3x3_matches_plain(
            b in 1usize..4, h in 1usize..10, w in 1usize..10, c_in in 1usize..20,
            c_out in 1usize..20, stride in 1usize..3,
        ) {
            let (x, k) = (normal([b, h, w, c_in], 1), normal([c_out, c_in, 3, 3], 2));
            compare!((x, k, normal([c_out], 3)),
                |x, k, bias| conv3x3(x, k, bias, stride), plain::conv3x3(x, k, bias, stride));
        }

        #[test]
        fn dropout_matches_plain(
            b in 1usize..4, side in 1usize..9, c in 1usize..20, p in 0.01f64..0.99, key: u32,
        ) {
            let keys = || DropoutKeys::new(&vec![key; b], 3);
            let below = (p * 2f64.powi(31)) as u32;
            compare!((normal([b, side, side, c], 1),),
                |x| dropout(x, p, keys()), plain::dropout(x, &keys().0, below, 1.0 / (1.0 - p)));
        }

        #[test]
        fn window_attention_matches_plain(
            b in 1usize..3, rows in 1usize..4, columns in 1usize..4, wh in 1usize..6,
            ww in 1usize..6, heads in 1usize..4, d in 1usize..20,
        ) {
            let (c, n) = (heads * d, wh * ww);
            let inputs = (
                normal([b, rows * wh, columns * ww, 3 * c], 1),
                normal([b, 3 * c], 2),
                normal([1, heads, n, n], 3),
            );
            let attention = |qkv, time, bias| Attention {
                qkv, time: Some(time), token: None, bias: PositionBias::Values(bias), window: [wh, ww],
            };
            compare!(inputs,
                |qkv, time, bias| window_attention(attention(qkv, time, bias), false).0,
                plain::window_attention(attention(qkv, time, bias)).0);
        }
    }

    #[test]
    fn convolution_divided_into_many_tasks_matches_plain() {
        // More images than there are groups of gradient sums, each in more than one task.
        let (x, k, b) = (normal([10, 32, 32, 64], 1), normal([8, 64, 3, 3], 2), normal([8], 3));
        compare!((x, k, b), |x, k, b| conv3x3(x, k, b, 1), plain::conv3x3(x, k, b, 1));
    }

    #[test]
    fn window_attention_returns_its_weights() {
        let attention = || Attention {
            qkv: normal([2, 8, 8, 24], 1),
            time: Some(normal([2, 24], 2)),
            token: None,
            bias: PositionBias::Values(normal([1, 2, 16, 16], 3)),
            window: [4, 4],
        };
        let (context, weights) = window_attention(attention(), true);
        let (fast, none) = window_attention(attention(), false);
        assert!(none.is_none());
        close("context", fast, context);
        let weights = weights.expect("attention weights");
        assert_eq!(weights.dims(), [2, 4, 2, 16, 16]);
        let sums = weights.sum_dim(4);
        close("sum of weights", sums.clone(), sums.ones_like());
    }

    #[test]
    fn clamped_tanh_matches_tanh() {
        let values: Vec<f64> = (-400..=400).map(|i| f64::from(i) * 0.1).collect();
        let n = values.len();
        let x = Tensor::<1>::from_data(
            TensorData::new(values.clone(), [n]),
            (&Device::flex(), burn::tensor::DType::F64),
        );
        let found: Vec<f64> = tanh(x).into_data().try_to_vec().expect("f64");
        for (x, found) in values.iter().zip(found) {
            assert!((x.tanh() - found).abs() < 1e-12, "{x}: {found}");
        }
        // Far from 0, GELU is 0 or its argument.
        let x = Tensor::<1>::from_floats([-1e4, 1e4], &Device::flex());
        let y: Vec<f32> = plain::gelu_tanh(x).into_data().try_to_vec().expect("f32");
        assert_eq!(y, [0.0, 1e4]);
    }

    #[test]
    fn bilinear_resampling_reproduces_a_linear_ramp() {
        let device = Device::flex();
        let ramp: Vec<f32> = (0..8).flat_map(|y| (0..8).map(move |x| (3 * y + x) as f32)).collect();
        let x = Tensor::from_data(TensorData::new(ramp, [1, 8, 8, 1]), &device);
        let up: Vec<f32> = upsample_bilinear(x.clone()).into_data().try_to_vec().unwrap();
        for y in 1..15 {
            for x in 1..15 {
                let want = 3.0 * (y as f32 * 0.5 - 0.25) + (x as f32 * 0.5 - 0.25);
                assert!((up[y * 16 + x] - want).abs() < 1e-5);
            }
        }
        let down: Vec<f32> = downsample_bilinear(x).into_data().try_to_vec().unwrap();
        assert_eq!(down[0], (0.0 + 1.0 + 3.0 + 4.0) / 4.0);
        assert_eq!(down.len(), 16);
    }

    #[test]
    fn enlarging_is_doubling_and_reproduces_a_ramp() {
        let x = normal([2, 3, 4, 5], 1);
        close("doubled", enlarge_bilinear(x.clone(), 2), upsample_bilinear(x.clone()));
        close("as it was", enlarge_bilinear(x.clone(), 1), x);
        let ramp = Tensor::<1>::from_floats([0.0, 4.0, 8.0], &Device::flex()).reshape([1, 3, 1, 1]);
        let found: Vec<f32> = enlarge_bilinear(ramp, 4).into_data().try_to_vec().expect("f32");
        for (i, row) in found.chunks_exact(4).enumerate() {
            let want = (i as f32 - 1.5).clamp(0.0, 8.0);
            assert!(row.iter().all(|found| (found - want).abs() < 1e-6), "{i}: {row:?}");
        }
    }

    #[test]
    fn nearest_upsampling_repeats_values() {
        let x =
            Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &Device::flex()).reshape([1, 2, 2, 1]);
        let up: Vec<f32> = upsample_nearest(x).into_data().try_to_vec().unwrap();
        assert_eq!(up, [1., 1., 2., 2., 1., 1., 2., 2., 3., 3., 4., 4., 3., 3., 4., 4.]);
    }
}
