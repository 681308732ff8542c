//! Linear maps and 3x3 convolutions on a GPU.
//!
//! Both are a product of two matrices. Each work group computes a tile of it, from tiles of its
//! factors in shared memory; each unit computes 4x4 values of the tile in registers. The left factor
//! is read through layer normalisation, or gathered from the pixels that a convolution sees; what
//! is added to the product is added before it is written.

use burn::tensor::{Shape, Tensor};
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::{close, element, empty_like, grid, open, supports};
use crate::kernels::{Activate, LinearMap};

/// Values that a unit computes, in each dimension.
const REGISTERS: usize = 4;
/// Columns of the left factor, and rows of the right one, that are in shared memory at a time.
const DEPTH: usize = 16;

/// Compile-time arguments of [`product`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    /// Rows and columns of a work group's tile.
    tile: [usize; 2],
    left: Left,
    bias: bool,
    activation: Option<Activate>,
    /// Maps that are added at the end: none, `extra_1`, or both.
    adds: usize,
}

/// Source of the left factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Left {
    Rows,
    /// Through layer normalisation, with the scale in `extra_1` and the shift in `extra_2`.
    Normed,
    /// As the pixels that the nine weights of a convolution meet.
    Convolution {
        stride: usize,
        /// Enlargement of the map first, to twice its sides, by repeating every pixel.
        enlarged: bool,
    },
}

impl Plan {
    fn units(&self) -> usize {
        self.tile[0] * self.tile[1] / (REGISTERS * REGISTERS)
    }

    fn normed(&self) -> bool {
        self.left == Left::Normed
    }

    fn convolution(&self) -> bool {
        matches!(self.left, Left::Convolution { .. })
    }

    /// The convolution's stride, and the factor of the enlargement.
    fn steps(&self) -> [usize; 2] {
        match self.left {
            Left::Convolution { stride, enlarged } => [stride, 1 + usize::from(enlarged)],
            _ => [1, 1],
        }
    }
}

/// Computes `x sigmoid(x)`.
#[cube]
pub(super) fn swish_of(x: f32) -> f32 {
    // The exponential stays finite.
    x / (1.0f32 + (-x).min(80.0f32).exp())
}

/// Computes GELU in its tanh form: `(1 + tanh(u)) / 2` is the sigmoid of `2 u`.
#[cube]
fn gelu_of(x: f32) -> f32 {
    let u = (x + x * x * x * 0.044715f32) * 1.595_769_f32;
    x / (1.0f32 + (-u).min(80.0f32).exp())
}

/// Computes a tile of `activation(left weight + bias) + extra_1 + extra_2`.
// A condition on the plan stands alone: then the compiler leaves out the other one.
#[allow(clippy::collapsible_if, clippy::manual_div_ceil)]
#[cube(launch)]
fn product<F: Float>(
    x: &[F],
    weight: &[F],
    bias: &[F],
    extra_1: &[F],
    extra_2: &[F],
    y: &mut [F],
    m: u32,
    n: u32,
    k: u32,
    // Of the map that a convolution reads, as it is stored.
    height: u32,
    width: u32,
    eps: f32,
    #[comptime] plan: Plan,
    #[define(F)] _dtype: ElemType,
) {
    let tile_m = comptime!(plan.tile[0]);
    let tile_n = comptime!(plan.tile[1]);
    let units = comptime!(plan.units());
    // A column more than there are: else units that write a column would meet in one bank.
    let pitch = comptime!(plan.tile[0] + 1);
    let m = m as usize;
    let n = n as usize;
    let k = k as usize;
    let unit = UNIT_POS as usize;
    let first_row = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize * tile_m;
    let first_column = CUBE_POS_X as usize * tile_n;

    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * (plan.tile[0] + 1)));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * plan.tile[1]));

    // Mean and reciprocal standard deviation of the tile's rows.
    let mut means =
        Shared::<[f32]>::new_slice(comptime!(if plan.normed() { plan.tile[0] } else { 1 }));
    let mut factors =
        Shared::<[f32]>::new_slice(comptime!(if plan.normed() { plan.tile[0] } else { 1 }));
    if comptime!(plan.normed()) {
        if unit < tile_m {
            let row = first_row + unit;
            if row < m {
                let mut sum = 0.0f32;
                for i in 0..k {
                    sum += f32::cast_from(x[row * k + i]);
                }
                let count = f32::cast_from(k as u32);
                let mean = sum / count;
                let mut squares = 0.0f32;
                for i in 0..k {
                    let centred = f32::cast_from(x[row * k + i]) - mean;
                    squares += centred * centred;
                }
                means[unit] = mean;
                factors[unit] = 1.0f32 / (squares / count + eps).sqrt();
            }
        }
        sync_cube();
    }

    // Each unit reads the same column of the left tiles, `DEPTH` units a row.
    let reads = comptime!(plan.tile[0] * DEPTH / plan.units());
    let column = unit % comptime!(DEPTH);
    let row_of_unit = unit / comptime!(DEPTH);
    let rows_apart = comptime!(plan.units() / DEPTH);
    // Where the pixels that the rows stand for are: the first value of their picture, y and x.
    let stride = comptime!(plan.steps()[0]);
    let factor = comptime!(plan.steps()[1]);
    let height = height as usize;
    let width = width as usize;
    let channels = k / 9;
    let in_y = height * factor;
    let in_x = width * factor;
    let out_x = (in_x + stride - 1) / stride;
    let out_y = (in_y + stride - 1) / stride;
    let mut starts = Array::<usize>::new(comptime!(if plan.convolution() {
        plan.tile[0] * DEPTH / plan.units()
    } else {
        1
    }));
    let mut ys = Array::<usize>::new(comptime!(if plan.convolution() {
        plan.tile[0] * DEPTH / plan.units()
    } else {
        1
    }));
    let mut xs = Array::<usize>::new(comptime!(if plan.convolution() {
        plan.tile[0] * DEPTH / plan.units()
    } else {
        1
    }));
    if comptime!(plan.convolution()) {
        #[unroll]
        for i in 0..reads {
            let row = first_row + row_of_unit + i * rows_apart;
            starts[i] = row / (out_x * out_y) * height * width * channels;
            ys[i] = row / out_x % out_y * stride;
            xs[i] = row % out_x * stride;
        }
    }

    let mut sums = Array::<f32>::new(comptime!(REGISTERS * REGISTERS));
    #[unroll]
    for i in 0..comptime!(REGISTERS * REGISTERS) {
        sums[i] = 0.0f32;
    }
    let unit_row = unit / comptime!(plan.tile[1] / REGISTERS) * comptime!(REGISTERS);
    let unit_column = unit % comptime!(plan.tile[1] / REGISTERS) * comptime!(REGISTERS);

    let mut depth = 0usize;
    while depth < k {
        let at = depth + column;
        if comptime!(plan.convolution()) {
            let tap = at / channels;
            let channel = at % channels;
            let tap_y = tap / 3;
            let tap_x = tap % 3;
            #[unroll]
            for i in 0..reads {
                let row = first_row + row_of_unit + i * rows_apart;
                // One more than where the pixel is, so that the padding is at 0.
                let pixel_y = ys[i] + tap_y;
                let pixel_x = xs[i] + tap_x;
                let mut value = 0.0f32;
                if row < m
                    && at < k
                    && pixel_y > 0
                    && pixel_y <= in_y
                    && pixel_x > 0
                    && pixel_x <= in_x
                {
                    let pixel = (pixel_y - 1) / factor * width + (pixel_x - 1) / factor;
                    value = f32::cast_from(x[starts[i] + pixel * channels + channel]);
                }
                left[column * pitch + row_of_unit + i * rows_apart] = value;
            }
        } else {
            let mut scale = 1.0f32;
            let mut shift = 0.0f32;
            if comptime!(plan.normed()) {
                if at < k {
                    scale = f32::cast_from(extra_1[at]);
                    shift = f32::cast_from(extra_2[at]);
                }
            }
            #[unroll]
            for i in 0..reads {
                let tile_row = row_of_unit + i * rows_apart;
                let row = first_row + tile_row;
                let mut value = 0.0f32;
                if row < m && at < k {
                    value = f32::cast_from(x[row * k + at]);
                    if comptime!(plan.normed()) {
                        value = (value - means[tile_row]) * factors[tile_row] * scale + shift;
                    }
                }
                left[column * pitch + tile_row] = value;
            }
        }
        #[unroll]
        for i in 0..comptime!(DEPTH * plan.tile[1] / plan.units()) {
            let element = unit + i * units;
            let tile_row = element / tile_n;
            let tile_column = element % tile_n;
            let at = depth + tile_row;
            let column = first_column + tile_column;
            let mut value = 0.0f32;
            if at < k && column < n {
                if comptime!(plan.convolution()) {
                    // [n, channels, 9]
                    let place = (column * channels + at % channels) * 9 + at / channels;
                    value = f32::cast_from(weight[place]);
                } else {
                    value = f32::cast_from(weight[at * n + column]);
                }
            }
            right[element] = value;
        }
        sync_cube();
        for i in 0..comptime!(DEPTH) {
            let mut row = Array::<f32>::new(comptime!(REGISTERS));
            let mut column = Array::<f32>::new(comptime!(REGISTERS));
            #[unroll]
            for j in 0..comptime!(REGISTERS) {
                row[j] = left[i * pitch + unit_row + j];
                column[j] = right[i * tile_n + unit_column + j];
            }
            #[unroll]
            for r in 0..comptime!(REGISTERS) {
                #[unroll]
                for c in 0..comptime!(REGISTERS) {
                    sums[comptime!(r * REGISTERS + c)] += row[r] * column[c];
                }
            }
        }
        sync_cube();
        depth += comptime!(DEPTH);
    }

    #[unroll]
    for r in 0..comptime!(REGISTERS) {
        let row = first_row + unit_row + r;
        #[unroll]
        for c in 0..comptime!(REGISTERS) {
            let column = first_column + unit_column + c;
            if row < m && column < n {
                let mut value = sums[comptime!(r * REGISTERS + c)];
                if comptime!(plan.bias) {
                    value += f32::cast_from(bias[column]);
                }
                if comptime!(plan.activation == Some(Activate::GeluTanh)) {
                    value = gelu_of(value);
                }
                if comptime!(plan.activation == Some(Activate::Swish)) {
                    value = swish_of(value);
                }
                if comptime!(plan.adds > 0) {
                    value += f32::cast_from(extra_1[row * n + column]);
                }
                if comptime!(plan.adds > 1) {
                    value += f32::cast_from(extra_2[row * n + column]);
                }
                y[row * n + column] = F::cast_from(value);
            }
        }
    }
}

/// The tensors of a product, and the sizes of its matrices.
struct Operands {
    x: CubeTensor,
    weight: CubeTensor,
    bias: Option<CubeTensor>,
    extra: Vec<CubeTensor>,
    /// Height and width of the map that a convolution reads.
    map: [usize; 2],
    eps: f64,
    sizes: [usize; 3],
}

fn run(operands: Operands, plan: Plan, shape: impl Into<Shape>) -> CubeTensor {
    let Operands { x, weight, bias, extra, map: [height, width], eps, sizes: [m, n, k] } = operands;
    let y = empty_like(&x, shape);
    let (client, element) = (x.client.clone(), element(&x));
    // A kernel has all of its buffers, used or not.
    let bias = bias.unwrap_or_else(|| weight.clone());
    let mut extra = extra.into_iter();
    let mut next = || extra.next().unwrap_or_else(|| weight.clone());
    let (extra_1, extra_2) = (next(), next());
    product::launch(
        &client,
        grid(n.div_ceil(plan.tile[1]), m.div_ceil(plan.tile[0])),
        CubeDim::new_1d(plan.units() as u32),
        x.into_buffer_arg(),
        weight.into_buffer_arg(),
        bias.into_buffer_arg(),
        extra_1.into_buffer_arg(),
        extra_2.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        m as u32,
        n as u32,
        k as u32,
        height as u32,
        width as u32,
        eps as f32,
        plan,
        element,
    );
    y
}

/// The tile of a product of this many rows and columns: large where that leaves enough of them for
/// all of a GPU.
fn tile(rows: usize, columns: usize) -> [usize; 2] {
    let large = [64, 64];
    if rows.div_ceil(large[0]) * columns.div_ceil(large[1]) >= 256 { large } else { [32, 32] }
}

/// Returns whether [`linear`] computes this map.
pub(crate) fn linear_supports(map: &LinearMap) -> bool {
    let extra = map.adds.len() + if map.norm.is_some() { 2 } else { 0 };
    supports(&map.x) && extra <= 2 && map.activation != Some(Activate::Gelu)
}

/// [`crate::kernels::linear`].
pub(crate) fn linear(map: LinearMap) -> Tensor<2> {
    let LinearMap { x, norm, weight, bias, activation, adds } = map;
    let ([m, k], [_, n], dtype) = (x.dims(), weight.dims(), x.dtype());
    let left = if norm.is_some() { Left::Normed } else { Left::Rows };
    let eps = norm.as_ref().map_or(0.0, |norm| norm.eps);
    let adds: Vec<_> = adds.into_iter().map(open).collect();
    let plan = Plan { tile: tile(m, n), left, bias: bias.is_some(), activation, adds: adds.len() };
    let norm = norm.into_iter().flat_map(|norm| [norm.weight, norm.bias]);
    let operands = Operands {
        x: open(x),
        weight: open(weight.cast(dtype)),
        bias: bias.map(|bias| open(bias.cast(dtype))),
        extra: norm.map(|values| open(values.cast(dtype))).chain(adds).collect(),
        map: [1, 1],
        eps,
        sizes: [m, n, k],
    };
    close(run(operands, plan, [m, n]))
}

/// [`crate::kernels::conv3x3`], with the map enlarged first if so asked for.
pub(crate) fn conv3x3(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    enlarged: bool,
) -> Tensor<4> {
    let [b, height, width, c_in] = x.dims();
    let c_out = weight.dims()[0];
    let factor = 1 + usize::from(enlarged);
    let [h, w] = [height, width].map(|side| (side * factor).div_ceil(stride));
    let (m, k) = (b * h * w, 9 * c_in);
    let left = Left::Convolution { stride, enlarged };
    let plan = Plan { tile: tile(m, c_out), left, bias: true, activation: None, adds: 0 };
    let operands = Operands {
        x: open(x),
        weight: open(weight),
        bias: Some(open(bias)),
        extra: Vec::new(),
        map: [height, width],
        eps: 0.0,
        sizes: [m, c_out, k],
    };
    close(run(operands, plan, [b, h, w, c_out]))
}
