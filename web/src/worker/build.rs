//! Building a model and checking it.

use burn::tensor::{DType, Device};
use model::Model;
use model::weights::{Answer, Weights};
use web_time::Instant;

use super::{Place, Trouble, milliseconds};
use crate::adapter::{Numbers, halves_suffice};

/// A model on a device, with the result of its self-check.
pub struct Built {
    pub model: Model,
    pub numbers: Numbers,
    /// The deviation from the known answer, if it has one.
    pub deviation: Result<Option<f32>, Trouble>,
    /// Whether that is within the tolerance.
    pub passed: bool,
    /// Time of the self-check in milliseconds.
    pub check: f64,
    pub note: Option<String>,
}

/// The note about a model that could be computed in 16 bits, but is not.
const INACCURATE: &str = "This model is computed in 32-bit numbers: your graphics processor supports \
                          16-bit numbers, but they are not accurate enough for it.";

/// Builds a model on a device and runs its self-check. It computes in 16 bits if the device supports
/// that and the result is accurate enough. The model is in memory once: in 16 bits, or in 32.
pub async fn build(weights: &Weights<'_>, place: &Place) -> Built {
    let Place { device, halves, .. } = place;
    if !halves {
        return single(weights, device, None).await;
    }
    // A model without a known answer is compared with itself in 32 bits.
    let reference = match weights.answer() {
        Some(answer) => Ok(answer.clone()),
        None => Model::from_weights(weights, device).answer(device).await,
    };
    let half = Model::from_weights_as(weights, device, DType::F16);
    let before = Instant::now();
    let found = half.answer(device).await;
    let check = milliseconds(before);
    let missed = match (reference, found) {
        (Ok(reference), Ok(found)) => Some(reference.deviation(&found)),
        _ => None,
    };
    if halves_suffice(missed) {
        let (numbers, deviation) = (Numbers::F16, Ok(missed));
        return Built { model: half, numbers, deviation, passed: true, check, note: None };
    }
    drop(half);
    single(weights, device, Some(INACCURATE.into())).await
}

/// Builds a model in 32 bits and runs its self-check.
async fn single(weights: &Weights<'_>, device: &Device, note: Option<String>) -> Built {
    let model = Model::from_weights(weights, device);
    let before = Instant::now();
    let deviation = match weights.answer() {
        Some(want) => match model.answer(device).await {
            Ok(found) => Ok(Some(want.deviation(&found))),
            Err(error) => Err(error.to_string()),
        },
        None => Ok(None),
    };
    let check = milliseconds(before);
    let passed = match &deviation {
        Ok(Some(deviation)) => *deviation <= Answer::TOLERANCE,
        Ok(None) => true,
        Err(_) => false,
    };
    Built { model, numbers: Numbers::F32, deviation, passed, check, note }
}
