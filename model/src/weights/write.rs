//! Writing a weights file.

use std::collections::HashMap;

use burn::tensor::{bf16, f16};
use safetensors::tensor::TensorView;
use sha2::{Digest, Sha256};

use crate::config::ModelConfig;
use crate::network::params::TensorSpec;
use crate::weights::answer::Answer;
use crate::weights::card::Card;
use crate::weights::error::{KEY, Precision, VERSION, WeightsError};
use crate::weights::read::Metadata;

/// Serialises a model's parameters, as [`crate::Model::parameters`] returns them, to a weights
/// file, with a hash of their values. The same input gives the same bytes.
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
    let dtype = |spec: &TensorSpec| stored_in(spec, precision).dtype();
    // The order in which `serialize` writes them: the hash is that of the bytes after the header.
    stored.sort_by(|(a, _), (b, _)| dtype(b).cmp(&dtype(a)).then_with(|| a.name.cmp(&b.name)));
    let mut hash = Sha256::new();
    for (_, bytes) in &stored {
        hash.update(bytes);
    }
    let views = stored.iter().map(|(spec, bytes)| {
        let view = TensorView::new(dtype(spec), spec.shape.clone(), bytes)
            .expect("the values fill the shape");
        (spec.name.as_str(), view)
    });
    let metadata = Metadata {
        version: VERSION,
        config: config.clone(),
        card: card.clone(),
        answer: answer.cloned(),
        sha256: Some(format!("{:x}", hash.finalize())),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;
    use crate::config::preset;
    use crate::weights::{Weights, WeightsHeader};
    use burn::tensor::Device;

    /// Returns the header of a file with its length, and the values.
    fn split(file: &[u8]) -> (&[u8], &[u8]) {
        let length = u64::from_le_bytes(file[..8].try_into().expect("8 bytes"));
        file.split_at(8 + length as usize)
    }

    #[test]
    fn the_hash_is_that_of_the_bytes_after_the_header() {
        let config = preset::by_name("tiny").expect("a preset");
        let spec = |name: &str, n: usize, buffer| TensorSpec {
            name: name.into(),
            shape: vec![n],
            transposed: false,
            buffer,
        };
        // In the order of neither names nor types.
        let parameters = vec![
            (spec("c", 2, false), vec![1.5, -2.0]),
            (spec("b", 3, true), vec![0.1, 0.2, 0.3]),
            (spec("a", 1, false), vec![7.0]),
        ];
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            let card = Card::default();
            let file = to_bytes(&config, &card, None, parameters.clone(), precision);
            let file = file.expect("finite");
            let (header, values) = split(&file);
            let header: serde_json::Value = serde_json::from_slice(&header[8..]).expect("JSON");
            let text = header["__metadata__"][KEY].as_str().expect("text");
            let metadata: serde_json::Value = serde_json::from_str(text).expect("JSON");
            let hash = metadata["sha256"].as_str().expect("text");
            assert_eq!(hash, format!("{:x}", Sha256::digest(values)), "{precision:?}");
        }
    }

    #[test]
    fn changed_values_are_found_by_their_hash() {
        let golden =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/network.weights.safetensors");
        let bytes = std::fs::read(golden).expect("a golden file");
        let without = Weights::parse(&bytes).expect("a model");
        assert!(!without.check_hash().expect("there is nothing to compare"));
        let model = Model::from_weights(&without, &Device::flex());
        let file =
            to_bytes(&model.config, without.card(), None, model.parameters(), Precision::F32);
        let mut file = file.expect("finite");
        assert!(Weights::parse(&file).expect("its own").check_hash().expect("as written"));
        let (first, last) = (split(&file).0.len(), file.len() - 4);
        for place in [first, last] {
            // The lowest bit of a value.
            file[place] ^= 1;
            let checked = Weights::parse(&file).expect("all values are finite").check_hash();
            assert!(matches!(checked, Err(WeightsError::Hash)), "{place}");
            file[place] ^= 1;
        }
        // The header can be read without them.
        file[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(matches!(Weights::parse(&file), Err(WeightsError::NotFinite(..))));
        let header = WeightsHeader::parse(&file).expect("a whole header");
        assert_eq!((&header.config, header.precision), (&model.config, Precision::F32));
    }
}
