//! GPU kernels that join two maps along their channels.

use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::{dims, element, empty_like, grid};
use crate::kernels::differentiable::{self, Differentiable};

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

/// The inverse of [`join_rows`].
#[cfg(feature = "train")]
#[cube(launch)]
fn split_rows<F: Float>(
    y: &[F],
    a: &mut [F],
    b: &mut [F],
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
            a[row * a_width + column] = y[i];
        } else {
            b[row * b_width + column - a_width] = y[i];
        }
    }
}

/// Joins maps `[B, H, W, C_a]` and `[B, H, W, C_b]` along their channels.
pub(crate) fn join(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    let widths = [&a, &b].map(|map| map.dims()[3]);
    differentiable::run(Join { widths }, [a.into(), b.into()])
}

/// Two maps beside each other, with these channels.
#[derive(Clone, Copy, Debug)]
struct Join {
    widths: [usize; 2],
}

impl Differentiable<CubeBackend, 2> for Join {
    type Saved = ();

    fn forward(&self, [a, b]: [CubeTensor; 2], _keep: bool) -> (CubeTensor, ()) {
        let [n, h, w, _] = dims(&a);
        let [a_width, b_width] = self.widths;
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
        (y, ())
    }

    #[cfg(feature = "train")]
    fn backward(&self, (): (), grad: CubeTensor, _wanted: [bool; 2]) -> [Option<CubeTensor>; 2] {
        let [n, h, w, width] = dims(&grad);
        let [a_width, b_width] = self.widths;
        let [a, b] = self.widths.map(|width| empty_like(&grad, [n, h, w, width]));
        let (client, element) = (grad.client.clone(), element(&grad));
        split_rows::launch(
            &client,
            grid(1, (n * h * w * width).div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            grad.into_buffer_arg(),
            a.clone().into_buffer_arg(),
            b.clone().into_buffer_arg(),
            a_width as u32,
            b_width as u32,
            element,
        );
        [Some(a), Some(b)]
    }
}
