//! Loading models from weights files, checkpoints, run folders, or the shipped weights.

use std::ops::Deref;
use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use memmap2::Mmap;
use model::Model;
use model::card::Card;
use model::weights::Weights;

use super::card::card;
use super::shipped;
use crate::files::hash::sha256;
use crate::files::mapped::map;
use crate::run::checkpoint::{self, Checkpoint, Part};
use crate::run::report::warn;

/// A model and its origin.
pub struct LoadedModel {
    /// Model on the requested device.
    pub model: Model,
    /// Model card.
    pub card: Card,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Content of a file.
pub enum Bytes {
    /// Content of a file that is part of the program.
    Shipped(&'static [u8]),
    /// Memory-mapped file, so that large weights are in memory once.
    Mapped(Mmap),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Shipped(bytes) => bytes,
            Bytes::Mapped(map) => map,
        }
    }
}

/// Opens a weights file or checkpoint. For a run folder, opens its latest undamaged checkpoint; for
/// `None`, the shipped weights.
///
/// # Errors
///
/// If it cannot be read.
pub fn read(path: Option<&Path>) -> anyhow::Result<Bytes> {
    let Some(path) = path else { return Ok(Bytes::Shipped(shipped::WEIGHTS)) };
    let path = if path.is_dir() { checkpoint::find(path, warn)?.1 } else { path.to_owned() };
    map(&path).map(Bytes::Mapped).with_context(|| format!("cannot read {}", path.display()))
}

/// Loads a model. For a checkpoint, this is the moving average.
///
/// # Errors
///
/// If the file cannot be read or is invalid.
pub fn load(path: Option<&Path>, device: &Device) -> anyhow::Result<LoadedModel> {
    let bytes = read(path)?;
    let name = path.map_or_else(|| shipped::NAME.into(), |path| path.display().to_string());
    let sha256 = sha256(&bytes);
    if Checkpoint::is_checkpoint(&bytes) {
        let checkpoint = Checkpoint::parse(&bytes).context(name)?;
        let card = card(&checkpoint.progress);
        return Ok(LoadedModel { model: checkpoint.model(Part::Ema, device), card, sha256 });
    }
    let weights = Weights::parse(&bytes).context(name)?;
    let card = weights.card().clone();
    Ok(LoadedModel { model: Model::from_weights(&weights, device), card, sha256 })
}
