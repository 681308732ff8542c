//! The backward pass of the fused block.

use burn_flex::FlexTensor;

use super::sizes::Sizes;
use super::{Block, FIRST_PARAMETER, Parameters, Saved, linear, multiply};
use crate::kernels::cpu::activation::{derivative, gate};
use crate::kernels::cpu::conv::{GRADIENT_GROUPS, pack_back, unpack};
use crate::kernels::cpu::gemm::{Out, Packed, Right, Rows, outer, product};
use crate::kernels::cpu::kernel::values;
use crate::kernels::cpu::norm::LayerNorm;
use crate::kernels::cpu::parallel::{Scratch, for_each, sum_buffers};
use crate::kernels::cpu::vector::{add_rows, update, vectorize};

/// The packed weights of the backward pass. Most are transposed; `fc1` is also needed as it is, to
/// recompute the hidden layer.
struct BackwardWeights {
    conv: Packed,
    qkv: Packed,
    proj: Packed,
    fc1: Packed,
    fc1_back: Packed,
    fc2: Packed,
    residual: Option<Packed>,
}

impl BackwardWeights {
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

/// Lengths of the gradient sums, by parameter. They are the parameters' lengths, except for the
/// relative position table: the gradient of the expanded bias `[heads, N, N]` is summed first, and
/// added up into the table once at the end.
fn lengths(inputs: &[&FlexTensor], s: &Sizes) -> Vec<usize> {
    let parameters = inputs[FIRST_PARAMETER..].iter().enumerate();
    parameters
        .map(|(i, input)| if i == 8 { s.heads * s.n * s.n } else { values(input).len() })
        .collect()
}

/// The gradient sums of one group of images, by parameter: slices of one buffer.
struct GradientSums<'a> {
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

impl<'a> GradientSums<'a> {
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

/// Adds the gradients of a linear map's weight `[k, n]` and bias `[n]`, from its input `x` and the
/// gradient of its output.
fn linear_gradients(
    x: &[f32],
    grad: &[f32],
    [k, n]: [usize; 2],
    [dweight, dbias]: [&mut [f32]; 2],
) {
    let (left, right) = ((x, Rows::Strided(k)), (grad, Rows::Strided(n)));
    outer(left, right, Out::added(dweight, Rows::Strided(n)), [k, x.len() / k, n]);
    vectorize(
        #[inline(always)]
        || add_rows(dbias, grad),
    );
}

impl Block {
    /// Goes back through everything after the convolution, for one chunk of tokens.
    ///
    /// Adds to the gradients of the parameters in `sums`, and to that of the time token in `dtime`.
    /// `grad` holds the gradient of the block's output in window order, and is replaced by the
    /// gradient of the convolution's output.
    #[allow(clippy::too_many_arguments)]
    fn transformer_backward(
        &self,
        (s, p, packed): (&Sizes, &Parameters, &BackwardWeights),
        biases: &[f32],
        [conv, qkv, context, attended]: [&[f32]; 4],
        sums: &mut GradientSums,
        dtime: &mut [f32],
        scratch: &mut Scratch,
        grad: &mut [f32],
    ) {
        let (c, wide, heads) = (s.c, s.hidden, s.heads());
        let [transposed, weights, dlogits] = heads.backward_scratch_lens();
        let (map, hidden_map) = (s.chunk * c, s.chunk * wide);
        let [
            normal,
            dnormal,
            statistics,
            hidden,
            gates,
            dhidden,
            dqkv,
            transposed,
            weights,
            dlogits,
        ] = scratch.split([
            map,
            map,
            2 * s.chunk,
            hidden_map,
            hidden_map,
            hidden_map,
            3 * map,
            transposed,
            weights,
            dlogits,
        ]);
        // Eq (8): recomputes the hidden layer, then goes back through the MLP. `grad` becomes the
        // gradient of the map after attention.
        self.layer_norms[1].rows(attended, p.norm2, normal, statistics);
        linear(normal, &packed.fc1, p.fc1[1], c, hidden);
        multiply(grad, &packed.fc2, [c, wide], dhidden);
        vectorize(
            #[inline(always)]
            || {
                update(gates, [hidden], |_, [x]| gate(x));
                update(dhidden, [hidden, gates], |grad, [x, gate]| grad * derivative(x, gate));
                update(hidden, [gates], |x, [gate]| x * gate);
            },
        );
        linear_gradients(hidden, grad, [wide, c], sums.fc2.each_mut().map(|sum| &mut **sum));
        linear_gradients(normal, dhidden, [c, wide], sums.fc1.each_mut().map(|sum| &mut **sum));
        multiply(dhidden, &packed.fc1_back, [wide, c], dnormal);
        let to = sums.norm2.each_mut().map(|sum| &mut **sum);
        LayerNorm::rows_backward([attended, p.norm2[0], statistics], dnormal, grad, to);
        // Eq (7): `grad` becomes the gradient of the convolution's output.
        linear_gradients(context, grad, [c, c], sums.proj.each_mut().map(|sum| &mut **sum));
        multiply(grad, &packed.proj, [c, c], dnormal);
        let windows = qkv.chunks_exact(s.n * 3 * c).zip(dnormal.chunks_exact(s.n * c));
        for ((qkv, grad), dqkv) in windows.zip(dqkv.chunks_exact_mut(s.n * 3 * c)) {
            let scratch = [&mut *transposed, &mut *weights, &mut *dlogits];
            heads.backward([qkv, biases, grad], scratch, dqkv, sums.bias);
        }
        self.layer_norms[0].rows(conv, p.norm1, normal, statistics);
        linear_gradients(normal, dqkv, [c, 3 * c], [&mut *sums.qkv[0], dtime]);
        multiply(dqkv, &packed.qkv, [3 * c, c], dnormal);
        let to = sums.norm1.each_mut().map(|sum| &mut **sum);
        LayerNorm::rows_backward([conv, p.norm1[0], statistics], dnormal, grad, to);
    }

    /// Computes the gradients of all inputs, in their order.
    pub(super) fn run_backward<const N: usize>(
        &self,
        inputs: [&FlexTensor; N],
        saved: &Saved,
        grad: &FlexTensor,
    ) -> [Vec<f32>; N] {
        let s = Sizes::new(&inputs, self.window);
        let p = Parameters::new(&inputs);
        let (x, grad) = (values(inputs[0]), values(grad));
        let (c, c_in, tokens) = (s.c, s.c_in, s.tokens);
        let (map, back) = (s.map(), s.map_back());
        let packed = BackwardWeights::new(&p, &s);
        let biases = s.biases(p.table);
        let (patches, patches_back) = (map.patch_offsets(s.h), back.patch_offsets(s.h));
        let pixels = back.pixel_offsets();
        let lengths = lengths(&inputs, &s);
        let mut dx = vec![0.0; x.len()];
        let mut dtime = vec![0.0; s.b * 3 * c];
        // A task is a group of consecutive images with sums of its own. The number of groups, and
        // so the order of additions, does not depend on the number of threads.
        let groups = s.b.min(GRADIENT_GROUPS);
        let mut sums: Vec<Vec<f32>> =
            (0..groups).map(|_| vec![0.0; lengths.iter().sum()]).collect();
        let mut tasks: Vec<_> = sums.iter_mut().map(|sums| (sums, Vec::new())).collect();
        let images = dx.chunks_exact_mut(tokens * c_in).zip(dtime.chunks_exact_mut(3 * c));
        for (image, (dx, dtime)) in images.enumerate() {
            tasks[image * groups / s.b].1.push((image, dx, dtime));
        }
        for_each(tasks.into_iter(), |(sums, images)| {
            let mut sums = GradientSums::new(sums, &lengths);
            let (mut image_scratch, mut scratch) = (Scratch::default(), Scratch::default());
            // Gradient of the convolution's output. Its padding is never written and stays zero.
            let mut padded_grad = vec![0.0; back.len(s.h)];
            for (image, dx, dtime) in images {
                let x = &x[image * tokens * c_in..][..tokens * c_in];
                let grad = &grad[image * tokens * c..][..tokens * c];
                let [dmap, padded, dz, sums_of_norm] =
                    image_scratch.split([s.chunk * c, map.len(s.h), tokens * c_in, 2 * c_in]);
                for chunk in 0..tokens / s.chunk {
                    let first = (image * tokens + chunk * s.chunk) * c;
                    let grad = &grad[chunk * s.chunk * c..][..s.chunk * c];
                    for (to, from) in dmap.chunks_exact_mut(c).zip(&s.offsets_out) {
                        to.copy_from_slice(&grad[*from..from + c]);
                    }
                    let [conv, context, attended] = [&saved.conv, &saved.context, &saved.attended]
                        .map(|all| &all[first..first + s.chunk * c]);
                    let qkv = &saved.qkv[3 * first..][..3 * s.chunk * c];
                    let kept = [conv, qkv, context, attended];
                    let all = (&s, &p, &packed);
                    let scratch = &mut scratch;
                    self.transformer_backward(all, &biases, kept, &mut sums, dtime, scratch, dmap);
                    vectorize(
                        #[inline(always)]
                        || add_rows(sums.conv[1], dmap),
                    );
                    for (from, pixel) in dmap.chunks_exact(c).zip(&s.window_order) {
                        let to = pixels[chunk * s.chunk + pixel];
                        padded_grad[to..to + c].copy_from_slice(from);
                    }
                }
                // Eq (9): recomputes the convolution's input, then goes back through it.
                let statistics = &saved.statistics[image * 2 * c_in..][..2 * c_in];
                let norm = [statistics, p.norm[0], p.norm[1]];
                map.fill(0..s.h, padded, |y, to| self.conv_input(image, y, x, norm, to));
                let right = (&padded_grad[..], Rows::Indexed(&pixels));
                map.outer((padded, &patches), right, c, sums.conv[0]);
                let out = Out::new(dz, Rows::Strided(c_in));
                let left = back.left(&padded_grad, &patches_back);
                product(left, Right::Packed(&packed.conv), out, tokens, c_in);
                let swish = &mut padded[..tokens * c_in];
                vectorize(
                    #[inline(always)]
                    || {
                        self.norm.swish_derivative(x, norm, swish);
                        update(dz, [swish], |dz, [swish]| dz * swish);
                        if let Some(dropout) = &self.dropout {
                            dropout.values(image, 0, dz);
                        }
                    },
                );
                // The residual of Eq (10).
                if let (Some(residual), Some(sums)) = (&packed.residual, &mut sums.residual) {
                    multiply(grad, residual, [c, c_in], dx);
                    let [weight, bias] = sums;
                    linear_gradients(x, grad, [c_in, c], [weight, bias]);
                } else {
                    dx.copy_from_slice(grad);
                }
                let to = sums.norm.each_mut().map(|sum| &mut **sum);
                self.norm.image_backward([x, statistics, p.norm[0]], dz, dx, to, sums_of_norm);
            }
        });

        let mut sums = sum_buffers(sums);
        // So far these are gradients with respect to the scaled weights and biases of the queries.
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
            gradients[FIRST_PARAMETER + i] = match i {
                // The convolution's weight.
                2 => unpack(sum, c_in, c),
                // The bias of queries, keys and values: in every image, the time token's part is
                // added to it, so that its gradient is the sum of theirs.
                7 => {
                    let mut bias = vec![0.0; 3 * c];
                    add_rows(&mut bias, &dtime);
                    bias
                }
                // The relative position table.
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
