//! Images that are decoded when they are needed, because not all of them fit into memory.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::checked::Checked;
use super::dataset::Opening;
use super::decode::{DecodedImage, check_size};
use super::error::DataError;
use super::source::{Reads, Source, Unusable};

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
    /// Checks the headers of all files of a source, unless `checked` says that this was done before.
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
        checked: &Checked,
    ) -> Result<Self, DataError> {
        if !checked.is_known() {
            Self::check_headers(path, &*source, shape, resize, opening)?;
            checked.remember();
        }
        let kept = source.index().images.iter().map(|_| OnceLock::new()).collect();
        let left = AtomicU64::new(opening.memory);
        let memory = opening.memory;
        Ok(Self { path: path.to_owned(), source, shape, resize, kept, memory, left })
    }

    /// Checks the headers of all files of a source.
    fn check_headers(
        path: &Path,
        source: &dyn Source,
        shape: [usize; 3],
        resize: bool,
        opening: Opening,
    ) -> Result<(), DataError> {
        let mut unusable = Unusable::default();
        let size = |i| match source.size(i)? {
            _ if resize => Ok(()),
            size => check_size(size, [shape[2], shape[1]]),
        };
        let bar = opening.bar.then_some("reading sizes:");
        source.in_order(bar, Reads::Headers, size, |i, size| {
            unusable.note(&source.index().images[i].name, size);
            ControlFlow::Continue(())
        });
        unusable.check(path)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::item::{Index, Listed, Stored};
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    /// Images of 2x2 pixels that count how often their headers are read.
    struct Counting {
        index: Index,
        side: usize,
        headers: Arc<AtomicUsize>,
    }

    impl Source for Counting {
        fn index(&self) -> &Index {
            &self.index
        }

        fn image(&self, _: usize) -> Result<DecodedImage, String> {
            Ok(DecodedImage {
                width: self.side,
                height: self.side,
                rgb: vec![7; 3 * self.side * self.side],
            })
        }

        fn size(&self, _: usize) -> Result<[usize; 2], String> {
            self.headers.fetch_add(1, Ordering::Relaxed);
            Ok([self.side, self.side])
        }
    }

    #[test]
    fn headers_are_read_until_they_were_found_to_be_good() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Path::new("data");
        let headers = Arc::new(AtomicUsize::new(0));
        let listed = |i: usize| Listed {
            name: format!("{i}.png").into(),
            class: None,
            problem: None,
            stored: Stored::Size(1),
        };
        let open = |side, stored| {
            let index = Index { images: (0..5).map(listed).collect(), ..Index::default() };
            let source = Counting { index, side, headers: headers.clone() };
            let checked = folder.path().to_owned();
            let checked =
                Checked::in_folder(Some(checked), path, "names", Some(stored), [3, 2, 2], false);
            let opening = Opening { memory: 0, bar: false, ..Opening::default() };
            headers.store(0, Ordering::Relaxed);
            let images =
                OnDemand::open(path, Box::new(source), [3, 2, 2], false, opening, &checked);
            (images, headers.load(Ordering::Relaxed))
        };
        for reads in [5, 0, 0] {
            let (images, read) = open(2, "sizes:1");
            let image = images.expect("all are good").get(4).expect("readable").into_owned();
            assert_eq!((read, image), (reads, vec![7; 12]));
        }
        // Other files, which are bad, are found each time.
        for _ in 0..2 {
            let (images, read) = open(3, "sizes:2");
            assert!(images.is_err() && read == 5);
        }
        // Files that changed unnoticed are found when they are needed.
        let (images, _) = open(3, "sizes:1");
        assert!(images.expect("it was checked before").get(0).is_err());
    }
}
