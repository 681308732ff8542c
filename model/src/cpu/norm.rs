//! Layer normalisation, and group normalisation with its Swish, over channels-last tensors.

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::kernel::{Kernel, dims, values};
use super::parallel::{for_each, sum_rows};
use super::vector::{sigmoid, sum, vectorize};

/// Rows that one task normalises.
const ROWS: usize = 256;

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last dimension.
///
/// Inputs: `x` `[.., C]`, `weight` `[C]`, `bias` `[C]`.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    pub eps: f32,
}

impl Kernel<3> for LayerNorm {
    /// Mean and reciprocal deviation of each row, side by side.
    type Saved = Vec<f32>;

    fn forward(&self, [x, weight, bias]: [&FlexTensor; 3]) -> (Vec<f32>, Shape, Vec<f32>) {
        let shape = x.layout().shape().clone();
        let (x, weight, bias) = (values(x), values(weight), values(bias));
        let c = weight.len();
        let mut y = vec![0.0; x.len()];
        let mut statistics = vec![0.0; x.len() / c * 2];
        let tasks =
            y.chunks_mut(ROWS * c).zip(x.chunks(ROWS * c)).zip(statistics.chunks_mut(ROWS * 2));
        for_each(tasks, |((y, x), statistics)| {
            vectorize(
                #[inline(always)]
                || {
                    let (weight, bias) = (&weight[..c], &bias[..c]);
                    let rows = y
                        .chunks_exact_mut(c)
                        .zip(x.chunks_exact(c))
                        .zip(statistics.chunks_exact_mut(2));
                    for ((y, x), statistics) in rows {
                        let mean = sum(x, x, |x, _| x) / c as f32;
                        let var = sum(x, x, |x, _| (x - mean) * (x - mean)) / c as f32;
                        let rstd = 1.0 / (var + self.eps).sqrt();
                        statistics.copy_from_slice(&[mean, rstd]);
                        for i in 0..c {
                            y[i] = (x[i] - mean) * rstd * weight[i] + bias[i];
                        }
                    }
                },
            );
        });
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
            vectorize(
                #[inline(always)]
                || {
                    let weight = &weight[..c];
                    let (dweight, dbias) = (&mut dweight[..c], &mut dbias[..c]);
                    let rows = dx
                        .chunks_exact_mut(c)
                        .zip(x.chunks_exact(c))
                        .zip(grad.chunks_exact(c))
                        .zip(statistics.chunks_exact(2));
                    for (((dx, x), grad), statistics) in rows {
                        let (mean, rstd) = (statistics[0], statistics[1]);
                        for i in 0..c {
                            dx[i] = grad[i] * weight[i];
                        }
                        let g = sum(dx, dx, |g, _| g) / c as f32;
                        let gx = sum(dx, x, |g, x| g * (x - mean)) * rstd / c as f32;
                        for i in 0..c {
                            let normal = (x[i] - mean) * rstd;
                            dweight[i] += grad[i] * normal;
                            dbias[i] += grad[i];
                            dx[i] = rstd * (dx[i] - g - normal * gx);
                        }
                    }
                },
            );
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
    /// Replaces the values per channel by their mean over each group.
    fn average_groups(&self, channels: &mut [f32], pixels: usize) {
        let width = channels.len() / self.groups;
        for group in channels.chunks_exact_mut(width) {
            let mean = group.iter().sum::<f32>() / (width * pixels) as f32;
            group.fill(mean);
        }
    }
}

impl Kernel<3> for GroupNorm {
    /// Per image: the mean of each channel's group, then its reciprocal deviation.
    type Saved = Vec<f32>;

    fn forward(&self, [x, weight, bias]: [&FlexTensor; 3]) -> (Vec<f32>, Shape, Vec<f32>) {
        let shape = x.layout().shape().clone();
        let [b, h, w, c] = dims(x);
        let (x, weight, bias) = (values(x), values(weight), values(bias));
        let pixels = h * w;
        let mut y = vec![0.0; x.len()];
        let mut statistics = vec![0.0; b * 2 * c];
        let images = y
            .chunks_exact_mut(pixels * c)
            .zip(x.chunks_exact(pixels * c))
            .zip(statistics.chunks_exact_mut(2 * c));
        for_each(images, |((y, x), statistics)| {
            vectorize(
                #[inline(always)]
                || {
                    let (weight, bias) = (&weight[..c], &bias[..c]);
                    let (mean, rstd) = statistics.split_at_mut(c);
                    let (mean, rstd) = (&mut mean[..c], &mut rstd[..c]);
                    for x in x.chunks_exact(c) {
                        for i in 0..c {
                            mean[i] += x[i];
                        }
                    }
                    self.average_groups(mean, pixels);
                    for x in x.chunks_exact(c) {
                        for i in 0..c {
                            rstd[i] += (x[i] - mean[i]) * (x[i] - mean[i]);
                        }
                    }
                    self.average_groups(rstd, pixels);
                    for r in rstd.iter_mut() {
                        *r = 1.0 / (*r + self.eps).sqrt();
                    }
                    for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                        for i in 0..c {
                            let z = (x[i] - mean[i]) * rstd[i] * weight[i] + bias[i];
                            y[i] = if self.swish { z * sigmoid(z) } else { z };
                        }
                    }
                },
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
        let pixels = h * w;
        let mut dx = vec![0.0; x.len()];
        let mut dweight = vec![0.0; b * c];
        let mut dbias = vec![0.0; b * c];
        let images = dx
            .chunks_exact_mut(pixels * c)
            .zip(x.chunks_exact(pixels * c))
            .zip(grad.chunks_exact(pixels * c))
            .zip(statistics.chunks_exact(2 * c))
            .zip(dweight.chunks_exact_mut(c).zip(dbias.chunks_exact_mut(c)));
        for_each(images, |((((dx, x), grad), statistics), (dweight, dbias))| {
            vectorize(
                #[inline(always)]
                || {
                    let (weight, bias) = (&weight[..c], &bias[..c]);
                    let (dweight, dbias) = (&mut dweight[..c], &mut dbias[..c]);
                    let (mean, rstd) = (&statistics[..c], &statistics[c..2 * c]);
                    // First the gradient before the Swish, kept in `dx` for the second pass.
                    let rows =
                        dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(grad.chunks_exact(c));
                    for ((dz, x), grad) in rows {
                        for i in 0..c {
                            let normal = (x[i] - mean[i]) * rstd[i];
                            dz[i] = grad[i];
                            if self.swish {
                                let z = normal * weight[i] + bias[i];
                                let s = sigmoid(z);
                                dz[i] *= s + z * s * (1.0 - s);
                            }
                            dweight[i] += dz[i] * normal;
                            dbias[i] += dz[i];
                        }
                    }
                    let mut g: Vec<f32> = dbias.iter().zip(weight).map(|(d, w)| d * w).collect();
                    let mut gx: Vec<f32> = dweight.iter().zip(weight).map(|(d, w)| d * w).collect();
                    self.average_groups(&mut g, pixels);
                    self.average_groups(&mut gx, pixels);
                    let (g, gx) = (&g[..c], &gx[..c]);
                    for (dx, x) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                        for i in 0..c {
                            let normal = (x[i] - mean[i]) * rstd[i];
                            dx[i] = rstd[i] * (dx[i] * weight[i] - g[i] - normal * gx[i]);
                        }
                    }
                },
            );
        });
        [dx, sum_rows(&dweight, c), sum_rows(&dbias, c)]
    }
}
