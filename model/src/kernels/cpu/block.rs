//! A whole DiffiT ResBlock (Eq 7-10) in one kernel: an image, or some rows of its windows, goes
//! through all of it on one core, and stays in that core's cache.
//!
//! Inside, tokens lie in the order of windows: those of a window one after the other, windows row
//! after row. The convolution writes them so, and what comes last writes them back as a map.
//!
//! On the way forward four maps are kept where there is to be a way back: what the convolution gives,
//! the projected tokens, what attention gives, and the map after attention. The rest, mostly the
//! inside of the MLP, is computed again. On the way back images are summed over in a fixed number of
//! groups, so that the number of threads changes no bit.

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::activation::{gate, slope};
use super::attention::Heads;
use super::conv::{Bordered, GROUPS, pack, pack_back, unpack};
use super::dropout::Dropout;
use super::gemm::{Left, Out, Packed, Right, Rows, outer, product};
use super::kernel::{Kernel, dims, values};
use super::norm::{GroupNorm, LayerNorm};
use super::parallel::{Room, for_each, for_each_with, sum_buffers};
use super::vector::{add_rows, update, vectorize};
use crate::network::window::relative_position_index;

/// `h = Conv3x3(Dropout(Swish(GN(x))))`, then `TMSA(LN(h), time) + h`, then `MLP(LN(h)) + h`, then
/// the residual.
///
/// Inputs: `x` `[B, H, W, C_in]`; `time` `[B, 3 C]`, the time token's part of queries, keys and
/// values; then the parameters in the order of [`Parameters`]. Output: `[B, H, W, C]`.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub norm: GroupNorm,
    pub dropout: Option<Dropout>,
    pub layer_norms: [LayerNorm; 2],
    /// Tokens a side of a window.
    pub window: usize,
}

/// Tokens that go through attention and MLP together, about.
const TOKENS: usize = 256;

/// Fewer images than this are taken apart, so that all cores have some.
const MANY: usize = 8;

/// Inputs before the parameters.
const FIRST: usize = 2;

/// The parameters, or their gradients: their values, one after the other.
struct Parameters<'a> {
    norm: [&'a [f32]; 2],
    conv: [&'a [f32]; 2],
    norm1: [&'a [f32]; 2],
    qkv: [&'a [f32]; 2],
    table: &'a [f32],
    proj: [&'a [f32]; 2],
    norm2: [&'a [f32]; 2],
    fc1: [&'a [f32]; 2],
    fc2: [&'a [f32]; 2],
    /// Weight and bias of the 1x1 convolution, where the channels change.
    residual: Option<[&'a [f32]; 2]>,
}

impl<'a> Parameters<'a> {
    fn new(inputs: &[&'a FlexTensor]) -> Self {
        let one = |i: usize| values(inputs[FIRST + i]);
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
            residual: (inputs.len() > FIRST + 17).then(|| two(17)),
        }
    }
}

/// Lengths of the sums that a group of images makes for each parameter: those of the parameters, but
/// for the bias of attention, which is summed before it goes into its table.
fn lengths(inputs: &[&FlexTensor], s: &Sizes) -> Vec<usize> {
    let parameters = inputs[FIRST..].iter().enumerate();
    parameters
        .map(|(i, input)| if i == 8 { s.heads * s.n * s.n } else { values(input).len() })
        .collect()
}

/// The sums of one group, by parameter.
struct Sums<'a> {
    norm: [&'a mut [f32]; 2],
    conv: [&'a mut [f32]; 2],
    norm1: [&'a mut [f32]; 2],
    qkv: [&'a mut [f32]; 2],
    bias: &'a mut [f32],
    proj: [&'a mut [f32]; 2],
    norm2: [&'a mut [f32]; 2],
    fc1: [&'a mut [f32]; 2],
    fc2: [&'a mut [f32]; 2],
    residual: Option<[&'a mut [f32]; 2]>,
}

impl<'a> Sums<'a> {
    fn new(mut all: &'a mut [f32], lengths: &[usize]) -> Self {
        let mut lengths = lengths.iter();
        let mut next = || {
            let (part, rest) = core::mem::take(&mut all).split_at_mut(*lengths.next()?);
            all = rest;
            Some(part)
        };
        let mut one = || next().expect("a length for every parameter");
        Self {
            norm: [one(), one()],
            conv: [one(), one()],
            norm1: [one(), one()],
            qkv: [one(), one()],
            bias: one(),
            proj: [one(), one()],
            norm2: [one(), one()],
            fc1: [one(), one()],
            fc2: [one(), one()],
            residual: next().and_then(|weight| Some([weight, next()?])),
        }
    }
}

/// The sizes that the loops run over, and where things lie.
struct Sizes {
    b: usize,
    h: usize,
    w: usize,
    c_in: usize,
    c: usize,
    hidden: usize,
    heads: usize,
    /// `1 / sqrt(d)`, for heads of `d` channels.
    query_scale: f32,
    /// Tokens of a window.
    n: usize,
    /// Tokens of an image.
    tokens: usize,
    /// Tokens that go through attention and MLP together: some rows of windows.
    chunk: usize,
    /// The pixel of each token of a chunk, counted from the chunk's first row.
    order: Vec<usize>,
    /// RelativePositions of those pixels in a map of `C_in` and one of `C` channels.
    order_in: Vec<usize>,
    order_out: Vec<usize>,
}

impl Sizes {
    fn new(inputs: &[&FlexTensor], side: usize) -> Self {
        let [b, h, w, c_in] = dims(inputs[0]);
        let [c, ..] = dims::<4>(inputs[FIRST + 2]);
        let [_, heads] = dims(inputs[FIRST + 8]);
        let [_, hidden] = dims(inputs[FIRST + 13]);
        let (strips, strip) = (h / side, side * w);
        let divides = |count: &usize| strips.is_multiple_of(*count) && count * strip <= TOKENS;
        let count = (1..=strips).rev().find(divides).unwrap_or(1);
        let mut order = Vec::with_capacity(count * strip);
        for strip in 0..count {
            for window in 0..w / side {
                for y in 0..side {
                    for x in 0..side {
                        order.push((strip * side + y) * w + window * side + x);
                    }
                }
            }
        }
        let times = |c: usize| order.iter().map(|pixel| pixel * c).collect();
        let (order_in, order_out) = (times(c_in), times(c));
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
            order,
            order_in,
            order_out,
        }
    }

    fn heads(&self) -> Heads {
        Heads { n: self.n, d: self.c / self.heads, width: self.c }
    }

    /// Scale of column `i` of queries, keys and values: that of the queries, `1 / sqrt(d)`, is folded
    /// into the weights that make them.
    fn scale(&self, i: usize) -> f32 {
        if i < self.c { self.query_scale } else { 1.0 }
    }

    /// The map that the convolution reads.
    fn map(&self) -> Bordered {
        Bordered { h: self.h, w: self.w, c: self.c_in, stride: 1 }
    }

    /// The gradient that goes back through the convolution.
    fn map_back(&self) -> Bordered {
        Bordered { c: self.c, ..self.map() }
    }

    /// RelativePositions of the tokens of some chunks in the order of windows, pixel by pixel.
    fn places(&self, chunks: usize) -> Vec<usize> {
        let mut places = vec![0; chunks * self.chunk];
        for chunk in 0..chunks {
            let first = chunk * self.chunk;
            for (token, pixel) in self.order.iter().enumerate() {
                places[first + pixel] = (first + token) * self.c;
            }
        }
        places
    }

    /// The biases of attention `[heads, N, N]`, from their table.
    fn biases(&self, table: &[f32]) -> Vec<f32> {
        let index = self.index();
        (0..self.heads)
            .flat_map(|head| index.iter().map(move |i| table[i * self.heads + head]))
            .collect()
    }

    fn index(&self) -> Vec<usize> {
        relative_position_index(self.n.isqrt())
    }

    /// The bias of queries, keys and values, with the time token's part, for an image.
    fn time_bias(&self, bias: &[f32], time: &[f32], to: &mut [f32]) {
        for (i, to) in to.iter_mut().enumerate() {
            *to = (bias[i] + time[i]) * self.scale(i);
        }
    }
}

/// The maps that are kept for the way back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saved {
    /// Mean and reciprocal deviation of each channel's group, `[B, 2, C_in]`.
    statistics: Vec<f32>,
    /// What the convolution gives, `[B, tokens, C]` as all that follows.
    conv: Vec<f32>,
    /// Queries, keys and values, `[B, tokens, 3 C]`.
    qkv: Vec<f32>,
    /// What attention gives.
    context: Vec<f32>,
    /// The map after attention.
    middle: Vec<f32>,
}

/// Slices of the above for some tokens; empty where nothing is kept.
struct Kept<'a> {
    conv: &'a mut [f32],
    qkv: &'a mut [f32],
    context: &'a mut [f32],
    middle: &'a mut [f32],
}

impl Saved {
    /// Room for `tokens` of `c` channels.
    fn new(statistics: Vec<f32>, tokens: usize, c: usize) -> Self {
        let map = || vec![0.0; tokens * c];
        Self {
            statistics,
            conv: map(),
            qkv: vec![0.0; 3 * tokens * c],
            context: map(),
            middle: map(),
        }
    }

    /// Its parts, of `tokens` each.
    fn parts(&mut self, tokens: usize, c: usize) -> impl Iterator<Item = Kept<'_>> {
        let maps = self.conv.chunks_exact_mut(tokens * c);
        let maps = maps.zip(self.qkv.chunks_exact_mut(3 * tokens * c));
        let maps = maps.zip(self.context.chunks_exact_mut(tokens * c));
        maps.zip(self.middle.chunks_exact_mut(tokens * c))
            .map(|(((conv, qkv), context), middle)| Kept { conv, qkv, context, middle })
    }
}

/// Packed weights of the way forward.
struct Forward {
    conv: Packed,
    qkv: Packed,
    proj: Packed,
    fc1: Packed,
    fc2: Packed,
    residual: Option<Packed>,
}

impl Forward {
    fn new(p: &Parameters, s: &Sizes) -> Self {
        let (c, hidden) = (s.c, s.hidden);
        let qkv = p.qkv[0];
        Self {
            conv: pack(p.conv[0], s.c_in, c),
            qkv: Packed::new(c, 3 * c, |k, j| qkv[k * 3 * c + j] * s.scale(j)),
            proj: Packed::of(p.proj[0], c, c),
            fc1: Packed::of(p.fc1[0], c, hidden),
            fc2: Packed::of(p.fc2[0], hidden, c),
            residual: p.residual.map(|[weight, _]| Packed::of(weight, s.c_in, c)),
        }
    }
}

/// Packed weights of the way back.
struct Back {
    conv: Packed,
    qkv: Packed,
    proj: Packed,
    fc1: Packed,
    fc1_back: Packed,
    fc2: Packed,
    residual: Option<Packed>,
}

impl Back {
    fn new(p: &Parameters, s: &Sizes) -> Self {
        let (c, hidden) = (s.c, s.hidden);
        let qkv = p.qkv[0];
        Self {
            conv: pack_back(p.conv[0], s.c_in, c),
            qkv: Packed::new(3 * c, c, |k, j| qkv[j * 3 * c + k] * s.scale(k)),
            proj: Packed::transpose_of(p.proj[0], c, c),
            fc1: Packed::of(p.fc1[0], c, hidden),
            fc1_back: Packed::transpose_of(p.fc1[0], hidden, c),
            fc2: Packed::transpose_of(p.fc2[0], c, hidden),
            residual: p.residual.map(|[weight, _]| Packed::transpose_of(weight, c, s.c_in)),
        }
    }
}

/// `left · right + bias`, all of them row after row.
fn linear(left: &[f32], right: &Packed, bias: &[f32], k: usize, to: &mut [f32]) {
    let n = bias.len();
    let out = Out::with_bias(to, Rows::Every(n), bias);
    product(Left::new(left, Rows::Every(k), k), Right::Packed(right), out, left.len() / k, n);
}

/// `left · right`, all of them row after row.
fn times(left: &[f32], right: &Packed, [k, n]: [usize; 2], to: &mut [f32]) {
    let out = Out::new(to, Rows::Every(n));
    product(Left::new(left, Rows::Every(k), k), Right::Packed(right), out, left.len() / k, n);
}

/// Adds the gradients of a linear map from its input and the gradient of its output.
fn linear_weights(x: &[f32], grad: &[f32], [k, n]: [usize; 2], [dweight, dbias]: [&mut [f32]; 2]) {
    let (left, right) = ((x, Rows::Every(k)), (grad, Rows::Every(n)));
    outer(left, right, Out::added(dweight, Rows::Every(n)), [k, x.len() / k, n]);
    vectorize(
        #[inline(always)]
        || add_rows(dbias, grad),
    );
}

impl Block {
    fn statistics(&self, x: &[f32], s: &Sizes) -> Vec<f32> {
        let mut statistics = vec![0.0; s.b * 2 * s.c_in];
        let images = statistics.chunks_exact_mut(2 * s.c_in).zip(x.chunks_exact(s.tokens * s.c_in));
        for_each(images, |(statistics, x)| self.norm.statistics(x, statistics));
        statistics
    }

    /// What the convolution reads of a row of an image.
    fn row(&self, image: usize, y: usize, x: &[f32], norm: [&[f32]; 3], to: &mut [f32]) {
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

    /// Some tokens from the convolution on.
    #[allow(clippy::too_many_arguments)]
    fn transform(
        &self,
        (s, p, packed): (&Sizes, &Parameters, &Forward),
        biases: &[f32],
        time_bias: &[f32],
        x: &[f32],
        kept: Kept,
        room: &mut Room,
        output: &mut [f32],
    ) {
        let Kept { conv, qkv, context, middle } = kept;
        let (c, heads) = (s.c, s.heads());
        let [turned, weights] = heads.room();
        let [normal, hidden, statistics, turned, weights] =
            room.parts([s.chunk * c, s.chunk * s.hidden, 2 * s.chunk, turned, weights]);
        self.layer_norms[0].rows(conv, p.norm1, normal, statistics);
        linear(normal, &packed.qkv, time_bias, c, qkv);
        let windows = qkv.chunks_exact(s.n * 3 * c).zip(context.chunks_exact_mut(s.n * c));
        for (qkv, context) in windows {
            heads.forward(qkv, biases, [turned, weights], context);
        }
        let rows = Rows::Every(c);
        let add = [Some((&*conv, rows)), None];
        let out = Out { add, ..Out::with_bias(middle, rows, p.proj[1]) };
        product(Left::new(context, rows, c), Right::Packed(&packed.proj), out, s.chunk, c);
        self.layer_norms[1].rows(middle, p.norm2, normal, statistics);
        linear(normal, &packed.fc1, p.fc1[1], c, hidden);
        vectorize(
            #[inline(always)]
            || update(hidden, [], |x, []| x * gate(x)),
        );
        let (in_map, out_map) = (Rows::At(&s.order_in), Rows::At(&s.order_out));
        let middle = Some((&*middle, rows));
        let mut identity = Some((x, in_map));
        if let (Some(residual), Some([_, bias])) = (&packed.residual, p.residual) {
            let out = Out::with_bias(output, out_map, bias);
            product(Left::new(x, in_map, s.c_in), Right::Packed(residual), out, s.chunk, c);
            identity = None;
        }
        let out = Out {
            add: [middle, identity],
            accumulate: identity.is_none(),
            ..Out::with_bias(output, out_map, p.fc2[1])
        };
        let left = Left::new(hidden, Rows::Every(s.hidden), s.hidden);
        product(left, Right::Packed(&packed.fc2), out, s.chunk, c);
    }

    /// Adds what a chunk of tokens gives for the parameters after the convolution, and turns the
    /// gradient of the output, in the order of windows, into that of what the convolution gives.
    #[allow(clippy::too_many_arguments)]
    fn transform_backward(
        &self,
        (s, p, packed): (&Sizes, &Parameters, &Back),
        biases: &[f32],
        [conv, qkv, context, middle]: [&[f32]; 4],
        sums: &mut Sums,
        dtime: &mut [f32],
        room: &mut Room,
        grad: &mut [f32],
    ) {
        let (c, wide, heads) = (s.c, s.hidden, s.heads());
        let [turned, weights, dlogits] = heads.room_backward();
        let (map, hidden_map) = (s.chunk * c, s.chunk * wide);
        let [normal, dnormal, statistics, hidden, gates, dhidden, dqkv, turned, weights, dlogits] =
            room.parts([
                map,
                map,
                2 * s.chunk,
                hidden_map,
                hidden_map,
                hidden_map,
                3 * map,
                turned,
                weights,
                dlogits,
            ]);
        // The MLP.
        self.layer_norms[1].rows(middle, p.norm2, normal, statistics);
        linear(normal, &packed.fc1, p.fc1[1], c, hidden);
        times(grad, &packed.fc2, [c, wide], dhidden);
        vectorize(
            #[inline(always)]
            || {
                update(gates, [hidden], |_, [x]| gate(x));
                update(dhidden, [hidden, gates], |grad, [x, gate]| grad * slope(x, gate));
                update(hidden, [gates], |x, [gate]| x * gate);
            },
        );
        linear_weights(hidden, grad, [wide, c], sums.fc2.each_mut().map(|sum| &mut **sum));
        linear_weights(normal, dhidden, [c, wide], sums.fc1.each_mut().map(|sum| &mut **sum));
        times(dhidden, &packed.fc1_back, [wide, c], dnormal);
        let to = sums.norm2.each_mut().map(|sum| &mut **sum);
        LayerNorm::rows_backward([middle, p.norm2[0], statistics], dnormal, grad, to);
        // Attention.
        linear_weights(context, grad, [c, c], sums.proj.each_mut().map(|sum| &mut **sum));
        times(grad, &packed.proj, [c, c], dnormal);
        let windows = qkv.chunks_exact(s.n * 3 * c).zip(dnormal.chunks_exact(s.n * c));
        for ((qkv, grad), dqkv) in windows.zip(dqkv.chunks_exact_mut(s.n * 3 * c)) {
            let room = [&mut *turned, &mut *weights, &mut *dlogits];
            heads.backward([qkv, biases, grad], room, dqkv, sums.bias);
        }
        self.layer_norms[0].rows(conv, p.norm1, normal, statistics);
        linear_weights(normal, dqkv, [c, 3 * c], [&mut *sums.qkv[0], dtime]);
        times(dqkv, &packed.qkv, [3 * c, c], dnormal);
        let to = sums.norm1.each_mut().map(|sum| &mut **sum);
        LayerNorm::rows_backward([conv, p.norm1[0], statistics], dnormal, grad, to);
    }
}

impl<const N: usize> Kernel<N> for Block {
    type Saved = Saved;

    fn forward(&self, inputs: [&FlexTensor; N], keep: bool) -> (Vec<f32>, Shape, Saved) {
        let s = Sizes::new(&inputs, self.window);
        let p = Parameters::new(&inputs);
        let (x, time) = (values(inputs[0]), values(inputs[1]));
        let (c, map) = (s.c, s.map());
        let packed = Forward::new(&p, &s);
        let biases = s.biases(p.table);
        let statistics = self.statistics(x, &s);
        // A task is an image, or a chunk of one.
        let task = if s.b < MANY { s.chunk } else { s.tokens };
        let (parts, task_rows) = (s.tokens / task, task / s.w);
        let (places, patches) = (s.places(task / s.chunk), map.patches(task_rows));
        let mut output = vec![0.0; s.b * s.tokens * c];
        let mut saved = Saved::default();
        let mut kept = Vec::new();
        if keep {
            saved = Saved::new(statistics.clone(), s.b * s.tokens, c);
            kept = saved.parts(task, c).map(Some).collect();
        }
        kept.resize_with(s.b * parts, || None);
        let tasks = output.chunks_exact_mut(task * c).zip(kept).enumerate();
        let rooms = || [(); 3].map(|()| Room::default());
        for_each_with(tasks, rooms, |[own, chunks, room], (i, (output, kept))| {
            let (image, first) = (i / parts, i % parts * task_rows);
            let x = &x[image * s.tokens * s.c_in..][..s.tokens * s.c_in];
            let statistics = &statistics[image * 2 * s.c_in..][..2 * s.c_in];
            let norm = [statistics, p.norm[0], p.norm[1]];
            let [under, conv, time_bias] = own.parts([map.len(task_rows), task * c, 3 * c]);
            let (conv, mut kept) = match kept {
                Some(Kept { conv, qkv, context, middle }) => (conv, Some([qkv, context, middle])),
                None => (conv, None),
            };
            map.fill(first..first + task_rows, under, |y, to| self.row(image, y, x, norm, to));
            let out = Out::with_bias(conv, Rows::At(&places), p.conv[1]);
            let left = map.left(under, &patches);
            product(left, Right::Packed(&packed.conv), out, task, c);
            s.time_bias(p.qkv[1], &time[image * 3 * c..], time_bias);
            for chunk in 0..task / s.chunk {
                let part = |width: usize| chunk * s.chunk * width..(chunk + 1) * s.chunk * width;
                let [qkv, context, middle] =
                    chunks.parts([3 * s.chunk * c, s.chunk * c, s.chunk * c]);
                let conv = &mut conv[part(c)];
                let kept = match &mut kept {
                    Some([qkv, context, middle]) => Kept {
                        conv,
                        qkv: &mut qkv[part(3 * c)],
                        context: &mut context[part(c)],
                        middle: &mut middle[part(c)],
                    },
                    None => Kept { conv, qkv, context, middle },
                };
                let x = &x[first * s.w * s.c_in..][part(s.c_in)];
                let output = &mut output[part(c)];
                let all = (&s, &p, &packed);
                self.transform(all, &biases, time_bias, x, kept, room, output);
            }
        });
        (output, Shape::new([s.b, s.h, s.w, c]), saved)
    }

    fn backward(
        &self,
        inputs: [&FlexTensor; N],
        saved: &Saved,
        grad: &FlexTensor,
        _wanted: [bool; N],
    ) -> [Vec<f32>; N] {
        let s = Sizes::new(&inputs, self.window);
        let p = Parameters::new(&inputs);
        let (x, grad) = (values(inputs[0]), values(grad));
        let (c, c_in, tokens) = (s.c, s.c_in, s.tokens);
        let (map, back) = (s.map(), s.map_back());
        let packed = Back::new(&p, &s);
        let biases = s.biases(p.table);
        let (patches, patches_back, pixels) = (map.patches(s.h), back.patches(s.h), back.pixels());
        let lengths = lengths(&inputs, &s);
        let mut dx = vec![0.0; x.len()];
        let mut dtime = vec![0.0; s.b * 3 * c];
        let groups = s.b.min(GROUPS);
        let mut sums: Vec<Vec<f32>> =
            (0..groups).map(|_| vec![0.0; lengths.iter().sum()]).collect();
        let mut tasks: Vec<_> = sums.iter_mut().map(|sums| (sums, Vec::new())).collect();
        let images = dx.chunks_exact_mut(tokens * c_in).zip(dtime.chunks_exact_mut(3 * c));
        for (image, (dx, dtime)) in images.enumerate() {
            tasks[image * groups / s.b].1.push((image, dx, dtime));
        }
        for_each(tasks.into_iter(), |(sums, images)| {
            let mut sums = Sums::new(sums, &lengths);
            let (mut own, mut room) = (Room::default(), Room::default());
            // The gradient of what the convolution gives, with a border that stays zero.
            let mut under_back = vec![0.0; back.len(s.h)];
            for (image, dx, dtime) in images {
                let x = &x[image * tokens * c_in..][..tokens * c_in];
                let grad = &grad[image * tokens * c..][..tokens * c];
                let [dmap, under, dz, sums_of_norm] =
                    own.parts([s.chunk * c, map.len(s.h), tokens * c_in, 2 * c_in]);
                for chunk in 0..tokens / s.chunk {
                    let first = (image * tokens + chunk * s.chunk) * c;
                    let grad = &grad[chunk * s.chunk * c..][..s.chunk * c];
                    for (to, from) in dmap.chunks_exact_mut(c).zip(&s.order_out) {
                        to.copy_from_slice(&grad[*from..from + c]);
                    }
                    let [conv, context, middle] = [&saved.conv, &saved.context, &saved.middle]
                        .map(|all| &all[first..first + s.chunk * c]);
                    let qkv = &saved.qkv[3 * first..][..3 * s.chunk * c];
                    let kept = [conv, qkv, context, middle];
                    let all = (&s, &p, &packed);
                    self.transform_backward(all, &biases, kept, &mut sums, dtime, &mut room, dmap);
                    vectorize(
                        #[inline(always)]
                        || add_rows(sums.conv[1], dmap),
                    );
                    for (from, pixel) in dmap.chunks_exact(c).zip(&s.order) {
                        let to = pixels[chunk * s.chunk + pixel];
                        under_back[to..to + c].copy_from_slice(from);
                    }
                }
                // The convolution.
                let statistics = &saved.statistics[image * 2 * c_in..][..2 * c_in];
                let norm = [statistics, p.norm[0], p.norm[1]];
                map.fill(0..s.h, under, |y, to| self.row(image, y, x, norm, to));
                let right = (&under_back[..], Rows::At(&pixels));
                map.outer((under, &patches), right, c, sums.conv[0]);
                let out = Out::new(dz, Rows::Every(c_in));
                let left = back.left(&under_back, &patches_back);
                product(left, Right::Packed(&packed.conv), out, tokens, c_in);
                let slopes = &mut under[..tokens * c_in];
                vectorize(
                    #[inline(always)]
                    || {
                        self.norm.slopes(x, norm, slopes);
                        update(dz, [slopes], |dz, [slope]| dz * slope);
                        if let Some(dropout) = &self.dropout {
                            dropout.values(image, 0, dz);
                        }
                    },
                );
                // The residual.
                if let (Some(residual), Some(sums)) = (&packed.residual, &mut sums.residual) {
                    times(grad, residual, [c, c_in], dx);
                    let [weight, bias] = sums;
                    linear_weights(x, grad, [c_in, c], [weight, bias]);
                } else {
                    dx.copy_from_slice(grad);
                }
                let to = sums.norm.each_mut().map(|sum| &mut **sum);
                self.norm.image_backward([x, statistics, p.norm[0]], dz, dx, to, sums_of_norm);
            }
        });

        let mut sums = sum_buffers(sums);
        // Of the scaled queries, first.
        let before: usize = lengths[..6].iter().sum();
        for row in sums[before..][..lengths[6]].chunks_exact_mut(3 * c) {
            row[..c].iter_mut().for_each(|x| *x *= s.query_scale);
        }
        for image in dtime.chunks_exact_mut(3 * c) {
            image[..c].iter_mut().for_each(|x| *x *= s.query_scale);
        }
        let mut gradients = [const { Vec::new() }; N];
        let mut first = 0;
        for (i, length) in lengths.iter().enumerate() {
            let sum = &sums[first..first + length];
            first += length;
            gradients[FIRST + i] = match i {
                2 => unpack(sum, c_in, c),
                7 => {
                    let mut bias = vec![0.0; 3 * c];
                    add_rows(&mut bias, &dtime);
                    bias
                }
                8 => {
                    let mut table = vec![0.0; p.table.len()];
                    let index = s.index();
                    for (head, sum) in sum.chunks_exact(s.n * s.n).enumerate() {
                        for (row, x) in index.iter().zip(sum) {
                            table[row * s.heads + head] += x;
                        }
                    }
                    table
                }
                _ => sum.to_vec(),
            };
        }
        gradients[0] = dx;
        gradients[1] = dtime;
        gradients
    }
}
