//! The attention of Eq (6) inside windows, straight from the projected tokens.

use core::ops::Range;

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::kernel::{Kernel, dims, values};
use super::parallel::{for_each, sum_rows};
use super::vector::{Strided, exp, matmul, max, sum, update, vectorize};

/// `softmax(Q Kᵀ / sqrt(d) + B) V` per head, in non-overlapping windows.
///
/// Inputs: `qkv` `[B, H, W, 3 C]`, the spatial part of queries, keys and values, in that order,
/// each by heads; `time` `[B, 3 C]`, their part from the time token; `bias` `[heads, N, N]` with
/// `N` tokens in a window. Output: `[B, H, W, C]`.
#[derive(Clone, Debug)]
pub(crate) struct WindowAttention {
    /// Height and width of a window. They divide those of the map.
    pub window: [usize; 2],
    pub heads: usize,
}

/// The sizes that the loops run over.
#[derive(Clone, Copy)]
struct Geometry {
    /// Width of the map, in tokens.
    w: usize,
    /// Channels.
    c: usize,
    /// Height and width of a window.
    window: [usize; 2],
    heads: usize,
    /// Tokens in a window.
    n: usize,
    /// Channels of a head.
    d: usize,
    /// Parts that the heads are shared out in.
    parts: usize,
}

impl Geometry {
    /// The places of a window's tokens in the row of windows.
    #[inline(always)]
    fn tokens(self, window: usize) -> impl Iterator<Item = usize> {
        let [wh, ww] = self.window;
        (0..wh).flat_map(move |y| (0..ww).map(move |x| y * self.w + window * ww + x))
    }

    /// The heads of a part.
    #[inline(always)]
    fn heads_of(self, part: usize) -> Range<usize> {
        let heads = self.heads / self.parts;
        part * heads..(part + 1) * heads
    }

    /// Copies one of query (0), key (1) and value (2) of a head, with the time token's part
    /// added, into `to` `[N, d]`.
    #[inline(always)]
    fn load(
        &self,
        qkv: &[f32],
        time: &[f32],
        window: usize,
        head: usize,
        part: usize,
        to: &mut [f32],
    ) {
        let column = part * self.c + head * self.d;
        let time = &time[column..column + self.d];
        for (to, token) in to.chunks_exact_mut(self.d).zip(self.tokens(window)) {
            to.copy_from_slice(&qkv[token * 3 * self.c + column..][..self.d]);
            update(to, time, |x, time| x + time);
        }
    }
}

/// `[.., parts, rows, width]` -> `[.., rows, parts, width]`.
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

/// `to[j][i] = from[i][j]` for `from` `[m, n]`.
#[inline(always)]
fn transpose(from: &[f32], to: &mut [f32], m: usize, n: usize) {
    for i in 0..m {
        for j in 0..n {
            to[j * m + i] = from[i * n + j];
        }
    }
}

/// Room for one head of one window.
struct Scratch {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// A transposed operand.
    t: Vec<f32>,
    /// Attention weights.
    p: Vec<f32>,
}

impl Scratch {
    fn new(g: Geometry) -> Self {
        let tokens = || vec![0.0; g.n * g.d];
        Self { q: tokens(), k: tokens(), v: tokens(), t: tokens(), p: vec![0.0; g.n * g.n] }
    }

    /// Loads queries, keys and values and computes the attention weights.
    #[inline(always)]
    fn weights(
        &mut self,
        g: Geometry,
        qkv: &[f32],
        time: &[f32],
        bias: &[f32],
        window: usize,
        head: usize,
    ) {
        g.load(qkv, time, window, head, 0, &mut self.q);
        g.load(qkv, time, window, head, 1, &mut self.k);
        g.load(qkv, time, window, head, 2, &mut self.v);
        let scale = 1.0 / (g.d as f32).sqrt();
        for q in &mut self.q {
            *q *= scale;
        }
        transpose(&self.k, &mut self.t, g.n, g.d);
        matmul(rows(&self.q, g.d), &self.t, &mut self.p, g.n, g.d, g.n);
        let bias = &bias[head * g.n * g.n..][..g.n * g.n];
        for (p, bias) in self.p.chunks_exact_mut(g.n).zip(bias.chunks_exact(g.n)) {
            update(p, bias, |p, bias| p + bias);
            let max = max(p);
            update(p, bias, |p, _| exp(p - max));
            let total = 1.0 / sum(p, bias, |p, _| p);
            update(p, bias, |p, _| p * total);
        }
    }
}

/// A matrix stored row after row, as a left factor.
#[inline(always)]
fn rows(data: &[f32], width: usize) -> Strided<'_> {
    Strided { data, rows: width, columns: 1 }
}

/// The transpose of a matrix stored row after row, as a left factor.
#[inline(always)]
fn transposed(data: &[f32], width: usize) -> Strided<'_> {
    Strided { data, rows: 1, columns: width }
}

impl WindowAttention {
    fn geometry(&self, qkv: &FlexTensor) -> Geometry {
        let [_, h, w, c3] = dims(qkv);
        let c = c3 / 3;
        // A task is one row of windows: contiguous in the input and in the output. Of a single
        // window, which is large as a rule, it is one head.
        let single = self.window == [h, w];
        Geometry {
            w,
            c,
            window: self.window,
            heads: self.heads,
            n: self.window[0] * self.window[1],
            d: c / self.heads,
            parts: if single { self.heads } else { 1 },
        }
    }
}

impl Kernel<3> for WindowAttention {
    type Saved = ();

    fn forward(&self, [qkv, time, bias]: [&FlexTensor; 3]) -> (Vec<f32>, Shape, ()) {
        let g = self.geometry(qkv);
        let [b, h, w, _] = dims(qkv);
        let (qkv, time, bias) = (values(qkv), values(time), values(bias));
        let mut output = vec![0.0; b * h * w * g.c];
        let tokens = g.window[0] * w;
        let per_image = h / g.window[0];
        let width = g.c / g.parts;
        for_each(output.chunks_exact_mut(tokens * width).enumerate(), |(task, output)| {
            let (row, part) = (task / g.parts, task % g.parts);
            let qkv = &qkv[row * tokens * 3 * g.c..][..tokens * 3 * g.c];
            let time = &time[row / per_image * 3 * g.c..][..3 * g.c];
            let mut s = Scratch::new(g);
            let mut o = vec![0.0; g.n * g.d];
            vectorize(
                #[inline(always)]
                || {
                    for window in 0..w / g.window[1] {
                        for head in g.heads_of(part) {
                            s.weights(g, qkv, time, bias, window, head);
                            matmul(rows(&s.p, g.n), &s.v, &mut o, g.n, g.n, g.d);
                            let column = head * g.d - part * width;
                            for (o, token) in o.chunks_exact(g.d).zip(g.tokens(window)) {
                                output[token * width + column..][..g.d].copy_from_slice(o);
                            }
                        }
                    }
                },
            );
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
        let width = g.c / g.parts;
        let mut dqkv = vec![0.0; qkv.len()];
        let mut dbias = vec![0.0; b * per_image * bias.len()];
        let mut dtime = vec![0.0; b * per_image * 3 * g.c];
        let tasks = dqkv
            .chunks_exact_mut(tokens * 3 * width)
            .zip(dbias.chunks_exact_mut(bias.len() / g.parts))
            .zip(dtime.chunks_exact_mut(3 * width))
            .enumerate();
        for_each(tasks, |(task, ((dqkv, dbias), dtime))| {
            let (row, part) = (task / g.parts, task % g.parts);
            let qkv = &qkv[row * tokens * 3 * g.c..][..tokens * 3 * g.c];
            let grad = &grad[row * tokens * g.c..][..tokens * g.c];
            let time = &time[row / per_image * 3 * g.c..][..3 * g.c];
            let mut s = Scratch::new(g);
            let mut dout = vec![0.0; g.n * g.d];
            let mut ds = vec![0.0; g.n * g.n];
            let mut product = vec![0.0; g.n * g.d];
            let scale = 1.0 / (g.d as f32).sqrt();
            vectorize(
                #[inline(always)]
                || {
                    for window in 0..w / g.window[1] {
                        for head in g.heads_of(part) {
                            let place = head - g.heads_of(part).start;
                            s.weights(g, qkv, time, bias, window, head);
                            for (dout, token) in dout.chunks_exact_mut(g.d).zip(g.tokens(window)) {
                                dout.copy_from_slice(&grad[token * g.c + head * g.d..][..g.d]);
                            }
                            // dS = P ∘ (dO Vᵀ - rowsum(P ∘ dO Vᵀ))
                            transpose(&s.v, &mut s.t, g.n, g.d);
                            matmul(rows(&dout, g.d), &s.t, &mut ds, g.n, g.d, g.n);
                            for (ds, p) in ds.chunks_exact_mut(g.n).zip(s.p.chunks_exact(g.n)) {
                                let total = sum(ds, p, |ds, p| ds * p);
                                update(ds, p, |ds, p| p * (ds - total));
                            }
                            let dbias = &mut dbias[place * g.n * g.n..][..g.n * g.n];
                            update(dbias, &ds, |dbias, ds| dbias + ds);
                            // dQ = dS K / sqrt(d); dK = dSᵀ (Q / sqrt(d)); dV = Pᵀ dO
                            let products = [
                                (rows(&ds, g.n), &s.k, scale),
                                (transposed(&ds, g.n), &s.q, 1.0),
                                (transposed(&s.p, g.n), &dout, 1.0),
                            ];
                            for (of, (left, right, scale)) in products.into_iter().enumerate() {
                                matmul(left, right, &mut product, g.n, g.n, g.d);
                                let column = of * width + place * g.d;
                                let dtime = &mut dtime[column..column + g.d];
                                for (x, token) in product.chunks_exact(g.d).zip(g.tokens(window)) {
                                    let to = &mut dqkv[token * 3 * width + column..][..g.d];
                                    update(to, x, |_, x| x * scale);
                                    update(dtime, to, |sum, x| sum + x);
                                }
                            }
                        }
                    }
                },
            );
        });
        let dqkv = join(dqkv, g.parts, tokens * 3, width);
        let dtime = join(dtime, g.parts, 3, width)
            .chunks_exact(per_image * 3 * g.c)
            .flat_map(|image| sum_rows(image, 3 * g.c))
            .collect();
        [dqkv, dtime, sum_rows(&dbias, bias.len())]
    }
}
