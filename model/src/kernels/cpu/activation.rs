//! GELU in its tanh form.

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::kernel::{Kernel, values};
use super::parallel::for_each;
use super::vector::{sigmoid, update, vectorize};

/// GELU in its tanh form: `x · 0.5 (1 + tanh u)` with `u = sqrt(2/π) (x + 0.044715 x³)`, computed
/// as `x · sigmoid(2u)`, which is the same and needs one exponential.
#[derive(Clone, Debug)]
pub(crate) struct Gelu;

/// The factor `2 sqrt(2/π)` of `2u`.
const SCALE: f32 = 1.595_769;
/// The coefficient of `x³`.
const CUBIC: f32 = 0.044_715;

/// Computes `sigmoid(2u)`, the factor that GELU multiplies `x` by.
#[inline(always)]
pub(super) fn gate(x: f32) -> f32 {
    sigmoid(SCALE * (x + CUBIC * x * x * x))
}

/// Computes the derivative of GELU at `x`, given `gate(x)`.
#[inline(always)]
pub(super) fn derivative(x: f32, gate: f32) -> f32 {
    gate + x * gate * (1.0 - gate) * SCALE * (1.0 + 3.0 * CUBIC * x * x)
}

/// Elements of one task.
const CHUNK: usize = 1 << 14;

impl Kernel<1> for Gelu {
    type Saved = ();

    fn forward(&self, [x]: [&FlexTensor; 1], _keep: bool) -> (Vec<f32>, Shape, ()) {
        let shape = x.layout().shape().clone();
        let x = values(x);
        let mut y = vec![0.0; x.len()];
        for_each(y.chunks_mut(CHUNK).zip(x.chunks(CHUNK)), |(y, x)| {
            vectorize(
                #[inline(always)]
                || update(y, [x], |_, [x]| x * gate(x)),
            );
        });
        (y, shape, ())
    }

    fn backward(
        &self,
        [x]: [&FlexTensor; 1],
        (): &(),
        grad: &FlexTensor,
        _wanted: [bool; 1],
    ) -> [Vec<f32>; 1] {
        let (x, grad) = (values(x), values(grad));
        let mut dx = vec![0.0; x.len()];
        let chunks = dx.chunks_mut(CHUNK).zip(x.chunks(CHUNK)).zip(grad.chunks(CHUNK));
        for_each(chunks, |((dx, x), grad)| {
            vectorize(
                #[inline(always)]
                || update(dx, [x, grad], |_, [x, grad]| grad * derivative(x, gate(x))),
            );
        });
        [dx]
    }
}
