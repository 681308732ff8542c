//! Downloads of datasets, with resuming and verification of the hash.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ureq::config::ConfigBuilder;
use ureq::typestate::AgentScope;
use ureq::{Agent, Timeout};

use crate::files::hash::{git_blob_of_file, sha256_of_file};
use crate::files::lock::try_lock;

/// Time without a byte from a server after which it is given up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Time for a connection to a server.
const CONNECT: Duration = Duration::from_secs(30);

/// A file to download.
pub struct Download {
    /// Name on the command line.
    pub name: &'static str,
    /// URL.
    pub url: &'static str,
    /// File name on disk.
    pub file: &'static str,
    /// SHA-256.
    pub sha256: &'static str,
    /// Size in bytes.
    pub size: u64,
}

/// All datasets that can be downloaded.
pub const DOWNLOADS: &[Download] = &[Download {
    name: "cifar10",
    url: "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    file: "cifar-10-python.tar.gz",
    sha256: "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    size: 170_498_071,
}];

/// Reason why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// I/O error.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// Network error.
    #[error("{url}: {reason}\nthe partial file is kept; run the same command again to resume")]
    Network {
        /// URL.
        url: String,
        /// Reason.
        reason: String,
    },
    /// The server sends nothing more.
    #[error(
        "{url}: nothing arrived for {patience:?}; {kept} of {size} bytes are kept in {part}; run the same \
         command again to resume"
    )]
    Stalled {
        /// URL.
        url: String,
        /// Time without a byte.
        patience: Duration,
        /// Number of bytes that arrived, in this and in earlier downloads.
        kept: u64,
        /// Size of the file in bytes.
        size: u64,
        /// The partial file.
        part: PathBuf,
    },
    /// The hash of the downloaded file is wrong.
    #[error("{url}: the downloaded file has {kind} {found}, not {expected}; it was deleted")]
    Hash {
        /// URL.
        url: String,
        /// Kind of the hash.
        kind: &'static str,
        /// Hash of the downloaded file.
        found: String,
        /// Expected hash.
        expected: String,
    },
    /// The size of the downloaded file is wrong.
    #[error("{url}: the downloaded file has {found} bytes, not {expected}; it was deleted")]
    Size {
        /// URL.
        url: String,
        /// Size of the downloaded file in bytes.
        found: u64,
        /// Expected size in bytes.
        expected: u64,
    },
    /// Another process downloads the file.
    #[error("{0}: another process is downloading this file")]
    Busy(PathBuf),
}

/// A file on a server.
pub struct Remote<'a> {
    /// URL.
    pub url: &'a str,
    /// Name for the progress bar.
    pub name: &'a str,
    /// Hash, if it is known.
    pub hash: Option<Hash<'a>>,
    /// Size in bytes.
    pub size: u64,
    /// Token for the server of the URL. Servers that it redirects to do not get it.
    pub token: Option<&'a str>,
    /// Time without a byte after which the server is given up.
    pub patience: Duration,
}

/// Hash of a file, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash<'a> {
    /// SHA-256.
    Sha256(&'a str),
    /// SHA-1 of the file as a blob of Git.
    GitBlob(&'a str),
}

/// Returns the settings of requests: nobody waits without end.
pub fn agent(patience: Duration) -> ConfigBuilder<AgentScope> {
    Agent::config_builder().timeout_connect(Some(CONNECT)).timeout_per_read(Some(patience))
}

/// Downloads a file to `folder` and returns its path. Skips a complete file and resumes a partial
/// one.
///
/// # Errors
///
/// If the download fails, the file cannot be written, or its hash is wrong.
pub fn fetch(download: &Download, url: &str, folder: &Path) -> Result<PathBuf, FetchError> {
    let whole = folder.join(download.file);
    let part = folder.join(format!("{}.part", download.file));
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    if whole.exists() && sha256_of_file(&whole).map_err(io(&whole))? == download.sha256 {
        return Ok(whole);
    }
    let (name, hash) = (download.file, Some(Hash::Sha256(download.sha256)));
    let remote = Remote { url, name, hash, size: download.size, token: None, patience: PATIENCE };
    fetch_to(&remote, &part, &whole)?;
    Ok(whole)
}

/// Downloads a file to `part`, of which there may be a beginning, and renames it to `whole`.
///
/// # Errors
///
/// If the download fails, the file cannot be written, another process writes it, or its size or hash is
/// wrong.
pub fn fetch_to(remote: &Remote, part: &Path, whole: &Path) -> Result<(), FetchError> {
    let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(io(part))?;
    if !try_lock(&file).map_err(io(part))? {
        return Err(FetchError::Busy(part.to_owned()));
    }
    let have = file.metadata().map_err(io(part))?.len();
    if have < remote.size {
        transfer(remote, have, &mut file, part)?;
    }
    file.sync_all().map_err(io(part))?;
    if let Err(error) = check(remote, &file, part) {
        std::fs::remove_file(part).map_err(io(part))?;
        return Err(error);
    }
    std::fs::rename(part, whole).map_err(io(whole))
}

/// Checks the hash of a complete file, or its size if the hash is not known.
fn check(remote: &Remote, file: &File, path: &Path) -> Result<(), FetchError> {
    let url = remote.url.to_string();
    let (kind, found, expected) = match remote.hash {
        Some(Hash::Sha256(expected)) => ("SHA-256", sha256_of_file(path), expected),
        Some(Hash::GitBlob(expected)) => ("the Git hash", git_blob_of_file(path), expected),
        None => {
            let (found, expected) = (file.metadata().map_err(io(path))?.len(), remote.size);
            let wrong = FetchError::Size { url, found, expected };
            return if found == expected { Ok(()) } else { Err(wrong) };
        }
    };
    let (found, expected) = (found.map_err(io(path))?, expected.to_string());
    if found == expected { Ok(()) } else { Err(FetchError::Hash { url, kind, found, expected }) }
}

/// Returns what makes an error of the system one of a file.
fn io(path: &Path) -> impl Fn(std::io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::Io { path: path.clone(), source }
}

/// Downloads the rest of `file`, which has `have` bytes.
fn transfer(remote: &Remote, have: u64, file: &mut File, part: &Path) -> Result<(), FetchError> {
    let network = |reason: String| FetchError::Network { url: remote.url.to_string(), reason };
    let io = |source| FetchError::Io { path: part.to_owned(), source };
    let failed = |error: ureq::Error, file: &File| match error {
        ureq::Error::Timeout(Timeout::PerRead) => FetchError::Stalled {
            url: remote.url.to_string(),
            patience: remote.patience,
            kept: file.metadata().map_or(have, |metadata| metadata.len()),
            size: remote.size,
            part: part.to_owned(),
        },
        error => network(error.to_string()),
    };
    // By default, headers with a token are not sent to where a server redirects to.
    let mut request = Agent::from(agent(remote.patience).build()).get(remote.url);
    // A range is one of the bytes that are sent.
    request = request.header("Accept-Encoding", "identity");
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    if let Some(token) = remote.token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut response = request.call().map_err(|e| failed(e, file))?;
    let bar = ProgressBar::new(remote.size).with_style(
        ProgressStyle::with_template(
            "{msg} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta}",
        )
        .expect("a valid template"),
    );
    bar.set_message(remote.name.to_string());
    if response.status().as_u16() == 206 {
        bar.set_position(have);
    } else {
        // The server ignores the range and sends the whole file.
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
    }
    // A server cannot fill the disk: one byte too many suffices for the hash to fail.
    let mut body = response.body_mut().as_reader().take(remote.size + 1);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = body.read(&mut buffer).map_err(|e| failed(e.into(), file))?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(io)?;
        bar.inc(n as u64);
    }
    let arrived = file.metadata().map_err(io)?.len();
    bar.finish_and_clear();
    if arrived < remote.size {
        return Err(network(format!("connection closed after {arrived} of {} bytes", remote.size)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use tiny_http::{Header, Response, Server};

    use super::*;

    const CONTENTS: &[u8] = b"The quick brown fox jumps over the lazy dog";
    const DOWNLOAD: Download = Download {
        name: "fox",
        url: "",
        file: "fox.txt",
        sha256: "d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592",
        size: CONTENTS.len() as u64,
    };

    /// Serves `contents`, with support for ranges if `can_resume`. Returns the URL and the
    /// requested ranges.
    fn serve(contents: &'static [u8], can_resume: bool) -> (String, Arc<Mutex<Vec<String>>>) {
        let server = Server::http("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/fox.txt", server.server_addr());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let log = ranges.clone();
        std::thread::spawn(move || {
            for request in server.incoming_requests() {
                let range = request.headers().iter().find(|h| h.field.equiv("Range"));
                let range = range.map(|h| h.value.to_string()).unwrap_or_default();
                log.lock().expect("no thread panicked").push(range.clone());
                let from =
                    range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>();
                let response = match from {
                    Ok(from) if can_resume => {
                        let value =
                            format!("bytes {from}-{}/{}", contents.len() - 1, contents.len());
                        let header = Header::from_bytes("Content-Range", value).expect("a header");
                        Response::from_data(&contents[from..])
                            .with_status_code(206)
                            .with_header(header)
                    }
                    _ => Response::from_data(contents),
                };
                request.respond(response).expect("answered");
            }
        });
        (url, ranges)
    }

    #[test]
    fn partial_downloads_are_resumed() {
        for can_resume in [true, false] {
            let (url, ranges) = serve(CONTENTS, can_resume);
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("fox.txt.part"), &CONTENTS[..10]).expect("written");
            let path = fetch(&DOWNLOAD, &url, folder.path()).expect("fetched");
            assert_eq!(std::fs::read(&path).expect("there"), CONTENTS);
            assert!(!folder.path().join("fox.txt.part").exists());
            // A complete file is not downloaded again.
            fetch(&DOWNLOAD, &url, folder.path()).expect("there already");
            assert_eq!(*ranges.lock().expect("no thread panicked"), ["bytes=10-"]);
        }
    }

    #[test]
    fn truncated_downloads_are_kept_and_wrong_ones_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let part = folder.path().join("fox.txt.part");
        let (url, _) = serve(&CONTENTS[..20], false);
        let error = fetch(&DOWNLOAD, &url, folder.path()).expect_err("too short").to_string();
        assert!(error.contains("closed after 20 of 43 bytes"), "{error}");
        assert_eq!(std::fs::read(&part).expect("kept"), &CONTENTS[..20]);

        let other = b"The quick brown fox jumps over the lazy cat";
        let (url, _) = serve(other, false);
        let error = fetch(&DOWNLOAD, &url, folder.path()).expect_err("another").to_string();
        assert!(error.contains("SHA-256") && error.contains(&url), "{error}");
        assert!(!part.exists() && !folder.path().join("fox.txt").exists());

        let error = fetch(&DOWNLOAD, "http://127.0.0.1:1/x", folder.path()).expect_err("nobody");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }

    /// Accepts connections, and sends nothing but the start of an answer until the other side has gone.
    fn serve_and_stall(start: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/fox.txt", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                stream.write_all(start.as_bytes()).expect("sent");
                // The request, and then its end.
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        url
    }

    #[test]
    fn a_stalled_download_is_given_up_and_resumed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (part, whole) = (folder.path().join("fox.part"), folder.path().join("fox.txt"));
        let patience = Duration::from_millis(100);
        let fetch_from = |url: &str| {
            let hash = Some(Hash::Sha256(DOWNLOAD.sha256));
            let remote = Remote { url, name: "fox", hash, size: 43, token: None, patience };
            fetch_to(&remote, &part, &whole)
        };
        for (start, have, kept) in [
            // Nothing at all, a part of the headers, the headers, and a part of the file.
            ("", 0, 0),
            ("", 7, 7),
            ("HTTP/1.1 206 Partial", 7, 7),
            ("HTTP/1.1 206 Partial Content\r\nContent-Length: 36\r\n\r\n", 7, 7),
            ("HTTP/1.1 206 Partial Content\r\nContent-Length: 36\r\n\r\nck brown", 7, 15),
            ("HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\nThe quick", 7, 9),
        ] {
            std::fs::write(&part, &CONTENTS[..have]).expect("written");
            let url = serve_and_stall(start);
            let error = fetch_from(&url).expect_err("stalled").to_string();
            let name = part.display();
            let want = format!(
                "{url}: nothing arrived for 100ms; {kept} of 43 bytes are kept in {name}; run the same \
                 command again to resume"
            );
            assert_eq!(error, want, "{start:?}");
            assert_eq!(std::fs::read(&part).expect("kept"), &CONTENTS[..kept]);
        }
        let (url, ranges) = serve(CONTENTS, true);
        fetch_from(&url).expect("resumed");
        assert_eq!(std::fs::read(&whole).expect("there"), CONTENTS);
        assert_eq!(*ranges.lock().expect("no thread panicked"), ["bytes=9-"]);
    }

    /// A server that is slow, but not as slow as that.
    #[test]
    fn a_slow_download_is_not_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/fox.txt", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", CONTENTS.len());
            stream.write_all(head.as_bytes()).expect("sent");
            for part in CONTENTS.chunks(5) {
                std::thread::sleep(Duration::from_millis(200));
                stream.write_all(part).expect("sent");
            }
        });
        let folder = tempfile::tempdir().expect("a folder");
        let (part, whole) = (folder.path().join("fox.part"), folder.path().join("fox.txt"));
        // Longer than any pause, but shorter than all of them together.
        let patience = Duration::from_millis(1_500);
        let remote = Remote { url: &url, name: "fox", hash: None, size: 43, token: None, patience };
        fetch_to(&remote, &part, &whole).expect("fetched");
        assert_eq!(std::fs::read(&whole).expect("there"), CONTENTS);
    }

    /// `git hash-object` has this hash for the file.
    #[test]
    fn a_changed_byte_of_a_file_with_a_git_hash_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (part, whole) = (folder.path().join("fox.part"), folder.path().join("fox.txt"));
        let hash = Some(Hash::GitBlob("ff3bb63948b4b24796d2acd259915f2a9d972638"));
        for (contents, is_right) in
            [(CONTENTS, true), (b"The quick brown fox jumps over the lazy dig", false)]
        {
            let (url, _) = serve(contents, false);
            let remote =
                Remote { url: &url, name: "fox", hash, size: 43, token: None, patience: PATIENCE };
            let fetched = fetch_to(&remote, &part, &whole);
            assert_eq!(fetched.is_ok(), is_right);
            if let Err(error) = fetched {
                assert!(error.to_string().contains("has the Git hash "), "{error}");
                assert!(!part.exists());
            }
        }
        assert_eq!(std::fs::read(&whole).expect("the first one"), CONTENTS);
    }
}
