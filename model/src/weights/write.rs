//! Writing a weights file.

use std::collections::HashMap;

use burn::tensor::{bf16, f16};
use safetensors::tensor::TensorView;

use crate::config::ModelConfig;
use crate::network::params::TensorSpec;
use crate::weights::answer::Answer;
use crate::weights::card::Card;
use crate::weights::error::{KEY, Precision, VERSION, WeightsError};
use crate::weights::read::Metadata;

/// Serialises a model's parameters, as [`crate::Model::parameters`] returns them, to a weights
/// file. The same input gives the same bytes.
///
/// # Errors
///
/// If a value is not finite, or not finite in this precision.
pub fn to_bytes(
    config: &ModelConfig,
    card: &Card,
    answer: Option<&Answer>,
    parameters: Vec<(TensorSpec, Vec<f32>)>,
    precision: Precision,
) -> Result<Vec<u8>, WeightsError> {
    let mut stored = Vec::with_capacity(parameters.len());
    for (spec, values) in parameters {
        let precision = stored_in(&spec, precision);
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
                let why = if value.is_finite() { " in 16 bits: export in 32 bits" } else { "" };
                return Err(WeightsError::NotFinite(spec.name, why));
            }
        }
        stored.push((spec, bytes));
    }
    let views = stored.iter().map(|(spec, bytes)| {
        let view = TensorView::new(stored_in(spec, precision).dtype(), spec.shape.clone(), bytes)
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

/// The number format of a tensor in a file of this precision.
fn stored_in(spec: &TensorSpec, precision: Precision) -> Precision {
    if spec.buffer { Precision::F32 } else { precision }
}
