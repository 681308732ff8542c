//! The weights file: safetensors with the configuration and the model card inside.
//!
//! Tensors have PyTorch's layout and stable names; `docs/weights.md` lists them. The header's
//! metadata has one entry, `diffit`, which is JSON:
//! `{"version": 1, "config": .., "card": .., "answer": .., "sha256": ..}`.
//! Files of the official release have no such entry and are recognised by their tensors.
//! Names, shapes, types and sizes are checked before anything is built.

pub mod card;
pub mod classes;

#[cfg(feature = "tensor")]
mod answer;
#[cfg(feature = "tensor")]
pub(crate) mod check;
#[cfg(feature = "tensor")]
pub(crate) mod error;
#[cfg(feature = "tensor")]
pub mod official;
#[cfg(feature = "tensor")]
mod read;
#[cfg(feature = "tensor")]
pub mod tensor_file;
#[cfg(feature = "tensor")]
mod write;

#[cfg(feature = "tensor")]
pub use {
    answer::{Answer, AnswerAt},
    error::{Precision, TensorProblem, WeightsError},
    read::{Weights, WeightsHeader, shape_of, specs},
    tensor_file::f32_values,
    write::to_bytes,
};
