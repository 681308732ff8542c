//! Images that are decoded when they are needed, because not all of them fit into memory.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::dataset::Opening;
use super::decode::{DecodedImage, check_size};
use super::error::DataError;
use super::source::{Source, Unusable};

/// Images that are read when they are needed. Those that were read first stay in memory while they
/// fit: every image is needed once in an epoch, in an order that differs between epochs, so that none
/// is more likely to be needed soon than another.
pub struct OnDemand {
    path: PathBuf,
    source: Box<dyn Source>,
    shape: [usize; 3],
    resize: bool,
    /// Images in memory, `[C, H, W]` each.
    kept: Vec<OnceLock<Box<[u8]>>>,
    /// Memory in bytes for all images.
    memory: u64,
    /// Memory in bytes for further images.
    left: AtomicU64,
}

impl OnDemand {
    /// Checks the headers of all files of a source.
    ///
    /// # Errors
    ///
    /// If there are no images, or some cannot be used, as far as their headers tell.
    pub fn open(
        path: &Path,
        source: Box<dyn Source>,
        shape: [usize; 3],
        resize: bool,
        opening: Opening,
    ) -> Result<Self, DataError> {
        let mut unusable = Unusable::default();
        let size = |i| match source.size(i)? {
            _ if resize => Ok(()),
            size => check_size(size, [shape[2], shape[1]]),
        };
        source.in_order(opening.bar.then_some("reading sizes:"), size, |i, size| {
            unusable.note(&source.index().images[i].name, size);
            ControlFlow::Continue(())
        });
        unusable.check(path)?;
        let kept = source.index().images.iter().map(|_| OnceLock::new()).collect();
        let left = AtomicU64::new(opening.memory);
        let memory = opening.memory;
        Ok(Self { path: path.to_owned(), source, shape, resize, kept, memory, left })
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Returns the memory in bytes for all images.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Returns the memory in bytes for further images.
    pub fn memory_left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Returns an image, `[C, H, W]`.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or does not have the size of its header.
    pub fn get(&self, i: usize) -> Result<Cow<'_, [u8]>, DataError> {
        if let Some(image) = self.kept[i].get() {
            return Ok(Cow::Borrowed(image));
        }
        let read = |i| pixels(self.source.image(i)?, self.shape, self.resize);
        let image = self.source.get(i, read).map_err(|reason| {
            let name = self.source.index().images[i].name.to_string();
            DataError::Image { path: self.path.clone(), name, reason }
        })?;
        let size = image.len() as u64;
        let take = |left: u64| left.checked_sub(size);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Ok(Cow::Owned(image));
        }
        // Another thread may have read the same image in the meantime.
        if let Err(image) = self.kept[i].set(image.into()) {
            self.left.fetch_add(size, Ordering::Relaxed);
            return Ok(Cow::Owned(image.into()));
        }
        Ok(Cow::Borrowed(self.kept[i].get().expect("it was just kept")))
    }
}

/// Returns the values of an image in the layout `[C, H, W]`. With `resize`, an image of another size
/// is center-cropped to a square and resized.
///
/// # Errors
///
/// If the image has another size.
pub fn pixels(image: DecodedImage, shape: [usize; 3], resize: bool) -> Result<Vec<u8>, String> {
    let image = if resize { image.center_crop(shape[1])? } else { image };
    image.channels_first(shape)
}
