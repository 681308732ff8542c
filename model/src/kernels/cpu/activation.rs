//! GELU in its tanh form.

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::kernel::{Kernel, values};
use super::parallel::for_each;
use super::vector::{sigmoid, update, vectorize};

/// `x · Φ(x)` with `Φ` in its tanh form, which is a sigmoid:
/// `0.5 (1 + tanh u) = sigmoid(2u)`, `u = sqrt(2/π) (x + 0.044715 x³)`.
#[derive(Clone, Debug)]
pub(crate) struct Gelu;

/// `2 sqrt(2/π)`.
const SCALE: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// Factor of `x` in GELU, `sigmoid(2u)`.
#[inline(always)]
pub(super) fn gate(x: f32) -> f32 {
    sigmoid(SCALE * (x + CUBIC * x * x * x))
}

/// The derivative at `x`, from its [`gate`].
#[inline(always)]
pub(super) fn slope(x: f32, gate: f32) -> f32 {
    gate + x * gate * (1.0 - gate) * SCALE * (1.0 + 3.0 * CUBIC * x * x)
}

/// Elements that one task works on.
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
                || update(dx, [x, grad], |_, [x, grad]| grad * slope(x, gate(x))),
            );
        });
        [dx]
    }
}
