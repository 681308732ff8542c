//! Sums over rows on a GPU.

use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::{element, empty_like, grid};

/// Columns that a work group sums.
pub(super) const LANES: usize = 32;
/// Rows that a work group adds to at a time; a power of two. A work group has `LANES * ROWS` units.
pub(super) const ROWS: usize = 8;

/// Sums a value over the units of a work group that have the same lane, `UNIT_POS % LANES`, in an
/// order that depends on nothing else.
#[cube]
pub(super) fn sum_of_lane(value: f32, sums: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    sums[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(ROWS.ilog2()) {
        let half = comptime!((ROWS >> (level + 1)) * LANES);
        if unit < half {
            let other = sums[unit + half];
            sums[unit] += other;
        }
        sync_cube();
    }
    let sum = sums[unit % comptime!(LANES)];
    // The sums may be written again once all units have read them.
    sync_cube();
    sum
}

/// Sums over the rows of each picture of `x`, `[batch, rows, columns]`. The first `cut` sums of a
/// picture are written to `first`, `[batch, cut]`, the others to `second`.
#[cube(launch)]
fn sum_rows<X: Float, F: Float>(
    x: &[X],
    first: &mut [F],
    second: &mut [F],
    rows: u32,
    columns: u32,
    cut: u32,
    #[define(X)] _input: ElemType,
    #[define(F)] _output: ElemType,
) {
    let picture = CUBE_POS_X as usize;
    let tile = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize;
    let column = tile * comptime!(LANES) + UNIT_POS as usize % comptime!(LANES);
    let part = UNIT_POS as usize / comptime!(LANES);
    let rows = rows as usize;
    let columns = columns as usize;
    let cut = cut as usize;
    let mut sum = 0.0f32;
    if column < columns {
        let mut row = part;
        while row < rows {
            sum += f32::cast_from(x[(picture * rows + row) * columns + column]);
            row += comptime!(ROWS);
        }
    }
    let mut sums = Shared::<[f32]>::new_slice(comptime!(LANES * ROWS));
    let sum = sum_of_lane(sum, &mut sums);
    if part == 0 && column < columns {
        if column < cut {
            first[picture * cut + column] = F::cast_from(sum);
        } else {
            second[picture * (columns - cut) + column - cut] = F::cast_from(sum);
        }
    }
}

/// Sums over the rows of each picture of a tensor `[batch, rows, columns]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    pub batch: usize,
    pub rows: usize,
}

impl Sums {
    /// Writes the sums to `y`, `[batch, columns]`.
    pub fn into_one(self, x: CubeTensor, y: CubeTensor) -> CubeTensor {
        // A kernel has all of its buffers, used or not, and none twice.
        let none = empty_like(&y, [1]);
        let columns = y.meta.num_elements() / self.batch;
        let [y, _] = self.run(x, [y, none], columns, columns);
        y
    }

    /// Writes the first sums of each picture to the first tensor, the others to the second.
    pub fn into_two(self, x: CubeTensor, y: [CubeTensor; 2]) -> [CubeTensor; 2] {
        let [first, second] = y.each_ref().map(|y| y.meta.num_elements() / self.batch);
        self.run(x, y, first + second, first)
    }

    fn run(self, x: CubeTensor, y: [CubeTensor; 2], columns: usize, cut: usize) -> [CubeTensor; 2] {
        let (client, from, to) = (x.client.clone(), element(&x), element(&y[0]));
        let [first, second] = y.clone();
        sum_rows::launch(
            &client,
            grid(self.batch, columns.div_ceil(LANES)),
            CubeDim::new_1d((LANES * ROWS) as u32),
            x.into_buffer_arg(),
            first.into_buffer_arg(),
            second.into_buffer_arg(),
            self.rows as u32,
            columns as u32,
            cut as u32,
            from,
            to,
        );
        y
    }
}
