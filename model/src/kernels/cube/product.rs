//! Linear maps and 3x3 convolutions on a GPU.
//!
//! Both are a product of two matrices. Each work group computes a tile of it, from tiles of its
//! factors in shared memory; each unit computes 4x4 values of the tile in registers. The left factor
//! is read through layer normalisation, or gathered from the pixels that a convolution sees; what
//! is added to the product is added before it is written.

use burn::tensor::{Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::{Input, dims, element, empty_like, grid, supports};
use crate::kernels::differentiable::{self, Differentiable};
use crate::kernels::{Activate, LinearMap};

/// Values that a unit computes, in each dimension.
pub(super) const REGISTERS: usize = 4;
/// Columns of the left factor, and rows of the right one, that are in shared memory at a time.
pub(super) const DEPTH: usize = 16;

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

/// Adds the product of two tiles in shared memory, `[DEPTH, pitch]` each, to the values of a unit:
/// `REGISTERS` rows from `unit_row` on by `REGISTERS` columns from `unit_column` on.
#[cube]
pub(super) fn multiply(
    left: &Shared<[f32]>,
    right: &Shared<[f32]>,
    sums: &mut Array<f32>,
    unit_row: usize,
    unit_column: usize,
    #[comptime] left_pitch: usize,
    #[comptime] right_pitch: usize,
) {
    for i in 0..comptime!(DEPTH) {
        let mut row = Array::<f32>::new(comptime!(REGISTERS));
        let mut column = Array::<f32>::new(comptime!(REGISTERS));
        #[unroll]
        for j in 0..comptime!(REGISTERS) {
            row[j] = left[i * left_pitch + unit_row + j];
            column[j] = right[i * right_pitch + unit_column + j];
        }
        #[unroll]
        for r in 0..comptime!(REGISTERS) {
            #[unroll]
            for c in 0..comptime!(REGISTERS) {
                sums[comptime!(r * REGISTERS + c)] += row[r] * column[c];
            }
        }
    }
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
        multiply(&left, &right, &mut sums, unit_row, unit_column, pitch, tile_n);
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
struct Operands<'a> {
    x: &'a CubeTensor,
    weight: &'a CubeTensor,
    bias: &'a CubeTensor,
    extra: [&'a CubeTensor; 2],
    /// Height and width of the map that a convolution reads.
    map: [usize; 2],
    eps: f64,
    sizes: [usize; 3],
}

fn run(operands: Operands, plan: Plan, shape: impl Into<Shape>) -> CubeTensor {
    let Operands { x, weight, bias, extra, map: [height, width], eps, sizes: [m, n, k] } = operands;
    let y = empty_like(x, shape);
    let [extra_1, extra_2] = extra;
    product::launch(
        &x.client,
        grid(n.div_ceil(plan.tile[1]), m.div_ceil(plan.tile[0])),
        CubeDim::new_1d(plan.units() as u32),
        x.clone().into_buffer_arg(),
        weight.clone().into_buffer_arg(),
        bias.clone().into_buffer_arg(),
        extra_1.clone().into_buffer_arg(),
        extra_2.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        m as u32,
        n as u32,
        k as u32,
        height as u32,
        width as u32,
        eps as f32,
        plan,
        element(x),
    );
    y
}

/// The tile of a product of this many rows and columns: large where that leaves enough of them for
/// all of a GPU.
pub(super) fn tile(rows: usize, columns: usize) -> [usize; 2] {
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
    let dtype = x.dtype();
    let kernel = Linear {
        norm: norm.as_ref().map(|norm| norm.eps),
        bias: bias.is_some(),
        activation,
        adds: adds.len(),
    };
    let norm = norm.into_iter().flat_map(|norm| [norm.weight, norm.bias]);
    let norm = norm.map(|values| Input::from(values.cast(dtype)));
    let mut extra = norm.chain(adds.into_iter().map(Input::from));
    let weight = Input::from(weight.cast(dtype));
    // A kernel has all of its buffers, used or not.
    let bias = bias.map_or_else(|| weight.absent(), |bias| bias.cast(dtype).into());
    let mut next = || extra.next().unwrap_or_else(|| weight.absent());
    let extra = [next(), next()];
    let [first, second] = extra;
    differentiable::run(kernel, [x.into(), weight, bias, first, second])
}

/// A linear map with what is around it.
///
/// Inputs: `x` `[rows, in]`, `weight` `[in, out]`, `bias` `[out]`, and two more: scale and shift of
/// the normalisation, or what is added. Those that are not used are any tensors.
#[derive(Clone, Copy, Debug)]
struct Linear {
    /// Epsilon of the normalisation, if there is one.
    norm: Option<f64>,
    bias: bool,
    activation: Option<Activate>,
    adds: usize,
}

impl Linear {
    fn output(&self, [x, weight, bias, extra_1, extra_2]: [&CubeTensor; 5]) -> CubeTensor {
        let ([m, k], [_, n]) = (dims(x), dims(weight));
        let &Self { norm, bias: has_bias, activation, adds } = self;
        let left = if norm.is_some() { Left::Normed } else { Left::Rows };
        let plan = Plan { tile: tile(m, n), left, bias: has_bias, activation, adds };
        let extra = [extra_1, extra_2];
        let (eps, sizes) = (norm.unwrap_or_default(), [m, n, k]);
        run(Operands { x, weight, bias, extra, map: [1, 1], eps, sizes }, plan, [m, n])
    }
}

impl Differentiable<CubeBackend, 5> for Linear {
    /// `x`, `weight`; `bias` where there is an activation; scale and shift of the normalisation.
    /// The values before the activation and the normalised `x` are computed again.
    type Saved = [Option<CubeTensor>; 5];

    fn forward(&self, inputs: [CubeTensor; 5], _keep: bool) -> (CubeTensor, Self::Saved) {
        let y = self.output(inputs.each_ref());
        let norm = self.norm.is_some();
        let kept = [true, true, self.bias && self.activation.is_some(), norm, norm];
        let mut kept = kept.into_iter();
        (y, inputs.map(|input| kept.next().unwrap_or(true).then_some(input)))
    }

    #[cfg(feature = "train")]
    fn backward(
        &self,
        saved: Self::Saved,
        grad: CubeTensor,
        wanted: [bool; 5],
    ) -> [Option<CubeTensor>; 5] {
        use super::activation;
        use super::norm::Normalise;
        use super::product_gradient::{Map, input_gradient, weight_gradients};

        let [x, weight, bias, scale, shift] = saved;
        let (x, weight) = (x.expect("kept"), weight.expect("kept"));
        let norm = self
            .norm
            .zip(scale.zip(shift))
            .map(|(eps, (scale, shift))| (Normalise::layer(dims::<2>(&x)[1], eps), scale, shift));
        let added = (0..2).map(|i| (norm.is_none() && i < self.adds).then(|| grad.clone()));
        let mut added: Vec<_> = added.collect();
        let grad = match self.activation {
            Some(activation) => {
                let plain = Self { activation: None, adds: 0, ..*self };
                let bias = bias.as_ref().unwrap_or(&weight);
                let (first, second) = match &norm {
                    Some((_, scale, shift)) => (scale, shift),
                    None => (&weight, &weight),
                };
                let before = plain.output([&x, &weight, bias, first, second]);
                activation::gradient(activation, before, grad)
            }
            None => grad,
        };
        let [mut dweight, mut dbias] = [None, None];
        if wanted[1] || wanted[2] {
            let x = match &norm {
                Some((norm, scale, shift)) => norm.output(x.clone(), scale.clone(), shift.clone()),
                None => x.clone(),
            };
            let [weights, biases] =
                weight_gradients(Map::Linear, x, grad.clone(), weight.meta.shape().clone());
            (dweight, dbias) = (Some(weights), Some(biases));
        }
        let of_norm = norm.is_some() && (wanted[3] || wanted[4]);
        let mut dx = None;
        if wanted[0] || of_norm {
            let gradient = input_gradient(Map::Linear, grad, weight, x.meta.shape().clone());
            dx = Some(gradient);
        }
        if let (Some((norm, scale, shift)), Some(gradient)) = (norm, dx.clone()) {
            let wanted = [wanted[0], wanted[3], wanted[4]];
            let [of_x, of_scale, of_shift] = norm.gradients([x, scale, shift], gradient, wanted);
            dx = of_x;
            added = vec![of_scale, of_shift];
        }
        let second = added.pop().flatten();
        [dx, dweight, dbias, added.pop().flatten(), second]
    }
}

/// [`crate::kernels::conv3x3`], with the map enlarged first if so asked for.
pub(crate) fn conv3x3(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    enlarged: bool,
) -> Tensor<4> {
    let kernel = Convolution { stride, enlarged };
    differentiable::run(kernel, [x.into(), weight.into(), bias.into()])
}

/// A 3x3 convolution.
///
/// Inputs: `x` `[B, H, W, in]`, `weight` `[out, in, 3, 3]`, `bias` `[out]`.
#[derive(Clone, Copy, Debug)]
struct Convolution {
    stride: usize,
    enlarged: bool,
}

impl Differentiable<CubeBackend, 3> for Convolution {
    /// `x` and `weight`.
    type Saved = [CubeTensor; 2];

    fn forward(
        &self,
        [x, weight, bias]: [CubeTensor; 3],
        _keep: bool,
    ) -> (CubeTensor, Self::Saved) {
        let &Self { stride, enlarged } = self;
        let [b, height, width, c_in] = dims(&x);
        let [c_out, ..] = dims::<4>(&weight);
        let factor = 1 + usize::from(enlarged);
        let [h, w] = [height, width].map(|side| (side * factor).div_ceil(stride));
        let (m, k) = (b * h * w, 9 * c_in);
        let left = Left::Convolution { stride, enlarged };
        let plan = Plan { tile: tile(m, c_out), left, bias: true, activation: None, adds: 0 };
        let operands = Operands {
            x: &x,
            weight: &weight,
            bias: &bias,
            extra: [&weight, &weight],
            map: [height, width],
            eps: 0.0,
            sizes: [m, c_out, k],
        };
        (run(operands, plan, [b, h, w, c_out]), [x, weight])
    }

    #[cfg(feature = "train")]
    fn backward(
        &self,
        [x, weight]: [CubeTensor; 2],
        grad: CubeTensor,
        wanted: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        use super::product_gradient::{Map, input_gradient, weight_gradients};

        let &Self { stride, enlarged } = self;
        let map = Map::Convolution { stride, enlarged };
        let (of_x, of_weight) = (x.meta.shape().clone(), weight.meta.shape().clone());
        let parameters =
            (wanted[1] || wanted[2]).then(|| weight_gradients(map, x, grad.clone(), of_weight));
        let dx = wanted[0].then(|| input_gradient(map, grad, weight, of_x));
        let (dweight, dbias) = parameters.map(|[weight, bias]| (weight, bias)).unzip();
        [dx, dweight, dbias]
    }
}
