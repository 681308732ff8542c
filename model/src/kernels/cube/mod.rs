//! GPU kernels in CubeCL, which compiles them for WebGPU, Vulkan and CUDA.
//!
//! Burn's GPU backend starts a program for each tensor operation. At batch size 1 the time to start
//! one exceeds the time of its arithmetic, so the kernels here do several operations each:
//!
//! | module | contents |
//! |---|---|
//! | `product` | linear maps and 3x3 convolutions in register tiles, with the operations around them |
//! | `attention` | attention in windows, from queries, keys, values and the table of the position bias |
//! | `norm` | group normalisation with Swish, layer normalisation |
//! | `join` | two maps beside each other |
//!
//! They compute the same functions as the implementations in [`crate::kernels::plain`], with sums
//! in `f32` whatever the type of the tensors. None has a backward pass: on an autodiff device the
//! plain operations run ([`supports`]).

mod attention;
mod join;
mod norm;
mod product;

pub(crate) use attention::window_attention;
pub(crate) use join::join;
pub(crate) use norm::{group_norm, layer_norm};
pub(crate) use product::{conv3x3, linear, linear_supports};

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::{CubeCount, ElemType};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Returns whether the kernels of this module accept `x`.
pub(crate) fn supports<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device();
    matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
        && !device.is_autodiff()
        && matches!(device.as_dispatch(), DispatchDevice::Cube(_))
}

/// Returns the backend's tensor, with its values in row-major order.
fn open<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    let tensor = tensor.try_into_primitive::<CubeBackend>();
    into_contiguous(tensor.expect("callers check with `supports`"))
}

/// Returns the tensor of the backend's tensor.
fn close<const D: usize>(tensor: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<CubeBackend>(tensor)
}

/// A tensor of this shape, with any values, beside `other` and of its type.
fn empty_like(other: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    let (client, device) = (other.client.clone(), other.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), other.dtype)
}

/// The type of a tensor's values, for a kernel.
fn element(tensor: &CubeTensor) -> ElemType {
    burn::backend::cubecl::dtype_to_storage_type(tensor.dtype)
}

/// Work groups for `x` by `y` tiles. There may be more tiles than a dimension of the grid can have,
/// so the second dimension is divided; a kernel's tile is `CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y`,
/// and may be beyond the last.
fn grid(x: usize, y: usize) -> CubeCount {
    let z = y.div_ceil(1 << 15);
    CubeCount::Static(x as u32, y.div_ceil(z) as u32, z as u32)
}

#[cfg(test)]
mod tests;
