//! Errors of reading datasets.

use std::path::{Path, PathBuf};

/// Reason why a dataset cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// I/O error.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// Unknown format.
    #[error(
        "{path}: not a dataset of a known format: expected {formats}, or a latent dataset of \
         `trainer data encode`"
    )]
    Unknown {
        /// File or folder.
        path: PathBuf,
        /// Formats of images that can be read.
        formats: String,
    },
    /// Damaged archive, or one with other content than expected.
    #[error("{path}: {reason}")]
    Archive {
        /// Archive.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
    /// Path traversal in an archive.
    #[error("{path}: the path of the entry `{name}` is outside the archive")]
    Escape {
        /// Archive.
        path: PathBuf,
        /// Entry.
        name: String,
    },
    /// No images.
    #[error("{0}: contains no PNG or JPEG file")]
    Empty(PathBuf),
    /// Images for a latent model.
    #[error(
        "the data are images of 1 or 3 channels, but the model has {0} channels: for a latent model, \
         encode the images with `trainer data encode`"
    )]
    Channels(usize),
    /// Unusable latent dataset.
    #[error("{path}: cannot use this latent dataset: {reason}")]
    Latents {
        /// File.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
    /// More classes than the model has.
    #[error(
        "{path}: has {found} classes, but the model has {known}: set \
         {{\"model\": {{\"network\": {{\"classes\": {found}}}}}}} with --options"
    )]
    Classes {
        /// Dataset.
        path: PathBuf,
        /// Number of classes in the dataset.
        found: usize,
        /// Number of classes in the model.
        known: usize,
    },
    /// Invalid `dataset.json`.
    #[error("{path}: dataset.json: {reason}")]
    Labels {
        /// Folder or archive.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
    /// An image that became unusable, or whose file has a good header but is damaged.
    #[error("{path}: {name}: {reason}; `trainer data check` lists all images that cannot be used")]
    Image {
        /// Dataset.
        path: PathBuf,
        /// Image.
        name: String,
        /// Reason.
        reason: String,
    },
    /// Unusable images.
    #[error(
        "{path}: {count} of {total} images cannot be used:\n{list}\n(`trainer data check` lists all{})",
        without(.count, .total)
    )]
    Bad {
        /// Dataset.
        path: PathBuf,
        /// Number of unusable images.
        count: usize,
        /// Number of images.
        total: usize,
        /// The first unusable images with their reasons.
        list: String,
    },
}

/// Returns how to go on without unusable images, if that leaves some.
fn without(count: &usize, total: &usize) -> &'static str {
    if count < total { "; --skip-bad leaves them out" } else { "" }
}

impl DataError {
    /// Makes an I/O error.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Makes an error of an archive.
    pub fn archive(path: &Path, reason: impl ToString) -> Self {
        Self::Archive { path: path.to_owned(), reason: reason.to_string() }
    }
}
