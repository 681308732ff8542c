//! Dropout on a GPU.

use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::{dims, element, empty_like, grid};
use crate::kernels::cpu;
use crate::kernels::differentiable::{self, Differentiable};
use crate::kernels::scramble::SCRAMBLE;

/// Units of a work group.
const UNITS: usize = 256;

/// Drops values whose hash is below `below`, and multiplies the others by `scale`. A picture has
/// `size` values.
#[cube(launch)]
fn drop_values<F: Float>(
    x: &[F],
    keys: &[u32],
    y: &mut [F],
    size: u32,
    below: u32,
    scale: f32,
    #[define(F)] _dtype: ElemType,
) {
    let tile = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize;
    let i = tile * comptime!(UNITS) + UNIT_POS as usize;
    if i < y.len() {
        // As `scramble`.
        let index = (i % size as usize) as u32;
        let hash = (index * comptime!(SCRAMBLE[0])) ^ keys[i / size as usize];
        let hash = (hash ^ (hash >> 16u32)) * comptime!(SCRAMBLE[1]);
        let hash = (hash ^ (hash >> 15u32)) * comptime!(SCRAMBLE[2]);
        let hash = hash ^ (hash >> 16u32);
        let mut value = 0.0f32;
        if (hash >> 1u32) >= below {
            value = f32::cast_from(x[i]) * scale;
        }
        y[i] = F::cast_from(value);
    }
}

/// [`crate::kernels::dropout`], with the keys and the constants of the CPU's kernel.
pub(crate) fn dropout(x: Tensor<4>, kernel: cpu::Dropout) -> Tensor<4> {
    differentiable::run(Dropout(kernel), [x.into()])
}

/// Dropout. The backward pass is the same function of the gradient.
#[derive(Clone, Debug)]
struct Dropout(cpu::Dropout);

impl Dropout {
    fn apply(&self, x: CubeTensor, keys: CubeTensor) -> CubeTensor {
        let cpu::Dropout { below, scale, .. } = self.0;
        let [b, h, w, c] = dims(&x);
        let y = empty_like(&x, [b, h, w, c]);
        let (client, element) = (x.client.clone(), element(&x));
        drop_values::launch(
            &client,
            grid(1, (b * h * w * c).div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            x.into_buffer_arg(),
            keys.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            (h * w * c) as u32,
            below,
            scale,
            element,
        );
        y
    }
}

impl Differentiable<CubeBackend, 1> for Dropout {
    /// The keys of the pictures.
    type Saved = CubeTensor;

    fn forward(&self, [x]: [CubeTensor; 1], _keep: bool) -> (CubeTensor, CubeTensor) {
        let keys: Vec<u8> = self.0.keys.iter().flat_map(|key| key.to_ne_bytes()).collect();
        let (client, device) = (x.client.clone(), x.device.clone());
        let handle = client.create_from_slice(&keys);
        let shape = [self.0.keys.len()].into();
        let keys = CubeTensor::new_contiguous(client, device, shape, handle, DType::U32);
        (self.apply(x, keys.clone()), keys)
    }

    fn backward(
        &self,
        keys: CubeTensor,
        grad: CubeTensor,
        _wanted: [bool; 1],
    ) -> [Option<CubeTensor>; 1] {
        [Some(self.apply(grad, keys))]
    }
}
