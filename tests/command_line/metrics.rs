//! Image quality: reference statistics, evaluations, and the download of the feature network.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use metrics::network::tensors::Spec;
use metrics::network::{inception, lite0};
use model::picture::Rgb;
use safetensors::tensor::Dtype;
use serde_json::Value;
use tempfile::TempDir;
use tests::trainer;

use crate::support::{fails, run, text, view};

/// Pseudo-random numbers in [-1, 1).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Writes random weights of a feature network, with a given factor for all of its filters.
pub fn write_network(path: &Path, specs: Vec<Spec>, factor: f32) {
    let mut numbers = Numbers(1);
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = specs
        .into_iter()
        .map(|spec| {
            let size: usize = spec.shape.iter().product();
            let fan_in: usize = spec.shape[1..].iter().product();
            let mut value = |_| match (spec.shape.len(), spec.name.rsplit('.').next()) {
                (2 | 4, _) => numbers.next() * factor * (6.0 / fan_in as f32).sqrt(),
                (_, Some("weight" | "running_var")) => 1.0,
                _ => 0.1 * numbers.next(),
            };
            let bytes = (0..size).flat_map(|i| value(i).to_le_bytes()).collect();
            (spec.name, spec.shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| (name, view(Dtype::F32, shape, bytes)));
    fs::write(path, safetensors::serialize(views, None).expect("fits")).expect("written");
}

/// Random weights of Inception that all tests share, 96 MB, in the target folder.
fn network() -> &'static str {
    static NETWORK: OnceLock<PathBuf> = OnceLock::new();
    let path = NETWORK.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join("network.safetensors");
        // Another test process may be reading it.
        let new = folder.join(format!("network-{}", std::process::id()));
        write_network(&new, inception::specs(), 1.0);
        fs::rename(new, &path).expect("renamed");
        path
    });
    text(path)
}

/// Makes images with few colours, which differ from seed to seed.
fn image(seed: u64, side: usize) -> Rgb {
    let mut numbers = Numbers(seed);
    let colours: Vec<[u8; 3]> =
        (0..16).map(|_| [0; 3].map(|_: u8| (numbers.next() * 127.0 + 128.0) as u8)).collect();
    let bytes = (0..side * side)
        .flat_map(|i| colours[i % side * 4 / side + i / side * 4 / side * 4])
        .collect();
    Rgb { width: side, height: side, bytes }
}

/// Writes a folder of images with the given seeds.
pub fn folder_of(folder: &Path, name: &str, seeds: std::ops::Range<u64>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(&path).expect("made");
    for seed in seeds {
        let png = image(seed, 32).to_png(None).expect("encoded");
        fs::write(path.join(format!("{seed:04}.png")), png).expect("written");
    }
    path
}

/// Runs `trainer evaluate --json` and returns the report.
fn evaluate(reference: &Path, args: &[&str]) -> Value {
    let common = ["evaluate", "--json", "--allow-unknown-network", "--network", network()];
    let reference = ["--reference", text(reference), "--batch", "4"];
    let printed = run(&[&common[..], &reference, args].concat());
    serde_json::from_str(&printed).expect("a JSON object")
}

/// Runs `trainer evaluate`, which must fail, and returns the error.
fn evaluate_fails(reference: &Path, images: &Path) -> String {
    let network = ["--allow-unknown-network", "--network", network()];
    let paths = ["--reference", text(reference), "--images", text(images)];
    fails(&[&["evaluate"][..], &network, &paths].concat())
}

/// Computes reference statistics.
fn reference_of(data: &Path, output: &Path) -> String {
    let network = ["--allow-unknown-network", "--network", network(), "--batch", "4"];
    let paths = ["--data", text(data), "-o", text(output)];
    run(&[&["metrics", "reference"][..], &network, &paths].concat())
}

/// Returns a value of a report by the beginning of its name.
fn value(report: &Value, name: &str) -> f64 {
    let results = report["results"].as_object().expect("results");
    let of_name = |(key, _): &(&String, &Value)| {
        key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let (_, entry) = results.iter().find(of_name).unwrap_or_else(|| panic!("{name}: {report}"));
    let value = entry["value"].as_f64().expect("a number");
    assert!(value.is_finite(), "{name}");
    value
}

#[test]
fn images_are_compared_with_reference_statistics() {
    let folder = TempDir::new().expect("a temporary folder");
    let (a, b) = (folder_of(folder.path(), "a", 0..8), folder_of(folder.path(), "b", 100..107));
    let reference = folder.path().join("a.npz");
    let said = reference_of(&a, &reference);
    assert!(said.contains("statistics of 8 images, and the features of 8 of them"), "{said}");

    // A set is at distance 0 from itself.
    let report = evaluate(&reference, &["--images", text(&a)]);
    for name in ["FD", "sFD"] {
        assert!(value(&report, name).abs() < 1e-6, "{report}");
    }
    assert_eq!((value(&report, "precision"), value(&report, "recall")), (1.0, 1.0));
    // The unbiased estimate is negative here, because the pairs of equal images are left out.
    assert!(value(&report, "KID") < 0.0, "{report}");

    // Another set is not, in whatever form it is given.
    let report = evaluate(&reference, &["--images", text(&b)]);
    assert!(value(&report, "FD") > 0.01 && value(&report, "sFD") > 0.01, "{report}");
    assert!(value(&report, "IS") >= 1.0 && value(&report, "KID") > -1.0, "{report}");
    let zip = folder.path().join("b.zip");
    let mut writer = zip::ZipWriter::new(fs::File::create(&zip).expect("made"));
    let mut arrays = metrics::npz::NpzWriter::default();
    let mut bytes = Vec::new();
    for seed in 100..107 {
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file(format!("{seed}.png"), options).expect("started");
        let png = image(seed, 32).to_png(None).expect("encoded");
        std::io::Write::write_all(&mut writer, &png).expect("written");
        bytes.extend(image(seed, 32).bytes);
    }
    writer.finish().expect("finished");
    let npz = folder.path().join("b.npz");
    arrays.array("arr_0", &[7, 32, 32, 3], &bytes).expect("written");
    fs::write(&npz, arrays.finish().expect("small")).expect("written");
    for path in [&zip, &npz] {
        let same = evaluate(&reference, &["--images", text(path)]);
        assert_eq!(same["results"], report["results"], "{}", path.display());
    }

    // Everything that makes the number comparable, and that it cannot be called FID.
    assert_eq!(report["samples"]["count"], 7);
    assert_eq!(report["reference"]["images"], 8);
    assert_eq!(report["network"]["identity"]["published"], false);
    let name = &report["network"]["identity"]["weights_sha256"].as_str().expect("a hash")[..8];
    let names: Vec<&String> = report["results"].as_object().expect("results").keys().collect();
    assert!(names.iter().all(|key| key.ends_with(name)), "{names:?}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("7 samples are fewer than 2048"), "{notes}");
    assert!(notes.contains("not the published ones"), "{notes}");

    // ADM's reference files have images: precision, recall and KID need no stored features.
    let adm = folder.path().join("adm.npz");
    let mut arrays = metrics::npz::NpzWriter::default();
    arrays.array("arr_0", &[7, 32, 32, 3], &bytes).expect("written");
    fs::write(&adm, arrays.finish().expect("small")).expect("written");
    let report = evaluate(&adm, &["--images", text(&b), "--metrics", "fid,precision-recall"]);
    assert!(value(&report, "FD").abs() < 1e-6, "{report}");
    assert_eq!(value(&report, "precision"), 1.0);
    assert_eq!(report["results"].as_object().expect("results").len(), 3);
}

#[test]
fn an_interrupted_evaluation_gives_the_same_numbers() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let reference = path("a.npz");
    reference_of(&folder_of(folder.path(), "a", 0..6), &reference);
    let seeds = "0-10,3";
    let sampling = ["--sampler", "euler", "--steps", "2", "--seeds", seeds];
    let whole = evaluate(&reference, &sampling);
    assert_eq!(whole["samples"]["count"], 12);
    assert_eq!(whole["samples"]["source"]["evaluations"], 2);
    assert_eq!(whole["samples"]["source"]["seeds"], seeds);

    // A process is killed when it has stored a batch.
    let state = path("state");
    let network = ["--allow-unknown-network", "--network", network(), "--batch", "4"];
    let files = ["--reference", text(&reference), "--state", text(&state)];
    let mut command = std::process::Command::new(trainer().get_program());
    command.args(["evaluate", "--json"]).args(network).args(files).args(sampling);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("started");
    let deadline = Instant::now() + Duration::from_secs(300);
    let batch = 4 * 4 * (2048 + 2023);
    while fs::metadata(&state).map_or(0, |file| file.len()) < batch {
        assert!(Instant::now() < deadline, "no batch was stored");
        assert!(child.try_wait().expect("a process").is_none(), "it ended before a batch");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    let continued = evaluate(&reference, &[&sampling[..], &["--state", text(&state)]].concat());
    assert_eq!(continued["results"], whole["results"]);
    // Another time, all but the last batch is there.
    let stored = [&sampling[..], &["--state", text(&state)]].concat();
    assert_eq!(evaluate(&reference, &stored)["results"], whole["results"]);

    // The file belongs to these samples.
    let other = ["--sampler", "euler", "--steps", "3", "--seeds", "0-10", "--state", text(&state)];
    let error = fails(&[&["evaluate"][..], &network, &files, &other[..6]].concat());
    assert!(error.contains("state: holds the features of other images"), "{error}");

    // Images of a folder are compared with those of the earlier run.
    let images = folder_of(folder.path(), "b", 20..26);
    let (name, state) = (images.join("0021.png"), path("other state"));
    let stored = ["--images", text(&images), "--state", text(&state)];
    let whole = evaluate(&reference, &stored);
    assert_eq!(evaluate(&reference, &stored)["results"], whole["results"]);
    fs::write(&name, image(99, 32).to_png(None).expect("encoded")).expect("written");
    let error =
        fails(&[&["evaluate", "--reference", text(&reference)][..], &network, &stored].concat());
    assert!(error.contains("0021.png: this is another image"), "{error}");
}

#[test]
fn values_go_into_the_card_of_the_weights_that_they_are_of() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let reference = path("a.npz");
    reference_of(&folder_of(folder.path(), "a", 0..6), &reference);
    let weights = path("w.safetensors");
    let shipped =
        fs::read(tests::root().join("www/weights/tiny-emoji.safetensors")).expect("there");
    fs::write(&weights, &shipped).expect("written");
    let sampling = ["--sampler", "euler", "--steps", "2", "--seeds", "0-4", "--card"];
    let guidance = ["--classes", "otter", "--guidance", "2", "--guidance-min", "1"];
    let sampling = [&sampling[..], &guidance].concat();
    let flags = [&sampling[..], &["--weights", text(&weights)]].concat();
    let report = evaluate(&reference, &flags);
    let info = |path: &Path| -> Value {
        serde_json::from_str(&run(&["info", text(path), "--json", "--tensors"])).expect("JSON")
    };
    let card = &info(&weights)["card"];
    let quality = &card["quality"];
    let metrics = quality["metrics"].as_array().expect("a list");
    assert_eq!(metrics.len(), report["results"].as_object().expect("results").len());
    for metric in metrics {
        let measured = &report["results"][metric["name"].as_str().expect("a name")];
        assert_eq!(metric["value"], measured["value"]);
        assert_eq!(metric.get("deviation"), measured.get("deviation"));
    }
    assert_eq!(quality["samples"], 5);
    assert_eq!(
        quality["sampling"],
        "euler, 2 steps, 2 evaluations, guidance of scale 2 above sigma 1"
    );
    assert_eq!(quality["reference"], "a.npz, 6 images");

    // Nothing else has changed: the same evaluation gives the same values, which replace the first.
    let first = fs::read(&weights).expect("there");
    let again = evaluate(&reference, &flags);
    assert_eq!(again["results"], report["results"]);
    assert!(fs::read(&weights).expect("there") == first);
    let original = path("original.safetensors");
    fs::write(&original, &shipped).expect("written");
    let (before, after) = (info(&original), info(&weights));
    for part in ["tensors", "config", "precision"] {
        assert_eq!(before[part], after[part]);
    }
    for field in ["name", "images_seen", "classes"] {
        assert_eq!(before["card"][field], after["card"][field]);
    }

    // Other files have no card, which is said before anything is computed.
    let network = ["--allow-unknown-network", "--network", network(), "--reference"];
    let common = [&["evaluate", "--card"][..], &network, &[text(&reference)]].concat();
    let refused = |args: &[&str]| fails(&[&common[..], args].concat());
    let error = refused(&["--weights", text(folder.path())]);
    assert!(error.contains("only a weights file has a card"), "{error}");
    let error = refused(&["--weights", text(&reference)]);
    assert!(error.contains("a.npz"), "{error}");
    assert!(refused(&[]).contains("--weights"));
}

#[test]
fn unusable_input_is_named() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let images = folder_of(folder.path(), "a", 0..5);
    let reference = path("a.npz");
    reference_of(&images, &reference);

    // Weights of another hash, of another network, and damaged ones.
    let with_network = |args: &[&str]| {
        let common = ["evaluate", "--reference", text(&reference), "--images", text(&images)];
        fails(&[&common[..], args].concat())
    };
    let error = with_network(&["--network", network()]);
    assert!(error.contains("network.safetensors: the file has SHA-256"), "{error}");
    assert!(error.contains("trainer metrics fetch"), "{error}");
    let damaged = path("damaged.safetensors");
    let whole = fs::read(network()).expect("there");
    fs::write(&damaged, &whole[..whole.len() / 2]).expect("written");
    let unknown = |file: &Path| with_network(&["--allow-unknown-network", "--network", text(file)]);
    let error = unknown(&damaged);
    assert!(error.contains("damaged.safetensors: cannot read these weights"), "{error}");
    let error = with_network(&["--network", text(&damaged)]);
    assert!(error.contains("it is damaged, or holds other weights"), "{error}");
    let pickle = path("weights.pth");
    fs::write(&pickle, b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00true\x85R.").expect("written");
    let error = unknown(&pickle);
    assert!(error.contains("weights.pth: "), "{error}");
    let other = tests::root().join("tests/golden/vae.safetensors");
    let error = unknown(&other);
    assert!(
        error.contains("vae.safetensors: these are not the weights of this network"),
        "{error}"
    );
    let error = with_network(&[]);
    assert!(error.contains("trainer metrics fetch") && error.contains("--network"), "{error}");

    // Features that leave the range of numbers.
    let large = path("large.safetensors");
    write_network(&large, inception::specs(), 1e20);
    let common = ["metrics", "reference", "--data", text(&images), "-o", "/nowhere/x.npz"];
    let flags = ["--allow-unknown-network", "--network", text(&large)];
    let error = fails(&[&common[..], &flags].concat());
    assert!(error.contains("0000.png: its features are not finite"), "{error}");

    // Images of several sizes, too few of them, none, and damaged ones.
    let mixed = folder_of(folder.path(), "mixed", 0..2);
    fs::write(mixed.join("z.png"), image(1, 48).to_png(None).expect("encoded")).expect("written");
    let error = evaluate_fails(&reference, &mixed);
    assert!(error.contains("z.png: 48x48 pixels, but") && error.contains("32x32"), "{error}");
    let single = folder_of(folder.path(), "single", 0..1);
    let error = evaluate_fails(&reference, &single);
    assert!(error.contains("single: ") && error.contains("at least 2 images"), "{error}");
    let error = evaluate_fails(&reference, &folder_of(folder.path(), "none", 0..0));
    assert!(error.contains("none: ") && error.contains("there are 0"), "{error}");
    fs::write(single.join("a.png"), b"no image").expect("written");
    let error = evaluate_fails(&reference, &single);
    assert!(error.contains("a.png: not a PNG or JPEG file"), "{error}");

    // References of other dimensions, of another network, and no references.
    let small = path("small.npz");
    let mut npz = metrics::npz::NpzWriter::default();
    npz.array("mu", &[2], &[0.0f64; 2]).expect("written");
    npz.array("sigma", &[2, 2], &[1.0f64, 0.0, 0.0, 1.0]).expect("written");
    fs::write(&small, npz.finish().expect("small")).expect("written");
    let error = evaluate_fails(&small, &images);
    assert!(error.contains("small.npz: array mu has 2 features"), "{error}");
    let error = evaluate_fails(&path("no such.npz"), &images);
    assert!(error.contains("no such.npz: No such file"), "{error}");
    let error = evaluate_fails(&pickle, &images);
    assert!(error.contains("weights.pth: not an .npz file"), "{error}");

    // EDM's references have two arrays only.
    let edm = path("edm.npz");
    let mut npz = metrics::npz::NpzWriter::default();
    let mut identity = vec![0.0f64; 2048 * 2048];
    (0..2048).for_each(|i| identity[i * 2049] = 1.0);
    npz.array("mu", &[2048], &[0.0f64; 2048]).expect("written");
    npz.array("sigma", &[2048, 2048], &identity).expect("written");
    fs::write(&edm, npz.finish().expect("small")).expect("written");
    let common = ["--allow-unknown-network", "--network", network(), "--images", text(&images)];
    let asked = ["evaluate", "--reference", text(&edm), "--metrics", "sfid"];
    let error = fails(&[&asked[..], &common].concat());
    assert!(error.contains("cannot compute sFID") && error.contains("edm.npz"), "{error}");
    let table = run(&[&asked[..3], &common].concat());
    assert!(table.contains("FD-") && table.contains("IS-"), "{table}");
    assert!(!table.contains("sFD-") && !table.contains("precision"), "{table}");

    // Files are not replaced without being asked.
    let common = ["metrics", "reference", "--data", text(&images), "-o", text(&reference)];
    assert!(fails(&common).contains("a.npz exists; use --overwrite"));
    let error = fails(&["evaluate", "--reference", "r.npz", "--images", "x", "--seeds", "1"]);
    assert!(error.contains("cannot be used with"), "{error}");
}

#[test]
fn the_small_feature_network_has_names_of_its_own() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let (weights, reference) = (path("lite0.safetensors"), path("r.npz"));
    write_network(&weights, lite0::specs(), 1.0);
    let (a, b) = (folder_of(folder.path(), "a", 0..6), folder_of(folder.path(), "b", 10..16));
    let network = ["--features", "lite0", "--allow-unknown-network", "--network", text(&weights)];
    let files = ["metrics", "reference", "--data", text(&a), "-o", text(&reference)];
    run(&[&files[..], &network].concat());
    let files = ["evaluate", "--json", "--images", text(&b), "--reference", text(&reference)];
    let report: Value =
        serde_json::from_str(&run(&[&files[..], &network].concat())).expect("a JSON object");
    assert!(value(&report, "FD") > 0.0 && value(&report, "recall") >= 0.0, "{report}");
    let names: Vec<&String> = report["results"].as_object().expect("results").keys().collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("FID") || name.starts_with("IS")));

    // Its statistics are not those of Inception.
    let error = evaluate_fails(&reference, &b);
    assert!(error.contains("r.npz: these are statistics of another feature network"), "{error}");
    let asked = [&files[..], &network, &["--metrics", "is"]].concat();
    assert!(fails(&asked).contains("cannot compute IS"));
}

/// The published file is not to be had here: a server sends something else of the same size.
#[test]
fn downloads_are_resumed_and_verified() {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/inception.pth", server.server_addr());
    let size: usize = 95_628_359;
    std::thread::spawn(move || {
        for request in server.incoming_requests() {
            let range = request.headers().iter().find(|header| header.field.equiv("Range"));
            let range = range.map(|header| header.value.to_string());
            let response = match range.as_deref() {
                // The rest of the file.
                Some("bytes=1000-") => {
                    let rest = tiny_http::Response::from_data(vec![7; size - 1000]);
                    let value = format!("bytes 1000-{}/{size}", size - 1);
                    let header = tiny_http::Header::from_bytes("Content-Range", value);
                    rest.with_status_code(206).with_header(header.expect("a header"))
                }
                Some(_) => tiny_http::Response::from_data(Vec::new()).with_status_code(500),
                // The connection ends too early.
                None => tiny_http::Response::from_data(vec![7; 1000]),
            };
            request.respond(response).expect("answered");
        }
    });
    let folder = TempDir::new().expect("a temporary folder");
    let fetch = || fails(&["metrics", "fetch", "--to", text(folder.path()), "--url", &url]);
    let part = folder.path().join("pt_inception-2015-12-05-6726825d.pth.part");
    let error = fetch();
    assert!(error.contains("connection closed after 1000 of 95628359 bytes"), "{error}");
    assert_eq!(fs::metadata(&part).expect("kept").len(), 1000);
    let error = fetch();
    assert!(error.contains("not 6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}
