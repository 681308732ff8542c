//! Datasets ready for training: all images usable and of one size.

use std::ops::ControlFlow;
use std::path::Path;

use model::config::ModelConfig;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::augment::mirror_x;
use super::checked::Checked;
use super::error::DataError;
use super::item::{Classes, Index, Listed, Stored};
use super::latents::{Latents, Origin};
use super::on_demand::{OnDemand, pixels};
use super::source::{self, Reads, Source, Unusable, is_latents};
use crate::files::hash::hex;
use crate::memory;

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
    /// SHA-256 of the values and classes of the images, in the order of training. `None` if the
    /// images are not in memory: to read them all would take as long as to train on them once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// SHA-256 of the names and classes of the images, in the order of training. `None` in
    /// checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names_sha256: Option<String>,
    /// SHA-256 of what is known of the stored images without reading them, in the order of training, after
    /// the name of what that is. `None` if nothing is, and in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
}

/// What differs between datasets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The number of images.
    Count,
    /// The values of images, their order or their classes.
    Values,
    /// The names of images, their order or their classes.
    Names,
    /// The sizes or checksums of stored images.
    Stored,
}

impl Fingerprint {
    /// Returns what differs if two fingerprints cannot be of the same images. If the images of one were
    /// not in memory, their names are compared, and their sizes or checksums if both are known: those of
    /// the same files in an archive of another format may not be.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        let differ = |a: &Option<String>, b: &Option<String>| Some(a.as_ref()? != b.as_ref()?);
        let kind = |stored: &Option<String>| Some(stored.as_ref()?.split_once(':')?.0.to_string());
        if self.images != other.images {
            return Some(Difference::Count);
        }
        if let Some(differ) = differ(&self.sha256, &other.sha256) {
            return differ.then_some(Difference::Values);
        }
        if differ(&self.names_sha256, &other.names_sha256) == Some(true) {
            return Some(Difference::Names);
        }
        let comparable = kind(&self.stored) == kind(&other.stored);
        let changed = comparable && differ(&self.stored, &other.stored) == Some(true);
        changed.then_some(Difference::Stored)
    }

    /// Adds what is known from the fingerprint of an earlier part of the run.
    pub fn or(self, earlier: Option<&Self>) -> Self {
        let earlier = |of: fn(&Self) -> &Option<String>| earlier.and_then(|f| of(f).clone());
        Self {
            images: self.images,
            sha256: self.sha256.or_else(|| earlier(|f| &f.sha256)),
            names_sha256: self.names_sha256.or_else(|| earlier(|f| &f.names_sha256)),
            stored: self.stored.or_else(|| earlier(|f| &f.stored)),
        }
    }
}

/// How a dataset is opened.
#[derive(Clone, Copy)]
pub struct Opening {
    /// Maximum memory for decoded images in bytes. Beyond it, they are read when they are needed.
    pub memory: u64,
    /// Whether to show the progress.
    pub bar: bool,
    /// Whether images that cannot be used are left out. All images are decoded for that. Otherwise
    /// such images are an error.
    pub skip_bad: bool,
}

impl Default for Opening {
    fn default() -> Self {
        Self { memory: memory::for_images(), bar: true, skip_bad: false }
    }
}

/// A dataset ready for training.
pub struct Dataset {
    /// Shape of an image or latent, `[C, H, W]`.
    pub shape: [usize; 3],
    /// Classes; empty if the data or the model has none.
    pub class_names: Classes,
    store: Store,
    /// SHA-256 of names and classes of images.
    names_sha256: Option<String>,
    /// What is known of the stored images without reading them, as in [`Fingerprint`].
    stored: Option<String>,
    /// What is read of the data and what is not, if there was a choice.
    pub note: Option<String>,
    /// Which images were left out because they cannot be used, for a message.
    pub left_out: Option<String>,
    /// Class of each image; empty if `class_names` is.
    classes: Vec<Option<u32>>,
}

enum Store {
    /// Images, `[C, H, W]` each.
    Images(Vec<Vec<u8>>),
    /// Images that are not, or not all, in memory.
    OnDemand(OnDemand),
    Latents(Latents),
}

impl Dataset {
    /// Opens a dataset for a model, as [`Dataset::open_with`] does, with the default memory.
    ///
    /// # Errors
    ///
    /// As [`Dataset::open_with`].
    #[cfg(test)]
    pub fn open(path: &Path, model: &ModelConfig, resize: bool) -> Result<Self, DataError> {
        Self::open_with(path, model, resize, Opening::default())
    }

    /// Opens a dataset for a model. With `resize`, images of other sizes are center-cropped to a square
    /// and resized; latents are not.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is empty, does not fit the model, or has unusable images that are not left
    /// out. If the images do not fit into memory, such ones with good headers are found later.
    pub fn open_with(
        path: &Path,
        model: &ModelConfig,
        resize: bool,
        opening: Opening,
    ) -> Result<Self, DataError> {
        let shape = model.image_shape();
        let (mut names_sha256, mut stored, mut note, mut left_out) = (None, None, None, None);
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
            let mut source = source::open(path, opening.bar)?;
            if opening.skip_bad {
                let check =
                    |source: &dyn Source, i| pixels(source.image(i)?, shape, resize).map(drop);
                (source, left_out) = source::without_unusable(path, source, opening.bar, check)?;
            }
            let size = source.index().images.len() as u64 * shape.iter().product::<usize>() as u64;
            let labels: Vec<_> = source.index().images.iter().map(|listed| listed.class).collect();
            let names = source.index().classes.clone();
            names_sha256 = Some(hash_of_names(source.index()));
            stored = hash_of_stored(source.index());
            note.clone_from(&source.index().note);
            let store = if size <= opening.memory {
                Store::Images(read_all(path, &*source, shape, resize, opening)?)
            } else {
                let names = names_sha256.as_deref().unwrap_or_default();
                let checked = Checked::new(path, names, stored.as_deref(), shape, resize);
                Store::OnDemand(OnDemand::open(path, source, shape, resize, opening, &checked)?)
            };
            (store, labels, names)
        };
        let known = model.classes();
        let found = class_names.names.len();
        if known == 0 {
            classes.clear();
            class_names = Classes::default();
        } else if found > known {
            return Err(DataError::Classes { path: path.to_owned(), found, known });
        }
        Ok(Self { shape, store, names_sha256, stored, note, left_out, class_names, classes })
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        match &self.store {
            Store::Images(images) => images.len(),
            Store::OnDemand(images) => images.len(),
            Store::Latents(latents) => latents.len(),
        }
    }

    /// Returns whether entries are read from their files when they are needed.
    pub fn is_on_demand(&self) -> bool {
        matches!(self.store, Store::OnDemand(_))
    }

    /// Returns the memory in bytes that images take, or may take.
    pub fn memory(&self) -> u64 {
        match &self.store {
            Store::Images(images) => images.iter().map(|image| image.len() as u64).sum(),
            Store::OnDemand(images) => images.memory(),
            Store::Latents(_) => 0,
        }
    }

    /// Returns the memory in bytes that may yet be taken for images.
    pub fn memory_to_come(&self) -> u64 {
        match &self.store {
            Store::OnDemand(images) => images.memory_left(),
            Store::Images(_) | Store::Latents(_) => 0,
        }
    }

    /// Returns the origin of a latent dataset. `None` for images.
    pub fn latents_of(&self) -> Option<&Origin> {
        match &self.store {
            Store::Images(_) | Store::OnDemand(_) => None,
            Store::Latents(latents) => Some(&latents.origin),
        }
    }

    /// Returns the hashes of a latent dataset, which are equal if training on the datasets is. `None`
    /// for images.
    pub fn latents_hashes(&self) -> Option<[String; 2]> {
        match &self.store {
            Store::Images(_) | Store::OnDemand(_) => None,
            Store::Latents(latents) => Some(latents.hashes()),
        }
    }

    /// Returns the fingerprint of a dataset of images. `None` for latents, whose origin has hashes.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let sha256 = match &self.store {
            Store::Images(images) => Some(self.hash_of_values(images)),
            Store::OnDemand(_) => None,
            Store::Latents(_) => return None,
        };
        let (names_sha256, stored) = (self.names_sha256.clone(), self.stored.clone());
        Some(Fingerprint { images: self.len(), sha256, names_sha256, stored })
    }

    fn hash_of_values(&self, images: &[Vec<u8>]) -> String {
        let hashes: Vec<[u8; 32]> =
            images.par_iter().map(|image| Sha256::digest(image).into()).collect();
        let mut hasher = Sha256::new();
        for size in self.shape {
            hasher.update((size as u64).to_le_bytes());
        }
        for (i, hash) in hashes.iter().enumerate() {
            hasher.update(hash);
            hasher.update(number(self.classes.get(i).copied().flatten()));
        }
        hex(&hasher.finalize())
    }

    /// Returns an entry, or the entry of its mirror image.
    ///
    /// # Errors
    ///
    /// If its file can no longer be read, or is found to be damaged.
    pub fn entry(&self, index: usize, mirrored: bool) -> Result<Entry, DataError> {
        let class = self.classes.get(index).copied().flatten().map(|class| class as usize);
        let image = |pixels: &[u8]| {
            let mut image = vec![0.0; pixels.len()];
            model::image::from_bytes(pixels, &mut image);
            if mirrored {
                mirror_x(&mut image, self.shape[2]);
            }
            Entry { image, std: None, class }
        };
        Ok(match &self.store {
            Store::Images(images) => image(&images[index]),
            Store::OnDemand(images) => image(&images.get(index)?),
            Store::Latents(latents) => {
                let [image, std] = latents.moments(index, mirrored);
                Entry { image, std: Some(std), class }
            }
        })
    }
}

/// Reads all images of a source.
///
/// # Errors
///
/// If there are none, or some cannot be used.
fn read_all(
    path: &Path,
    source: &dyn Source,
    shape: [usize; 3],
    resize: bool,
    opening: Opening,
) -> Result<Vec<Vec<u8>>, DataError> {
    let (mut images, mut unusable) = (Vec::new(), Unusable::default());
    let read = |i| pixels(source.image(i)?, shape, resize);
    source.in_order(opening.bar.then_some("reading"), Reads::Images, read, |i, image| {
        images.extend(unusable.note(&source.index().images[i].name, image));
        ControlFlow::Continue(())
    });
    unusable.check(path)?;
    Ok(images)
}

/// Returns the bytes of a class in a hash.
fn number(class: Option<u32>) -> [u8; 4] {
    // 0 is an image without a class.
    class.map_or(0, |class| class + 1).to_le_bytes()
}

/// Returns the hash of the names and classes of images.
fn hash_of_names(index: &Index) -> String {
    let mut hasher = Sha256::new();
    for Listed { name, class, .. } in &index.images {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(number(*class));
    }
    hex(&hasher.finalize())
}

/// Returns the hash of what is known of stored images, after the name of what that is. `None` if it is not
/// the same for all.
fn hash_of_stored(index: &Index) -> Option<String> {
    let known = |listed: &Listed| match listed.stored {
        Stored::Unknown => None,
        Stored::Size(size) => Some(("sizes", size)),
        Stored::Page(size) => Some(("pages", size)),
        Stored::Crc(crc) => Some(("crc32", crc.into())),
    };
    let (kind, _) = known(index.images.first()?)?;
    let mut hasher = Sha256::new();
    for listed in &index.images {
        let (_, value) = known(listed).filter(|(other, _)| *other == kind)?;
        hasher.update(u64::to_le_bytes(value));
    }
    Some(format!("{kind}:{}", hex(&hasher.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;

    fn emoji(memory: u64) -> Dataset {
        let config = TrainConfig::preset("tiny-emoji").expect("a preset");
        let opening = Opening { memory, bar: false, skip_bad: false };
        Dataset::open_with(&config.data, &config.model, false, opening).expect("embedded")
    }

    #[test]
    fn images_on_demand_are_those_in_memory() {
        let all = emoji(1911 * 3072);
        let few = emoji(1911 * 3072 - 1);
        assert!(few.is_on_demand() && !all.is_on_demand());
        assert_eq!([few.len(), all.len()], [1911; 2]);
        // Memory for ten images and a bit more.
        let few = emoji(10 * 3072 + 5);
        for (memory_to_come, pass) in [(10 * 3072 + 5, 0..4), (6 * 3072 + 5, 0..40), (5, 0..40)] {
            assert_eq!(few.memory_to_come(), memory_to_come);
            // From several threads.
            pass.into_par_iter().for_each(|i| {
                for mirrored in [false, true] {
                    let [a, b] = [&few, &all].map(|data| data.entry(i, mirrored).expect("read"));
                    assert_eq!((a.image, a.class), (b.image, b.class));
                }
            });
        }
        assert_eq!((few.memory_to_come(), few.memory(), all.memory()), (5, 30_725, 1911 * 3072));
    }

    #[test]
    fn fingerprints_match_if_what_both_have_is_equal() {
        let [all, few] = [u64::MAX, 0].map(|memory| emoji(memory).fingerprint().expect("images"));
        assert!(all.sha256.is_some() && few.sha256.is_none());
        assert_eq!(all.difference(&few), None);
        let other = |text: &str| Some(text.to_string());
        let values = Fingerprint { sha256: other("x"), ..all.clone() };
        let names = Fingerprint { names_sha256: other("x"), ..all.clone() };
        let sizes = Fingerprint { stored: other("sizes:x"), ..all.clone() };
        let sums = Fingerprint { stored: other("crc32:x"), ..all.clone() };
        // Names and sizes are compared only without values, sizes not with checksums.
        for (one, with_all, with_few) in [
            (&values, Some(Difference::Values), None),
            (&names, None, Some(Difference::Names)),
            (&sizes, None, Some(Difference::Stored)),
            (&sums, None, None),
        ] {
            assert_eq!(
                [one.difference(&all), one.difference(&few)],
                [with_all, with_few],
                "{one:?}"
            );
        }
        let more = Fingerprint { images: 7, ..all.clone() };
        assert_eq!(all.difference(&more), Some(Difference::Count));
        // Of earlier versions.
        let read = |json: &str| serde_json::from_str::<Fingerprint>(json).expect("it is read");
        let earlier = read(r#"{"images": 1911, "sha256": "x"}"#);
        assert_eq!(all.difference(&earlier), Some(Difference::Values));
        assert_eq!(few.difference(&earlier), None);
        let earlier = read(r#"{"images": 1911, "names_sha256": "x"}"#);
        assert_eq!(few.difference(&earlier), Some(Difference::Names));
        let earlier = Fingerprint { names_sha256: few.names_sha256.clone(), ..earlier };
        assert_eq!(few.difference(&earlier), None);
        assert_eq!(few.clone().or(Some(&all)), all);
        assert_eq!(few.clone().or(None), few);
    }
}
