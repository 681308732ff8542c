//! The cache of files from the Hub, in the layout that all programs share.
//!
//! `blobs/` has the files by their hashes, `snapshots/COMMIT/` links to them by their names, and
//! `refs/REVISION` has the commit of a branch or tag.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::{Kind, Link};

/// The cached files of a repository.
pub struct Cached {
    root: PathBuf,
    repo: CacheRepo,
    revision: String,
}

/// Returns the cache.
///
/// # Errors
///
/// If there is no place for it.
pub fn open() -> anyhow::Result<Cache> {
    let known = std::env::var_os("HF_HOME").is_some() || std::env::home_dir().is_some();
    ensure!(known, "no home folder for the cache: set HF_HOME to a folder");
    Ok(Cache::from_env())
}

impl Cached {
    /// Opens the cached files of a repository.
    pub fn new(cache: &Cache, link: &Link) -> Self {
        let kind = match link.kind {
            Kind::Model => RepoType::Model,
            Kind::Dataset => RepoType::Dataset,
        };
        let repo = Repo::with_revision(link.repo.clone(), kind, link.revision.clone());
        let root = cache.path().join(repo.folder_name());
        Self { root, repo: cache.repo(repo), revision: link.revision.clone() }
    }

    /// Returns the commit of the revision, if it is known.
    pub fn commit(&self) -> Option<String> {
        let file = self.root.join("refs").join(&self.revision);
        match std::fs::read_to_string(file) {
            Ok(commit) => Some(commit.trim().to_string()),
            // A commit has no name in the cache.
            Err(_) => {
                self.repo.pointer_path(&self.revision).is_dir().then(|| self.revision.clone())
            }
        }
    }

    /// Returns the path of a file of a commit, whether it is there or not.
    pub fn file(&self, commit: &str, name: &str) -> PathBuf {
        self.repo.pointer_path(commit).join(name)
    }

    /// Returns the path of the file with this hash, and that of a beginning of it. Their folder is made.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made.
    pub fn blob(&self, hash: &str) -> anyhow::Result<[PathBuf; 2]> {
        let folder = self.root.join("blobs");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok([folder.join(hash), folder.join(format!("{hash}.incomplete"))])
    }

    /// Gives the file with this hash a name in a commit, and returns its path.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn link(&self, commit: &str, name: &str, blob: &Path) -> anyhow::Result<PathBuf> {
        let path = self.file(commit, name);
        let cannot_write = || format!("cannot write {}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(cannot_write)?;
        }
        if !path.exists() {
            // A link to a file that was deleted.
            let _ = std::fs::remove_file(&path);
            place(blob, &path, name.split('/').count()).with_context(cannot_write)?;
        }
        Ok(path)
    }

    /// Stores the commit of the revision.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn set_commit(&self, commit: &str) -> anyhow::Result<()> {
        if commit == self.revision {
            return Ok(());
        }
        self.repo.create_ref(commit).with_context(|| {
            format!("cannot write {}", self.root.join("refs").join(&self.revision).display())
        })
    }

    /// Returns the path of the list of all files of a commit.
    pub fn listing(&self, commit: &str) -> PathBuf {
        self.root.join("listings").join(format!("{commit}.json"))
    }
}

/// Puts a link to a blob at `path`, which lies `depth` folders below its snapshot.
#[cfg(unix)]
fn place(blob: &Path, path: &Path, depth: usize) -> std::io::Result<()> {
    let up = "../".repeat(depth + 1);
    let name = blob.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(name), path)
}

/// Puts a blob at `path`: links need rights that users may not have.
#[cfg(not(unix))]
fn place(blob: &Path, path: &Path, _: usize) -> std::io::Result<()> {
    std::fs::hard_link(blob, path).or_else(|_| std::fs::copy(blob, path).map(|_| ()))
}
