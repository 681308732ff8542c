//! The list of weights that lie beside the page, and the check that what arrived is what is listed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// `weights/manifest.json`. `cargo xtask manifest` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The models there are; the first is the one shown first.
    pub models: Vec<Entry>,
}

/// One weights file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the folder of the manifest.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Why what arrived is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON that is expected.
    #[error("the list of models cannot be read ({0})")]
    Json(String),
    /// No model in it.
    #[error("the list of models is empty")]
    Empty,
    /// A file name that leads elsewhere.
    #[error("the list of models names `{0}`, which is not a plain file name")]
    Name(String),
    /// Another size.
    #[error("{file}: {found} bytes arrived, and there should be {expected}")]
    Size {
        /// The file.
        file: String,
        /// Bytes that arrived.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// Other contents.
    #[error("{0}: what arrived is not what was published (its hash differs)")]
    Hash(String),
}

impl Manifest {
    /// Reads the list.
    ///
    /// # Errors
    ///
    /// If it is not JSON of this form, is empty, or names anything but files beside it.
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

/// Whether a name is that of a file in the same folder.
pub fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

impl Entry {
    /// The entry of a file.
    pub fn new(file: String, contents: &[u8]) -> Self {
        Self { file, bytes: contents.len() as u64, sha256: sha256(contents) }
    }

    /// Checks what arrived.
    ///
    /// # Errors
    ///
    /// If it has another size or hash.
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

/// A model's name for people, from that of its file: what it was trained on, where the file says
/// so as the shipped ones do.
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

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The plain file name that a page's query gives for a word, as in `?weights=NAME`.
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

    /// All weights together are no larger than this.
    const BUDGET: u64 = 16 << 20;

    /// The manifest that ships, held against the files beside it. With `DIFFIT_UPDATE=1` in the
    /// environment it is written; the order stays, new files come last.
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
