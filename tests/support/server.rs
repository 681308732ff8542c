//! A web server for a folder, on this machine.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use tiny_http::{Header, Response, Server};

/// Serves a folder below a path of its own, so that a page that only works at the root is found
/// out. Ends with the process.
pub struct Site {
    /// The address of the folder, with a slash at its end.
    pub url: String,
    /// The paths that were asked for, below the folder.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Site {
    /// Serves `folder`.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn serve(folder: PathBuf) -> Self {
        let server = Server::http("127.0.0.1:0").expect("a free port");
        let port = server.server_addr().to_ip().expect("an IP address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        thread::spawn(move || {
            for request in server.incoming_requests() {
                let path = request.url().split(['?', '#']).next().unwrap_or_default().to_string();
                let Some(path) = path.strip_prefix(PREFIX) else {
                    let _ = request.respond(Response::empty(404));
                    continue;
                };
                log.lock().expect("no other thread panicked").push(path.to_string());
                let path = if path.is_empty() { "index.html" } else { path };
                let response = match std::fs::read(folder.join(path)) {
                    Ok(bytes) => respond(path, bytes),
                    Err(_) => Response::from_string("not found").with_status_code(404),
                };
                // It fails where the browser has gone.
                let _ = request.respond(response);
            }
        });
        Self { url: format!("http://127.0.0.1:{port}{PREFIX}"), asked }
    }
}

/// Not the root.
const PREFIX: &str = "/some/folder/";

fn respond(path: &str, bytes: Vec<u8>) -> Response<Cursor<Vec<u8>>> {
    let kind = match Path::new(path).extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript",
        Some("wasm") => "application/wasm",
        Some("css") => "text/css",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    };
    let kind = Header::from_bytes("Content-Type", kind).expect("a valid header");
    Response::from_data(bytes).with_header(kind)
}
