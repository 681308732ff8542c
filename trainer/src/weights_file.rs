//! Weights for the commands that use a model: from a weights file, a checkpoint, a run folder, or
//! the program itself.

use std::ops::Deref;
use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use memmap2::Mmap;
use model::Model;
use model::card::Card;
use model::weights::Weights;
use sha2::{Digest, Sha256};

use crate::checkpoint::{self, Checkpoint, Part};
use crate::export;
use crate::mapped::map;
use crate::report::warn;
use crate::shipped;

/// A model with what is known of it.
pub struct Loaded {
    /// The model, ready to compute.
    pub model: Model,
    /// Its card.
    pub card: Card,
    /// SHA-256 of the file it came from.
    pub sha256: String,
}

/// A file as it lies on the disk, or in the program.
pub enum Bytes {
    /// Part of the program.
    Shipped(&'static [u8]),
    /// A file that the system reads where it is looked at, so that weights of gigabytes are not in
    /// memory twice.
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

/// Opens a file that is expected to hold weights: `None` stands for the shipped ones, a run
/// folder for its latest checkpoint that is whole.
///
/// # Errors
///
/// If it cannot be read.
pub fn read(path: Option<&Path>) -> anyhow::Result<Bytes> {
    let Some(path) = path else { return Ok(Bytes::Shipped(shipped::WEIGHTS)) };
    let path = if path.is_dir() { checkpoint::find(path, warn)?.1 } else { path.to_owned() };
    map(&path).map(Bytes::Mapped).with_context(|| format!("cannot read {}", path.display()))
}

/// Loads a model. Of a checkpoint it is the moving average.
///
/// # Errors
///
/// If the file cannot be read or is not what it should be.
pub fn load(path: Option<&Path>, device: &Device) -> anyhow::Result<Loaded> {
    let bytes = read(path)?;
    let name = path.map_or_else(|| shipped::NAME.into(), |path| path.display().to_string());
    let sha256 = hex(&Sha256::digest(&*bytes));
    if Checkpoint::is_one(&bytes) {
        let checkpoint = Checkpoint::parse(&bytes).context(name)?;
        let card = export::card(&checkpoint.progress);
        return Ok(Loaded { model: checkpoint.model(Part::Ema, device), card, sha256 });
    }
    let weights = Weights::parse(&bytes).context(name)?;
    let card = weights.card().clone();
    Ok(Loaded { model: Model::from_weights(&weights, device), card, sha256 })
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
