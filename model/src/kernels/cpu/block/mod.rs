//! The DiffiT ResBlock (Eq 7-10) as one fused kernel.
//!
//! Run operation by operation, a block writes each intermediate map of the whole batch to memory
//! and reads it back. Here one thread takes one image (or, in a small batch, a few rows of one) all
//! the way through the block, so that intermediate maps are small enough for that core's cache:
//!
//! 1. Normalisation, Swish and dropout write a zero-padded copy of the input rows, and the
//!    convolution reads its patches from that.
//! 2. Attention and MLP then work on chunks of about 256 tokens, some rows of windows each.
//!
//! **Token order.** From the convolution's output to the last product, tokens are stored window by
//! window (row-major, inside a window as well), so that the tokens of a window are contiguous. No
//! copy is made to change the order: the convolution writes its rows to the offsets of that order,
//! and the last product writes its rows to the offsets of pixels.
//!
//! **Memory.** When gradients are wanted, the forward pass keeps four maps ([`Saved`]): the
//! convolution's output, the queries, keys and values, the context, and the map after attention.
//! The backward pass recomputes the others, of which the hidden layer of the MLP is the largest.
//!
//! **Determinism.** Each image's outputs are computed by the same operations on any thread.
//! Parameter gradients are sums over images; they are taken in a fixed number of groups, each in
//! the order of its images, and the groups are then added in order. Neither depends on the number
//! of threads, so the result has the same bits with any number of them.

mod backward;
mod forward;
mod sizes;

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::dropout::Dropout;
use super::gemm::{Left, Out, Packed, Right, Rows, product};
use super::kernel::{Kernel, values};
use super::norm::{GroupNorm, LayerNorm};
use super::vector::vectorize;

/// The kernel of a ResBlock: `h = Conv3x3(Dropout(Swish(GN(x))))`, then `TMSA(LN(h), time) + h`,
/// then `MLP(LN(h)) + h`, then the residual.
///
/// Inputs: `x` `[B, H, W, C_in]`; `time` `[B, 3 C]`, the time token's part of queries, keys and
/// values; then the parameters in the order of [`Parameters`]. Output: `[B, H, W, C]`.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub norm: GroupNorm,
    pub dropout: Option<Dropout>,
    pub layer_norms: [LayerNorm; 2],
    /// Side of an attention window, in tokens.
    pub window: usize,
}

/// Index of the first parameter among the inputs.
const FIRST_PARAMETER: usize = 2;

/// The values of the parameters. A pair is a weight and a bias.
struct Parameters<'a> {
    norm: [&'a [f32]; 2],
    conv: [&'a [f32]; 2],
    norm1: [&'a [f32]; 2],
    qkv: [&'a [f32]; 2],
    /// Relative position bias table, `[(2 side - 1)^2, heads]`.
    table: &'a [f32],
    proj: [&'a [f32]; 2],
    norm2: [&'a [f32]; 2],
    fc1: [&'a [f32]; 2],
    fc2: [&'a [f32]; 2],
    /// The 1x1 convolution of the residual, if the number of channels changes.
    residual: Option<[&'a [f32]; 2]>,
}

impl<'a> Parameters<'a> {
    /// The parameters among a block's inputs.
    fn new(inputs: &[&'a FlexTensor]) -> Self {
        let one = |i: usize| values(inputs[FIRST_PARAMETER + i]);
        let two = |i: usize| [one(i), one(i + 1)];
        Self {
            norm: two(0),
            conv: two(2),
            norm1: two(4),
            qkv: two(6),
            table: one(8),
            proj: two(9),
            norm2: two(11),
            fc1: two(13),
            fc2: two(15),
            residual: (inputs.len() > FIRST_PARAMETER + 17).then(|| two(17)),
        }
    }
}

/// The intermediate results that the backward pass uses. Tokens are in window order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saved {
    /// Mean and reciprocal standard deviation of each channel's group, `[B, 2, C_in]`.
    statistics: Vec<f32>,
    /// Output of the convolution, `[B, tokens, C]`.
    conv: Vec<f32>,
    /// Queries, keys and values, `[B, tokens, 3 C]`.
    qkv: Vec<f32>,
    /// Output of the heads before `proj`, `[B, tokens, C]`.
    context: Vec<f32>,
    /// Map after attention and its residual, `h` of Eq (7), `[B, tokens, C]`.
    attended: Vec<f32>,
}

/// The intermediate maps of some tokens: slices of a [`Saved`], or of a scratch buffer when
/// nothing is kept.
struct Activations<'a> {
    conv: &'a mut [f32],
    qkv: &'a mut [f32],
    context: &'a mut [f32],
    attended: &'a mut [f32],
}

impl Saved {
    /// Zeroed buffers for `tokens` tokens of `c` channels.
    fn new(statistics: Vec<f32>, tokens: usize, c: usize) -> Self {
        let map = || vec![0.0; tokens * c];
        Self {
            statistics,
            conv: map(),
            qkv: vec![0.0; 3 * tokens * c],
            context: map(),
            attended: map(),
        }
    }

    /// The maps in pieces of `tokens` tokens.
    fn chunks_mut(&mut self, tokens: usize, c: usize) -> impl Iterator<Item = Activations<'_>> {
        let maps = self.conv.chunks_exact_mut(tokens * c);
        let maps = maps.zip(self.qkv.chunks_exact_mut(3 * tokens * c));
        let maps = maps.zip(self.context.chunks_exact_mut(tokens * c));
        maps.zip(self.attended.chunks_exact_mut(tokens * c))
            .map(|(((conv, qkv), context), attended)| Activations { conv, qkv, context, attended })
    }
}

/// Computes `left · right + bias` for row-major matrices, `left` having `k` columns.
fn linear(left: &[f32], right: &Packed, bias: &[f32], k: usize, to: &mut [f32]) {
    let n = bias.len();
    let out = Out::with_bias(to, Rows::Strided(n), bias);
    product(Left::new(left, Rows::Strided(k), k), Right::Packed(right), out, left.len() / k, n);
}

/// Computes `left · right` for row-major matrices, `[m, k]` and `[k, n]`.
fn multiply(left: &[f32], right: &Packed, [k, n]: [usize; 2], to: &mut [f32]) {
    let out = Out::new(to, Rows::Strided(n));
    product(Left::new(left, Rows::Strided(k), k), Right::Packed(right), out, left.len() / k, n);
}

impl Block {
    /// Computes row `y` of the convolution's input, `Dropout(Swish(GN(x)))`, for image `image`.
    fn conv_input(&self, image: usize, y: usize, x: &[f32], norm: [&[f32]; 3], to: &mut [f32]) {
        let length = to.len();
        vectorize(
            #[inline(always)]
            || {
                self.norm.pixels(&x[y * length..][..length], norm, to);
                if let Some(dropout) = &self.dropout {
                    dropout.values(image, y * length, to);
                }
            },
        );
    }
}

impl<const N: usize> Kernel<N> for Block {
    type Saved = Saved;

    fn forward(&self, inputs: [&FlexTensor; N], keep: bool) -> (Vec<f32>, Shape, Saved) {
        self.run_forward(&inputs, keep)
    }

    fn backward(
        &self,
        inputs: [&FlexTensor; N],
        saved: &Saved,
        grad: &FlexTensor,
        _wanted: [bool; N],
    ) -> [Vec<f32>; N] {
        self.run_backward(inputs, saved, grad)
    }
}
