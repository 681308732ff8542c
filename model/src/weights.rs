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
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::card::Card;
use crate::config::{ConfigError, ModelConfig, NetworkConfig};
use crate::network::Network;
use crate::official;
use crate::params::{Source, TensorSpec};

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

    fn of(dtype: Dtype) -> Option<Self> {
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
    /// Not a complete, consistent safetensors file.
    #[error("not a usable safetensors file: {0}")]
    Format(String),
    /// The header describes more bytes than there are, or fewer.
    #[error(
        "not a usable safetensors file: its header describes another number of bytes than the {0} \
         there are; it may be cut short"
    )]
    Length(usize),
    /// Tensors overlap, or leave gaps between them.
    #[error(
        "not a usable safetensors file: its tensors overlap or do not follow each other, at `{0}`"
    )]
    Layout(String),
    /// A safetensors file without our metadata, whose tensors are not those of the official
    /// release.
    #[error(
        "this safetensors file holds no DiffiT configuration (no `{KEY}` entry in its metadata), \
         and its {count} tensors ({}, ..) are not those of the official release (`pos_embed`, \
         `blocks.0.attn.qkv_temb.weight`, ..), so it is not known what model they belong to",
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
    tensors: SafeTensors<'a>,
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
        let (metadata, tensors) = open(bytes)?;
        let Some(text) = metadata.get(KEY) else {
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
        Self::official(open(bytes)?.1, config)
    }

    fn official(tensors: SafeTensors<'a>, config: ModelConfig) -> Result<Self, WeightsError> {
        let NetworkConfig::Latent(latent) = &config.network else {
            let first = tensors.names().into_iter().take(3).map(String::from).collect();
            return Err(WeightsError::Foreign { count: tensors.len(), first });
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
        for spec in &self.specs {
            if self.values(spec).iter().any(|value| !value.is_finite()) {
                return Err(WeightsError::NotFinite(spec.name.clone(), ""));
            }
        }
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
    pub(crate) fn values(&self, spec: &TensorSpec) -> Vec<f32> {
        let view = self.tensors.tensor(&spec.name).expect("its presence was checked");
        float_values(&view).expect("its type was checked")
    }
}

/// The values of an `f32` tensor, of which these are the bytes.
pub fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The values of a tensor, if it holds floating-point numbers of a type that is read.
pub(crate) fn float_values(view: &TensorView) -> Option<Vec<f32>> {
    let pairs = || view.data().chunks_exact(2).map(|b| [b[0], b[1]]);
    Some(match Precision::of(view.dtype())? {
        Precision::F32 => f32_values(view.data()),
        Precision::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Precision::Bf16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
    })
}

/// Opens a file that may be anything: its metadata and its tensors.
pub(crate) fn open(
    bytes: &[u8],
) -> Result<(HashMap<String, String>, SafeTensors<'_>), WeightsError> {
    let zip = bytes.starts_with(b"PK\x03\x04");
    let pickle = bytes.starts_with(&[0x80]) && bytes.get(8) != Some(&b'{');
    if zip || pickle {
        return Err(WeightsError::Pickle);
    }
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| format_error(e, bytes))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| format_error(e, bytes))?;
    Ok((header.metadata().clone().unwrap_or_default(), tensors))
}

/// The tensors of a valid configuration.
pub fn specs(config: &ModelConfig) -> Vec<TensorSpec> {
    shape_of(config).specs().to_vec()
}

/// The network of a valid configuration without any values: it can be counted, not run.
pub fn shape_of(config: &ModelConfig) -> Network {
    Network::new(&config.network, &burn::tensor::Device::flex(), &Source::Shapes)
}

fn format_error(error: SafeTensorError, bytes: &[u8]) -> WeightsError {
    let start = bytes.trim_ascii_start();
    let start = start[..start.len().min(9)].to_ascii_lowercase();
    let reason = match error {
        _ if start.starts_with(b"<!doctype") || start.starts_with(b"<html") => {
            "it is a web page".into()
        }
        SafeTensorError::HeaderTooSmall => format!("it has only {} bytes", bytes.len()),
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => {
            "its first 8 bytes give no sensible length for the header".into()
        }
        SafeTensorError::InvalidHeader(_) | SafeTensorError::InvalidHeaderDeserialization(_) => {
            format!("its header is damaged ({error})")
        }
        SafeTensorError::MetadataIncompleteBuffer => return WeightsError::Length(bytes.len()),
        SafeTensorError::InvalidOffset(name) => return WeightsError::Layout(name),
        error => error.to_string(),
    };
    WeightsError::Format(reason)
}

/// Holds the tensors of a file against those of a configuration, and against others that it may
/// have. Returns the precision of each, and what is wrong with them.
pub(crate) fn check<'s>(
    tensors: &SafeTensors,
    specs: &'s [TensorSpec],
    others: &[(String, Vec<usize>)],
) -> (Vec<(&'s TensorSpec, Precision)>, Vec<TensorProblem>) {
    let (mut precisions, mut problems) = (Vec::new(), Vec::new());
    for spec in specs {
        let name = spec.name.clone();
        let Ok(view) = tensors.tensor(&name) else {
            problems.push(TensorProblem::Missing { name, shape: spec.shape.clone() });
            continue;
        };
        match Precision::of(view.dtype()) {
            Some(precision) => precisions.push((spec, precision)),
            None => {
                let (name, found) = (name.clone(), format!("{:?}", view.dtype()));
                problems.push(TensorProblem::Type { name, found, expected: FLOATS });
            }
        }
        if view.shape() != spec.shape {
            let (found, expected) = (view.shape().to_vec(), spec.shape.clone());
            problems.push(TensorProblem::Shape { name, found, expected });
        }
    }
    let specs = specs.iter().map(|spec| &spec.name);
    let known: HashSet<&String> = specs.chain(others.iter().map(|(name, _)| name)).collect();
    let mut unexpected: Vec<String> = tensors.names().into_iter().map(String::from).collect();
    unexpected.retain(|name| !known.contains(name));
    unexpected.sort_unstable();
    problems.extend(unexpected.into_iter().map(TensorProblem::Unexpected));
    (precisions, problems)
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
