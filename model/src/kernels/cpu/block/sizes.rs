//! The sizes of a block, and the order of its tokens.

use burn_flex::FlexTensor;

use super::FIRST_PARAMETER;
use crate::kernels::cpu::attention::Heads;
use crate::kernels::cpu::conv::PaddedMap;
use crate::kernels::cpu::kernel::dims;
use crate::network::window::relative_position_index;

/// Upper bound on the tokens of a chunk, unless a single row of windows has more.
const CHUNK_TOKENS: usize = 256;

/// The sizes of a block's tensors, and the order of tokens inside a chunk.
pub(super) struct Sizes {
    pub b: usize,
    pub h: usize,
    pub w: usize,
    pub c_in: usize,
    pub c: usize,
    /// Width of the MLP's hidden layer.
    pub hidden: usize,
    pub heads: usize,
    /// `1 / sqrt(d)`, for heads of `d` channels.
    pub query_scale: f32,
    /// Tokens of a window.
    pub n: usize,
    /// Tokens of an image.
    pub tokens: usize,
    /// Tokens that go through attention and MLP together: a whole number of rows of windows.
    pub chunk: usize,
    /// The pixel of each token of a chunk in window order, relative to the chunk's first pixel.
    pub window_order: Vec<usize>,
    /// Offsets of those pixels in a map of `C_in` channels.
    pub offsets_in: Vec<usize>,
    /// Offsets of those pixels in a map of `C` channels.
    pub offsets_out: Vec<usize>,
}

impl Sizes {
    /// The sizes of a block with these inputs and windows of `side` by `side` tokens.
    pub fn new(inputs: &[&FlexTensor], side: usize) -> Self {
        let [b, h, w, c_in] = dims(inputs[0]);
        let [c, ..] = dims::<4>(inputs[FIRST_PARAMETER + 2]);
        let [_, heads] = dims(inputs[FIRST_PARAMETER + 8]);
        let [_, hidden] = dims(inputs[FIRST_PARAMETER + 13]);
        // A strip is a row of windows. A chunk has as many strips as fit, in a number that divides
        // all strips of the map.
        let (strips, strip) = (h / side, side * w);
        let divides =
            |count: &usize| strips.is_multiple_of(*count) && count * strip <= CHUNK_TOKENS;
        let count = (1..=strips).rev().find(divides).unwrap_or(1);
        let mut window_order = Vec::with_capacity(count * strip);
        for strip in 0..count {
            for window in 0..w / side {
                for y in 0..side {
                    for x in 0..side {
                        window_order.push((strip * side + y) * w + window * side + x);
                    }
                }
            }
        }
        let offsets = |c: usize| window_order.iter().map(|pixel| pixel * c).collect();
        let (offsets_in, offsets_out) = (offsets(c_in), offsets(c));
        Self {
            b,
            h,
            w,
            c_in,
            c,
            hidden,
            heads,
            query_scale: 1.0 / ((c / heads) as f32).sqrt(),
            n: side * side,
            tokens: h * w,
            chunk: count * strip,
            window_order,
            offsets_in,
            offsets_out,
        }
    }

    /// All heads of one window.
    pub fn heads(&self) -> Heads {
        Heads { n: self.n, d: self.c / self.heads, width: self.c }
    }

    /// The factor that is folded into column `i` of the weights of queries, keys and values:
    /// `1 / sqrt(d)` for queries, 1 for keys and values.
    pub fn scale(&self, i: usize) -> f32 {
        if i < self.c { self.query_scale } else { 1.0 }
    }

    /// The padded input of the convolution.
    pub fn map(&self) -> PaddedMap {
        PaddedMap { h: self.h, w: self.w, c: self.c_in, stride: 1 }
    }

    /// The padded gradient of the convolution's output.
    pub fn map_back(&self) -> PaddedMap {
        PaddedMap { c: self.c, ..self.map() }
    }

    /// The offset of each pixel's token in a map of `chunks` chunks and `C` channels that is in
    /// window order.
    pub fn window_offsets(&self, chunks: usize) -> Vec<usize> {
        let mut window_offsets = vec![0; chunks * self.chunk];
        for chunk in 0..chunks {
            let first = chunk * self.chunk;
            for (token, pixel) in self.window_order.iter().enumerate() {
                window_offsets[first + pixel] = (first + token) * self.c;
            }
        }
        window_offsets
    }

    /// The attention bias `[heads, N, N]`, expanded from the relative position table.
    pub fn biases(&self, table: &[f32]) -> Vec<f32> {
        let index = self.index();
        (0..self.heads)
            .flat_map(|head| index.iter().map(move |i| table[i * self.heads + head]))
            .collect()
    }

    /// The row of the relative position table for each pair of tokens, `[N, N]`.
    pub fn index(&self) -> Vec<usize> {
        relative_position_index(self.n.isqrt())
    }

    /// Computes the bias of queries, keys and values for one image: the parameter plus the time
    /// token's part, with queries scaled.
    pub fn time_bias(&self, bias: &[f32], time: &[f32], to: &mut [f32]) {
        for (i, to) in to.iter_mut().enumerate() {
            *to = (bias[i] + time[i]) * self.scale(i);
        }
    }
}
