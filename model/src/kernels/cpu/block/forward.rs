//! The forward pass of the fused block.

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::sizes::Sizes;
use super::{Activations, Block, Parameters, Saved, linear};
use crate::kernels::cpu::activation::gate;
use crate::kernels::cpu::conv::pack;
use crate::kernels::cpu::gemm::{Left, Out, Packed, Right, Rows, product};
use crate::kernels::cpu::kernel::values;
use crate::kernels::cpu::parallel::{Scratch, for_each, for_each_with};
use crate::kernels::cpu::vector::{update, vectorize};

/// Batches of fewer images than this are split into tasks smaller than an image, so that there are
/// tasks for all cores.
const SPLIT_BELOW: usize = 8;

/// The packed weights of the forward pass.
struct ForwardWeights {
    conv: Packed,
    qkv: Packed,
    proj: Packed,
    fc1: Packed,
    fc2: Packed,
    residual: Option<Packed>,
}

impl ForwardWeights {
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

impl Block {
    /// Computes the statistics of group normalisation, `[B, 2, C_in]`.
    fn statistics(&self, x: &[f32], s: &Sizes) -> Vec<f32> {
        let mut statistics = vec![0.0; s.b * 2 * s.c_in];
        let images = statistics.chunks_exact_mut(2 * s.c_in).zip(x.chunks_exact(s.tokens * s.c_in));
        for_each(images, |(statistics, x)| self.norm.statistics(x, statistics));
        statistics
    }

    /// Computes everything after the convolution, Eq (7), (8) and the residual, for one chunk.
    ///
    /// `kept.conv` holds the chunk's output of the convolution; the other maps of `kept` are
    /// written. `x` and `output` are the chunk's pixels in the input and in the output.
    #[allow(clippy::too_many_arguments)]
    fn transformer(
        &self,
        (s, p, packed): (&Sizes, &Parameters, &ForwardWeights),
        biases: &[f32],
        time_bias: &[f32],
        x: &[f32],
        kept: Activations,
        scratch: &mut Scratch,
        output: &mut [f32],
    ) {
        let Activations { conv, qkv, context, attended } = kept;
        let (c, heads) = (s.c, s.heads());
        let [transposed, weights] = heads.scratch_lens();
        // Eq (7). The time token's part of queries, keys and values is in the bias (Eq 3-5).
        let [normal, hidden, statistics, transposed, weights] =
            scratch.split([s.chunk * c, s.chunk * s.hidden, 2 * s.chunk, transposed, weights]);
        self.layer_norms[0].rows(conv, p.norm1, normal, statistics);
        linear(normal, &packed.qkv, time_bias, c, qkv);
        let windows = qkv.chunks_exact(s.n * 3 * c).zip(context.chunks_exact_mut(s.n * c));
        for (qkv, context) in windows {
            heads.forward(qkv, biases, [transposed, weights], context);
        }
        let rows = Rows::Strided(c);
        let add = [Some((&*conv, rows)), None];
        let out = Out { add, ..Out::with_bias(attended, rows, p.proj[1]) };
        product(Left::new(context, rows, c), Right::Packed(&packed.proj), out, s.chunk, c);
        // Eq (8), up to the second linear map of the MLP.
        self.layer_norms[1].rows(attended, p.norm2, normal, statistics);
        linear(normal, &packed.fc1, p.fc1[1], c, hidden);
        vectorize(
            #[inline(always)]
            || update(hidden, [], |x, []| x * gate(x)),
        );
        // The second linear map. Its epilogue adds both residuals and restores the order of pixels.
        let (in_map, out_map) = (Rows::Indexed(&s.offsets_in), Rows::Indexed(&s.offsets_out));
        let attended = Some((&*attended, rows));
        let mut identity = Some((x, in_map));
        if let (Some(residual), Some([_, bias])) = (&packed.residual, p.residual) {
            let out = Out::with_bias(output, out_map, bias);
            product(Left::new(x, in_map, s.c_in), Right::Packed(residual), out, s.chunk, c);
            identity = None;
        }
        let out = Out {
            add: [attended, identity],
            accumulate: identity.is_none(),
            ..Out::with_bias(output, out_map, p.fc2[1])
        };
        let left = Left::new(hidden, Rows::Strided(s.hidden), s.hidden);
        product(left, Right::Packed(&packed.fc2), out, s.chunk, c);
    }

    /// Computes the output; with `keep`, what the backward pass needs is saved.
    pub(super) fn run_forward(
        &self,
        inputs: &[&FlexTensor],
        keep: bool,
    ) -> (Vec<f32>, Shape, Saved) {
        let s = Sizes::new(inputs, self.window);
        let p = Parameters::new(inputs);
        let (x, time) = (values(inputs[0]), values(inputs[1]));
        let (c, map) = (s.c, s.map());
        let packed = ForwardWeights::new(&p, &s);
        let biases = s.biases(p.table);
        let statistics = self.statistics(x, &s);
        // A task is an image, or one chunk of it. This depends on the size of the batch alone.
        let task = if s.b < SPLIT_BELOW { s.chunk } else { s.tokens };
        let (parts, task_rows) = (s.tokens / task, task / s.w);
        let window_offsets = s.window_offsets(task / s.chunk);
        let patches = map.patch_offsets(task_rows);
        let mut output = vec![0.0; s.b * s.tokens * c];
        let mut saved = Saved::default();
        let mut kept = Vec::new();
        if keep {
            saved = Saved::new(statistics.clone(), s.b * s.tokens, c);
            kept = saved.chunks_mut(task, c).map(Some).collect();
        }
        kept.resize_with(s.b * parts, || None);
        let tasks = output.chunks_exact_mut(task * c).zip(kept).enumerate();
        // Buffers of the task, of a chunk's maps, and of the rest.
        let new_scratch = || [(); 3].map(|()| Scratch::default());
        for_each_with(
            tasks,
            new_scratch,
            |[task_scratch, chunk_scratch, scratch], (i, (output, kept))| {
                let (image, first) = (i / parts, i % parts * task_rows);
                let x = &x[image * s.tokens * s.c_in..][..s.tokens * s.c_in];
                let statistics = &statistics[image * 2 * s.c_in..][..2 * s.c_in];
                let norm = [statistics, p.norm[0], p.norm[1]];
                let [padded, conv, time_bias] =
                    task_scratch.split([map.len(task_rows), task * c, 3 * c]);
                let (conv, mut kept) = match kept {
                    Some(Activations { conv, qkv, context, attended }) => {
                        (conv, Some([qkv, context, attended]))
                    }
                    None => (conv, None),
                };
                map.fill(first..first + task_rows, padded, |y, to| {
                    self.conv_input(image, y, x, norm, to)
                });
                let out = Out::with_bias(conv, Rows::Indexed(&window_offsets), p.conv[1]);
                let left = map.left(padded, &patches);
                product(left, Right::Packed(&packed.conv), out, task, c);
                s.time_bias(p.qkv[1], &time[image * 3 * c..], time_bias);
                for chunk in 0..task / s.chunk {
                    let part =
                        |width: usize| chunk * s.chunk * width..(chunk + 1) * s.chunk * width;
                    let [qkv, context, attended] =
                        chunk_scratch.split([3 * s.chunk * c, s.chunk * c, s.chunk * c]);
                    let conv = &mut conv[part(c)];
                    let kept = match &mut kept {
                        Some([qkv, context, attended]) => Activations {
                            conv,
                            qkv: &mut qkv[part(3 * c)],
                            context: &mut context[part(c)],
                            attended: &mut attended[part(c)],
                        },
                        None => Activations { conv, qkv, context, attended },
                    };
                    let x = &x[first * s.w * s.c_in..][part(s.c_in)];
                    let output = &mut output[part(c)];
                    let all = (&s, &p, &packed);
                    self.transformer(all, &biases, time_bias, x, kept, scratch, output);
                }
            },
        );
        (output, Shape::new([s.b, s.h, s.w, c]), saved)
    }
}
