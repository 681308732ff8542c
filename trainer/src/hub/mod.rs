//! Links to files on the Hugging Face Hub, in place of paths: `hf://owner/repo/path@revision`, or the address
//! of a file's page.
//!
//! Before a command runs, each link on its command line is replaced by the path of the file in the cache that
//! all programs for the Hub share, where it is downloaded first if it is not there. A file that is there
//! is not looked for on the network.

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
pub mod remote;

use std::path::{Path, PathBuf};

/// What a link starts with.
const SCHEME: &str = "hf://";

/// Start of the address of a page of the Hub.
const PAGES: &str = "https://huggingface.co/";

/// Kind of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of models.
    Model,
    /// Of a dataset.
    Dataset,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kind of the repository.
    pub kind: Kind,
    /// Owner and name of the repository.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Path within the repository; empty for all of it.
    pub path: String,
    /// Whether the path is that of a folder.
    pub is_folder: bool,
}

impl Link {
    /// Reads a link, or the address of a page or a file of the Hub. `None` if the text is neither.
    ///
    /// # Errors
    ///
    /// If it is none to a file or folder of a repository.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        if let Some(rest) = text.strip_prefix(SCHEME) {
            return Some(Self::parse_rest(rest));
        }
        if let Some(rest) = text.strip_prefix(PAGES) {
            return Some(Self::parse_address(rest));
        }
        let other = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
        other.then(|| {
            Err(format!("only files of {PAGES} are downloaded: download it, and give its path"))
        })
    }

    /// Reads what follows the scheme of a link.
    fn parse_rest(text: &str) -> Result<Self, String> {
        let (kind, text) = of_kind(text);
        let (before, after) = text.split_once('@').map_or((text, None), |(b, a)| (b, Some(a)));
        let mut parts = before.splitn(3, '/');
        let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (path, revision) = match (parts.next(), after) {
            (path, None) => (path.unwrap_or_default(), "main"),
            (Some(path), Some(revision)) => (path, revision),
            // owner/repo@revision/path
            (None, Some(after)) => {
                let length = if after.starts_with("refs/") { 3 } else { 1 };
                let end =
                    after.match_indices('/').nth(length - 1).map_or(after.len(), |(at, _)| at);
                (after[end..].trim_start_matches('/'), &after[..end])
            }
        };
        Self::new(kind, [owner, name], revision, path)
    }

    /// Reads what follows the server in the address of a page, as a browser shows it, or of a file:
    /// `owner/repo/resolve/revision/path`.
    fn parse_address(text: &str) -> Result<Self, String> {
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let (kind, text) = of_kind(text);
        let mut parts = text.splitn(5, '/');
        let mut part = || parts.next().unwrap_or_default();
        let (repo, view, revision, path) = ([part(), part()], part(), part(), part());
        match view {
            "" if revision.is_empty() => Self::new(kind, repo, "main", ""),
            "blob" | "resolve" | "tree" => {
                Self::new(kind, repo, &revision.replace("%2F", "/"), path)
            }
            _ => Err(format!(
                "this is not the address of a file: expected {PAGES}OWNER/REPO/resolve/REVISION/PATH"
            )),
        }
    }

    /// Makes a link of its parts.
    fn new(
        kind: Kind,
        [owner, name]: [&str; 2],
        revision: &str,
        path: &str,
    ) -> Result<Self, String> {
        let plain = |text: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !text.is_empty() && text.chars().all(known) && !text.chars().all(|c| c == '.')
        };
        if !plain(owner) || !plain(name) {
            return Err(format!(
                "`{owner}/{name}` is no owner and name of a repository: expected \
                 {SCHEME}OWNER/REPO/PATH or {SCHEME}datasets/OWNER/REPO/PATH, and @REVISION at its end \
                 for one other than main"
            ));
        }
        if !revision.split('/').all(plain) {
            return Err(format!("`{revision}` is no branch, tag or commit"));
        }
        let trimmed = path.trim_end_matches('/');
        if !trimmed.is_empty() && !is_safe(trimmed) {
            return Err(format!("`{path}` is no path of a file in a repository"));
        }
        // Files of datasets and weights have endings.
        let last = trimmed.rsplit('/').next().unwrap_or_default();
        let is_folder = trimmed.len() < path.len() || !last.contains('.');
        Ok(Self {
            kind,
            repo: format!("{owner}/{name}"),
            revision: revision.into(),
            path: trimmed.into(),
            is_folder,
        })
    }
}

/// Returns the kind of a repository, and what follows it in a link.
fn of_kind(text: &str) -> (Kind, &str) {
    match text.strip_prefix("datasets/") {
        Some(rest) => (Kind::Dataset, rest),
        None => (Kind::Model, text),
    }
}

/// Returns whether a path within a repository leads to nothing outside, and has no characters with a meaning
/// in a URL.
pub fn is_safe(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let known = |c: char| c.is_alphanumeric() || " ._-+=,()[]~".contains(c);
    path.split('/').all(|part| plain(part) && part.chars().all(known))
}

/// Replaces a path that is a link to the Hub by that of the file or folder in the cache.
///
/// # Errors
///
/// If the link is invalid, or its file is neither in the cache nor can be downloaded.
pub fn resolve(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let Some(text) = path.to_str() else { return Ok(None) };
    let Some(link) = Link::parse(text) else { return Ok(None) };
    let link = link.map_err(|reason| anyhow::anyhow!("{text}: {reason}"))?;
    fetch(text, &link).map(Some)
}

#[cfg(feature = "hub")]
fn fetch(text: &str, link: &Link) -> anyhow::Result<PathBuf> {
    use anyhow::Context;
    remote::fetch(link).with_context(|| text.to_string())
}

#[cfg(not(feature = "hub"))]
fn fetch(text: &str, _: &Link) -> anyhow::Result<PathBuf> {
    anyhow::bail!(
        "{text}: this program was built without the crate feature `hub`, which downloads from the Hugging \
         Face Hub: `cargo build --release -p trainer --features hub` builds it with it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: Kind, revision: &str, path: &str, is_folder: bool) -> Link {
        let (repo, revision, path) = ("o-1/r.x".into(), revision.into(), path.into());
        Link { kind, repo, revision, path, is_folder }
    }

    #[test]
    fn links_are_read() {
        use Kind::{Dataset, Model};
        for (text, want) in [
            ("hf://o-1/r.x/a/b.safetensors", link(Model, "main", "a/b.safetensors", false)),
            ("hf://o-1/r.x/b.safetensors@v1.0", link(Model, "v1.0", "b.safetensors", false)),
            ("hf://o-1/r.x@v1.0/a/b.safetensors", link(Model, "v1.0", "a/b.safetensors", false)),
            ("hf://datasets/o-1/r.x", link(Dataset, "main", "", true)),
            ("hf://datasets/o-1/r.x/data", link(Dataset, "main", "data", true)),
            ("hf://datasets/o-1/r.x/v1.0/", link(Dataset, "main", "v1.0", true)),
            (
                "hf://datasets/o-1/r.x/default/train@refs/convert/parquet",
                link(Dataset, "refs/convert/parquet", "default/train", true),
            ),
            (
                "hf://datasets/o-1/r.x@refs/convert/parquet/default/train/0000.parquet",
                link(Dataset, "refs/convert/parquet", "default/train/0000.parquet", false),
            ),
            ("hf://datasets/o-1/r.x@abc", link(Dataset, "abc", "", true)),
            // As a browser shows them.
            (
                "https://huggingface.co/o-1/r.x/blob/main/a/b.safetensors",
                link(Model, "main", "a/b.safetensors", false),
            ),
            (
                "https://huggingface.co/o-1/r.x/resolve/v1.0/b.json?download=true",
                link(Model, "v1.0", "b.json", false),
            ),
            ("https://huggingface.co/datasets/o-1/r.x", link(Dataset, "main", "", true)),
            (
                "https://huggingface.co/datasets/o-1/r.x/tree/refs%2Fconvert%2Fparquet/default/train",
                link(Dataset, "refs/convert/parquet", "default/train", true),
            ),
        ] {
            assert_eq!(Link::parse(text), Some(Ok(want)), "{text}");
        }
        for path in ["emoji", "data/x.zip", "hf:/o/r/f", "https:/x.zip"] {
            assert_eq!(Link::parse(path), None, "{path}");
        }
    }

    #[test]
    fn other_links_are_refused() {
        for text in [
            "hf://",
            "hf://owner",
            "hf://owner/",
            "hf://../r/f",
            "hf://o/r/../f",
            "hf://o/r//f",
            "hf://o/r/a?b=c",
            "hf://o/r/a%2fb",
            "hf://o/r/f@",
            "hf://o/r/f@../x",
            "hf://o/r/f@a b",
            "hf://datasets/o",
            "hf://o o/r/f",
            "https://huggingface.co/",
            "https://huggingface.co/o/r/discussions/3",
            "https://huggingface.co/o/r/resolve",
            "https://huggingface.co/o/r/resolve/main/../x",
            "https://huggingface.co/o/r/resolve/..%2Fx/y.zip",
            "https://example.org/x.zip",
            "http://huggingface.co/o/r/resolve/main/x.zip",
        ] {
            assert!(matches!(Link::parse(text), Some(Err(_))), "{text}");
        }
    }
}
