//! Errors of weights files, and the number formats of their values.

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Metadata entry that marks a safetensors file as a weights file of this project.
pub(crate) const KEY: &str = "diffit";

/// Version of the file format.
pub(crate) const VERSION: u32 = 1;

/// Number format of the stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 16 bits, IEEE half precision: half the size, and rounding of 1 in 2048.
    F16,
    /// 16 bits with the range of 32 (bfloat16): half the size, and rounding of 1 in 256.
    Bf16,
    /// 32 bits.
    F32,
}

impl Precision {
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Precision::F16 => Dtype::F16,
            Precision::Bf16 => Dtype::BF16,
            Precision::F32 => Dtype::F32,
        }
    }

    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Precision::F16),
            Dtype::BF16 => Some(Precision::Bf16),
            Dtype::F32 => Some(Precision::F32),
            _ => None,
        }
    }
}

/// Problem of one tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorProblem {
    /// The tensor is missing.
    #[error("`{name}` {shape:?} is missing")]
    Missing {
        /// Name of the tensor.
        name: String,
        /// Expected shape.
        shape: Vec<usize>,
    },
    /// The tensor has the wrong shape.
    #[error("`{name}` is {found:?}, not {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Expected shape.
        expected: Vec<usize>,
    },
    /// The tensor has an unsupported type.
    #[error("`{name}` is {found}, not {expected}")]
    Type {
        /// Name of the tensor.
        name: String,
        /// Type in the file.
        found: String,
        /// Supported types.
        expected: &'static str,
    },
    /// The tensor's type differs from that of the other tensors.
    #[error("`{name}` is {found:?} and others are not; all tensors need the same type")]
    Mixed {
        /// Name of the tensor.
        name: String,
        /// Type in the file.
        found: Precision,
    },
    /// The model does not have this tensor.
    #[error("`{0}` is not part of it")]
    Unexpected(String),
}

/// Supported types of numbers, for messages.
pub(crate) const FLOATS: &str = "F32, F16 or BF16";

/// Lists the first problems, and the number of the others.
fn first(problems: &[TensorProblem]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = problems.iter().take(SHOWN).map(ToString::to_string).collect();
    match problems.len().saturating_sub(SHOWN) {
        0 => shown.join("; "),
        n => format!("{}; and {n} more", shown.join("; ")),
    }
}

/// Error for a weights file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A Python pickle, or a zip archive as PyTorch writes them.
    #[error(
        "this is a PyTorch or pickle file, which can run code when it is opened; only safetensors \
         files are read: convert it with the safetensors package"
    )]
    Pickle,
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// Not a complete, consistent safetensors file.
    #[error("not a usable safetensors file: {0}")]
    Format(String),
    /// The header describes more or fewer bytes than the file has.
    #[error(
        "not a usable safetensors file: its header describes another number of bytes than the \
         file's {0}; it may be cut short: download or copy it again"
    )]
    Length(u64),
    /// The tensors overlap, or have gaps between them.
    #[error(
        "not a usable safetensors file: its tensors overlap or do not follow each other, at `{0}`"
    )]
    Layout(String),
    /// A safetensors file without our metadata, whose tensors are not those of the official
    /// release.
    #[error(
        "this safetensors file holds no DiffiT configuration (no `{KEY}` entry in its metadata), \
         and its {count} tensors ({}, ..) are neither those of the official release (`pos_embed`, \
         `blocks.0.attn.qkv_temb.weight`, ..) nor, where one is asked for, those of an autoencoder \
         (`decoder.conv_in.weight`, ..), so its model is unknown",
        first.join(", ")
    )]
    Foreign {
        /// Number of tensors.
        count: usize,
        /// The first of their names, in alphabetical order.
        first: Vec<String>,
    },
    /// A file like those of the official release, of an unknown size.
    #[error(
        "this file is like those of the official release, but its `pos_embed` is {found:?}; known \
         sizes are {known:?}"
    )]
    Size {
        /// Shape of the position embedding.
        found: Vec<usize>,
        /// Known shapes.
        known: Vec<[usize; 3]>,
    },
    /// A tensor of the official release that is computed, not learned, has a wrong value.
    #[error(
        "`{name}` does not match the definition of the network: value {index} is {found}, not \
         {expected}"
    )]
    Fixed {
        /// Name of the tensor.
        name: String,
        /// Index of the first wrong value.
        index: usize,
        /// Value in the file.
        found: String,
        /// Expected value.
        expected: String,
    },
    /// The format has another version.
    #[error(
        "this weights file has format version {0}, and this program reads version {VERSION}: \
         update the program"
    )]
    Version(u32),
    /// The metadata cannot be read.
    #[error("the metadata of this weights file is damaged: {0}")]
    Metadata(String),
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tensors do not match the configuration.
    #[error("the tensors of this weights file do not match its configuration: {}", first(.0))]
    Tensors(Vec<TensorProblem>),
    /// The values are not those of which the file has a hash.
    #[error("its values were changed after they were written: their SHA-256 is not the stored one")]
    Hash,
    /// A value is infinite or NaN, or becomes so in the requested precision.
    #[error("tensor `{0}` holds values that are not finite{1}")]
    NotFinite(String, &'static str),
}
