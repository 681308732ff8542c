//! Requests to the Hub.
//!
//! The crate `hf-hub` has requests of its own, but sends the token also to where the Hub redirects to, and
//! does not check hashes. Its cache is used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use ureq::http::{HeaderMap, StatusCode};
use ureq::{Agent, Timeout};

use super::cache::{self, Cached};
use super::{Kind, Link, is_safe};
use crate::data::classes::is_image;
use crate::data::fetch::{Hash, PATIENCE, Remote, agent, fetch_to};
use crate::data::parquet_files::splits;
use crate::run::report::print_message;

/// Server of the Hub, unless the variable `HF_ENDPOINT` has another.
const ENDPOINT: &str = "https://huggingface.co";

/// Maximum size of the list of a repository's files in bytes.
const MAX_LISTING: u64 = 256 << 20;

/// Maximum number of redirects from one place of the Hub to another.
const MAX_MOVES: usize = 5;

/// Endings of the files of a dataset.
const ENDINGS: [&str; 6] = [".parquet", ".zip", ".tar", ".latents", ".safetensors", "dataset.json"];

/// Returns the path of a file or folder in the cache, after downloading what is missing.
///
/// # Errors
///
/// If something is missing and cannot be downloaded.
pub fn fetch(link: &Link) -> anyhow::Result<PathBuf> {
    let hub = Hub::open()?;
    let cached = Cached::new(&hub.cache, link);
    if link.is_folder {
        ensure!(link.kind == Kind::Dataset, "the path of a file is missing");
        hub.folder(link, &cached)
    } else {
        if let Some(path) = cached.commit().map(|commit| cached.file(&commit, &link.path))
            && path.exists()
        {
            return Ok(path);
        }
        let (path, commit) = hub.file(link, &cached, &link.revision, &link.path)?;
        cached.set_commit(&commit)?;
        Ok(path)
    }
}

/// The Hub as the environment has it.
struct Hub {
    endpoint: String,
    token: Option<String>,
    offline: bool,
    cache: hf_hub::Cache,
    agent: Agent,
    /// Time without a byte after which the server is given up.
    patience: Duration,
}

/// A file as the Hub describes it.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    commit: String,
    /// Hash by which the cache knows the file. That of a large file is its SHA-256, and that of a small
    /// one the hash that Git has for it.
    hash: String,
    size: u64,
}

/// The list of a repository's files.
#[derive(Deserialize)]
pub struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    fn open() -> anyhow::Result<Self> {
        let cache = cache::open()?;
        let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let token = variable("HF_TOKEN").or_else(|| cache.token());
        let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| value != "0");
        // As the Hub's own programs have it.
        let patience = match variable("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => PATIENCE,
            Some(text) => {
                let seconds = text.trim().parse::<u64>().ok().filter(|seconds| *seconds > 0);
                Duration::from_secs(seconds.with_context(|| {
                    format!(
                        "HF_HUB_DOWNLOAD_TIMEOUT is `{text}`, not a number of seconds from 1 on"
                    )
                })?)
            }
        };
        let config = agent(patience).http_status_as_error(false).max_redirects(0);
        Ok(Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_string(),
            token: token.map(|token| token.trim().to_string()),
            offline,
            cache,
            agent: config.build().into(),
            patience,
        })
    }

    /// Sends a request to the Hub, and follows redirects within it.
    fn request(
        &self,
        link: &Link,
        path: &str,
        head: bool,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        ensure!(
            !self.offline,
            "it is not in the cache, and HF_HUB_OFFLINE forbids to look for it on the network"
        );
        let mut path = path.to_string();
        for _ in 0..=MAX_MOVES {
            let url = format!("{}{path}", self.endpoint);
            let mut request = if head { self.agent.head(&url) } else { self.agent.get(&url) };
            request = request.header("Accept-Encoding", "identity");
            if let Some(token) = &self.token {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| self.explained(error));
            let response = response.with_context(|| url.clone())?;
            let status = response.status();
            // A repository that was renamed. Files on another server are left to the download.
            let moved = header(response.headers(), "location").filter(|to| to.starts_with('/'));
            match moved {
                Some(to) if status.is_redirection() => path = to.to_string(),
                _ => return check(link, &url, response),
            }
        }
        bail!("{}{path}: too many redirects", self.endpoint)
    }

    /// Returns why there is no answer.
    fn explained(&self, error: ureq::Error) -> anyhow::Error {
        match error {
            ureq::Error::Timeout(Timeout::PerRead) => {
                anyhow::anyhow!(
                    "nothing arrived for {:?}; run the same command again",
                    self.patience
                )
            }
            error => error.into(),
        }
    }

    /// Describes a file.
    fn describe(&self, link: &Link, path: &str) -> anyhow::Result<Described> {
        let response = self.request(link, path, true)?;
        let described = Described::parse(response.headers());
        described.with_context(|| format!("{}{path}", self.endpoint))
    }

    /// Downloads a file of a revision if it is not in the cache, and returns its path and its commit.
    fn file(
        &self,
        link: &Link,
        cached: &Cached,
        revision: &str,
        name: &str,
    ) -> anyhow::Result<(PathBuf, String)> {
        let kind = if link.kind == Kind::Dataset { "/datasets" } else { "" };
        let (revision, encoded) = (revision.replace('/', "%2F"), encode(name));
        let path = format!("{kind}/{}/resolve/{revision}/{encoded}", link.repo);
        let Described { commit, hash, size } = self.describe(link, &path)?;
        let [blob, part] = cached.blob(&hash)?;
        if !blob.exists() {
            let url = format!("{}{path}", self.endpoint);
            let known = match hash.len() {
                64 => Some(Hash::Sha256(&hash)),
                40 => Some(Hash::GitBlob(&hash)),
                _ => None,
            };
            let (token, patience) = (self.token.as_deref(), self.patience);
            let remote = Remote { url: &url, name, hash: known, size, token, patience };
            fetch_to(&remote, &part, &blob)?;
        }
        Ok((cached.link(&commit, name, &blob)?, commit))
    }

    /// Downloads the files of a dataset in a folder that are not in the cache, and returns its path.
    fn folder(&self, link: &Link, cached: &Cached) -> anyhow::Result<PathBuf> {
        if let Some(commit) = cached.commit()
            && let Ok(text) = std::fs::read(cached.listing(&commit))
            && let Ok(listing) = Listing::parse(&text)
            && listing.sha == commit
            && let Ok((names, _)) = listing.chosen(&link.path)
            && names.iter().all(|name| cached.file(&commit, name).exists())
        {
            return Ok(cached.file(&commit, &link.path));
        }
        let revision = link.revision.replace('/', "%2F");
        let kind = if link.kind == Kind::Dataset { "datasets" } else { "models" };
        let path = format!("/api/{kind}/{}/revision/{revision}", link.repo);
        let mut response = self.request(link, &path, false)?;
        let text = response.body_mut().with_config().limit(MAX_LISTING).read_to_vec();
        let text = text
            .map_err(|error| self.explained(error))
            .with_context(|| format!("{}{path}", self.endpoint))?;
        let listing = Listing::parse(&text).with_context(|| format!("{}{path}", self.endpoint))?;
        let (names, note) = listing.chosen(&link.path)?;
        if let Some(note) = note {
            print_message!("of {} is downloaded: {note}", link.repo);
        }
        for name in &names {
            if !cached.file(&listing.sha, name).exists() {
                self.file(link, cached, &listing.sha, name)?;
            }
        }
        let file = cached.listing(&listing.sha);
        write(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
        cached.set_commit(&listing.sha)?;
        Ok(cached.file(&listing.sha, &link.path))
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    crate::files::atomic::write(path, bytes)
}

impl Described {
    /// Reads the headers of an answer.
    fn parse(headers: &HeaderMap) -> anyhow::Result<Self> {
        let of = |names: [&str; 2]| names.iter().find_map(|name| header(headers, name));
        let hash = of(["x-linked-etag", "etag"]).context("the answer has no hash")?;
        let hash = hash.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        let commit =
            header(headers, "x-repo-commit").context("the answer has no commit")?.to_string();
        let size = of(["x-linked-size", "content-length"]).and_then(|size| size.parse().ok());
        ensure!(is_hash(&hash) && is_hash(&commit), "the hash or the commit of the answer is none");
        Ok(Self { commit, hash, size: size.context("the answer has no size")? })
    }
}

impl Listing {
    /// Reads the Hub's answer.
    ///
    /// # Errors
    ///
    /// If it is no list, or its commit is no hash.
    pub fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let listing: Self = serde_json::from_slice(text)?;
        ensure!(is_hash(&listing.sha), "its commit is no hash");
        Ok(listing)
    }

    /// Returns the names of the files in a folder that belong to its dataset, and what is left out.
    ///
    /// # Errors
    ///
    /// If there are none, or one that leads elsewhere, or files are missing by their names.
    pub fn chosen(&self, folder: &str) -> anyhow::Result<(Vec<String>, Option<String>)> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let within = |sibling: &Sibling| {
            let name = sibling.rfilename.strip_prefix(&prefix)?;
            let lower = name.to_ascii_lowercase();
            let known = is_image(&lower) || ENDINGS.iter().any(|ending| lower.ends_with(ending));
            known.then(|| name.to_string())
        };
        let found: Vec<String> = self.siblings.iter().filter_map(within).collect();
        ensure!(
            !found.is_empty(),
            "the repository has no files of a dataset in `{folder}`; it must have Parquet or tar files, a \
             zip, or images"
        );
        if let Some(name) = found.iter().find(|name| !is_safe(name)) {
            bail!("the name `{name}` of a file is not supported");
        }
        let is_parquet = |name: &String| name.to_ascii_lowercase().ends_with(".parquet");
        let (names, note) = if found.iter().any(is_parquet) {
            let parquet = found.into_iter().filter(is_parquet).collect();
            let chosen = splits::choose(parquet).map_err(anyhow::Error::msg)?;
            (chosen.names, chosen.note)
        } else {
            (found, None)
        };
        Ok((names.into_iter().map(|name| format!("{prefix}{name}")).collect(), note))
    }
}

/// Returns a header as text.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Returns whether a text is a hash, which can be a part of a path.
fn is_hash(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// Returns a path within a URL.
fn encode(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => {
                encoded.push(byte.into());
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Returns an answer that is a success or leads to another server.
fn check(
    link: &Link,
    url: &str,
    response: ureq::http::Response<ureq::Body>,
) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
    let status = response.status();
    let advice = match status {
        _ if status.is_success() || status.is_redirection() => return Ok(response),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "a private repository, or one whose terms have to be accepted, needs the token of a user who may \
             read it, in HF_TOKEN; the Hub says the same if there is no such repository"
        }
        StatusCode::NOT_FOUND => "there is no such repository, revision or file",
        _ => "the server may work later",
    };
    bail!("{url}: {status} (repository {}, revision {}): {advice}", link.repo, link.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (ureq::http::HeaderName::from_static(name), value.parse().expect("a value"))
            })
            .collect()
    }

    #[test]
    fn files_are_described_by_headers() {
        let sha256 = "ab".repeat(32);
        let large = headers(&[
            ("etag", "\"ff\""),
            ("x-linked-etag", &format!("\"{sha256}\"")),
            ("x-repo-commit", "c0ffee"),
            ("x-linked-size", "7"),
            ("content-length", "1000"),
        ]);
        let found = Described::parse(&large).expect("complete");
        assert_eq!(found, Described { commit: "c0ffee".into(), hash: sha256, size: 7 });
        let small = [("etag", "W/\"0A\""), ("x-repo-commit", "1"), ("content-length", "3")];
        let found = Described::parse(&headers(&small)).expect("complete");
        assert_eq!(found, Described { commit: "1".into(), hash: "0a".into(), size: 3 });
        for without in 0..3 {
            let mut some = small.to_vec();
            some.remove(without);
            assert!(Described::parse(&headers(&some)).is_err(), "{without}");
        }
        // A hash that leads out of the cache.
        for hash in ["../../x", "", "a/b"] {
            let hostile = [("etag", hash), ("x-repo-commit", "1"), ("content-length", "3")];
            assert!(Described::parse(&headers(&hostile)).is_err(), "{hash}");
        }
    }

    #[test]
    fn files_of_a_dataset_are_chosen() {
        let listing = |names: &[&str]| Listing {
            sha: "0".into(),
            siblings: names.iter().map(|name| Sibling { rfilename: (*name).into() }).collect(),
        };
        let repo = listing(&[
            "README.md",
            "a/test.parquet",
            "a/train.parquet",
            "b/1.png",
            "b/dataset.json",
        ]);
        let (names, note) = repo.chosen("").expect("a dataset");
        assert_eq!(names, ["a/train.parquet"]);
        assert_eq!(note.as_deref(), Some("the split `train`; 1 file of test left out"));
        assert_eq!(repo.chosen("b").expect("a dataset").0, ["b/1.png", "b/dataset.json"]);
        assert!(repo.chosen("c").is_err() && listing(&["x/../../y.parquet"]).chosen("").is_err());
        assert_eq!(encode("a b/ü(1).zip"), "a%20b/%C3%BC%281%29.zip");
    }
}
