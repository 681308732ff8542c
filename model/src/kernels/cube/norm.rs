//! Normalisation on a GPU.

use burn::tensor::Tensor;
use burn_cubecl::cubecl::{self, prelude::*};

use super::product::swish_of;
use super::{close, element, empty_like, grid, open};

/// Units of a work group.
const UNITS: usize = 256;

/// Values that a work group normalises. For more, one work group per group of channels leaves most
/// of a GPU idle.
const LARGEST_GROUP: usize = 1 << 17;

/// Sums a value over the units of a work group, in an order that depends on nothing else.
#[cube]
fn sum_of_units(value: f32, sums: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    sums[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(UNITS.ilog2()) {
        let half = comptime!(UNITS >> (level + 1));
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
    let mut sums = Shared::<[f32]>::new_slice(comptime!(UNITS));

    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < count {
        sum += f32::cast_from(x[start + i / width * stride + i % width]);
        i += comptime!(UNITS);
    }
    let n = f32::cast_from((parts * width) as u32);
    let mean = sum_of_units(sum, &mut sums) / n;

    let mut squares = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < count {
        let centred = f32::cast_from(x[start + i / width * stride + i % width]) - mean;
        squares += centred * centred;
        i += comptime!(UNITS);
    }
    let variance = sum_of_units(squares, &mut sums) / n;
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
        i += comptime!(UNITS);
    }
}

/// [`crate::kernels::group_norm`], or `None` if its groups are too large.
pub(crate) fn group_norm(
    x: &Tensor<4>,
    groups: usize,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
    with_swish: bool,
) -> Option<Tensor<4>> {
    let [b, h, w, c] = x.dims();
    let width = c / groups;
    (h * w * width <= LARGEST_GROUP).then(|| {
        // (b, h w, groups, width)
        run(x.clone(), weight, bias, [b * groups, groups, h * w], width, eps, with_swish)
    })
}

/// [`crate::kernels::layer_norm`].
pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let c = x.dims()[D - 1];
    let rows = x.shape().num_elements() / c;
    run(x, weight, bias, [rows, 1, 1], c, eps, false)
}

fn run<const D: usize>(
    x: Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    [rows, across, parts]: [usize; 3],
    width: usize,
    eps: f64,
    swish: bool,
) -> Tensor<D> {
    let (dtype, shape) = (x.dtype(), x.shape());
    let [weight, bias] = [weight, bias].map(|values| open(values.clone().cast(dtype)));
    let x = open(x);
    let y = empty_like(&x, shape);
    let (client, element) = (x.client.clone(), element(&x));
    normalise::launch(
        &client,
        grid(1, rows),
        CubeDim::new_1d(UNITS as u32),
        x.into_buffer_arg(),
        weight.into_buffer_arg(),
        bias.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows as u32,
        across as u32,
        parts as u32,
        eps as f32,
        width,
        swish,
        element,
    );
    close(y)
}
