//! Downloads with a known outcome: progress, resuming, and a hash that must come out.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

/// A file that can be fetched.
pub struct Download {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Where it is.
    pub url: &'static str,
    /// Its name on disk.
    pub file: &'static str,
    /// Its SHA-256.
    pub sha256: &'static str,
    /// Its size in bytes.
    pub size: u64,
}

/// All that can be fetched.
pub const DOWNLOADS: &[Download] = &[Download {
    name: "cifar10",
    url: "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    file: "cifar-10-python.tar.gz",
    sha256: "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    size: 170_498_071,
}];

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Writing to disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server or the way to it failed.
    #[error("{url}: {reason}\nwhat has arrived is kept; run the same command to go on")]
    Network {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// Something else than expected arrived.
    #[error("{url}: what arrived has SHA-256 {found}, not {expected}; it was deleted")]
    Hash {
        /// The address.
        url: String,
        /// Its hash.
        found: String,
        /// The hash it should have.
        expected: String,
    },
}

/// Fetches `download` into `folder` and returns its path. A whole file is left alone, a part of
/// one is gone on with.
///
/// # Errors
///
/// If the network, the disk or the hash says no.
pub fn fetch(download: &Download, url: &str, folder: &Path) -> Result<PathBuf, FetchError> {
    let whole = folder.join(download.file);
    let part = folder.join(format!("{}.part", download.file));
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Io { path, source }
    };
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    if whole.exists() && hash(&whole).map_err(io(&whole))? == download.sha256 {
        return Ok(whole);
    }
    let mut file = OpenOptions::new().create(true).append(true).open(&part).map_err(io(&part))?;
    let have = file.metadata().map_err(io(&part))?.len();
    if have < download.size {
        transfer(download, url, have, &mut file, &part)?;
    }
    file.sync_all().map_err(io(&part))?;
    let found = hash(&part).map_err(io(&part))?;
    if found != download.sha256 {
        std::fs::remove_file(&part).map_err(io(&part))?;
        let expected = download.sha256.to_string();
        return Err(FetchError::Hash { url: url.to_string(), found, expected });
    }
    std::fs::rename(&part, &whole).map_err(io(&whole))?;
    Ok(whole)
}

/// Appends what is missing to `file`, which has `have` bytes.
fn transfer(
    download: &Download,
    url: &str,
    have: u64,
    file: &mut File,
    part: &Path,
) -> Result<(), FetchError> {
    let network = |reason: String| FetchError::Network { url: url.to_string(), reason };
    let io = |source| FetchError::Io { path: part.to_owned(), source };
    let mut request = ureq::get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|e| network(e.to_string()))?;
    let bar = ProgressBar::new(download.size).with_style(
        ProgressStyle::with_template(
            "{msg} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta}",
        )
        .expect("a valid template"),
    );
    bar.set_message(download.file);
    if response.status().as_u16() == 206 {
        bar.set_position(have);
    } else {
        // The server starts over, and so do we.
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
    }
    // No server gets to fill the disk: one byte too many is enough to fail the hash.
    let mut body = response.body_mut().as_reader().take(download.size + 1);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = body.read(&mut buffer).map_err(|e| network(e.to_string()))?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(io)?;
        bar.inc(n as u64);
    }
    let arrived = file.metadata().map_err(io)?.len();
    bar.finish_and_clear();
    if arrived < download.size {
        return Err(network(format!("ended after {arrived} of {} bytes", download.size)));
    }
    Ok(())
}

/// SHA-256 of a file, in hexadecimal.
pub fn hash(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
