//! The list of the shipped weights, and the check of a download against it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The contents of `weights/manifest.json`, which `cargo xtask manifest` writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The models. The first is the default.
    pub models: Vec<Entry>,
}

/// A weights file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name, in the folder of the manifest.
    pub file: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Why a list or a download is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The list is not JSON of the expected form.
    #[error("the list of models cannot be read ({0})")]
    Json(String),
    /// The list has no model.
    #[error("the list of models is empty")]
    Empty,
    /// The list has a name with a path.
    #[error("the list of models names `{0}`, which is not a plain file name")]
    Name(String),
    /// The download has another size.
    #[error("{file}: {found} bytes arrived instead of {expected}")]
    Size {
        /// The file.
        file: String,
        /// Bytes of the download.
        found: u64,
        /// Bytes in the list.
        expected: u64,
    },
    /// The download has other contents.
    #[error("{0}: the download is not the published file (its hash differs)")]
    Hash(String),
}

impl Manifest {
    /// Parses the list.
    ///
    /// # Errors
    ///
    /// If it is not JSON of this form, is empty, or has names that are not plain file names.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self =
            serde_json::from_str(text).map_err(|e| ManifestError::Json(e.to_string()))?;
        if manifest.models.is_empty() {
            return Err(ManifestError::Empty);
        }
        for Entry { file, .. } in &manifest.models {
            if !is_plain(file) {
                return Err(ManifestError::Name(file.clone()));
            }
        }
        Ok(manifest)
    }
}

/// Returns whether a name is a plain file name: ASCII letters, digits, `-`, `_` and `.`, without a dot
/// at the start.
pub fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

impl Entry {
    /// The entry for a file.
    pub fn new(file: String, contents: &[u8]) -> Self {
        Self { file, bytes: contents.len() as u64, sha256: sha256(contents) }
    }

    /// Checks a download.
    ///
    /// # Errors
    ///
    /// If its size or hash differs.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), ManifestError> {
        let file = self.file.clone();
        let found = bytes.len() as u64;
        if found != self.bytes {
            return Err(ManifestError::Size { file, found, expected: self.bytes });
        }
        if sha256(bytes) != self.sha256 {
            return Err(ManifestError::Hash(file));
        }
        Ok(())
    }
}

/// Returns the title of a model from the name of its file, which is that of the dataset for the
/// shipped models.
pub fn title(file: &str) -> String {
    let stem = file.trim_end_matches(".safetensors");
    let name = stem.strip_prefix("tiny-").unwrap_or(stem);
    if name.starts_with("cifar10") {
        return name.replacen("cifar10", "CIFAR-10", 1);
    }
    let mut name = name.to_string();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    name
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Formats bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the plain file name in a query, such as `NAME` in `?weights=NAME` for the word `weights`.
pub fn named(query: &str, word: &str) -> Option<String> {
    let pairs = query.trim_start_matches('?').split('&');
    let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == word)?.1;
    is_plain(value).then(|| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn entry(file: &str) -> Entry {
        Entry { file: file.into(), bytes: 3, sha256: ABC.into() }
    }

    #[test]
    fn only_what_was_published_passes() {
        assert_eq!(entry("a").verify(b"abc"), Ok(()));
        assert_eq!(entry("a").verify(b"abd"), Err(ManifestError::Hash("a".into())));
        assert!(matches!(entry("a").verify(b"ab"), Err(ManifestError::Size { found: 2, .. })));
    }

    #[test]
    fn only_plain_names_pass() {
        let text = |file: &str| serde_json::to_string(&Manifest { models: vec![entry(file)] });
        assert!(Manifest::parse(&text("a-1.safetensors").expect("JSON")).is_ok());
        for name in ["", "../a", "a/b", "https://x", ".hidden", "a b", "a\\b", "a%2f"] {
            let error = Manifest::parse(&text(name).expect("JSON"));
            assert_eq!(error, Err(ManifestError::Name(name.into())));
        }
        assert_eq!(Manifest::parse(r#"{"models": []}"#), Err(ManifestError::Empty));
        assert!(matches!(Manifest::parse("<!DOCTYPE html>"), Err(ManifestError::Json(_))));
    }

    #[test]
    fn models_are_called_by_what_they_were_trained_on() {
        let titles = ["tiny-emoji.safetensors", "tiny-cifar10.safetensors", "mine.safetensors", ""];
        assert_eq!(titles.map(title), ["Emoji", "CIFAR-10", "Mine", ""]);
    }

    #[test]
    fn addresses_name_files_beside_the_page_only() {
        let named = |query| named(query, "vae");
        assert_eq!(named("?weights=a&vae=b-1.safetensors"), Some("b-1.safetensors".into()));
        for query in ["", "?vae", "?vae=", "?vae=../a", "?vae=//x", "?vae=a%2fb", "?xvae=a"] {
            assert_eq!(named(query), None, "{query}");
        }
    }

    /// Maximum size of all shipped weights together.
    const BUDGET: u64 = 16 << 20;

    /// Compares the shipped manifest with its files. With `DIFFIT_UPDATE=1` in the environment, it is
    /// written instead: the order is kept, new files come last.
    #[test]
    fn the_manifest_is_that_of_the_files() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../www/weights");
        let path = folder.join("manifest.json");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let order = Manifest::parse(&old).map_or(Vec::new(), |manifest| manifest.models);
        let files = std::fs::read_dir(&folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path());
        let mut models: Vec<Entry> = files
            .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
            .map(|path| {
                let file = path.file_name().expect("a name").to_string_lossy().into_owned();
                Entry::new(file, &std::fs::read(&path).expect("a file"))
            })
            .collect();
        let place = |entry: &Entry| order.iter().position(|o| o.file == entry.file);
        models.sort_by_key(|entry| (place(entry).unwrap_or(usize::MAX), entry.file.clone()));
        let total: u64 = models.iter().map(|entry| entry.bytes).sum();
        assert!(total <= BUDGET, "{total} bytes of weights, more than {BUDGET}");
        let new = serde_json::to_string_pretty(&Manifest { models }).expect("plain data") + "\n";
        if std::env::var_os("DIFFIT_UPDATE").is_some() {
            std::fs::write(&path, new).expect("written");
        } else {
            assert_eq!(old, new, "run `cargo xtask manifest`");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = Manifest::parse(&text);
        }
    }
}
