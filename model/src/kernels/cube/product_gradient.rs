//! Gradients of linear maps and 3x3 convolutions on a GPU.
//!
//! They are products of matrices too, in tiles as those of [`super::product`]. The gradient of the
//! input is that of the output times the transposed weight, where a convolution gathers the pixels
//! that an input pixel was seen by. The gradient of the weight is a sum over all rows: it is
//! divided into parts, whose sums are added up by a second kernel, in their order. A row or a column
//! of ones beside the input makes the gradient of the bias a part of the same product.

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::product::{DEPTH, REGISTERS, multiply, tile};
use super::sums::Sums;
use super::{element, empty, empty_like, grid};

/// Rows that are summed in a part of the gradient of a weight, at least.
const PART: usize = 256;
/// Work groups for the gradient of a weight that its parts add up to, about.
const GROUPS: usize = 512;

/// The map that gradients are those of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Map {
    Linear,
    Convolution {
        stride: usize,
        /// Enlargement of the map first, to twice its sides, by repeating every pixel.
        enlarged: bool,
    },
}

/// Compile-time arguments of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    /// Rows and columns of a work group's tile.
    tile: [usize; 2],
    map: Map,
}

impl Plan {
    fn units(&self) -> usize {
        self.tile[0] * self.tile[1] / (REGISTERS * REGISTERS)
    }

    fn convolution(&self) -> bool {
        self.map != Map::Linear
    }

    /// The convolution's stride, and the factor of the enlargement.
    fn steps(&self) -> [usize; 2] {
        match self.map {
            Map::Convolution { stride, enlarged } => [stride, 1 + usize::from(enlarged)],
            Map::Linear => [1, 1],
        }
    }

    /// Rows that a unit reads of a tile of the left factor.
    fn reads(&self) -> usize {
        self.tile[0] * DEPTH / self.units()
    }
}

/// Computes a tile of the gradient of the input, `[m, n]`, from that of the output and the weight.
// A condition on the plan stands alone: then the compiler leaves out the other one.
#[allow(clippy::collapsible_if, clippy::manual_div_ceil)]
#[cube(launch)]
fn input_tile<F: Float>(
    grad: &[F],
    weight: &[F],
    dx: &mut [F],
    m: u32,
    n: u32,
    k: u32,
    // Of the map that a convolution reads, as it is stored.
    height: u32,
    width: u32,
    #[comptime] plan: Plan,
    #[define(F)] _dtype: ElemType,
) {
    let tile_m = comptime!(plan.tile[0]);
    let tile_n = comptime!(plan.tile[1]);
    let units = comptime!(plan.units());
    // A column more than there are: else units that write a column would meet in one bank.
    let left_pitch = comptime!(plan.tile[0] + 1);
    let right_pitch = comptime!(plan.tile[1] + 1);
    let m = m as usize;
    let n = n as usize;
    let k = k as usize;
    let unit = UNIT_POS as usize;
    let first_row = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize * tile_m;
    let first_column = CUBE_POS_X as usize * tile_n;
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * (plan.tile[0] + 1)));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * (plan.tile[1] + 1)));

    // Each unit reads the same column of the left tiles, `DEPTH` units a row.
    let column = unit % comptime!(DEPTH);
    let row_of_unit = unit / comptime!(DEPTH);
    let rows_apart = comptime!(plan.units() / DEPTH);
    // Where the pixels that the rows stand for are: their picture in the output, y and x in the
    // enlarged map.
    let stride = comptime!(plan.steps()[0]);
    let factor = comptime!(plan.steps()[1]);
    let height = height as usize;
    let width = width as usize;
    let channels = k / 9;
    let out_x = (width * factor + stride - 1) / stride;
    let out_y = (height * factor + stride - 1) / stride;
    let mut starts =
        Array::<usize>::new(comptime!(if plan.convolution() { plan.reads() } else { 1 }));
    let mut ys = Array::<usize>::new(comptime!(if plan.convolution() { plan.reads() } else { 1 }));
    let mut xs = Array::<usize>::new(comptime!(if plan.convolution() { plan.reads() } else { 1 }));
    if comptime!(plan.convolution()) {
        #[unroll]
        for i in 0..comptime!(plan.reads()) {
            let row = first_row + row_of_unit + i * rows_apart;
            starts[i] = row / (width * height) * out_y * out_x * channels;
            ys[i] = row / width % height * factor;
            xs[i] = row % width * factor;
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
        let tap = at / channels;
        let channel = at % channels;
        let tap_y = tap / 3;
        let tap_x = tap % 3;
        #[unroll]
        for i in 0..comptime!(plan.reads()) {
            let tile_row = row_of_unit + i * rows_apart;
            let row = first_row + tile_row;
            let mut value = 0.0f32;
            if row < m && at < k {
                if comptime!(plan.convolution()) {
                    #[unroll]
                    for below in 0..factor {
                        #[unroll]
                        for beside in 0..factor {
                            // The output pixel that saw this pixel through this weight, if there
                            // is one, times the stride.
                            let y = ys[i] + below + 1;
                            let x = xs[i] + beside + 1;
                            if y >= tap_y
                                && x >= tap_x
                                && (y - tap_y) % stride == 0
                                && (x - tap_x) % stride == 0
                                && (y - tap_y) / stride < out_y
                                && (x - tap_x) / stride < out_x
                            {
                                let pixel = (y - tap_y) / stride * out_x + (x - tap_x) / stride;
                                let place = starts[i] + pixel * channels + channel;
                                value += f32::cast_from(grad[place]);
                            }
                        }
                    }
                } else {
                    value = f32::cast_from(grad[row * k + at]);
                }
            }
            left[column * left_pitch + tile_row] = value;
        }
        #[unroll]
        for i in 0..comptime!(DEPTH * plan.tile[1] / plan.units()) {
            let element = unit + i * units;
            let mut tile_at = element % comptime!(DEPTH);
            let mut tile_column = element / comptime!(DEPTH);
            if comptime!(plan.convolution()) {
                tile_at = element / tile_n;
                tile_column = element % tile_n;
            }
            let at = depth + tile_at;
            let column = first_column + tile_column;
            let mut value = 0.0f32;
            if at < k && column < n {
                if comptime!(plan.convolution()) {
                    // [channels, n, 9]
                    let place = (at % channels * n + column) * 9 + at / channels;
                    value = f32::cast_from(weight[place]);
                } else {
                    value = f32::cast_from(weight[column * k + at]);
                }
            }
            right[tile_at * right_pitch + tile_column] = value;
        }
        sync_cube();
        multiply(&left, &right, &mut sums, unit_row, unit_column, left_pitch, right_pitch);
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
                dx[row * n + column] = F::cast_from(sums[comptime!(r * REGISTERS + c)]);
            }
        }
    }
}

/// Computes a tile of a part of the gradients of weight and bias: the sum over `part` of the
/// `depth` rows, from `left`, `[depth, rows]`, and `right`, `[depth, columns]`.
///
/// Of a linear map, `left` is the input, with ones as one more row of the result, and `right` the
/// gradient of the output. Of a convolution, `left` is the gradient of the output, and `right` has the
/// pixels that the nine weights meet, with ones as one more column.
///
/// Each part is written to `partial` as the gradient of the weight, followed by that of the bias.
#[allow(clippy::manual_div_ceil)]
#[cube(launch)]
fn weight_tile<F: Float>(
    left_values: &[F],
    right_values: &[F],
    partial: &mut [f32],
    rows: u32,
    columns: u32,
    depth: u32,
    part: u32,
    parts: u32,
    // Of the map that a convolution reads, as it is stored.
    height: u32,
    width: u32,
    #[comptime] plan: Plan,
    #[define(F)] _dtype: ElemType,
) {
    let tile_m = comptime!(plan.tile[0]);
    let tile_n = comptime!(plan.tile[1]);
    let units = comptime!(plan.units());
    let rows = rows as usize;
    let columns = columns as usize;
    let mut all_rows = rows;
    let mut all_columns = columns;
    if comptime!(plan.convolution()) {
        all_columns += 1;
    } else {
        all_rows += 1;
    }
    let unit = UNIT_POS as usize;
    let row_tiles = (all_rows + tile_m - 1) / tile_m;
    let index = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize;
    let part_index = index / row_tiles;
    let first_row = index % row_tiles * tile_m;
    let first_column = CUBE_POS_X as usize * tile_n;
    let inside = part_index < parts as usize;
    let mut start = part_index * part as usize;
    let mut end = start + part as usize;
    if end > depth as usize {
        end = depth as usize;
    }
    if !inside {
        start = end;
    }
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * plan.tile[0]));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * plan.tile[1]));

    let stride = comptime!(plan.steps()[0]);
    let factor = comptime!(plan.steps()[1]);
    let height = height as usize;
    let width = width as usize;
    let channels = columns / 9;
    let in_y = height * factor;
    let in_x = width * factor;
    let out_x = (in_x + stride - 1) / stride;
    let out_y = (in_y + stride - 1) / stride;

    let mut sums = Array::<f32>::new(comptime!(REGISTERS * REGISTERS));
    #[unroll]
    for i in 0..comptime!(REGISTERS * REGISTERS) {
        sums[i] = 0.0f32;
    }
    let unit_row = unit / comptime!(plan.tile[1] / REGISTERS) * comptime!(REGISTERS);
    let unit_column = unit % comptime!(plan.tile[1] / REGISTERS) * comptime!(REGISTERS);

    while start < end {
        #[unroll]
        for i in 0..comptime!(DEPTH * plan.tile[0] / plan.units()) {
            let element = unit + i * units;
            let at = start + element / tile_m;
            let row = first_row + element % tile_m;
            let mut value = 0.0f32;
            if at < end && row < all_rows {
                value = 1.0f32;
                if row < rows {
                    value = f32::cast_from(left_values[at * rows + row]);
                }
            }
            left[element] = value;
        }
        #[unroll]
        for i in 0..comptime!(DEPTH * plan.tile[1] / plan.units()) {
            let element = unit + i * units;
            let at = start + element / tile_n;
            let column = first_column + element % tile_n;
            let mut value = 0.0f32;
            if at < end && column < all_columns {
                if comptime!(plan.convolution()) {
                    let tap = column / channels;
                    // One more than where the pixel is, so that the padding is at 0.
                    let pixel_y = at / out_x % out_y * stride + tap / 3;
                    let pixel_x = at % out_x * stride + tap % 3;
                    if column == columns {
                        value = 1.0f32;
                    } else if pixel_y > 0 && pixel_y <= in_y && pixel_x > 0 && pixel_x <= in_x {
                        let picture = at / (out_x * out_y);
                        let pixel = (picture * height + (pixel_y - 1) / factor) * width
                            + (pixel_x - 1) / factor;
                        value = f32::cast_from(right_values[pixel * channels + column % channels]);
                    }
                } else {
                    value = f32::cast_from(right_values[at * columns + column]);
                }
            }
            right[element] = value;
        }
        sync_cube();
        multiply(&left, &right, &mut sums, unit_row, unit_column, tile_m, tile_n);
        sync_cube();
        start += comptime!(DEPTH);
    }

    // The weights and the bias.
    let mut length = (rows + 1) * columns;
    if comptime!(plan.convolution()) {
        length = rows * (columns + 1);
    }
    #[unroll]
    for r in 0..comptime!(REGISTERS) {
        let row = first_row + unit_row + r;
        #[unroll]
        for c in 0..comptime!(REGISTERS) {
            let column = first_column + unit_column + c;
            if inside && row < all_rows && column < all_columns {
                let mut place = row * columns + column;
                if comptime!(plan.convolution()) {
                    if column == columns {
                        place = rows * columns + row;
                    } else {
                        // [rows, channels, 9]
                        place = row * columns + column % channels * 9 + column / channels;
                    }
                }
                partial[part_index * length + place] = sums[comptime!(r * REGISTERS + c)];
            }
        }
    }
}

/// The height and width of a convolution's input; the channels of a map.
fn sides(map: Map, x: &Shape) -> ([usize; 2], usize) {
    match map {
        Map::Linear => ([1, 1], x[1]),
        Map::Convolution { .. } => ([x[1], x[2]], x[3]),
    }
}

/// Computes the gradient of the input, whose shape is given: `[rows, in]` of a linear map,
/// `[B, H, W, in]` of a convolution.
pub(super) fn input_gradient(
    map: Map,
    grad: CubeTensor,
    weight: CubeTensor,
    shape: Shape,
) -> CubeTensor {
    let ([height, width], n) = sides(map, &shape);
    let m = shape.num_elements() / n;
    // `[in, out]` and `[out, in, 3, 3]`.
    let k = weight.meta.num_elements() / n;
    let plan = Plan { tile: tile(m, n), map };
    let dx = empty_like(&grad, shape);
    let (client, element) = (grad.client.clone(), element(&grad));
    input_tile::launch(
        &client,
        grid(n.div_ceil(plan.tile[1]), m.div_ceil(plan.tile[0])),
        CubeDim::new_1d(plan.units() as u32),
        grad.into_buffer_arg(),
        weight.into_buffer_arg(),
        dx.clone().into_buffer_arg(),
        m as u32,
        n as u32,
        k as u32,
        height as u32,
        width as u32,
        plan,
        element,
    );
    dx
}

/// Computes the gradients of weight and bias. The shape is that of the weight.
pub(super) fn weight_gradients(
    map: Map,
    x: CubeTensor,
    grad: CubeTensor,
    shape: Shape,
) -> [CubeTensor; 2] {
    let ([height, width], channels) = sides(map, x.meta.shape());
    let out = shape.num_elements() / channels / if map == Map::Linear { 1 } else { 9 };
    let depth = grad.meta.num_elements() / out;
    let (rows, columns) = match map {
        Map::Linear => (channels, out),
        Map::Convolution { .. } => (out, 9 * channels),
    };
    let (all_rows, all_columns) = match map {
        Map::Linear => (rows + 1, columns),
        Map::Convolution { .. } => (rows, columns + 1),
    };
    let plan = Plan { tile: tile(all_rows, all_columns), map };
    let tiles = [all_rows.div_ceil(plan.tile[0]), all_columns.div_ceil(plan.tile[1])];
    let parts = (GROUPS / (tiles[0] * tiles[1])).clamp(1, depth.div_ceil(PART));
    let part = depth.div_ceil(parts);
    let parts = depth.div_ceil(part);
    let partial = empty(&x, [parts, all_rows * all_columns], DType::F32);
    let [dweight, dbias] = [empty_like(&x, shape), empty_like(&x, [out])];
    let (client, element) = (x.client.clone(), element(&x));
    let (left, right) = match map {
        Map::Linear => (x, grad),
        Map::Convolution { .. } => (grad, x),
    };
    weight_tile::launch(
        &client,
        grid(tiles[1], tiles[0] * parts),
        CubeDim::new_1d(plan.units() as u32),
        left.into_buffer_arg(),
        right.into_buffer_arg(),
        partial.clone().into_buffer_arg(),
        rows as u32,
        columns as u32,
        depth as u32,
        part as u32,
        parts as u32,
        height as u32,
        width as u32,
        plan,
        element,
    );
    Sums { batch: 1, rows: parts }.into_two(partial, [dweight, dbias])
}
