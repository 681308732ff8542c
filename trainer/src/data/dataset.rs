//! Datasets ready for training: all images usable and of one size.

use std::path::Path;

use model::config::ModelConfig;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::augment::mirror_x;
use super::error::DataError;
use super::item::Classes;
use super::latents::{Latents, Origin};
use super::source::{is_latents, read_usable};
use crate::files::hash::hex;

/// An entry of a dataset: an image, or the distribution of its latent.
pub struct Entry {
    /// Image with values from -1 to 1, or mean of its latent, `[C, H, W]`.
    pub image: Vec<f32>,
    /// Standard deviation of the latent, `[C, H, W]`. `None` for images.
    pub std: Option<Vec<f32>>,
    /// Class.
    pub class: Option<usize>,
}

/// Fingerprint of a dataset of images: equal if training on the datasets is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Number of images.
    pub images: usize,
    /// SHA-256 of the values and classes of the images, in the order of training.
    pub sha256: String,
}

/// A dataset ready for training.
pub struct Dataset {
    /// Shape of an image or latent, `[C, H, W]`.
    pub shape: [usize; 3],
    /// Classes; empty if the data or the model has none.
    pub class_names: Classes,
    store: Store,
    /// Class of each image; empty if `class_names` is.
    classes: Vec<Option<u32>>,
}

enum Store {
    /// Images, `[C, H, W]` each.
    Images(Vec<Vec<u8>>),
    Latents(Latents),
}

impl Dataset {
    /// Opens a dataset for a model. With `resize`, images of other sizes are center-cropped to a
    /// square and resized; latents are not.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is empty, does not fit the model, or has unusable images.
    pub fn open(path: &Path, model: &ModelConfig, resize: bool) -> Result<Self, DataError> {
        let shape = model.image_shape();
        let (store, mut classes, mut class_names) = if is_latents(path) {
            let latents = Latents::open(path)?;
            if latents.shape != shape {
                let side = shape[1] * latents.origin.vae.factor();
                let reason = format!(
                    "its latents are {:?}, but the model takes {shape:?}; `trainer data encode \
                     --size {side}` encodes latents of {} values a side",
                    latents.shape, shape[1]
                );
                return Err(DataError::Latents { path: path.to_owned(), reason });
            }
            let labels = latents.labels.iter().map(|label| Some(*label)).collect();
            let names = latents.origin.classes.clone().into();
            (Store::Latents(latents), labels, names)
        } else {
            if ![1, 3].contains(&shape[0]) {
                return Err(DataError::Channels(shape[0]));
            }
            let (mut images, mut labels) = (Vec::new(), Vec::new());
            let names = read_usable(path, |image, class| {
                let image = if resize { image.center_crop(shape[1])? } else { image };
                images.push(image.channels_first(shape)?);
                labels.push(class);
                Ok(())
            })?;
            (Store::Images(images), labels, names)
        };
        let known = model.classes();
        let found = class_names.names.len();
        if known == 0 {
            classes.clear();
            class_names = Classes::default();
        } else if found > known {
            return Err(DataError::Classes { path: path.to_owned(), found, known });
        }
        Ok(Self { shape, store, class_names, classes })
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        match &self.store {
            Store::Images(images) => images.len(),
            Store::Latents(latents) => latents.len(),
        }
    }

    /// Returns the origin of a latent dataset. `None` for images.
    pub fn latents_of(&self) -> Option<&Origin> {
        match &self.store {
            Store::Images(_) => None,
            Store::Latents(latents) => Some(&latents.origin),
        }
    }

    /// Returns the fingerprint of a dataset of images. `None` for latents, whose origin has hashes.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let Store::Images(images) = &self.store else { return None };
        let hashes: Vec<[u8; 32]> =
            images.par_iter().map(|image| Sha256::digest(image).into()).collect();
        let mut hasher = Sha256::new();
        for size in self.shape {
            hasher.update((size as u64).to_le_bytes());
        }
        for (i, hash) in hashes.iter().enumerate() {
            hasher.update(hash);
            // 0 is an image without a class.
            let class = self.classes.get(i).copied().flatten().map_or(0, |class| class + 1);
            hasher.update(class.to_le_bytes());
        }
        Some(Fingerprint { images: images.len(), sha256: hex(&hasher.finalize()) })
    }

    /// Returns an entry, or the entry of its mirror image.
    pub fn entry(&self, index: usize, mirrored: bool) -> Entry {
        let class = self.classes.get(index).copied().flatten().map(|class| class as usize);
        match &self.store {
            Store::Images(images) => {
                let mut image = vec![0.0; images[index].len()];
                model::image::from_bytes(&images[index], &mut image);
                if mirrored {
                    mirror_x(&mut image, self.shape[2]);
                }
                Entry { image, std: None, class }
            }
            Store::Latents(latents) => {
                let [image, std] = latents.moments(index, mirrored);
                Entry { image, std: Some(std), class }
            }
        }
    }
}
