//! The 3x3 convolution over channels-last tensors, as a matrix product over gathered patches.

use core::ops::Range;

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::kernel::{Kernel, dims, tensor, values};
use super::parallel::{for_each, sum_rows};

/// A 3x3 convolution with zero padding of 1 and stride 1 or 2.
///
/// Inputs: `x` `[B, H, W, C_in]`, `weight` `[C_out, C_in, 3, 3]`, `bias` `[C_out]`.
/// Output: `[B, H / stride, W / stride, C_out]`.
#[derive(Clone, Debug)]
pub(crate) struct Conv3x3 {
    pub stride: usize,
}

/// Patches are gathered in parts of about this many values (4 MiB), which the caches hold.
const PART: usize = 1 << 20;

/// Rows of output in a part at the least, so that all cores have some.
const ROWS: usize = 16;

/// Sizes of one convolution.
#[derive(Clone, Copy)]
struct Geometry {
    h: usize,
    w: usize,
    c_in: usize,
    c_out: usize,
    stride: usize,
}

impl Geometry {
    fn new(x: &FlexTensor, weight: &FlexTensor, stride: usize) -> Self {
        let [_, h, w, c_in] = dims(x);
        let [c_out, _, _, _] = dims(weight);
        Self { h, w, c_in, c_out, stride }
    }

    fn out_h(&self) -> usize {
        self.h.div_ceil(self.stride)
    }

    fn out_w(&self) -> usize {
        self.w.div_ceil(self.stride)
    }

    fn pixels(&self) -> usize {
        self.out_h() * self.out_w()
    }

    /// Values of the nine patches' channels for one output pixel.
    fn patch(&self) -> usize {
        9 * self.c_in
    }

    /// Images whose patches fit into one part.
    fn images_per_part(&self) -> usize {
        (PART / (self.pixels() * self.patch())).max(1)
    }

    /// Rows of output whose patches fit into one part, whatever images they belong to.
    fn rows_per_part(&self) -> usize {
        (PART / (self.out_w() * self.patch())).max(ROWS)
    }

    /// For row `oy` of the output, calls `copy(patch offset, image offset)` for every pixel of
    /// the input that lies under the kernel, and `pad(patch offset)` where there is none.
    fn row(&self, oy: usize, mut copy: impl FnMut(usize, usize), mut pad: impl FnMut(usize)) {
        for ox in 0..self.out_w() {
            for ky in 0..3 {
                let y = (oy * self.stride + ky).wrapping_sub(1);
                for kx in 0..3 {
                    let x = (ox * self.stride + kx).wrapping_sub(1);
                    let patch = ox * self.patch() + (ky * 3 + kx) * self.c_in;
                    if y < self.h && x < self.w {
                        copy(patch, (y * self.w + x) * self.c_in);
                    } else {
                        pad(patch);
                    }
                }
            }
        }
    }

    /// The patches of some rows of the output, counted over all images, `[rows · W, 9 · C_in]`.
    fn gather(&self, images: &[f32], rows: Range<usize>) -> Vec<f32> {
        let row = self.out_w() * self.patch();
        let mut patches = vec![0.0; rows.len() * row];
        for_each(rows.zip(patches.chunks_exact_mut(row)), |(i, patches)| {
            let image = i / self.out_h() * self.h * self.w * self.c_in;
            let c = self.c_in;
            self.row(
                i % self.out_h(),
                |to, from| {
                    patches[to..to + c].copy_from_slice(&images[image + from..image + from + c]);
                },
                |_| {},
            );
        });
        patches
    }

    /// The transpose of [`Geometry::gather`]: adds every patch back to where it came from.
    fn scatter(&self, patches: &[f32], images: &mut [f32]) {
        let c = self.c_in;
        let row = self.out_w() * self.patch();
        let tasks = images
            .chunks_exact_mut(self.h * self.w * c)
            .zip(patches.chunks_exact(row * self.out_h()));
        for_each(tasks, |(image, patches)| {
            for (oy, patches) in patches.chunks_exact(row).enumerate() {
                self.row(
                    oy,
                    |from, to| {
                        for (x, p) in image[to..to + c].iter_mut().zip(&patches[from..from + c]) {
                            *x += p;
                        }
                    },
                    |_| {},
                );
            }
        });
    }

    /// The kernel as a matrix `[9 · C_in, C_out]`.
    fn matrix(&self, weight: &[f32]) -> FlexTensor {
        let mut matrix = vec![0.0; weight.len()];
        for (o, weight) in weight.chunks_exact(self.patch()).enumerate() {
            for i in 0..self.c_in {
                for k in 0..9 {
                    matrix[(k * self.c_in + i) * self.c_out + o] = weight[i * 9 + k];
                }
            }
        }
        tensor(matrix, [self.patch(), self.c_out])
    }

    /// The inverse of [`Geometry::matrix`].
    fn kernel(&self, matrix: &[f32]) -> Vec<f32> {
        let mut weight = vec![0.0; matrix.len()];
        for (o, weight) in weight.chunks_exact_mut(self.patch()).enumerate() {
            for i in 0..self.c_in {
                for k in 0..9 {
                    weight[i * 9 + k] = matrix[(k * self.c_in + i) * self.c_out + o];
                }
            }
        }
        weight
    }
}

impl Kernel<3> for Conv3x3 {
    type Saved = ();

    fn forward(&self, [x, weight, bias]: [&FlexTensor; 3]) -> (Vec<f32>, Shape, ()) {
        let g = Geometry::new(x, weight, self.stride);
        let [b, ..] = dims::<4>(x);
        let (x, bias) = (values(x), values(bias));
        let matrix = g.matrix(values(weight));
        let (rows, part) = (b * g.out_h(), g.rows_per_part());
        let mut y = vec![0.0; b * g.pixels() * g.c_out];
        let parts = y.chunks_mut(part * g.out_w() * g.c_out);
        for (y, start) in parts.zip((0..rows).step_by(part)) {
            let patches = g.gather(x, start..rows.min(start + part));
            let rows = patches.len() / g.patch();
            let product = Flex::float_matmul(tensor(patches, [rows, g.patch()]), matrix.clone());
            let tasks = y.chunks_mut(256 * g.c_out).zip(values(&product).chunks(256 * g.c_out));
            for_each(tasks, |(y, product)| {
                for (y, product) in y.chunks_exact_mut(g.c_out).zip(product.chunks_exact(g.c_out)) {
                    for i in 0..g.c_out {
                        y[i] = product[i] + bias[i];
                    }
                }
            });
        }
        (y, Shape::new([b, g.out_h(), g.out_w(), g.c_out]), ())
    }

    fn backward(
        &self,
        [x, weight, _]: [&FlexTensor; 3],
        (): &(),
        grad: &FlexTensor,
        wanted: [bool; 3],
    ) -> [Vec<f32>; 3] {
        let g = Geometry::new(x, weight, self.stride);
        let [b, ..] = dims::<4>(x);
        let x = values(x);
        let matrix = g.matrix(values(weight));
        let part = g.images_per_part();
        let rows = b * g.pixels();
        let mut dx = vec![0.0; if wanted[0] { x.len() } else { 0 }];
        let mut dmatrix = vec![0.0; g.patch() * g.c_out];
        let dy = grad.reshape(Shape::new([rows, g.c_out]));
        for start in (0..b).step_by(part) {
            let images = part.min(b - start);
            let input = start * g.h * g.w * g.c_in..(start + images) * g.h * g.w * g.c_in;
            let dy = dy.narrow(0, start * g.pixels(), images * g.pixels());
            if wanted[1] {
                let patches = g.gather(&x[input.clone()], 0..images * g.out_h());
                let patches = tensor(patches, [images * g.pixels(), g.patch()]);
                let product = Flex::float_matmul(patches.transpose(0, 1), dy.clone());
                for (d, p) in dmatrix.iter_mut().zip(values(&product)) {
                    *d += p;
                }
            }
            if wanted[0] {
                let patches = Flex::float_matmul(dy, matrix.transpose(0, 1));
                g.scatter(values(&patches), &mut dx[input]);
            }
        }
        [dx, g.kernel(&dmatrix), sum_rows(values(grad), g.c_out)]
    }
}
