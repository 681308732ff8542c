//! The weights file: safetensors with the configuration and the model card inside.
//!
//! Tensors lie in PyTorch's layout under stable names; `docs/weights.md` lists them. The header's
//! metadata has one entry, `diffit`, which is JSON:
//! `{"version": 1, "config": .., "card": .., "answer": ..}`.
//! Nothing is built before names, shapes, types and sizes have been checked.

use std::collections::HashMap;

use burn::tensor::f16;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::card::Card;
use crate::config::{ConfigError, ModelConfig};
use crate::network::Network;
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
    /// 32 bits.
    F32,
}

impl Precision {
    fn dtype(self) -> Dtype {
        match self {
            Precision::F16 => Dtype::F16,
            Precision::F32 => Dtype::F32,
        }
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
    /// A safetensors file without our metadata.
    #[error(
        "this safetensors file holds no DiffiT configuration (no `{KEY}` entry in its metadata), \
         so it is not known what model its {0} tensors belong to"
    )]
    Foreign(usize),
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
    #[error("the tensors of this weights file are not those of its configuration: {0}")]
    Tensors(String),
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
        let text = metadata.get(KEY).ok_or(WeightsError::Foreign(tensors.len()))?;
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
        let precision = check(&tensors, &specs)?;
        let weights = Self { tensors, config, card, answer, precision, specs };
        for spec in &weights.specs {
            if weights.values(spec).iter().any(|value| !value.is_finite()) {
                return Err(WeightsError::NotFinite(spec.name.clone(), ""));
            }
        }
        Ok(weights)
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
        values(&self.tensors, spec, self.precision)
    }
}

/// The values of a tensor whose presence and type were checked, in the order of the file.
pub(crate) fn values(tensors: &SafeTensors, spec: &TensorSpec, precision: Precision) -> Vec<f32> {
    let view = tensors.tensor(&spec.name).expect("its presence was checked");
    let bytes = view.data();
    match precision {
        Precision::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        Precision::F16 => {
            bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
    }
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
        SafeTensorError::MetadataIncompleteBuffer => format!(
            "its header describes another number of bytes than the {} there are; it may be cut short",
            bytes.len()
        ),
        error => error.to_string(),
    };
    WeightsError::Format(reason)
}

/// Holds the tensors of a file against those of a configuration.
pub(crate) fn check(
    tensors: &SafeTensors,
    specs: &[TensorSpec],
) -> Result<Precision, WeightsError> {
    let mut wrong = Vec::new();
    let mut precision = None;
    let mut known: HashMap<&str, ()> = HashMap::with_capacity(specs.len());
    for spec in specs {
        known.insert(&spec.name, ());
        let Ok(view) = tensors.tensor(&spec.name) else {
            wrong.push(format!("`{}` {:?} is missing", spec.name, spec.shape));
            continue;
        };
        if view.shape() != spec.shape {
            wrong.push(format!("`{}` is {:?}, not {:?}", spec.name, view.shape(), spec.shape));
        }
        let found = match view.dtype() {
            Dtype::F32 => Precision::F32,
            Dtype::F16 => Precision::F16,
            other => {
                wrong.push(format!("`{}` is {other:?}, not F32 or F16", spec.name));
                continue;
            }
        };
        if *precision.get_or_insert(found) != found {
            wrong.push(format!("`{}` is {found:?} while others are not", spec.name));
        }
    }
    let mut unexpected: Vec<&str> = tensors.names();
    unexpected.retain(|name| !known.contains_key(name));
    unexpected.sort_unstable();
    wrong.extend(unexpected.iter().map(|name| format!("`{name}` is not part of it")));
    match (wrong.len(), precision) {
        (0, Some(precision)) => Ok(precision),
        (n, _) => {
            let more = if n > 5 { format!("; and {} more", n - 5) } else { String::new() };
            wrong.truncate(5);
            Err(WeightsError::Tensors(wrong.join("; ") + &more))
        }
    }
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
