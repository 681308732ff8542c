//! Links to the Hugging Face Hub. A server on this machine stands in for it.

use tempfile::TempDir;
use tests::trainer;

/// Without the feature, the message says how to build the program with it.
#[cfg(not(feature = "hub"))]
#[test]
fn links_need_the_feature() {
    let folder = TempDir::new().expect("a temporary folder");
    for args in [
        &["info", "hf://owner/repo/a.safetensors"][..],
        &["train", "--dry-run", "--options", "hf://owner/repo/a.safetensors"],
        &["train", "--metric", "fid", "--reference", "hf://owner/repo/a.safetensors"],
    ] {
        let assert = trainer().args(args).env("HF_HOME", folder.path()).assert().code(1);
        let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert!(
            said.contains("hf://owner/repo/a.safetensors: this program was built without"),
            "{said}"
        );
        assert!(said.contains("--features hub"), "{said}");
    }
}

#[cfg(feature = "hub")]
mod with_the_feature {
    use super::*;

    use std::collections::HashMap;
    use std::fs;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, Mutex};

    use sha1::Sha1;
    use sha2::{Digest, Sha256};
    use tests::root;
    use tiny_http::{Header, Method, Request, Response, Server};

    use crate::support::text;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const TOKEN: &str = "hf_secret";

    /// A request: method, path, range and token.
    type Asked = (String, String, Option<String>, Option<String>);

    /// Fault of a server.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fault {
        None,
        /// The connection ends after this many bytes.
        Cut(usize),
        /// Nothing comes after this many bytes, and the connection stays open.
        Stalled(usize),
        /// One bit is another.
        Flipped,
    }

    /// The Hub, and the server with large files that it redirects to.
    struct Hub {
        endpoint: String,
        asked: Arc<Mutex<Vec<Asked>>>,
        asked_store: Arc<Mutex<Vec<Asked>>>,
        fault: Arc<Mutex<Fault>>,
        home: TempDir,
    }

    fn header(name: &str, value: &str) -> Header {
        Header::from_bytes(name, value).expect("a header")
    }

    fn noted(request: &Request) -> Asked {
        let of = |name: &'static str| {
            let found = request.headers().iter().find(|header| header.field.equiv(name));
            found.map(|header| header.value.to_string())
        };
        (request.method().to_string(), request.url().into(), of("Range"), of("Authorization"))
    }

    /// Starts a server that answers every request in a thread.
    fn serve(asked: Arc<Mutex<Vec<Asked>>>, answer: impl Fn(Request) + Send + 'static) -> u16 {
        let server = Server::http("127.0.0.1:0").expect("a free port");
        let port = server.server_addr().to_ip().expect("an IP address").port();
        std::thread::spawn(move || {
            for request in server.incoming_requests() {
                asked.lock().expect("no thread panicked").push(noted(&request));
                answer(request);
            }
        });
        port
    }

    /// Starts the server with large files. It closes the connection after each answer, whole or not.
    fn serve_store(
        asked: Arc<Mutex<Vec<Asked>>>,
        files: HashMap<String, Vec<u8>>,
        fault: Arc<Mutex<Fault>>,
    ) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut lines = BufReader::new(stream.try_clone().expect("the same")).lines();
                let first = lines.next().expect("a request").expect("text");
                let mut parts = first.split(' ');
                let (method, path) =
                    (parts.next().expect("a method"), parts.next().expect("a path"));
                let headers: HashMap<String, String> = lines
                    .map(|line| line.expect("text"))
                    .take_while(|line| !line.is_empty())
                    .filter_map(|line| {
                        let (name, value) = line.split_once(": ")?;
                        Some((name.to_ascii_lowercase(), value.to_string()))
                    })
                    .collect();
                let of = |name: &str| headers.get(name).cloned();
                let request = (method.into(), path.into(), of("range"), of("authorization"));
                asked.lock().expect("no thread panicked").push(request);
                let from = of("range").and_then(|range| {
                    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
                });
                let mut body = files[path.trim_start_matches('/')][from.unwrap_or(0)..].to_vec();
                let length = body.len();
                let fault = *fault.lock().expect("no thread panicked");
                match fault {
                    Fault::None => {}
                    Fault::Cut(at) | Fault::Stalled(at) => body.truncate(at),
                    Fault::Flipped => body[length / 2] ^= 1,
                }
                let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                // It fails where the program has gone.
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
                if matches!(fault, Fault::Stalled(_)) {
                    // Until the program goes.
                    let _ = stream.read_to_end(&mut Vec::new());
                }
            }
        });
        port
    }

    impl Hub {
        /// Serves files of the model repository `owner/repo` and the dataset repository `owner/data`, the
        /// latter ones by their paths after `datasets/`.
        fn serve(files: &[(&str, Vec<u8>)]) -> Self {
            let files: HashMap<String, Vec<u8>> =
                files.iter().map(|(name, bytes)| ((*name).to_string(), bytes.clone())).collect();
            let (asked, asked_store) =
                <(Arc<Mutex<Vec<Asked>>>, Arc<Mutex<Vec<Asked>>>)>::default();
            let fault = Arc::new(Mutex::new(Fault::None));
            let (stored, faulty) = (files.clone(), fault.clone());
            let store = serve_store(asked_store.clone(), stored, faulty.clone());
            let port = serve(asked.clone(), move |request| {
                let fault = *faulty.lock().expect("no thread panicked");
                let answered = answer(&files, &request, store, fault);
                let empty = || Response::from_data(Vec::new()).with_status_code(404);
                request.respond(answered.unwrap_or_else(empty)).expect("answered");
            });
            let home = TempDir::new().expect("a temporary folder");
            let endpoint = format!("http://127.0.0.1:{port}");
            Self { endpoint, asked, asked_store, fault, home }
        }

        /// Runs the program and returns its exit code and what it says.
        fn run(&self, args: &[&str], more: &[(&str, &str)]) -> (Option<i32>, String) {
            let mut command = trainer();
            command.args(args).env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.endpoint);
            for name in ["HF_TOKEN", "HF_HUB_OFFLINE"] {
                command.env_remove(name);
            }
            let output = command.envs(more.iter().copied()).output().expect("it runs");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).expect("text");
            assert!(!said.contains("panicked"), "{said}");
            (output.status.code(), said)
        }

        fn works(&self, args: &[&str]) -> String {
            let (code, said) = self.run(args, &[]);
            assert_eq!(code, Some(0), "{said}");
            said
        }

        fn fails(&self, args: &[&str], message: &str) {
            let (code, said) = self.run(args, &[]);
            assert!(code == Some(1) && said.contains(message), "{said:?} does not say {message:?}");
        }

        /// Returns the requests to both servers since the last call.
        fn requests(&self) -> [Vec<Asked>; 2] {
            [&self.asked, &self.asked_store]
                .map(|asked| std::mem::take(&mut *asked.lock().expect("no thread panicked")))
        }

        fn set(&self, fault: Fault) {
            *self.fault.lock().expect("no thread panicked") = fault;
        }

        /// Returns the files with hashes for names in the cache of the model repository.
        fn blobs(&self) -> Vec<PathBuf> {
            let folder = self.home.path().join("hub/models--owner--repo/blobs");
            fs::read_dir(folder).map_or_else(
                |_| Vec::new(),
                |entries| entries.map(|entry| entry.expect("an entry").path()).collect(),
            )
        }
    }

    /// Answers as the Hub does: with files that end with `.json`, and with the place of others.
    fn answer(
        files: &HashMap<String, Vec<u8>>,
        request: &Request,
        store: u16,
        fault: Fault,
    ) -> Option<Response<std::io::Cursor<Vec<u8>>>> {
        let url = request.url();
        if let Some(rest) = url.strip_prefix("/api/datasets/owner/data/revision/") {
            let names = files.keys().filter_map(|name| name.strip_prefix("datasets/"));
            let siblings: Vec<_> =
                names.map(|name| serde_json::json!({ "rfilename": name })).collect();
            let listing = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
            return ["main", COMMIT]
                .contains(&rest)
                .then(|| Response::from_data(listing.to_string()));
        }
        // Renamed.
        if let Some(rest) = url.strip_prefix("/owner/old/") {
            let place = format!("/owner/repo/{rest}");
            let moved = Response::from_data(Vec::new()).with_status_code(307);
            return Some(moved.with_header(header("Location", &place)));
        }
        let model = url.strip_prefix("/owner/repo/resolve/").map(|rest| ("", rest));
        let data =
            url.strip_prefix("/datasets/owner/data/resolve/").map(|rest| ("datasets/", rest));
        let (kind, rest) = model.or(data)?;
        let (revision, name) = rest.split_once('/')?;
        let known = ["main", "v1", COMMIT].contains(&revision);
        let name = format!("{kind}{name}");
        let bytes = files.get(&name).filter(|_| known)?;
        assert!([Method::Get, Method::Head].contains(request.method()));
        if name.ends_with(".json") {
            let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
            let (hash, mut bytes) = (hex(&Sha1::digest(blob)), bytes.clone());
            if fault == Fault::Flipped {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            let small = Response::from_data(bytes).with_header(header("X-Repo-Commit", COMMIT));
            return Some(small.with_header(header("ETag", &format!("\"{hash}\""))));
        }
        let hash = hex(&Sha256::digest(bytes));
        // As by another name, so that nothing with a token may go there.
        let place = format!("http://localhost:{store}/{name}");
        let redirect = Response::from_data(Vec::new())
            .with_status_code(302)
            .with_header(header("Location", &place))
            .with_header(header("X-Repo-Commit", COMMIT))
            .with_header(header("X-Linked-Etag", &format!("\"{hash}\"")))
            .with_header(header("X-Linked-Size", &bytes.len().to_string()))
            .with_header(header("ETag", "\"0\""));
        Some(redirect)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn golden(name: &str) -> Vec<u8> {
        fs::read(root().join("tests/golden").join(name)).expect("a golden file")
    }

    const LINK: &str = "hf://owner/repo/a/model.safetensors";

    fn with_weights() -> (Hub, Vec<u8>) {
        let weights = golden("network.weights.safetensors");
        (Hub::serve(&[("a/model.safetensors", weights.clone())]), weights)
    }

    #[test]
    fn weights_are_downloaded_once_and_used_without_a_network() {
        let (hub, weights) = with_weights();
        let want =
            hub.works(&["info", text(&root().join("tests/golden/network.weights.safetensors"))]);
        let said = hub.works(&["info", LINK]);
        assert_eq!(
            said.lines().skip(1).collect::<Vec<_>>(),
            want.lines().skip(1).collect::<Vec<_>>()
        );
        let [asked, store] = hub.requests();
        assert_eq!(asked.iter().map(|asked| &asked.0[..]).collect::<Vec<_>>(), ["HEAD", "GET"]);
        assert_eq!(store.len(), 1);
        // In the layout that other programs read.
        let snapshot = hub.home.path().join("hub/models--owner--repo/snapshots").join(COMMIT);
        assert!(fs::read(snapshot.join("a/model.safetensors")).expect("there") == weights);
        let commit = fs::read_to_string(hub.home.path().join("hub/models--owner--repo/refs/main"));
        assert_eq!(commit.expect("there"), COMMIT);
        assert_eq!(hub.blobs().len(), 1);
        // Not a single request, also by the commit.
        for link in [
            LINK.to_string(),
            format!("{LINK}@{COMMIT}"),
            format!("hf://owner/repo@{COMMIT}/a/model.safetensors"),
        ] {
            assert_eq!(hub.works(&["info", &link]), hub.works(&["info", LINK]));
        }
        let (code, _) = hub.run(&["info", LINK], &[("HF_ENDPOINT", "http://127.0.0.1:1")]);
        assert_eq!(code, Some(0));
        assert_eq!(hub.requests(), [Vec::new(), Vec::new()]);
        let offline = [("HF_HUB_OFFLINE", "1")];
        assert_eq!(hub.run(&["info", LINK], &offline).0, Some(0));
        let (code, said) = hub.run(&["info", "hf://owner/repo/other.safetensors"], &offline);
        assert!(code == Some(1) && said.contains("HF_HUB_OFFLINE forbids"), "{said}");
        // A tag with the same file needs no second download.
        hub.works(&["info", &format!("{LINK}@v1")]);
        let [asked, store] = hub.requests();
        assert_eq!((asked.len(), store.len()), (1, 0));
        // By its old name, with which it is another repository in the cache.
        hub.works(&["info", "hf://owner/old/a/model.safetensors"]);
    }

    #[test]
    fn cut_downloads_are_resumed_and_wrong_ones_removed() {
        let (hub, weights) = with_weights();
        hub.set(Fault::Cut(1_000));
        hub.fails(&["info", LINK], "run the same command again to resume");
        let [partial] = &hub.blobs()[..] else { panic!("{:?}", hub.blobs()) };
        assert!(partial.extension().is_some_and(|extension| extension == "incomplete"));
        assert!(fs::read(partial).expect("there") == weights[..1_000]);
        hub.requests();
        hub.set(Fault::None);
        hub.works(&["info", LINK]);
        let [_, store] = hub.requests();
        assert_eq!(
            store.iter().map(|asked| asked.2.clone()).collect::<Vec<_>>(),
            [Some("bytes=1000-".into())]
        );

        let (hub, _) = with_weights();
        hub.set(Fault::Flipped);
        hub.fails(&["info", LINK], "it was deleted");
        assert_eq!(hub.blobs(), Vec::<PathBuf>::new());
        hub.set(Fault::None);
        hub.works(&["info", LINK]);
    }

    #[test]
    fn stalled_downloads_end_and_are_resumed() {
        let (hub, weights) = with_weights();
        hub.set(Fault::Stalled(1_000));
        let patience = [("HF_HUB_DOWNLOAD_TIMEOUT", "1")];
        let (code, said) = hub.run(&["info", LINK], &patience);
        let kept = format!("nothing arrived for 1s; 1000 of {} bytes are kept in ", weights.len());
        assert!(code == Some(1) && said.contains(LINK) && said.contains(&kept), "{said}");
        assert!(said.contains("run the same command again to resume"), "{said}");
        hub.set(Fault::None);
        hub.requests();
        hub.works(&["info", LINK]);
        let [_, store] = hub.requests();
        assert_eq!(store[0].2, Some("bytes=1000-".into()));
        for wrong in ["0", "x"] {
            let (code, said) = hub.run(&["info", LINK], &[("HF_HUB_DOWNLOAD_TIMEOUT", wrong)]);
            let message = format!("HF_HUB_DOWNLOAD_TIMEOUT is `{wrong}`, not a number of seconds");
            assert!(code == Some(1) && said.contains(&message), "{said}");
        }
        // The Hub itself does not answer.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
        let more = [patience[0], ("HF_ENDPOINT", &endpoint[..])];
        let (code, said) = hub.run(&["info", "hf://owner/repo/other.safetensors"], &more);
        assert!(code == Some(1) && said.contains("nothing arrived for 1s"), "{said}");
    }

    const SMALL: &str = r#"{"batch": 8, "model": {"network": {"channels": [32], "blocks": [1],
        "window": {"size": 8}, "time": {"channels": 8, "width": 8}}}}"#;

    #[test]
    fn small_files_are_compared_with_their_git_hash() {
        let hub = Hub::serve(&[("options.json", SMALL.as_bytes().to_vec())]);
        let args = ["train", "--preset", "tiny", "--options", "hf://owner/repo/options.json"];
        let args = [&args[..], &["--data", "emoji", "--dry-run"]].concat();
        hub.set(Fault::Flipped);
        hub.fails(&args, "has the Git hash ");
        hub.fails(&args, "it was deleted");
        assert_eq!(hub.blobs(), Vec::<PathBuf>::new());
        hub.set(Fault::None);
        let said = hub.works(&args);
        assert!(said.contains("batch                                    8 "), "{said}");
        assert_eq!(hub.blobs().len(), 1);
    }

    /// Options that take the path of a file take a link, and so do the options in a file.
    #[test]
    fn options_references_and_networks_are_taken_from_links() {
        let parquet = golden("parquet/zstd/train.parquet");
        let options = SMALL.replacen('{', r#"{"data": "hf://datasets/owner/data", "#, 1);
        let hub = Hub::serve(&[
            ("options.json", options.into_bytes()),
            ("r.npz", golden("numpy.npz")),
            ("n.pth", golden("legacy.pth")),
            ("datasets/train.parquet", parquet),
        ]);
        let out = hub.home.path().join("runs");
        let args = ["train", "--preset", "tiny", "--options", "hf://owner/repo/options.json"];
        let more = ["--resize", "--grid", "0", "--duration", "16", "--out", text(&out)];
        hub.works(&[&args[..], &more].concat());
        let options = fs::read_to_string(crate::support::only_run(&out).join("options.json"));
        let place = format!("datasets--owner--data/snapshots/{COMMIT}");
        assert!(options.expect("there").contains(&place));
        let network = ["--features", "lite0", "--allow-unknown-network", "--network"];
        let network = [&network[..], &["hf://owner/repo/n.pth"]].concat();
        let images = root().join("tests/golden/numpy.npz");
        let reference = ["--reference", "hf://owner/repo/r.npz"];
        let evaluate = ["evaluate", "--images", text(&images)];
        let metrics = ["metrics", "reference", "--data", "emoji", "-o", "x.npz"];
        let quality = ["train", "--out", text(&out), "--metric", "fid"];
        let place = format!("models--owner--repo/snapshots/{COMMIT}/n.pth");
        for args in [
            [&evaluate[..], &reference, &network].concat(),
            [&metrics[..], &network].concat(),
            [&quality[..], &reference, &network].concat(),
        ] {
            hub.fails(&args, &place);
            hub.fails(&args, "these are not the weights of this network");
        }
        let absent = ["--reference", "hf://owner/repo/absent.npz"];
        let args = [&evaluate[..], &absent, &network].concat();
        hub.fails(&args, "there is no such repository, revision or file");
    }

    #[test]
    fn the_token_is_for_the_endpoint_only() {
        let (hub, _) = with_weights();
        assert_eq!(hub.run(&["info", LINK], &[("HF_TOKEN", TOKEN)]).0, Some(0));
        let [asked, store] = hub.requests();
        let token = Some(format!("Bearer {TOKEN}"));
        assert!(asked.len() == 2 && asked.iter().all(|asked| asked.3 == token), "{asked:?}");
        assert!(store.len() == 1 && store[0].3.is_none(), "{store:?}");
        // That of a login, in a file.
        let (hub, _) = with_weights();
        fs::write(hub.home.path().join("token"), format!("{TOKEN}\n")).expect("written");
        hub.works(&["info", LINK]);
        assert!(hub.requests()[0].iter().all(|asked| asked.3 == token));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let (hub, _) = with_weights();
        for (link, message) in [
            ("hf://owner/repo/b.safetensors", "there is no such repository, revision or file"),
            ("hf://owner/repo/a/model.safetensors@v9", "revision v9"),
            ("hf://owner/repo", "the path of a file is missing"),
            ("hf://owner/../b.safetensors", "is no owner and name of a repository"),
        ] {
            hub.fails(&["info", link], message);
            hub.fails(&["info", link], link);
        }
        let unreachable = [("HF_ENDPOINT", "http://127.0.0.1:1")];
        let (code, said) = hub.run(&["info", LINK], &unreachable);
        assert!(code == Some(1) && said.contains("http://127.0.0.1:1/owner/repo/"), "{said}");
    }

    #[test]
    fn a_folder_of_a_dataset_is_downloaded_without_other_splits() {
        let file = |name: &str| golden(&format!("parquet/snappy/data/{name}.parquet"));
        let names = ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"];
        let paths = names.map(|name| format!("datasets/data/{name}.parquet"));
        let mut files: Vec<(&str, Vec<u8>)> =
            paths.iter().zip(names).map(|(path, name)| (&path[..], file(name))).collect();
        files.push(("datasets/README.md", b"about them".to_vec()));
        let hub = Hub::serve(&files);
        let said = hub.works(&["data", "check", "hf://datasets/owner/data/data"]);
        for part in ["images      24", "cat                      8", "1 file of test left out"] {
            assert!(said.contains(part), "{said:?} does not say {part:?}");
        }
        let [_, store] = hub.requests();
        let mut loaded: Vec<&str> = store.iter().map(|asked| &asked.1[1..]).collect();
        loaded.sort_unstable();
        assert_eq!(loaded, &paths[..2]);
        // Again, and as the whole repository, without a network.
        for link in ["hf://datasets/owner/data/data", "hf://datasets/owner/data"] {
            let (code, said) = hub.run(&["data", "check", link], &[("HF_HUB_OFFLINE", "1")]);
            assert!(code == Some(0) && said.contains("images      24"), "{said}");
        }
        assert_eq!(hub.requests(), [Vec::new(), Vec::new()]);
        // A file that is missing in the cache is downloaded again.
        let name = format!("{}.parquet", names[1]);
        let snapshot = hub.home.path().join("hub/datasets--owner--data/snapshots").join(COMMIT);
        fs::remove_file(snapshot.join("data").join(name)).expect("removed");
        hub.works(&["data", "check", "hf://datasets/owner/data"]);
        hub.works(&["data", "check", "hf://datasets/owner/data/data/test-00000-of-00001.parquet"]);
        // Training takes a link, and is resumed from the cache.
        let out = hub.home.path().join("runs");
        let options = hub.home.path().join("options.json");
        fs::write(&options, SMALL).expect("written");
        hub.requests();
        let args =
            ["train", "--preset", "tiny", "--options", text(&options), "--resize", "--grid", "0"];
        let data = ["--data", "hf://datasets/owner/data", "--duration", "16", "--out", text(&out)];
        hub.works(&[&args[..], &data].concat());
        let run_folder = crate::support::only_run(&out);
        hub.works(&["train", "--resume", text(&run_folder), "--grid", "0", "--duration", "32"]);
        assert_eq!(hub.requests(), [Vec::new(), Vec::new()]);
        assert!(!Path::new("hf:").exists());
    }
}
