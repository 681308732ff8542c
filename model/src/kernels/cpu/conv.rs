//! The 3x3 convolution over channels-last maps, as a matrix product over patches (im2col) whose
//! patch matrix is never built.
//!
//! The input rows of a task are copied once into a buffer with a border of zeros. In it, the patch
//! of an output pixel is three runs of three neighbouring pixels, `3 C` contiguous values each, one
//! row of the buffer apart. The matrix product reads these runs in place ([`Left`]), through the
//! offset at which each patch begins.

use core::ops::Range;

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::gemm::{Left, Out, Packed, Right, Rows, outer, product};
use super::kernel::{Kernel, dims, values};
use super::parallel::{Scratch, for_each_with, sum_buffers, sum_rows};

/// A 3x3 convolution with zero padding of 1 and stride 1 or 2.
///
/// Inputs: `x` `[B, H, W, C_in]`, `weight` `[C_out, C_in, 3, 3]`, `bias` `[C_out]`.
/// Output: `[B, H / stride, W / stride, C_out]`.
#[derive(Clone, Debug)]
pub(crate) struct Conv3x3 {
    pub stride: usize,
}

/// Approximate number of output pixels of one task.
const PIXELS: usize = 512;

/// Maximum number of partial sums of a weight gradient, each in a buffer of its own. It is fixed
/// rather than the number of threads, so that the order of additions is the same on every machine.
pub(super) const GRADIENT_GROUPS: usize = 8;

/// The layout of a map with a border of zeros, from which a convolution reads its patches.
#[derive(Clone, Copy)]
pub(super) struct PaddedMap {
    /// Height of the map without its border.
    pub h: usize,
    /// Width of the map without its border.
    pub w: usize,
    pub c: usize,
    /// Stride of the convolution.
    pub stride: usize,
}

impl PaddedMap {
    /// Height of the convolution's output.
    pub fn out_h(self) -> usize {
        self.h.div_ceil(self.stride)
    }

    /// Width of the convolution's output.
    pub fn out_w(self) -> usize {
        self.w.div_ceil(self.stride)
    }

    /// Length of a row with its border.
    pub fn row(self) -> usize {
        (self.w + 2) * self.c
    }

    /// Number of input rows that `out` consecutive output rows are computed from.
    fn rows(self, out: usize) -> usize {
        (out - 1) * self.stride + 3
    }

    /// Length of the buffer for `out` consecutive output rows.
    pub fn len(self, out: usize) -> usize {
        self.rows(out) * self.row()
    }

    /// The offset of each patch in the buffer for `out` output rows.
    pub fn patch_offsets(self, out: usize) -> Vec<usize> {
        let at = |y, x| y * self.stride * self.row() + x * self.stride * self.c;
        (0..out).flat_map(|y| (0..self.out_w()).map(move |x| at(y, x))).collect()
    }

    /// The offset of each pixel in the buffer for the whole map.
    pub fn pixel_offsets(self) -> Vec<usize> {
        let at = |y, x| (y + 1) * self.row() + (x + 1) * self.c;
        (0..self.h).flat_map(|y| (0..self.w).map(move |x| at(y, x))).collect()
    }

    /// Writes the buffer for a range of output rows. `fill(y, pixels)` writes the pixels of row `y`
    /// of the map; the border is set to zero.
    #[inline(always)]
    pub fn fill(self, out: Range<usize>, to: &mut [f32], mut fill: impl FnMut(usize, &mut [f32])) {
        let first = out.start * self.stride;
        let rows = to.chunks_exact_mut(self.row()).take(self.rows(out.len()));
        for (y, row) in rows.enumerate() {
            match (first + y).checked_sub(1) {
                Some(y) if y < self.h => {
                    let (left, row) = row.split_at_mut(self.c);
                    let (row, right) = row.split_at_mut(self.w * self.c);
                    left.fill(0.0);
                    fill(y, row);
                    right.fill(0.0);
                }
                _ => row.fill(0.0),
            }
        }
    }

    /// The patch matrix as a left factor: the patches at the offsets `starts` in `data`.
    pub fn left<'a>(self, data: &'a [f32], starts: &'a [usize]) -> Left<'a> {
        let rows = Rows::Indexed(starts);
        Left { data, rows, segments: 3, segment_stride: self.row(), len: 3 * self.c }
    }

    /// Adds the gradient of the weight matrix `[9 C, C_out]` to `to`, from the patches at the
    /// offsets `starts` in `data` and the gradient of the output.
    pub fn outer(
        self,
        (data, starts): (&[f32], &[usize]),
        grad: (&[f32], Rows),
        c_out: usize,
        to: &mut [f32],
    ) {
        for (y, to) in to.chunks_exact_mut(3 * self.c * c_out).enumerate() {
            let out = Out::added(to, Rows::Strided(c_out));
            let left = (&data[y * self.row()..], Rows::Indexed(starts));
            outer(left, grad, out, [3 * self.c, starts.len(), c_out]);
        }
    }
}

/// Packs a weight `[C_out, C_in, 3, 3]` as a matrix `[9 C_in, C_out]`.
pub(super) fn pack(weight: &[f32], c_in: usize, c_out: usize) -> Packed {
    Packed::new(9 * c_in, c_out, |k, o| weight[(o * c_in + k % c_in) * 9 + k / c_in])
}

/// Packs a weight `[C_out, C_in, 3, 3]` as the matrix `[9 C_out, C_in]` of the transposed
/// convolution, whose kernel is rotated by 180 degrees.
pub(super) fn pack_back(weight: &[f32], c_in: usize, c_out: usize) -> Packed {
    Packed::new(9 * c_out, c_in, |k, i| weight[(k % c_out * c_in + i) * 9 + 8 - k / c_out])
}

/// The inverse of [`pack`]: a weight `[C_out, C_in, 3, 3]` from a matrix `[9 C_in, C_out]`.
pub(super) fn unpack(matrix: &[f32], c_in: usize, c_out: usize) -> Vec<f32> {
    let mut weight = vec![0.0; matrix.len()];
    for (o, weight) in weight.chunks_exact_mut(9 * c_in).enumerate() {
        for i in 0..c_in {
            for k in 0..9 {
                weight[i * 9 + k] = matrix[(k * c_in + i) * c_out + o];
            }
        }
    }
    weight
}

/// Number of output rows of one task.
fn rows_of_task(map: PaddedMap) -> usize {
    (PIXELS / map.out_w()).clamp(1, map.out_h())
}

impl Kernel<3> for Conv3x3 {
    type Saved = ();

    fn forward(&self, [x, weight, bias]: [&FlexTensor; 3], _keep: bool) -> (Vec<f32>, Shape, ()) {
        let [b, h, w, c] = dims(x);
        let [c_out, ..] = dims::<4>(weight);
        let (x, bias) = (values(x), values(bias));
        let map = PaddedMap { h, w, c, stride: self.stride };
        let (out_h, out_w) = (map.out_h(), map.out_w());
        let packed = pack(values(weight), c, c_out);
        let mut y = vec![0.0; b * out_h * out_w * c_out];
        let part = rows_of_task(map);
        let patches = map.patch_offsets(part);
        let images = y.chunks_exact_mut(out_h * out_w * c_out).zip(x.chunks_exact(h * w * c));
        let tasks = images.flat_map(|(y, x)| {
            y.chunks_mut(part * out_w * c_out).enumerate().map(move |(i, y)| (i * part, y, x))
        });
        for_each_with(tasks, Scratch::default, |scratch, (first, y, x)| {
            let pixels = y.len() / c_out;
            let rows = pixels / out_w;
            let [padded] = scratch.split([map.len(rows)]);
            map.fill(first..first + rows, padded, |y, row| {
                row.copy_from_slice(&x[y * w * c..][..w * c]);
            });
            let out = Out::with_bias(y, Rows::Strided(c_out), bias);
            let left = map.left(padded, &patches[..pixels]);
            product(left, Right::Packed(&packed), out, pixels, c_out);
        });
        (y, Shape::new([b, out_h, out_w, c_out]), ())
    }

    fn backward(
        &self,
        [x, weight, _]: [&FlexTensor; 3],
        (): &(),
        grad: &FlexTensor,
        wanted: [bool; 3],
    ) -> [Vec<f32>; 3] {
        let [b, h, w, c] = dims(x);
        let [c_out, ..] = dims::<4>(weight);
        let (x, grad) = (values(x), values(grad));
        let map = PaddedMap { h, w, c, stride: self.stride };
        let pixels = map.out_h() * map.out_w();
        let dx = if wanted[0] { self.dx(map, values(weight), grad, c_out, b) } else { vec![] };
        let mut dweight = vec![];
        if wanted[1] {
            // Work is divided into pieces of some rows each. A group is a range of consecutive
            // pieces, which belong to several images if maps are small.
            let part = rows_of_task(map);
            let patches = map.patch_offsets(part);
            let parts = map.out_h().div_ceil(part);
            let all = b * parts;
            let groups = all.min(GRADIENT_GROUPS);
            let mut sums: Vec<Vec<f32>> = (0..groups).map(|_| vec![0.0; 9 * c * c_out]).collect();
            for_each_with(sums.iter_mut().enumerate(), Scratch::default, |scratch, (i, sum)| {
                for task in i * all / groups..(i + 1) * all / groups {
                    let (image, first) = (task / parts, task % parts * part);
                    let rows = part.min(map.out_h() - first);
                    let x = &x[image * h * w * c..];
                    let grad = &grad[(image * pixels + first * map.out_w()) * c_out..];
                    let [padded] = scratch.split([map.len(rows)]);
                    map.fill(first..first + rows, padded, |y, row| {
                        row.copy_from_slice(&x[y * w * c..][..w * c]);
                    });
                    let patches = &patches[..rows * map.out_w()];
                    map.outer((padded, patches), (grad, Rows::Strided(c_out)), c_out, sum);
                }
            });
            dweight = unpack(&sum_buffers(sums), c, c_out);
        }
        let dbias = if wanted[2] { sum_rows(grad, c_out) } else { vec![] };
        [dx, dweight, dbias]
    }
}

impl Conv3x3 {
    /// Computes the gradient of the input: a convolution of the gradient with the rotated kernel.
    /// With a stride of 2, zeros are inserted between the pixels of the gradient.
    fn dx(&self, map: PaddedMap, weight: &[f32], grad: &[f32], c_out: usize, b: usize) -> Vec<f32> {
        let PaddedMap { h, w, c, .. } = map;
        let packed = pack_back(weight, c, c_out);
        let back = PaddedMap { h, w, c: c_out, stride: 1 };
        let mut dx = vec![0.0; b * h * w * c];
        let part = rows_of_task(back);
        let patches = back.patch_offsets(part);
        let row = map.out_w() * c_out;
        let images = dx.chunks_exact_mut(h * w * c).zip(grad.chunks_exact(map.out_h() * row));
        let tasks = images.flat_map(|(dx, grad)| {
            dx.chunks_mut(part * w * c).enumerate().map(move |(i, dx)| (i * part, dx, grad))
        });
        for_each_with(tasks, Scratch::default, |scratch, (first, dx, grad)| {
            let pixels = dx.len() / c;
            let [padded] = scratch.split([back.len(pixels / w)]);
            back.fill(first..first + pixels / w, padded, |y, to| {
                if self.stride == 1 {
                    return to.copy_from_slice(&grad[y * row..][..row]);
                }
                to.fill(0.0);
                if y.is_multiple_of(self.stride) {
                    let from = grad[y / self.stride * row..][..row].chunks_exact(c_out);
                    for (to, from) in to.chunks_mut(self.stride * c_out).zip(from) {
                        to[..c_out].copy_from_slice(from);
                    }
                }
            });
            let left = back.left(padded, &patches[..pixels]);
            product(left, Right::Packed(&packed), Out::new(dx, Rows::Strided(c)), pixels, c);
        });
        dx
    }
}
