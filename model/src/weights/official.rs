//! Files of the official release, `diffit_256.safetensors` and `diffit_512.safetensors`, in their
//! original form.
//!
//! They contain no configuration. It follows from their tensors, which have the same names as those
//! of a latent model in this project's format. Two kinds of their tensors are computed here: the
//! position embedding and, for every block, the index of relative positions. Both are compared with
//! the computed values.

use safetensors::tensor::Dtype;

use crate::config::{LatentConfig, ModelConfig, Modulation, NetworkConfig, Position};
use crate::network::latent::position_embedding;
use crate::network::window::relative_position_index;
use crate::weights::card::Card;
use crate::weights::classes::IMAGENET;
use crate::weights::error::{FLOATS, TensorProblem, WeightsError};
use crate::weights::tensor_file::{TensorFile, int_values};

const POSITIONS: &str = "pos_embed";

/// Returns the preset that matches the tensors of a file without a configuration.
///
/// # Errors
///
/// If the tensors are not those of the official release, or of a size that was not released.
pub(crate) fn recognise(tensors: &TensorFile) -> Result<ModelConfig, WeightsError> {
    let shape = tensors.info(POSITIONS).map(|info| info.shape.clone()).unwrap_or_default();
    let names = tensors.names();
    let has = |end: &str| names.iter().any(|name| name.ends_with(end));
    let modulation = if has(".attn.qkv_temb.weight") {
        Modulation::Tmsa
    } else if names.contains(&"blocks.0.adaLN_modulation.1.weight".to_string()) {
        Modulation::AdalnZero
    } else {
        return Err(foreign(tensors));
    };
    if shape.is_empty() {
        return Err(foreign(tensors));
    }
    let presets: Vec<(ModelConfig, [usize; 3])> = crate::config::preset::all()
        .into_iter()
        .filter_map(|(_, config)| match &config.network {
            NetworkConfig::Latent(latent) if latent.modulation == modulation => {
                let positions = [1, latent.side().pow(2), latent.width];
                Some((config, positions))
            }
            _ => None,
        })
        .collect();
    let known: Vec<[usize; 3]> = presets.iter().map(|(_, positions)| *positions).collect();
    let fits = presets.into_iter().find(|(_, positions)| positions[..] == shape);
    fits.map(|(config, _)| config).ok_or(WeightsError::Size { found: shape, known })
}

/// Returns the error for a file that holds no DiffiT model.
pub(crate) fn foreign(tensors: &TensorFile) -> WeightsError {
    let mut first = tensors.names();
    let count = first.len();
    first.sort_unstable();
    first.truncate(3);
    WeightsError::Foreign { count, first }
}

/// Returns the model card for a file of the official release, which has none.
pub(crate) fn card(config: &LatentConfig) -> Card {
    let side = 8 * config.resolution;
    // The release was trained on ImageNet.
    let classes = IMAGENET.iter().filter(|_| config.classes == IMAGENET.len());
    let (name, release) = match config.modulation {
        Modulation::Tmsa => ("DiffiT", "NVIDIA's"),
        Modulation::AdalnZero => ("DiT", "Meta's"),
    };
    Card {
        name: format!("{name} {side}, official layout"),
        summary: format!(
            "Latents of {side}x{side} pictures in {} classes, for the autoencoder of Stable Diffusion.",
            config.classes
        ),
        licence: format!(
            "as stated where the file comes from; {release} release is for non-commercial use"
        ),
        classes: classes.map(ToString::to_string).collect(),
        ..Card::default()
    }
}

/// Returns the names and shapes of the tensors that are computed and not learned.
pub(crate) fn fixed(config: &LatentConfig) -> Vec<(String, Vec<usize>)> {
    let mut fixed = vec![(POSITIONS.to_string(), vec![1, config.side().pow(2), config.width])];
    if config.transformer.position != Position::None {
        let n = config.window.on(config.side()).pow(2);
        fixed.extend((0..config.depth).map(|i| (index_name(i), vec![n, n])));
    }
    fixed
}

fn index_name(block: usize) -> String {
    format!("blocks.{block}.attn.relative_position_index")
}

/// Compares the computed tensors of a file with ours. Returns those that are missing or have
/// another shape or type.
///
/// # Errors
///
/// The first tensor with another value.
pub(crate) fn check_fixed(
    tensors: &TensorFile,
    config: &LatentConfig,
) -> Result<Vec<TensorProblem>, WeightsError> {
    let mut problems = Vec::new();
    let relative_index = relative_position_index(config.window.on(config.side()));
    for (name, shape) in fixed(config) {
        let Some(info) = tensors.info(&name) else {
            problems.push(TensorProblem::Missing { name, shape });
            continue;
        };
        if info.shape != shape {
            let found = info.shape.clone();
            problems.push(TensorProblem::Shape { name, found, expected: shape });
            continue;
        }
        let difference = if name == POSITIONS {
            let ours = position_embedding(config.side(), config.width);
            tensors.values(&name)?.map(|theirs| {
                // The stored values are rounded to the precision of the file.
                let tolerance = match info.dtype {
                    Dtype::F32 => 1e-6,
                    Dtype::F16 => 1e-3,
                    _ => 1e-2,
                };
                let near = |a: f32, b: f32| (a - b).abs() <= tolerance;
                first_difference(theirs.into_iter(), ours.into_iter(), near)
            })
        } else {
            int_values(info.dtype, &tensors.data(info)?).map(|theirs| {
                let ours = relative_index.iter().map(|&i| i as i64);
                first_difference(theirs, ours, |a, b| a == b)
            })
        };
        match difference {
            Some(None) => {}
            Some(Some((index, found, expected))) => {
                return Err(WeightsError::Fixed { name, index, found, expected });
            }
            None => {
                let expected = if name == POSITIONS { FLOATS } else { "I64" };
                let found = format!("{:?}", info.dtype);
                problems.push(TensorProblem::Type { name, found, expected });
            }
        }
    }
    Ok(problems)
}

/// Returns the first index at which two lists differ, and the values there.
fn first_difference<T: Copy + ToString>(
    theirs: impl Iterator<Item = T>,
    ours: impl Iterator<Item = T>,
    same: impl Fn(T, T) -> bool,
) -> Option<(usize, String, String)> {
    let mut pairs = theirs.zip(ours).enumerate();
    let (index, (found, expected)) = pairs.find(|(_, (a, b))| !same(*a, *b))?;
    Some((index, found.to_string(), expected.to_string()))
}

#[cfg(test)]
mod tests;
