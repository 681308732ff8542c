//! Maps beside each other.

use burn::tensor::Tensor;
use burn_cubecl::cubecl::{self, prelude::*};

use super::{close, element, empty_like, grid, open};

/// Units of a work group.
const UNITS: usize = 256;

/// Copies rows of `a` and of `b`, each followed by the other.
#[cube(launch)]
fn join_rows<F: Float>(
    a: &[F],
    b: &[F],
    y: &mut [F],
    a_width: u32,
    b_width: u32,
    #[define(F)] _dtype: ElemType,
) {
    let tile = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize;
    let i = tile * comptime!(UNITS) + UNIT_POS as usize;
    let a_width = a_width as usize;
    let b_width = b_width as usize;
    let width = a_width + b_width;
    if i < y.len() {
        let row = i / width;
        let column = i % width;
        if column < a_width {
            y[i] = a[row * a_width + column];
        } else {
            y[i] = b[row * b_width + column - a_width];
        }
    }
}

/// Joins maps `[B, H, W, C_a]` and `[B, H, W, C_b]` along their channels.
pub(crate) fn join(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    let [n, h, w, a_width] = a.dims();
    let b_width = b.dims()[3];
    let (a, b) = (open(a), open(b));
    let y = empty_like(&a, [n, h, w, a_width + b_width]);
    let (client, element) = (a.client.clone(), element(&a));
    join_rows::launch(
        &client,
        grid(1, (n * h * w * (a_width + b_width)).div_ceil(UNITS)),
        CubeDim::new_1d(UNITS as u32),
        a.into_buffer_arg(),
        b.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        a_width as u32,
        b_width as u32,
        element,
    );
    close(y)
}
