//! Errors of weights files, and the number formats of their values.

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// The metadata entry that marks a safetensors file as ours.
pub(crate) const KEY: &str = "diffit";

/// Version of the file format.
pub(crate) const VERSION: u32 = 1;

/// Number format of the stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 16 bits: half the size, and rounding of 1 in 2048.
    F16,
    /// 16 bits with the range of 32: half the size, and rounding of 1 in 256.
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

/// What is wrong with one tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorProblem {
    /// It is not there.
    #[error("`{name}` {shape:?} is missing")]
    Missing {
        /// Its name.
        name: String,
        /// The shape it would have.
        shape: Vec<usize>,
    },
    /// It has another shape.
    #[error("`{name}` is {found:?}, not {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// It has a type of value that is not read.
    #[error("`{name}` is {found}, not {expected}")]
    Type {
        /// Its name.
        name: String,
        /// Its type.
        found: String,
        /// The types it may have.
        expected: &'static str,
    },
    /// It has another type of value than those before it.
    #[error("`{name}` is {found:?} while others are not")]
    Mixed {
        /// Its name.
        name: String,
        /// Its type.
        found: Precision,
    },
    /// The model has no such tensor.
    #[error("`{0}` is not part of it")]
    Unexpected(String),
}

/// The types that numbers are read in.
pub(crate) const FLOATS: &str = "F32, F16 or BF16";

/// The first of many problems.
fn first(problems: &[TensorProblem]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = problems.iter().take(SHOWN).map(ToString::to_string).collect();
    match problems.len().saturating_sub(SHOWN) {
        0 => shown.join("; "),
        n => format!("{}; and {n} more", shown.join("; ")),
    }
}

/// Why a weights file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A Python pickle, or a zip archive as PyTorch writes them.
    #[error(
        "this is a PyTorch or pickle file, which can run code when it is opened; only safetensors \
         files are read: convert it with the safetensors package"
    )]
    Pickle,
    /// The system does not give it out.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// Not a complete, consistent safetensors file.
    #[error("not a usable safetensors file: {0}")]
    Format(String),
    /// The header describes more bytes than there are, or fewer.
    #[error(
        "not a usable safetensors file: its header describes another number of bytes than the {0} \
         there are; it may be cut short"
    )]
    Length(u64),
    /// Tensors overlap, or leave gaps between them.
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
         (`decoder.conv_in.weight`, ..), so it is not known what they belong to",
        first.join(", ")
    )]
    Foreign {
        /// How many tensors there are.
        count: usize,
        /// The first of their names.
        first: Vec<String>,
    },
    /// A file like those of the official release, of a size that is not known.
    #[error(
        "this file is like those of the official release, but its `pos_embed` is {found:?}, and \
         known are {known:?}"
    )]
    Size {
        /// The shape of the position embedding.
        found: Vec<usize>,
        /// Those that are known.
        known: Vec<[usize; 3]>,
    },
    /// A tensor of the official release that is computed and not learned has another value.
    #[error(
        "`{name}` is not what the network is defined with: value {place} is {found}, not {expected}"
    )]
    Fixed {
        /// Its name.
        name: String,
        /// Where it differs first.
        place: usize,
        /// The value there.
        found: String,
        /// The value that should be there.
        expected: String,
    },
    /// Made by a newer program.
    #[error(
        "this weights file has format version {0}, and this program reads version {VERSION}: update it"
    )]
    Version(u32),
    /// The metadata cannot be read.
    #[error("the metadata of this weights file is damaged: {0}")]
    Metadata(String),
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tensors are not those of the configuration.
    #[error("the tensors of this weights file are not those of its configuration: {}", first(.0))]
    Tensors(Vec<TensorProblem>),
    /// A value is infinite or not a number, or becomes so in the precision asked for.
    #[error("tensor `{0}` holds values that are not finite{1}")]
    NotFinite(String, &'static str),
}
