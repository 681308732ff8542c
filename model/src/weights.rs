//! The weights file: safetensors with the configuration and the model card inside.
//!
//! Tensors lie in PyTorch's layout under stable names; `docs/weights.md` lists them. The header's
//! metadata has one entry, `diffit`, which is JSON:
//! `{"version": 1, "config": .., "card": .., "answer": ..}`.
//! The files of the official release have no such entry, and are known by their tensors.
//! Nothing is built before names, shapes, types and sizes have been checked.

use std::collections::{HashMap, HashSet};

use burn::tensor::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::card::Card;
use crate::config::{ConfigError, ModelConfig, NetworkConfig};
use crate::network::Network;
use crate::official;
use crate::params::{Source, TensorSpec};
use crate::tensor_file::TensorFile;

pub use crate::tensor_file::f32_values;

/// The metadata entry that makes a safetensors file one of ours.
const KEY: &str = "diffit";

/// Version of the file format.
const VERSION: u32 = 1;

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
    fn dtype(self) -> Dtype {
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

/// A known answer of the model, by which whoever loads it can tell that the arithmetic of a device
/// is right: some values of `D(σ n; σ)`, `n` being the noise that sampling from seed 0 starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The noise level σ.
    pub sigma: f64,
    /// The values number 0, `stride`, `2 stride` and so on of the denoised picture `[C, H, W]`.
    pub values: Vec<f32>,
    /// See `values`.
    pub stride: usize,
}

impl Answer {
    /// By how much a device may be off, where values are about 1. A wrong kernel is off by far
    /// more; the order of summation, by far less.
    pub const TOLERANCE: f32 = 2e-3;

    /// The largest difference to another answer; infinite if one of them is no number.
    pub fn deviation(&self, other: &Answer) -> f32 {
        if (self.sigma, self.stride, self.values.len())
            != (other.sigma, other.stride, other.values.len())
        {
            return f32::INFINITY;
        }
        let differences = self.values.iter().zip(&other.values).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, |worst, d| {
            if d <= worst {
                worst
            } else if d.is_nan() {
                f32::INFINITY
            } else {
                d
            }
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    version: u32,
    config: ModelConfig,
    #[serde(default)]
    card: Card,
    #[serde(default)]
    answer: Option<Answer>,
}

/// A checked weights file, on top of its bytes.
#[derive(Debug)]
pub struct Weights<'a> {
    tensors: TensorFile<'a>,
    config: ModelConfig,
    card: Card,
    answer: Option<Answer>,
    precision: Precision,
    specs: Vec<TensorSpec>,
}

impl<'a> Weights<'a> {
    /// Checks a file, given whole, and gives access to it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the person who has the file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WeightsError> {
        TensorFile::parse(bytes).and_then(Self::from_file)
    }

    /// Checks a file that has been opened, and gives access to it.
    ///
    /// # Errors
    ///
    /// As [`Weights::parse`].
    pub fn from_file(tensors: TensorFile<'a>) -> Result<Self, WeightsError> {
        let Some(text) = tensors.metadata().and_then(|metadata| metadata.get(KEY)) else {
            let config = official::recognise(&tensors)?;
            return Self::official(tensors, config);
        };
        let damaged = |e: serde_json::Error| WeightsError::Metadata(e.to_string());
        // The version is read on its own first: a newer file may hold what is not known here.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(text).map_err(damaged)?;
        if version != VERSION {
            return Err(WeightsError::Version(version));
        }
        let Metadata { config, card, answer, .. } = serde_json::from_str(text).map_err(damaged)?;
        config.validate()?;
        if let Some(answer) = &answer {
            let size: usize = config.image_shape().iter().product();
            if answer.stride == 0 || answer.values.len() != size.div_ceil(answer.stride) {
                return Err(WeightsError::Metadata("the known answer has another size".into()));
            }
        }
        let specs = specs(&config);
        let (precisions, mut problems) = check(&tensors, &specs, &[]);
        let precision = precisions.first().map_or(Precision::F32, |(_, precision)| *precision);
        problems.extend(
            precisions
                .into_iter()
                .filter(|(_, other)| *other != precision)
                .map(|(spec, found)| TensorProblem::Mixed { name: spec.name.clone(), found }),
        );
        Self { tensors, config, card, answer, precision, specs }.checked(problems)
    }

    /// Checks a file in the layout of the official release, of the given configuration. Files of
    /// the released sizes need none: [`Weights::parse`] knows them.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the person who has the file.
    pub fn parse_official(bytes: &'a [u8], config: ModelConfig) -> Result<Self, WeightsError> {
        config.validate()?;
        Self::official(TensorFile::parse(bytes)?, config)
    }

    fn official(tensors: TensorFile<'a>, config: ModelConfig) -> Result<Self, WeightsError> {
        let NetworkConfig::Latent(latent) = &config.network else {
            return Err(official::foreign(&tensors));
        };
        let specs = specs(&config);
        let (precisions, mut problems) = check(&tensors, &specs, &official::fixed(latent));
        let precision = precisions.first().map_or(Precision::F32, |(_, precision)| *precision);
        problems.extend(official::check_fixed(&tensors, latent)?);
        let card = official::card(latent);
        Self { tensors, config, card, answer: None, precision, specs }.checked(problems)
    }

    /// Passes if there are no problems, and every value is finite.
    fn checked(self, problems: Vec<TensorProblem>) -> Result<Self, WeightsError> {
        if !problems.is_empty() {
            return Err(WeightsError::Tensors(problems));
        }
        check_finite(&self.tensors, &self.specs)?;
        Ok(self)
    }

    /// The configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// A known answer, if the file has one.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// The number format of the stored values.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Its tensors.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The values of a tensor, in the order of the file.
    ///
    /// # Panics
    ///
    /// If the file has no such tensor.
    pub fn values(&self, spec: &TensorSpec) -> Vec<f32> {
        self.tensors.checked_values(&spec.name)
    }

    /// Passes if the file could be read to the end while a model was built from it. One that is in
    /// memory always can.
    ///
    /// # Errors
    ///
    /// Why it could not.
    pub fn intact(&self) -> Result<(), WeightsError> {
        self.tensors.intact()
    }
}

/// The tensors of a valid configuration.
pub fn specs(config: &ModelConfig) -> Vec<TensorSpec> {
    shape_of(config).specs().to_vec()
}

/// The network of a valid configuration without any values: it can be counted, not run.
pub fn shape_of(config: &ModelConfig) -> Network {
    Network::new(&config.network, &burn::tensor::Device::flex(), &Source::Shapes)
}

/// Holds the tensors of a file against those of a configuration, and against others that it may
/// have. Returns the precision of each, and what is wrong with them.
pub(crate) fn check<'s>(
    tensors: &TensorFile,
    specs: &'s [TensorSpec],
    others: &[(String, Vec<usize>)],
) -> (Vec<(&'s TensorSpec, Precision)>, Vec<TensorProblem>) {
    let (mut precisions, mut problems) = (Vec::new(), Vec::new());
    for spec in specs {
        let name = spec.name.clone();
        let Some(info) = tensors.info(&name) else {
            problems.push(TensorProblem::Missing { name, shape: spec.shape.clone() });
            continue;
        };
        match Precision::of(info.dtype) {
            Some(precision) => precisions.push((spec, precision)),
            None => {
                let (name, found) = (name.clone(), format!("{:?}", info.dtype));
                problems.push(TensorProblem::Type { name, found, expected: FLOATS });
            }
        }
        if info.shape != spec.shape {
            let (found, expected) = (info.shape.clone(), spec.shape.clone());
            problems.push(TensorProblem::Shape { name, found, expected });
        }
    }
    let specs = specs.iter().map(|spec| &spec.name);
    let known: HashSet<&String> = specs.chain(others.iter().map(|(name, _)| name)).collect();
    let mut unexpected = tensors.names();
    unexpected.retain(|name| !known.contains(name));
    unexpected.sort_unstable();
    problems.extend(unexpected.into_iter().map(TensorProblem::Unexpected));
    (precisions, problems)
}

/// Passes if every value of these tensors, which are there, is finite.
pub(crate) fn check_finite(tensors: &TensorFile, specs: &[TensorSpec]) -> Result<(), WeightsError> {
    for TensorSpec { name, .. } in specs {
        let values = tensors.values(name)?.expect("its presence and its type were checked");
        if values.iter().any(|value| !value.is_finite()) {
            return Err(WeightsError::NotFinite(name.clone(), ""));
        }
    }
    Ok(())
}

/// Makes a weights file out of a model's parameters, as [`crate::Model::parameters`] returns them.
/// The same input gives the same bytes.
///
/// # Errors
///
/// If a value is not finite, or not so in this precision.
pub fn to_bytes(
    config: &ModelConfig,
    card: &Card,
    answer: Option<&Answer>,
    parameters: Vec<(TensorSpec, Vec<f32>)>,
    precision: Precision,
) -> Result<Vec<u8>, WeightsError> {
    let mut stored = Vec::with_capacity(parameters.len());
    for (spec, values) in parameters {
        let mut bytes = Vec::with_capacity(values.len() * 4);
        for value in values {
            let finite = match precision {
                Precision::F32 => {
                    bytes.extend(value.to_le_bytes());
                    value.is_finite()
                }
                Precision::F16 => {
                    let half = f16::from_f32(value);
                    bytes.extend(half.to_le_bytes());
                    half.is_finite()
                }
                Precision::Bf16 => {
                    let half = bf16::from_f32(value);
                    bytes.extend(half.to_le_bytes());
                    half.is_finite()
                }
            };
            if !finite {
                let why = if value.is_finite() { " in 16 bits: export 32" } else { "" };
                return Err(WeightsError::NotFinite(spec.name, why));
            }
        }
        stored.push((spec, bytes));
    }
    let views = stored.iter().map(|(spec, bytes)| {
        let view = TensorView::new(precision.dtype(), spec.shape.clone(), bytes)
            .expect("the values fill the shape");
        (spec.name.as_str(), view)
    });
    let metadata = Metadata {
        version: VERSION,
        config: config.clone(),
        card: card.clone(),
        answer: answer.cloned(),
    };
    let text =
        serde_json::to_string(&metadata).map_err(|e| WeightsError::Metadata(e.to_string()))?;
    safetensors::serialize(views, Some(HashMap::from([(KEY.to_string(), text)])))
        .map_err(|e| WeightsError::Format(e.to_string()))
}
