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
//! With the feature `train` each has a backward pass, and there are more kernels:
//!
//! | module | contents |
//! |---|---|
//! | `product_gradient` | gradients of linear maps and convolutions, as products in register tiles |
//! | `activation` | gradients of activations |
//! | `attention_gradient` | gradients of attention |
//! | `dropout` | dropout |
//! | `sums` | sums over rows, in a fixed order |
//!
//! They compute the same functions as the implementations in [`crate::kernels::plain`], with sums
//! in `f32` whatever the type of the tensors. No sum depends on the order in which units run: the
//! same inputs have the same gradients, bit for bit.

#[cfg(feature = "train")]
mod activation;
mod attention;
#[cfg(feature = "train")]
mod attention_gradient;
#[cfg(feature = "train")]
mod dropout;
mod join;
mod norm;
mod product;
#[cfg(feature = "train")]
mod product_gradient;
#[cfg(feature = "train")]
mod sums;

pub(crate) use attention::window_attention;
#[cfg(feature = "train")]
pub(crate) use dropout::dropout;
pub(crate) use join::join;
pub(crate) use norm::{group_norm, layer_norm};
pub(crate) use product::{conv3x3, linear, linear_supports};

use burn::backend::DispatchDevice;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::{CubeCount, ElemType};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use crate::kernels::differentiable::{self, kernel_backend};

kernel_backend!(CubeBackend, into_contiguous);

/// A tensor as an input of a kernel.
type Input = differentiable::Input<CubeBackend>;

/// Returns whether the kernels of this module accept `x`.
pub(crate) fn supports<const D: usize>(x: &Tensor<D>) -> bool {
    #[cfg(all(test, feature = "train"))]
    if tests::PLAIN.get() {
        return false;
    }
    matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
        && matches!(x.device().without_autodiff().as_dispatch(), DispatchDevice::Cube(_))
}

/// The dimensions of a tensor of rank `D`.
fn dims<const D: usize>(tensor: &CubeTensor) -> [usize; D] {
    tensor.meta.shape().dims()
}

/// A tensor of this shape, with any values, beside `other` and of its type.
fn empty_like(other: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    empty(other, shape, other.dtype)
}

/// A tensor of this shape and type, with any values, beside `other`.
fn empty(other: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    let (client, device) = (other.client.clone(), other.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), dtype)
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

#[cfg(all(test, feature = "train"))]
mod tests;
