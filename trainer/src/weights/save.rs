//! Writing weights files.

use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use model::Model;
use model::card::Card;
use model::weights::{Precision, Weights, to_bytes};

use crate::files::atomic::write;

/// Writes a model as a weights file, and returns its size in bytes.
///
/// # Errors
///
/// If a value is not finite or the file cannot be written.
pub fn save(
    path: &Path,
    model: &Model,
    card: &Card,
    precision: Precision,
) -> anyhow::Result<usize> {
    let parameters = || model.parameters();
    // The known answer is that of the stored weights, which may be rounded.
    let rounded = to_bytes(&model.config, card, None, parameters(), precision)?;
    let device = Device::flex();
    let rounded = Model::from_weights(&Weights::parse(&rounded)?, &device);
    let answer = pollster::block_on(rounded.answer(&device)).context("the known answer")?;
    let bytes = to_bytes(&model.config, card, Some(&answer), parameters(), precision)?;
    write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(bytes.len())
}
