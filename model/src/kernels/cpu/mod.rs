//! CPU kernels for the operations that a DiffiT block spends most of its time in.
//!
//! Burn's `flex` backend makes one pass over memory for each tensor operation. The kernels here
//! fuse several operations into one pass, run on all cores, and have their own backward passes.
//! Each computes the same function as an implementation with tensor operations in
//! [`crate::kernels::plain`], which the other backends run and which the tests compare it with.
//!
//! Kernels are used for `f32` tensors on the `flex` backend ([`supports`]).
//!
//! | module | contents |
//! |---|---|
//! | `kernel` | the trait of kernels; from slices to tensors |
//! | `parallel` | loops over tasks, scratch buffers, sums in a fixed order |
//! | `vector` | element-wise operations and reductions that LLVM vectorises |
//! | `gemm` | matrix products in register tiles |
//! | `conv`, `attention`, `norm`, `activation`, `dropout` | one operation each |
//! | `block` | a whole ResBlock |

// Without the feature `train`, the backward passes are not used.
#![cfg_attr(not(feature = "train"), allow(dead_code))]

mod activation;
mod attention;
mod block;
mod conv;
mod dropout;
mod gemm;
mod kernel;
mod norm;
mod parallel;
mod vector;

pub(crate) use activation::Gelu;
pub(crate) use attention::WindowAttention;
pub(crate) use block::Block;
pub(crate) use conv::Conv3x3;
pub(crate) use dropout::Dropout;
pub(crate) use kernel::{Input, run};
pub(crate) use norm::{GroupNorm, LayerNorm};

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Tensor};

/// Whether the kernels of this module accept `x`.
pub(crate) fn supports<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32
        && matches!(x.device().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
}
