//! Folders of PNG and JPEG files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::classes::{self, is_image};
use super::decode::{DecodedImage, MAX_FILE, check_file};
use super::error::DataError;
use super::item::{Index, Listed, Stored};
use super::slow_bar::{SlowBar, Unit};
use super::source::{Candidate, Format, Source};

/// Folders, except those of tar files.
pub const FORMAT: Format = Format {
    what: "a folder of PNG or JPEG files",
    open: |candidate| candidate.is_folder.then(|| Folder::open(candidate)),
};

/// A folder whose files were listed.
struct Folder {
    root: PathBuf,
    index: Index,
}

impl Folder {
    fn open(candidate: &Candidate) -> Result<Box<dyn Source>, DataError> {
        let root = candidate.path;
        let mut names = Vec::new();
        let mut images = Vec::new();
        let mut bar = SlowBar::new(candidate.bar, "listing", Unit::Files, 0);
        for entry in walkdir::WalkDir::new(root).follow_links(true).sort_by_file_name() {
            match entry {
                Ok(entry) if entry.file_type().is_file() => {
                    let path = entry.path().strip_prefix(root).expect("it lies below the root");
                    match path.to_str() {
                        Some(name) if is_image(name) => {
                            // Whoever opens an unreadable file reports the error.
                            let size = entry.metadata().map(|metadata| metadata.len());
                            let stored = size.map_or(Stored::Unknown, Stored::Size);
                            names.push((name.replace('\\', "/"), stored));
                            bar.advance(names.len() as u64);
                        }
                        Some(_) => {}
                        None => {
                            images.push(unreadable(path, "the file name is not valid Unicode"));
                        }
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    let path = error.path().unwrap_or(root);
                    images.push(match error.loop_ancestor() {
                        Some(above) => unreadable(
                            path,
                            &format!("a symbolic link loop to {}", above.display()),
                        ),
                        None => unreadable(path, &error.to_string()),
                    });
                }
            }
        }
        let json = root.join(classes::FILE);
        let json = match std::fs::read(&json) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(DataError::io(&json, error)),
        };
        let found = classes::index(root, names, json)?;
        images.extend(found.images);
        let index = Index { images, classes: found.classes, note: None };
        Ok(Box::new(Self { root: root.to_owned(), index }))
    }

    /// Reads at most `limit` bytes of a file.
    fn file(&self, i: usize, limit: u64) -> Result<Vec<u8>, String> {
        let reason = |e: std::io::Error| e.to_string();
        let file = File::open(self.root.join(&*self.index.images[i].name)).map_err(reason)?;
        check_file(file.metadata().map_err(reason)?.len())?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(reason)?;
        Ok(bytes)
    }
}

/// Lists a file that cannot be read.
fn unreadable(path: &Path, reason: &str) -> Listed {
    let name = path.to_string_lossy().into();
    Listed { name, class: None, problem: Some(reason.into()), stored: Stored::Unknown }
}

impl Source for Folder {
    fn index(&self) -> &Index {
        &self.index
    }

    fn image(&self, i: usize) -> Result<DecodedImage, String> {
        DecodedImage::decode(&self.file(i, MAX_FILE)?)
    }

    fn size(&self, i: usize) -> Result<[usize; 2], String> {
        DecodedImage::size(|limit| self.file(i, limit))
    }
}
