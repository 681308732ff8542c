//! Gradients of activations on a GPU.

use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::{element, empty_like, grid};
use crate::kernels::Activate;

/// Units of a work group.
const UNITS: usize = 256;

/// Computes the derivative of `x sigmoid(x)`.
#[cube]
pub(super) fn swish_slope(x: f32) -> f32 {
    // The exponential stays finite.
    let gate = 1.0f32 / (1.0f32 + (-x).min(80.0f32).exp());
    gate + x * gate * (1.0f32 - gate)
}

/// Computes the derivative of GELU in its tanh form.
#[cube]
fn gelu_slope(x: f32) -> f32 {
    let u = (x + x * x * x * 0.044715f32) * 1.595_769_f32;
    let gate = 1.0f32 / (1.0f32 + (-u).min(80.0f32).exp());
    // The derivative of u, with 3 times the coefficient of the cube.
    let slope = 1.595_769_f32 * (1.0f32 + x * x * 0.134_145_f32);
    gate + x * gate * (1.0f32 - gate) * slope
}

/// Multiplies a gradient by the derivative of the activation at `x`.
#[cube(launch)]
fn multiply_by_slope<F: Float>(
    x: &[F],
    grad: &[F],
    dx: &mut [F],
    #[comptime] activation: Activate,
    #[define(F)] _dtype: ElemType,
) {
    let tile = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize;
    let i = tile * comptime!(UNITS) + UNIT_POS as usize;
    if i < dx.len() {
        let x = f32::cast_from(x[i]);
        let mut gradient = f32::cast_from(grad[i]);
        if comptime!(activation == Activate::Swish) {
            gradient *= swish_slope(x);
        } else {
            gradient *= gelu_slope(x);
        }
        dx[i] = F::cast_from(gradient);
    }
}

/// Computes the gradient of the input `x` of an activation, which is not [`Activate::Gelu`].
pub(super) fn gradient(activation: Activate, x: CubeTensor, grad: CubeTensor) -> CubeTensor {
    let dx = empty_like(&x, x.meta.shape().clone());
    let (client, element, count) = (x.client.clone(), element(&x), x.meta.num_elements());
    multiply_by_slope::launch(
        &client,
        grid(1, count.div_ceil(UNITS)),
        CubeDim::new_1d(UNITS as u32),
        x.into_buffer_arg(),
        grad.into_buffer_arg(),
        dx.clone().into_buffer_arg(),
        activation,
        element,
    );
    dx
}
