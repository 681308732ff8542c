//! Normalisation on a GPU.

use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::product::swish_of;
use super::{element, empty_like, grid};
use crate::kernels::differentiable::{self, Differentiable};

/// Units of a work group for rows of more than [`SHORT`] values, and for others.
const UNITS: [usize; 2] = [256, 32];

/// Values of a row for which the smaller work group suffices.
const SHORT: usize = 512;

/// Values that a work group normalises. For more, one work group per group of channels leaves most
/// of a GPU idle.
const LARGEST_GROUP: usize = 1 << 17;

/// Sums a value over the units of a work group, in an order that depends on nothing else.
#[cube]
fn sum_of_units(value: f32, sums: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    sums[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let half = comptime!(units >> (level + 1));
        if unit < half {
            let other = sums[unit + half];
            sums[unit] += other;
        }
        sync_cube();
    }
    let sum = sums[0];
    // The sums may be written again once all units have read them.
    sync_cube();
    sum
}

/// Normalises `rows` rows of values, which lie `width` together, `stride` apart.
///
/// Row `r` has `parts` parts of `width` values. The first value of part `p` is at
/// `(r / across * parts + p) * stride + r % across * width`, and its scale and shift are those of
/// `r % across * width` and the following.
#[cube(launch)]
fn normalise<F: Float>(
    x: &[F],
    weight: &[F],
    bias: &[F],
    y: &mut [F],
    rows: u32,
    across: u32,
    parts: u32,
    eps: f32,
    #[comptime] width: usize,
    #[comptime] swish: bool,
    #[comptime] units: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize;
    let inside = row < rows as usize;
    let across = across as usize;
    let parts = parts as usize;
    let first = (row % across) * width;
    let stride = across * width;
    let start = row / across * parts * stride + first;
    let mut count = parts * width;
    if !inside {
        count = 0;
    }
    let mut sums = Shared::<[f32]>::new_slice(units);

    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < count {
        sum += f32::cast_from(x[start + i / width * stride + i % width]);
        i += units;
    }
    let n = f32::cast_from((parts * width) as u32);
    let mean = sum_of_units(sum, &mut sums, units) / n;

    let mut squares = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < count {
        let centred = f32::cast_from(x[start + i / width * stride + i % width]) - mean;
        squares += centred * centred;
        i += units;
    }
    let variance = sum_of_units(squares, &mut sums, units) / n;
    let factor = 1.0f32 / (variance + eps).sqrt();

    let mut i = UNIT_POS as usize;
    while i < count {
        let position = start + i / width * stride + i % width;
        let channel = first + i % width;
        let normalised = (f32::cast_from(x[position]) - mean) * factor;
        let mut value =
            normalised * f32::cast_from(weight[channel]) + f32::cast_from(bias[channel]);
        if comptime!(swish) {
            value = swish_of(value);
        }
        y[position] = F::cast_from(value);
        i += units;
    }
}

/// Normalisation of rows that lie in a tensor as [`normalise`] describes.
///
/// Inputs: `x`, scale and shift `[across * width]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Normalise {
    pub across: usize,
    pub parts: usize,
    pub width: usize,
    pub eps: f64,
    pub swish: bool,
}

impl Normalise {
    /// Layer normalisation over the last dimension, of `width` channels.
    pub fn layer(width: usize, eps: f64) -> Self {
        Self { across: 1, parts: 1, width, eps, swish: false }
    }

    /// The number of rows in a tensor.
    fn rows(&self, x: &CubeTensor) -> usize {
        x.meta.num_elements() / (self.parts * self.width)
    }

    /// Units of a work group.
    fn units(&self) -> usize {
        UNITS[usize::from(self.parts * self.width <= SHORT)]
    }

    /// Computes the output.
    pub fn output(&self, x: CubeTensor, weight: CubeTensor, bias: CubeTensor) -> CubeTensor {
        let rows = self.rows(&x);
        let y = empty_like(&x, x.meta.shape().clone());
        let (client, element) = (x.client.clone(), element(&x));
        normalise::launch(
            &client,
            grid(1, rows),
            CubeDim::new_1d(self.units() as u32),
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            bias.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            rows as u32,
            self.across as u32,
            self.parts as u32,
            self.eps as f32,
            self.width,
            self.swish,
            self.units(),
            element,
        );
        y
    }
}

impl Differentiable<CubeBackend, 3> for Normalise {
    /// The inputs: the mean and the standard deviation of each row are computed again.
    type Saved = [CubeTensor; 3];

    fn forward(&self, inputs: [CubeTensor; 3], _keep: bool) -> (CubeTensor, Self::Saved) {
        let [x, weight, bias] = inputs.clone();
        (self.output(x, weight, bias), inputs)
    }

    #[cfg(feature = "train")]
    fn backward(
        &self,
        inputs: [CubeTensor; 3],
        grad: CubeTensor,
        wanted: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        self.gradients(inputs, grad, wanted)
    }
}

/// [`crate::kernels::group_norm`], or `None` if its groups are too large.
pub(crate) fn group_norm(
    x: &Tensor<4>,
    groups: usize,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
    swish: bool,
) -> Option<Tensor<4>> {
    let [_, h, w, c] = x.dims();
    let width = c / groups;
    // (b, h w, groups, width)
    let kernel = Normalise { across: groups, parts: h * w, width, eps, swish };
    (h * w * width <= LARGEST_GROUP).then(|| run(kernel, x.clone(), weight, bias))
}

/// [`crate::kernels::layer_norm`].
pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    run(Normalise::layer(x.dims()[D - 1], eps), x, weight, bias)
}

fn run<const D: usize>(
    kernel: Normalise,
    x: Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
) -> Tensor<D> {
    let dtype = x.dtype();
    let [weight, bias] = [weight, bias].map(|values| values.clone().cast(dtype).into());
    differentiable::run(kernel, [x.into(), weight, bias])
}

#[cfg(feature = "train")]
mod gradient {
    use burn::tensor::DType;

    use super::*;
    use crate::kernels::cube::activation::swish_slope;
    use crate::kernels::cube::empty;
    use crate::kernels::cube::sums::{LANES, ROWS, Sums, sum_of_lane};

    /// Rows that a work group of [`parameter_gradients`] sums, at least.
    const CHUNK: usize = 128;
    /// Work groups of [`parameter_gradients`] for the same channels, at most.
    const CHUNKS: usize = 256;

    /// Computes the gradient of the input of [`normalise`], and the mean and the reciprocal standard
    /// deviation of each row.
    #[cube(launch)]
    fn input_gradient<F: Float>(
        x: &[F],
        weight: &[F],
        bias: &[F],
        grad: &[F],
        dx: &mut [F],
        statistics: &mut [f32],
        rows: u32,
        across: u32,
        parts: u32,
        eps: f32,
        #[comptime] width: usize,
        #[comptime] swish: bool,
        #[comptime] units: usize,
        #[define(F)] _dtype: ElemType,
    ) {
        let row = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize;
        let inside = row < rows as usize;
        let across = across as usize;
        let parts = parts as usize;
        let first = (row % across) * width;
        let stride = across * width;
        let start = row / across * parts * stride + first;
        let mut count = parts * width;
        if !inside {
            count = 0;
        }
        let mut sums = Shared::<[f32]>::new_slice(units);

        let mut sum = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < count {
            sum += f32::cast_from(x[start + i / width * stride + i % width]);
            i += units;
        }
        let n = f32::cast_from((parts * width) as u32);
        let mean = sum_of_units(sum, &mut sums, units) / n;

        let mut squares = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < count {
            let centred = f32::cast_from(x[start + i / width * stride + i % width]) - mean;
            squares += centred * centred;
            i += units;
        }
        let variance = sum_of_units(squares, &mut sums, units) / n;
        let factor = 1.0f32 / (variance + eps).sqrt();

        // The means of the gradient of the normalised values, alone and times these values.
        let mut alone = 0.0f32;
        let mut times = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < count {
            let position = start + i / width * stride + i % width;
            let channel = first + i % width;
            let scale = f32::cast_from(weight[channel]);
            let normalised = (f32::cast_from(x[position]) - mean) * factor;
            let mut gradient = f32::cast_from(grad[position]);
            if comptime!(swish) {
                gradient *= swish_slope(normalised * scale + f32::cast_from(bias[channel]));
            }
            alone += gradient * scale;
            times += gradient * scale * normalised;
            i += units;
        }
        let alone = sum_of_units(alone, &mut sums, units) / n;
        let times = sum_of_units(times, &mut sums, units) / n;

        let mut i = UNIT_POS as usize;
        while i < count {
            let position = start + i / width * stride + i % width;
            let channel = first + i % width;
            let scale = f32::cast_from(weight[channel]);
            let normalised = (f32::cast_from(x[position]) - mean) * factor;
            let mut gradient = f32::cast_from(grad[position]);
            if comptime!(swish) {
                gradient *= swish_slope(normalised * scale + f32::cast_from(bias[channel]));
            }
            let value = factor * (gradient * scale - alone - normalised * times);
            dx[position] = F::cast_from(value);
            i += units;
        }
        if inside && UNIT_POS == 0 {
            statistics[2 * row] = mean;
            statistics[2 * row + 1] = factor;
        }
    }

    /// Sums the gradients of scale and shift over a chunk of the rows `[rows, channels]` of a
    /// tensor: a row of `partial`, `[chunks, 2 channels]`.
    #[cube(launch)]
    fn parameter_gradients<F: Float>(
        x: &[F],
        weight: &[F],
        bias: &[F],
        grad: &[F],
        statistics: &[f32],
        partial: &mut [f32],
        rows: u32,
        chunk: u32,
        across: u32,
        parts: u32,
        #[comptime] width: usize,
        #[comptime] swish: bool,
        #[define(F)] _dtype: ElemType,
    ) {
        let lane = UNIT_POS as usize % comptime!(LANES);
        let part = UNIT_POS as usize / comptime!(LANES);
        let across = across as usize;
        let channels = across * width;
        let channel = CUBE_POS_X as usize * comptime!(LANES) + lane;
        let index = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize;
        let mut end = (index + 1) * chunk as usize;
        if end > rows as usize {
            end = rows as usize;
        }
        let mut dscale = 0.0f32;
        let mut dshift = 0.0f32;
        if channel < channels {
            let scale = f32::cast_from(weight[channel]);
            let mut row = index * chunk as usize + part;
            while row < end {
                let of_row = row / parts as usize * across + channel / width;
                let position = row * channels + channel;
                let normalised = (f32::cast_from(x[position]) - statistics[2 * of_row])
                    * statistics[2 * of_row + 1];
                let mut gradient = f32::cast_from(grad[position]);
                if comptime!(swish) {
                    gradient *= swish_slope(normalised * scale + f32::cast_from(bias[channel]));
                }
                dscale += gradient * normalised;
                dshift += gradient;
                row += comptime!(ROWS);
            }
        }
        let mut sums = Shared::<[f32]>::new_slice(comptime!(LANES * ROWS));
        let dscale = sum_of_lane(dscale, &mut sums);
        let dshift = sum_of_lane(dshift, &mut sums);
        let place = index * 2 * channels + channel;
        if part == 0 && channel < channels && place < partial.len() {
            partial[place] = dscale;
            partial[place + channels] = dshift;
        }
    }

    impl Normalise {
        /// Computes the gradients of the inputs.
        pub fn gradients(
            &self,
            [x, weight, bias]: [CubeTensor; 3],
            grad: CubeTensor,
            [_, dscale, dshift]: [bool; 3],
        ) -> [Option<CubeTensor>; 3] {
            let rows = self.rows(&x);
            let dx = empty_like(&x, x.meta.shape().clone());
            let statistics = empty(&x, [rows, 2], DType::F32);
            let (client, element) = (x.client.clone(), element(&x));
            input_gradient::launch(
                &client,
                grid(1, rows),
                CubeDim::new_1d(self.units() as u32),
                x.clone().into_buffer_arg(),
                weight.clone().into_buffer_arg(),
                bias.clone().into_buffer_arg(),
                grad.clone().into_buffer_arg(),
                dx.clone().into_buffer_arg(),
                statistics.clone().into_buffer_arg(),
                rows as u32,
                self.across as u32,
                self.parts as u32,
                self.eps as f32,
                self.width,
                self.swish,
                self.units(),
                element,
            );
            if !(dscale || dshift) {
                return [Some(dx), None, None];
            }
            let channels = self.across * self.width;
            let pixels = x.meta.num_elements() / channels;
            let chunk = pixels.div_ceil(CHUNKS).max(CHUNK);
            let chunks = pixels.div_ceil(chunk);
            let partial = empty(&x, [chunks, 2 * channels], DType::F32);
            let like = weight.clone();
            parameter_gradients::launch(
                &client,
                grid(channels.div_ceil(LANES), chunks),
                CubeDim::new_1d((LANES * ROWS) as u32),
                x.into_buffer_arg(),
                weight.into_buffer_arg(),
                bias.into_buffer_arg(),
                grad.into_buffer_arg(),
                statistics.into_buffer_arg(),
                partial.clone().into_buffer_arg(),
                pixels as u32,
                chunk as u32,
                self.across as u32,
                self.parts as u32,
                self.width,
                self.swish,
                element,
            );
            let sums = [empty_like(&like, [channels]), empty_like(&like, [channels])];
            let [dscale, dshift] = Sums { batch: 1, rows: chunks }.into_two(partial, sums);
            [Some(dx), Some(dscale), Some(dshift)]
        }
    }
}
