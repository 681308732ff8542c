//! Layer normalisation, and group normalisation with an optional Swish, over channels-last tensors.

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::kernel::{Kernel, dims, values};
use super::parallel::{Scratch, for_each, for_each_with, sum_rows};
use super::vector::{add_rows, sigmoid, sum, update, vectorize};

/// Rows of one task.
const ROWS: usize = 256;

/// Layer normalisation: `(x - mean) / sqrt(var + eps) * weight + bias` over the last dimension.
///
/// Inputs: `x` `[.., C]`, `weight` `[C]`, `bias` `[C]`.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    pub eps: f32,
}

impl LayerNorm {
    /// Normalises some rows, and writes the mean and the reciprocal standard deviation of each to
    /// `statistics`, `[rows, 2]`.
    pub(super) fn rows(
        &self,
        x: &[f32],
        [weight, bias]: [&[f32]; 2],
        y: &mut [f32],
        statistics: &mut [f32],
    ) {
        let c = weight.len();
        vectorize(
            #[inline(always)]
            || {
                let rows = y.chunks_exact_mut(c).zip(x.chunks_exact(c));
                for ((y, x), statistics) in rows.zip(statistics.chunks_exact_mut(2)) {
                    let mean = sum([x], |[x]| x) / c as f32;
                    let var = sum([x], |[x]| (x - mean) * (x - mean)) / c as f32;
                    let rstd = 1.0 / (var + self.eps).sqrt();
                    statistics.copy_from_slice(&[mean, rstd]);
                    update(y, [x, weight, bias], |_, [x, w, b]| (x - mean) * rstd * w + b);
                }
            },
        );
    }

    /// Adds the gradient of some rows to `dx`, and the gradients of weight and bias to `dweight`
    /// and `dbias`.
    pub(super) fn rows_backward(
        [x, weight, statistics]: [&[f32]; 3],
        grad: &[f32],
        dx: &mut [f32],
        [dweight, dbias]: [&mut [f32]; 2],
    ) {
        let c = weight.len();
        vectorize(
            #[inline(always)]
            || {
                let rows = dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(grad.chunks_exact(c));
                for (((dx, x), grad), statistics) in rows.zip(statistics.chunks_exact(2)) {
                    let (mean, rstd) = (statistics[0], statistics[1]);
                    let g = sum([grad, weight], |[g, w]| g * w) / c as f32;
                    let gx = sum([grad, weight, x], |[g, w, x]| g * w * (x - mean));
                    let gx = gx * rstd * rstd / c as f32;
                    update(dweight, [grad, x], |d, [g, x]| d + g * ((x - mean) * rstd));
                    update(dbias, [grad], |d, [g]| d + g);
                    update(dx, [grad, weight, x], |dx, [grad, w, x]| {
                        dx + rstd * (grad * w - g - (x - mean) * gx)
                    });
                }
            },
        );
    }
}

impl Kernel<3> for LayerNorm {
    /// The statistics of each row.
    type Saved = Vec<f32>;

    fn forward(
        &self,
        [x, weight, bias]: [&FlexTensor; 3],
        _keep: bool,
    ) -> (Vec<f32>, Shape, Vec<f32>) {
        let shape = x.layout().shape().clone();
        let (x, weight, bias) = (values(x), values(weight), values(bias));
        let c = weight.len();
        let mut y = vec![0.0; x.len()];
        let mut statistics = vec![0.0; x.len() / c * 2];
        let tasks =
            y.chunks_mut(ROWS * c).zip(x.chunks(ROWS * c)).zip(statistics.chunks_mut(ROWS * 2));
        for_each(tasks, |((y, x), statistics)| self.rows(x, [weight, bias], y, statistics));
        (y, shape, statistics)
    }

    fn backward(
        &self,
        [x, weight, _]: [&FlexTensor; 3],
        statistics: &Vec<f32>,
        grad: &FlexTensor,
        _wanted: [bool; 3],
    ) -> [Vec<f32>; 3] {
        let (x, weight, grad) = (values(x), values(weight), values(grad));
        let c = weight.len();
        let mut dx = vec![0.0; x.len()];
        let tasks = x.len().div_ceil(ROWS * c);
        let mut dweight = vec![0.0; tasks * c];
        let mut dbias = vec![0.0; tasks * c];
        let items = dx
            .chunks_mut(ROWS * c)
            .zip(x.chunks(ROWS * c))
            .zip(grad.chunks(ROWS * c))
            .zip(statistics.chunks(ROWS * 2))
            .zip(dweight.chunks_exact_mut(c).zip(dbias.chunks_exact_mut(c)));
        for_each(items, |((((dx, x), grad), statistics), (dweight, dbias))| {
            Self::rows_backward([x, weight, statistics], grad, dx, [dweight, dbias]);
        });
        [dx, sum_rows(&dweight, c), sum_rows(&dbias, c)]
    }
}

/// Group normalisation over `[B, H, W, C]`, then Swish if `swish`.
///
/// Inputs: `x` `[B, H, W, C]`, `weight` `[C]`, `bias` `[C]`.
#[derive(Clone, Debug)]
pub(crate) struct GroupNorm {
    pub groups: usize,
    pub eps: f32,
    pub swish: bool,
}

impl GroupNorm {
    /// Turns sums over the pixels of each channel into means over the pixels and channels of each
    /// group, written to all channels of the group.
    fn average_groups(&self, channels: &mut [f32], pixels: usize) {
        let width = channels.len() / self.groups;
        for group in channels.chunks_exact_mut(width) {
            let mean = group.iter().sum::<f32>() / (width * pixels) as f32;
            group.fill(mean);
        }
    }

    /// Computes the mean and the reciprocal standard deviation of each channel's group in an image,
    /// `[2, C]`.
    pub(super) fn statistics(&self, x: &[f32], statistics: &mut [f32]) {
        let c = statistics.len() / 2;
        let (mean, rstd) = statistics.split_at_mut(c);
        vectorize(
            #[inline(always)]
            || {
                mean.fill(0.0);
                rstd.fill(0.0);
                add_rows(mean, x);
                self.average_groups(mean, x.len() / c);
                for x in x.chunks_exact(c) {
                    update(rstd, [x, mean], |sum, [x, mean]| sum + (x - mean) * (x - mean));
                }
                self.average_groups(rstd, x.len() / c);
                for r in rstd.iter_mut() {
                    *r = 1.0 / (*r + self.eps).sqrt();
                }
            },
        );
    }

    /// Normalises some pixels of an image.
    #[inline(always)]
    pub(super) fn pixels(&self, x: &[f32], [statistics, weight, bias]: [&[f32]; 3], y: &mut [f32]) {
        let c = weight.len();
        let (mean, rstd) = statistics.split_at(c);
        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            update(y, [x, mean, rstd, weight, bias], |_, [x, mean, rstd, w, b]| {
                let z = (x - mean) * rstd * w + b;
                if self.swish { z * sigmoid(z) } else { z }
            });
        }
    }

    /// Computes the derivative of the Swish at some pixels of an image; 1 if there is no Swish.
    #[inline(always)]
    pub(super) fn swish_derivative(
        &self,
        x: &[f32],
        [statistics, weight, bias]: [&[f32]; 3],
        derivative: &mut [f32],
    ) {
        if !self.swish {
            return derivative.fill(1.0);
        }
        let c = weight.len();
        let (mean, rstd) = statistics.split_at(c);
        for (derivative, x) in derivative.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            update(derivative, [x, mean, rstd, weight, bias], |_, [x, mean, rstd, w, b]| {
                let z = (x - mean) * rstd * w + b;
                let s = sigmoid(z);
                s + z * s * (1.0 - s)
            });
        }
    }

    /// Goes back through the normalisation of an image, given the gradient `dz` of the Swish's
    /// input: adds the gradient of the image to `dx`, and those of weight and bias to `dweight` and
    /// `dbias`. `scratch` holds at least `2 C` values.
    pub(super) fn image_backward(
        &self,
        [x, statistics, weight]: [&[f32]; 3],
        dz: &[f32],
        dx: &mut [f32],
        [dweight, dbias]: [&mut [f32]; 2],
        scratch: &mut [f32],
    ) {
        let c = weight.len();
        let (mean, rstd) = statistics.split_at(c);
        let (g, gx) = scratch[..2 * c].split_at_mut(c);
        vectorize(
            #[inline(always)]
            || {
                g.fill(0.0);
                gx.fill(0.0);
                for (dz, x) in dz.chunks_exact(c).zip(x.chunks_exact(c)) {
                    update(g, [dz], |sum, [dz]| sum + dz);
                    update(gx, [dz, x, mean, rstd], |sum, [dz, x, mean, rstd]| {
                        sum + dz * ((x - mean) * rstd)
                    });
                }
                update(dbias, [g], |d, [g]| d + g);
                update(dweight, [gx], |d, [gx]| d + gx);
                update(g, [weight], |g, [w]| g * w);
                update(gx, [weight], |gx, [w]| gx * w);
                self.average_groups(g, x.len() / c);
                self.average_groups(gx, x.len() / c);
                let rows = dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(dz.chunks_exact(c));
                for ((dx, x), dz) in rows {
                    update(
                        dx,
                        [x, dz, mean, rstd, weight, g, gx],
                        |dx, [x, dz, mean, rstd, w, g, gx]| {
                            dx + rstd * (dz * w - g - (x - mean) * rstd * gx)
                        },
                    );
                }
            },
        );
    }
}

impl Kernel<3> for GroupNorm {
    /// The statistics of each image.
    type Saved = Vec<f32>;

    fn forward(
        &self,
        [x, weight, bias]: [&FlexTensor; 3],
        _keep: bool,
    ) -> (Vec<f32>, Shape, Vec<f32>) {
        let shape = x.layout().shape().clone();
        let [b, h, w, c] = dims(x);
        let (x, weight, bias) = (values(x), values(weight), values(bias));
        let mut y = vec![0.0; x.len()];
        let mut statistics = vec![0.0; b * 2 * c];
        let images = y
            .chunks_exact_mut(h * w * c)
            .zip(x.chunks_exact(h * w * c))
            .zip(statistics.chunks_exact_mut(2 * c));
        for_each(images, |((y, x), statistics)| {
            self.statistics(x, statistics);
            vectorize(
                #[inline(always)]
                || self.pixels(x, [statistics, weight, bias], y),
            );
        });
        (y, shape, statistics)
    }

    fn backward(
        &self,
        [x, weight, bias]: [&FlexTensor; 3],
        statistics: &Vec<f32>,
        grad: &FlexTensor,
        _wanted: [bool; 3],
    ) -> [Vec<f32>; 3] {
        let [b, h, w, c] = dims(x);
        let (x, weight, bias, grad) = (values(x), values(weight), values(bias), values(grad));
        let mut dx = vec![0.0; x.len()];
        let mut dweight = vec![0.0; b * c];
        let mut dbias = vec![0.0; b * c];
        let images = dx
            .chunks_exact_mut(h * w * c)
            .zip(x.chunks_exact(h * w * c))
            .zip(grad.chunks_exact(h * w * c))
            .zip(statistics.chunks_exact(2 * c))
            .zip(dweight.chunks_exact_mut(c).zip(dbias.chunks_exact_mut(c)));
        for_each_with(
            images,
            Scratch::default,
            |scratch, ((((dx, x), grad), statistics), (dweight, dbias))| {
                let [dz, sums] = scratch.split([x.len(), 2 * c]);
                vectorize(
                    #[inline(always)]
                    || {
                        self.swish_derivative(x, [statistics, weight, bias], dz);
                        update(dz, [grad], |derivative, [grad]| derivative * grad);
                    },
                );
                self.image_backward([x, statistics, weight], dz, dx, [dweight, dbias], sums);
            },
        );
        [dx, sum_rows(&dweight, c), sum_rows(&dbias, c)]
    }
}
