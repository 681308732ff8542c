//! A web server for a folder, on this machine.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tiny_http::{Request, Server};
use web::testing::MARK;

/// What happens to the files of one kind on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They are not found.
    Missing,
    /// They end early.
    Short,
    /// One of their bits is another.
    Flipped,
    /// One of their bits is another, unless the browser asks for them past its caches.
    FlippedInCaches,
    /// They come in parts, with pauses.
    Slow,
    /// A web page comes instead, as from a captive portal.
    WebPage,
    /// The first half comes, and then nothing more for a long time.
    Stuck,
    /// The address of the folder is to be asked instead, as some hosts do for `index.html`.
    Moved,
}

/// Options of a site.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    /// The page accepts faults from its address.
    marked: bool,
    /// Browsers may keep what they were sent, for ten minutes.
    kept: bool,
}

/// Serves a folder below a path of its own, so that a page that only works at the root is found
/// out. Ends with the process.
pub struct Site {
    /// The address of the folder, with a slash at its end.
    pub url: String,
    /// The paths that were asked for, and how each was answered.
    pub answers: Arc<Mutex<Vec<(String, u16)>>>,
    /// What happens to the paths with this ending.
    pub fault: Arc<Mutex<Option<(&'static str, Fault)>>>,
}

impl Site {
    /// Serves `folder`.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn serve(folder: PathBuf) -> Self {
        Self::start(folder, Manner::default())
    }

    /// Serves `folder` with a mark on the page by which it accepts faults from its address.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn serve_marked(folder: PathBuf) -> Self {
        Self::start(folder, Manner { marked: true, ..Manner::default() })
    }

    /// Serves `folder` as hosts do: browsers may keep what they were sent, for ten minutes.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn serve_kept(folder: PathBuf) -> Self {
        Self::start(folder, Manner { kept: true, ..Manner::default() })
    }

    fn start(folder: PathBuf, manner: Manner) -> Self {
        let server = Server::http("127.0.0.1:0").expect("a free port");
        let port = server.server_addr().to_ip().expect("an IP address").port();
        let (answers, fault) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
        let site = Self {
            url: format!("http://127.0.0.1:{port}{PREFIX}"),
            answers: answers.clone(),
            fault: fault.clone(),
        };
        thread::spawn(move || {
            for request in server.incoming_requests() {
                let path = request.url().split(['?', '#']).next().unwrap_or_default().to_string();
                let fault = fault.lock().expect("no other thread panicked").clone();
                let past_caches = request.headers().iter().any(|header| {
                    header.field.equiv("Cache-Control")
                        && header.value.as_str().contains("no-cache")
                });
                let fault =
                    fault.filter(|(_, fault)| *fault != Fault::FlippedInCaches || !past_caches);
                let meets = |kind| {
                    let found = fault.as_ref();
                    found.is_some_and(|(ending, fault)| *fault == kind && path.ends_with(ending))
                };
                let pace = match (meets(Fault::Slow), meets(Fault::Stuck)) {
                    (true, _) => Pace::Slow,
                    (_, true) => Pace::Stuck,
                    _ => Pace::AtOnce,
                };
                if meets(Fault::Moved) {
                    answers.lock().expect("no other thread panicked").push((path, 301));
                    let _ = redirect(request);
                    continue;
                }
                let answer = answer(&folder, &path, fault, manner.marked);
                let status = if answer.is_some() { 200 } else { 404 };
                answers.lock().expect("no other thread panicked").push((path, status));
                // It fails where the browser has gone.
                if pace == Pace::AtOnce {
                    let _ = respond(request, answer, pace, manner.kept);
                } else {
                    // Others are answered meanwhile.
                    thread::spawn(move || respond(request, answer, pace, manner.kept));
                }
            }
        });
        site
    }
}

/// The parts of a slow answer, and the pause after each.
const PARTS: usize = 40;
const PAUSE: Duration = Duration::from_millis(100);

/// The pause in an answer that is stuck: longer than any test waits.
const LONG: Duration = Duration::from_secs(600);

/// Not the root.
const PREFIX: &str = "/some/folder/";

/// Pace of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    AtOnce,
    Slow,
    Stuck,
}

/// Sends the browser to the folder.
fn redirect(request: Request) -> io::Result<()> {
    let mut writer = request.into_writer();
    write!(
        writer,
        "HTTP/1.1 301 Moved Permanently\r\nLocation: {PREFIX}\r\nContent-Length: 0\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )?;
    writer.flush()
}

/// Answers a request with a type and a content, or with 404, and asks the browser to close the
/// connection. The server has a thread for each open connection and sometimes does not start one
/// more; a request would then wait until another connection ends.
fn respond(
    request: Request,
    answer: Option<(&str, Vec<u8>)>,
    pace: Pace,
    kept: bool,
) -> io::Result<()> {
    let (status, kind, bytes) = match answer {
        Some((kind, bytes)) => ("200 OK", kind, bytes),
        None => ("404 Not Found", "text/plain", b"not found".to_vec()),
    };
    let mut writer = request.into_writer();
    // Most tests change what lies behind an address, hence `no-store`.
    let caching = if kept { "max-age=600" } else { "no-store" };
    write!(
        writer,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Cache-Control: {caching}\r\nConnection: close\r\n\r\n",
        bytes.len()
    )?;
    let (size, pause) = match pace {
        Pace::AtOnce => (bytes.len(), Duration::ZERO),
        Pace::Slow => (bytes.len().div_ceil(PARTS), PAUSE),
        Pace::Stuck => (bytes.len().div_ceil(2), LONG),
    };
    for part in bytes.chunks(size.max(1)) {
        writer.write_all(part)?;
        writer.flush()?;
        thread::sleep(pause);
    }
    writer.flush()
}

/// The type and the content of a path, or nothing if there is no such file.
fn answer(
    folder: &Path,
    path: &str,
    fault: Option<(&str, Fault)>,
    marked: bool,
) -> Option<(&'static str, Vec<u8>)> {
    let path = path.strip_prefix(PREFIX)?;
    let path = if path.is_empty() { "index.html" } else { path };
    let mut bytes = std::fs::read(folder.join(path)).ok()?;
    if marked && path == "index.html" {
        let page = String::from_utf8(bytes).expect("a page is text");
        bytes = page.replacen("<html", &format!("<html {MARK}"), 1).into_bytes();
    }
    let fault = fault.filter(|(ending, _)| path.ends_with(ending)).map(|(_, fault)| fault);
    match fault {
        None | Some(Fault::Slow | Fault::Stuck | Fault::Moved) => {}
        Some(Fault::Missing) => return None,
        Some(Fault::Short) => bytes.truncate(bytes.len() / 2),
        Some(Fault::Flipped | Fault::FlippedInCaches) => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Some(Fault::WebPage) => bytes = b"<!DOCTYPE html><title>Welcome</title>".to_vec(),
    }
    let kind = match Path::new(path).extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript",
        Some("wasm") => "application/wasm",
        Some("css") => "text/css",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg") => "image/jpeg",
        Some("webmanifest") => "application/manifest+json",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    };
    Some((kind, bytes))
}
