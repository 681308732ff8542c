//! The attention of Eq (6) inside windows, computed from the projected tokens.
//!
//! Logits and weights exist for one head of one window at a time, `[N, N]`, in a scratch buffer;
//! the backward pass recomputes them from queries and keys.

use core::ops::Range;

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::gemm::{Left, Out, Right, Rows, outer, product};
use super::kernel::{Kernel, dims, values};
use super::parallel::{Scratch, for_each, for_each_with, sum_rows};
use super::vector::{LANES, add_rows, exp, max, sum, update, update_sum, vectorize};

/// Attention of some heads in one window.
///
/// The window's tokens are contiguous: `[N, 3, width]`, queries, keys and values of these heads,
/// with queries already scaled by `1 / sqrt(d)`.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// Tokens in the window.
    pub n: usize,
    /// Channels of a head.
    pub d: usize,
    /// Channels of all heads.
    pub width: usize,
}

impl Heads {
    /// Lengths of the scratch buffers of [`Heads::forward`]: transposed keys, attention weights.
    pub fn scratch_lens(self) -> [usize; 2] {
        [self.n * self.d, self.n * self.n]
    }

    /// Lengths of the scratch buffers of [`Heads::backward`]: transposed keys or values, attention
    /// weights, gradient of the logits.
    pub fn backward_scratch_lens(self) -> [usize; 3] {
        [self.n * self.d, self.n * self.n, self.n * self.n]
    }

    /// Number of heads.
    fn count(self) -> usize {
        self.width / self.d
    }

    /// Computes the attention weights `[N, N]` of the head that `qkv` begins with.
    fn weights(self, qkv: &[f32], bias: &[f32], transposed: &mut [f32], weights: &mut [f32]) {
        let Self { n, d, width } = self;
        transpose(&qkv[width..], 3 * width, transposed, n, d);
        let rows = Rows::Strided(n);
        let out = Out { add: [Some((bias, rows)), None], ..Out::new(weights, rows) };
        let queries = Left::new(qkv, Rows::Strided(3 * width), d);
        product(queries, Right::Plain(transposed, n), out, n, n);
        vectorize(
            #[inline(always)]
            || {
                for row in weights.chunks_exact_mut(n) {
                    let max = max(row);
                    let total = 1.0 / update_sum(row, |x| exp(x - max));
                    update(row, [], |x, []| x * total);
                }
            },
        );
    }

    /// Computes the output `[N, width]` with the attention bias `[heads, N, N]`.
    pub fn forward(
        self,
        qkv: &[f32],
        bias: &[f32],
        [transposed, weights]: [&mut [f32]; 2],
        output: &mut [f32],
    ) {
        let Self { n, d, width } = self;
        for (head, bias) in bias.chunks_exact(n * n).enumerate() {
            let qkv = &qkv[head * d..];
            self.weights(qkv, bias, transposed, weights);
            let out = Out::new(&mut output[head * d..], Rows::Strided(width));
            let values = Right::Plain(&qkv[2 * width..], 3 * width);
            product(Left::new(weights, Rows::Strided(n), n), values, out, n, d);
        }
    }

    /// Computes the gradient `[N, 3, width]` of `qkv` from that of the output, and adds the
    /// gradient of the bias to `dbias`.
    pub fn backward(
        self,
        [qkv, bias, grad]: [&[f32]; 3],
        [transposed, weights, dlogits]: [&mut [f32]; 3],
        dqkv: &mut [f32],
        dbias: &mut [f32],
    ) {
        let Self { n, d, width } = self;
        let (rows, row) = (Rows::Strided(3 * width), 3 * width);
        for head in 0..self.count() {
            let (qkv, grad) = (&qkv[head * d..], &grad[head * d..]);
            let bias = &bias[head * n * n..][..n * n];
            self.weights(qkv, bias, transposed, weights);
            // dS = P ∘ (dO Vᵀ - rowsum(P ∘ dO Vᵀ))
            transpose(&qkv[2 * width..], row, transposed, n, d);
            let out = Out::new(dlogits, Rows::Strided(n));
            let grad_rows = Rows::Strided(width);
            product(Left::new(grad, grad_rows, d), Right::Plain(transposed, n), out, n, n);
            let dbias = &mut dbias[head * n * n..][..n * n];
            vectorize(
                #[inline(always)]
                || {
                    for (ds, p) in dlogits.chunks_exact_mut(n).zip(weights.chunks_exact(n)) {
                        let total = sum([ds, p], |[ds, p]| ds * p);
                        update(ds, [p], |ds, [p]| p * (ds - total));
                    }
                    update(dbias, [dlogits], |sum, [ds]| sum + ds);
                },
            );
            // dQ = dS K; dK = dSᵀ Q; dV = Pᵀ dO
            let dqkv = &mut dqkv[head * d..];
            let keys = Right::Plain(&qkv[width..], row);
            product(Left::new(dlogits, Rows::Strided(n), n), keys, Out::new(dqkv, rows), n, d);
            let out = Out::new(&mut dqkv[width..], rows);
            outer((dlogits, Rows::Strided(n)), (qkv, rows), out, [n, n, d]);
            let out = Out::new(&mut dqkv[2 * width..], rows);
            outer((weights, Rows::Strided(n)), (grad, grad_rows), out, [n, n, d]);
        }
    }
}

/// Transposes `n` rows of `d` values that begin `stride` apart: `to[j][i] = from[i][j]`.
fn transpose(from: &[f32], stride: usize, to: &mut [f32], n: usize, d: usize) {
    let whole = n / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        let rows: [&[f32]; LANES] =
            core::array::from_fn(|lane| &from[(first + lane) * stride..][..d]);
        for j in 0..d {
            let to = &mut to[j * n + first..][..LANES];
            for lane in 0..LANES {
                to[lane] = rows[lane][j];
            }
        }
    }
    for i in whole..n {
        for j in 0..d {
            to[j * n + i] = from[i * stride + j];
        }
    }
}

/// Window attention: `softmax(Q Kᵀ / sqrt(d) + B) V` per head, in non-overlapping windows.
///
/// Inputs: `qkv` `[B, H, W, 3 C]`, the spatial part of queries, keys and values, in that order,
/// each by heads; `time` `[B, 3 C]`, their part from the time token; `bias` `[heads, N, N]` with
/// `N` tokens in a window. Output: `[B, H, W, C]`.
#[derive(Clone, Debug)]
pub(crate) struct WindowAttention {
    /// Height and width of a window; they divide those of the map.
    pub window: [usize; 2],
    pub heads: usize,
}

/// Sizes of the map, its windows and the tasks.
#[derive(Clone, Copy)]
struct Geometry {
    /// Width of the map, in tokens.
    w: usize,
    /// Channels.
    c: usize,
    /// Height and width of a window.
    window: [usize; 2],
    heads: usize,
    /// Number of parts that the heads are divided into; each is a task of its own.
    parts: usize,
}

impl Geometry {
    /// The indices of a window's tokens within its row of windows.
    #[inline(always)]
    fn tokens(self, window: usize) -> impl Iterator<Item = usize> {
        let [wh, ww] = self.window;
        (0..wh).flat_map(move |y| (0..ww).map(move |x| y * self.w + window * ww + x))
    }

    /// The heads of one part in one window.
    fn part(self) -> Heads {
        let width = self.c / self.parts;
        Heads { n: self.window[0] * self.window[1], d: self.c / self.heads, width }
    }

    /// The range of a part in the attention bias, or in its gradient.
    fn biases(self, part: usize) -> Range<usize> {
        let heads = self.part();
        let length = heads.count() * heads.n * heads.n;
        part * length..(part + 1) * length
    }

    /// Copies the queries, keys and values of one part of the heads in one window, adds the time
    /// token's part, and scales the queries.
    fn load(self, qkv: &[f32], time: &[f32], window: usize, part: usize, to: &mut [f32]) {
        let Heads { d, width, .. } = self.part();
        let scale = 1.0 / (d as f32).sqrt();
        vectorize(
            #[inline(always)]
            || {
                for (to, token) in to.chunks_exact_mut(3 * width).zip(self.tokens(window)) {
                    for (i, to) in to.chunks_exact_mut(width).enumerate() {
                        let column = i * self.c + part * width;
                        let qkv = &qkv[token * 3 * self.c + column..][..width];
                        let scale = if i == 0 { scale } else { 1.0 };
                        let time = &time[column..column + width];
                        update(to, [qkv, time], |_, [x, time]| (x + time) * scale);
                    }
                }
            },
        );
    }
}

/// Permutes `[.., parts, rows, width]` to `[.., rows, parts, width]`.
fn join(values: Vec<f32>, parts: usize, rows: usize, width: usize) -> Vec<f32> {
    if parts == 1 {
        return values;
    }
    let mut joined = vec![0.0; values.len()];
    let whole = parts * rows * width;
    for_each(joined.chunks_exact_mut(whole).zip(values.chunks_exact(whole)), |(joined, values)| {
        for (part, values) in values.chunks_exact(rows * width).enumerate() {
            for (row, values) in values.chunks_exact(width).enumerate() {
                joined[(row * parts + part) * width..][..width].copy_from_slice(values);
            }
        }
    });
    joined
}

impl WindowAttention {
    fn geometry(&self, qkv: &FlexTensor) -> Geometry {
        let [_, h, w, c3] = dims(qkv);
        // A task is one row of windows, which is contiguous in the input and in the output. If one
        // window covers the map, there is one row; it is usually large, and a task is one head of
        // it.
        let single = self.window == [h, w];
        Geometry {
            w,
            c: c3 / 3,
            window: self.window,
            heads: self.heads,
            parts: if single { self.heads } else { 1 },
        }
    }
}

impl Kernel<3> for WindowAttention {
    type Saved = ();

    fn forward(&self, [qkv, time, bias]: [&FlexTensor; 3], _keep: bool) -> (Vec<f32>, Shape, ()) {
        let g = self.geometry(qkv);
        let [b, h, w, _] = dims(qkv);
        let (qkv, time, bias) = (values(qkv), values(time), values(bias));
        let mut output = vec![0.0; b * h * w * g.c];
        let tokens = g.window[0] * w;
        let per_image = h / g.window[0];
        let heads = g.part();
        let Heads { n, width, .. } = heads;
        let tasks = output.chunks_exact_mut(tokens * width).enumerate();
        for_each_with(tasks, Scratch::default, |scratch, (task, output)| {
            let (row, part) = (task / g.parts, task % g.parts);
            let qkv = &qkv[row * tokens * 3 * g.c..][..tokens * 3 * g.c];
            let time = &time[row / per_image * 3 * g.c..][..3 * g.c];
            let [transposed, weights] = heads.scratch_lens();
            let [local, context, transposed, weights] =
                scratch.split([n * 3 * width, n * width, transposed, weights]);
            for window in 0..w / g.window[1] {
                g.load(qkv, time, window, part, local);
                heads.forward(local, &bias[g.biases(part)], [transposed, weights], context);
                for (context, token) in context.chunks_exact(width).zip(g.tokens(window)) {
                    output[token * width..][..width].copy_from_slice(context);
                }
            }
        });
        let output = join(output, g.parts, tokens, width);
        (output, Shape::new([b, h, w, g.c]), ())
    }

    fn backward(
        &self,
        [qkv, time, bias]: [&FlexTensor; 3],
        (): &(),
        grad: &FlexTensor,
        _wanted: [bool; 3],
    ) -> [Vec<f32>; 3] {
        let g = self.geometry(qkv);
        let [b, h, w, _] = dims(qkv);
        let (qkv, time, bias, grad) = (values(qkv), values(time), values(bias), values(grad));
        let tokens = g.window[0] * w;
        let per_image = h / g.window[0];
        let heads = g.part();
        let Heads { n, d, width } = heads;
        let scale = 1.0 / (d as f32).sqrt();
        let mut dqkv = vec![0.0; qkv.len()];
        let mut dbias = vec![0.0; b * per_image * bias.len()];
        let mut dtime = vec![0.0; b * per_image * 3 * g.c];
        let tasks = dqkv
            .chunks_exact_mut(tokens * 3 * width)
            .zip(dbias.chunks_exact_mut(bias.len() / g.parts))
            .zip(dtime.chunks_exact_mut(3 * width))
            .enumerate();
        for_each_with(tasks, Scratch::default, |scratch, (task, ((dqkv, dbias), dtime))| {
            let (row, part) = (task / g.parts, task % g.parts);
            let qkv = &qkv[row * tokens * 3 * g.c..][..tokens * 3 * g.c];
            let grad = &grad[row * tokens * g.c..][..tokens * g.c];
            let time = &time[row / per_image * 3 * g.c..][..3 * g.c];
            let [transposed, weights, dlogits] = heads.backward_scratch_lens();
            let all = n * 3 * width;
            let [local, dlocal, dout, transposed, weights, dlogits] =
                scratch.split([all, all, n * width, transposed, weights, dlogits]);
            for window in 0..w / g.window[1] {
                g.load(qkv, time, window, part, local);
                for (dout, token) in dout.chunks_exact_mut(width).zip(g.tokens(window)) {
                    dout.copy_from_slice(&grad[token * g.c + part * width..][..width]);
                }
                let scratch = [&mut *transposed, &mut *weights, &mut *dlogits];
                let bias = &bias[g.biases(part)];
                heads.backward([local, bias, dout], scratch, dlocal, dbias);
                vectorize(
                    #[inline(always)]
                    || {
                        for (x, token) in dlocal.chunks_exact_mut(3 * width).zip(g.tokens(window)) {
                            update(&mut x[..width], [], |x, []| x * scale);
                            dqkv[token * 3 * width..][..3 * width].copy_from_slice(x);
                        }
                        add_rows(dtime, dlocal);
                    },
                );
            }
        });
        let dqkv = join(dqkv, g.parts, tokens * 3, width);
        let dtime = join(dtime, g.parts, 3, width)
            .chunks_exact(per_image * 3 * g.c)
            .flat_map(|image| sum_rows(image, 3 * g.c))
            .collect();
        [dqkv, dtime, sum_rows(&dbias, bias.len())]
    }
}
