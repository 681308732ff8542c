//! CPU kernels for the operations a DiffiT block spends its time in.
//!
//! Burn's `flex` backend runs every operation of the network, one pass over memory at a time.
//! The operations here join what belongs together into one pass, run on all cores, and bring
//! their own backward passes. They are drop-in replacements: each has a twin written with plain
//! tensor operations in [`crate::kernels`], which every other backend runs and which the tests hold
//! against these.
//!
//! A kernel takes over where [`supports`] says so: `f32` tensors on the `flex` backend.

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

/// Whether `x` is a tensor that the kernels of this module compute with.
pub(crate) fn supports<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32
        && matches!(x.device().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
}
