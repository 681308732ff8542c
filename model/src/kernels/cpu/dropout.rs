//! Dropout with a mask that is a function of a key.

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::kernel::{Kernel, values};
use super::parallel::for_each;
use super::vector::vectorize;
use crate::kernels::scramble::scramble;

/// The kernel of [`crate::kernels::dropout`]. The backward pass recomputes the mask from the keys.
#[derive(Clone, Debug)]
pub(crate) struct Dropout {
    /// The key of each picture.
    pub keys: Vec<u32>,
    /// Values whose 31-bit hash is below this are dropped.
    pub below: u32,
    /// Factor on the values that are kept.
    pub scale: f32,
}

/// Values of one task.
const CHUNK: usize = 1 << 14;

impl Dropout {
    /// Applies dropout to consecutive values of a picture, of which `x[0]` has index `first`.
    #[inline(always)]
    pub(super) fn values(&self, picture: usize, first: usize, x: &mut [f32]) {
        let key = self.keys[picture];
        for (i, x) in (first as u32..).zip(x) {
            let kept = scramble(i, key) >> 1 >= self.below;
            *x = if kept { *x * self.scale } else { 0.0 };
        }
    }

    /// Applies dropout to a tensor.
    fn apply(&self, x: &FlexTensor) -> Vec<f32> {
        let x = values(x);
        let size = x.len() / self.keys.len();
        let mut y = vec![0.0; x.len()];
        let pictures = y.chunks_mut(size).zip(x.chunks(size)).enumerate();
        let tasks = pictures.flat_map(|(picture, (y, x))| {
            let parts = y.chunks_mut(CHUNK).zip(x.chunks(CHUNK)).enumerate();
            parts.map(move |(part, (y, x))| (picture, part * CHUNK, y, x))
        });
        for_each(tasks, |(picture, first, y, x)| {
            vectorize(
                #[inline(always)]
                || {
                    y.copy_from_slice(x);
                    self.values(picture, first, y);
                },
            );
        });
        y
    }
}

impl Kernel<1> for Dropout {
    type Saved = ();

    fn forward(&self, [x]: [&FlexTensor; 1], _keep: bool) -> (Vec<f32>, Shape, ()) {
        (self.apply(x), x.layout().shape().clone(), ())
    }

    fn backward(
        &self,
        _inputs: [&FlexTensor; 1],
        (): &(),
        grad: &FlexTensor,
        _wanted: [bool; 1],
    ) -> [Vec<f32>; 1] {
        [self.apply(grad)]
    }
}
