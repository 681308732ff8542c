//! Memory of datasets whose headers have been checked, so that the next start need not read them again.
//!
//! To read the headers of a million files takes minutes. A check that found nothing wrong leaves an
//! empty file in the user's cache folder, named by the fingerprint of the dataset. Where that file is
//! missing or cannot be written, headers are read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::files::hash::hex;

/// Record of one check: of a dataset, for images of one size.
pub struct Checked {
    /// Path of its file. `None` without a cache folder, or if files of a dataset could change unnoticed.
    file: Option<PathBuf>,
}

impl Checked {
    /// Returns the record of the check of the dataset at `path` with this fingerprint, hashes of its
    /// names and of what is known of its files, for images of `shape`, `[C, H, W]`, that are resized or
    /// not.
    pub fn new(
        path: &Path,
        names_sha256: &str,
        stored: Option<&str>,
        shape: [usize; 3],
        resize: bool,
    ) -> Self {
        let variables = ["XDG_CACHE_HOME", "HOME"].map(std::env::var_os);
        Self::in_folder(cache_folder(variables), path, names_sha256, stored, shape, resize)
    }

    /// Returns the record of [`Self::new`] in another folder than that of the user.
    pub(super) fn in_folder(
        folder: Option<PathBuf>,
        path: &Path,
        names_sha256: &str,
        stored: Option<&str>,
        [_, height, width]: [usize; 3],
        resize: bool,
    ) -> Self {
        let whole = std::path::absolute(path).ok();
        let file = folder.zip(whole).zip(stored).map(|((folder, path), stored)| {
            let mut key = Sha256::new();
            key.update(path.as_os_str().as_encoded_bytes());
            key.update(format!("\0{names_sha256} {stored} {height} {width} {resize}"));
            folder.join(hex(&key.finalize()))
        });
        Self { file }
    }

    /// Returns whether the check was made before and found nothing wrong.
    pub fn is_known(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.exists())
    }

    /// Records that the check found nothing wrong.
    pub fn remember(&self) {
        let Some(file) = &self.file else { return };
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = made.and_then(|()| std::fs::write(file, "")) {
            tracing::debug!(file = %file.display(), %error, "cannot record that headers were checked");
        }
    }
}

/// Returns the folder of the records, given the values of `XDG_CACHE_HOME` and `HOME`.
fn cache_folder([cache, home]: [Option<OsString>; 2]) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let cache = cache.and_then(absolute);
    let cache = cache.or_else(|| Some(home.and_then(absolute)?.join(".cache")))?;
    Some(cache.join("diffit").join("checked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_of_one_dataset_and_one_size() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let record = |path: &str, names: &str, stored: Option<&str>, side, resize| {
            let folder = Some(folder.path().join("checked"));
            Checked::in_folder(folder, Path::new(path), names, stored, [3, side, side], resize)
        };
        let first = record("a", "names", Some("sizes:1"), 32, false);
        assert!(!first.is_known());
        first.remember();
        assert!(first.is_known());
        assert!(record("a", "names", Some("sizes:1"), 32, false).is_known());
        for other in [
            record("b", "names", Some("sizes:1"), 32, false),
            record("a", "others", Some("sizes:1"), 32, false),
            record("a", "names", Some("sizes:2"), 32, false),
            record("a", "names", Some("sizes:1"), 64, false),
            record("a", "names", Some("sizes:1"), 32, true),
        ] {
            assert!(!other.is_known());
        }
    }

    #[test]
    fn nothing_is_recorded_of_files_that_could_change_unnoticed_or_without_a_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let of = |folder, stored| {
            Checked::in_folder(folder, Path::new("a"), "names", stored, [3, 32, 32], false)
        };
        for record in [of(Some(folder.path().into()), None), of(None, Some("sizes:1"))] {
            record.remember();
            assert!(!record.is_known());
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn the_folder_is_that_of_the_user() {
        let folder = |cache: &str, home: &str| {
            let set = |value: &str| (!value.is_empty()).then(|| OsString::from(value));
            cache_folder([set(cache), set(home)])
        };
        assert_eq!(folder("/c", "/h"), Some("/c/diffit/checked".into()));
        assert_eq!(folder("", "/h"), Some("/h/.cache/diffit/checked".into()));
        // Relative paths are to be ignored.
        assert_eq!(folder("c", "/h"), Some("/h/.cache/diffit/checked".into()));
        assert_eq!(folder("", ""), None);
    }
}
