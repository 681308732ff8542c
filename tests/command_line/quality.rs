//! Image quality while training, with a feature network of random weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use metrics::network::lite0;
use serde_json::Value;
use tempfile::TempDir;
use tests::trainer;

use crate::metrics::{folder_of, write_network};
#[cfg(unix)]
use crate::support::send;
use crate::support::{fails, latest, log, only_run, run, small_options, text};

/// Random weights of the small feature network, which all tests share, in the target folder.
fn network() -> &'static str {
    static NETWORK: OnceLock<PathBuf> = OnceLock::new();
    let path = NETWORK.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join("lite0.safetensors");
        // Another test process may be reading it.
        let new = folder.join(format!("lite0-{}", std::process::id()));
        write_network(&new, lite0::specs(), 1.0);
        fs::rename(new, &path).expect("renamed");
        path
    });
    text(path)
}

/// Flags that select the feature network.
fn features() -> [&'static str; 5] {
    ["--features", "lite0", "--allow-unknown-network", "--network", network()]
}

/// A folder with the options of a small network and reference statistics.
struct Setting {
    folder: TempDir,
    options: String,
    reference: PathBuf,
}

impl Setting {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let reference = folder.path().join("r.npz");
        let images = folder_of(folder.path(), "images", 0..12);
        let files = ["metrics", "reference", "--data", text(&images), "-o", text(&reference)];
        run(&[&files[..], &features()].concat());
        Self { options: small_options(folder.path()), reference, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Flags of a measurement of 6 samples every 24 images.
    fn metric<'a>(&'a self, metrics: &'a str) -> Vec<&'a str> {
        let mut flags = vec!["--metric", metrics, "--metric-every", "24", "--metric-samples", "6"];
        flags.extend(["--reference", text(&self.reference)]);
        flags.extend(features());
        flags
    }

    /// Arguments that start a run of the small class-conditional network in a folder.
    fn train<'a>(&'a self, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let args = ["train", "--options", &self.options, "--grid", "0", "--out", text(out)];
        [&args[..], more].concat()
    }
}

/// Returns the measurements of a log: numbers of images and values by the beginning of a name.
fn measurements(run_folder: &Path, start: &str) -> Vec<(u64, f64)> {
    let of_line = |line: &Value| {
        let fields = line.as_object()?;
        let (_, value) = fields.iter().find(|(name, _)| name.starts_with(start))?;
        let value = value.as_f64().expect("a number");
        assert!(value.is_finite());
        Some((line["images"].as_u64()?, value))
    };
    log(run_folder).iter().filter_map(of_line).collect()
}

/// Returns the tensors of a checkpoint apart from the optimizer, whose order is not fixed.
fn tensors(checkpoint: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(checkpoint).expect("a checkpoint");
    let file = safetensors::SafeTensors::deserialize(&bytes[40..]).expect("a safetensors file");
    let mut tensors: Vec<_> = file
        .iter()
        .filter(|(name, _)| *name != "optimizer")
        .map(|(name, view)| (name.to_string(), view.data().to_vec()))
        .collect();
    tensors.sort();
    tensors
}

/// Returns the number of images that a checkpoint has seen.
fn images_of(checkpoint: &Path) -> u64 {
    let info: Value =
        serde_json::from_str(&run(&["info", text(checkpoint), "--json"])).expect("JSON");
    info["card"]["images_seen"].as_u64().expect("a number")
}

#[test]
fn image_quality_is_logged_and_the_best_state_is_kept() {
    let setting = Setting::new();
    let (plain, out) = (setting.path("plain"), setting.path("measured"));
    run(&setting.train(&plain, &["--duration", "64"]));
    let flags = [&setting.metric("fid,kid")[..], &["--duration", "64", "--keep", "1"]].concat();
    let more = ["--save-every", "16", "--json"];
    let assert =
        trainer().args([&setting.train(&out, &flags)[..], &more].concat()).assert().success();
    let said = String::from_utf8(assert.get_output().stderr.clone()).expect("text");
    assert!(said.contains("6 samples are fewer than 2048"), "{said}");
    let printed = String::from_utf8(assert.get_output().stdout.clone()).expect("text");
    let (plain, measured) = (only_run(&plain), only_run(&out));
    // The measurement changes nothing about the training.
    assert!(latest(&plain) == latest(&measured));

    // Every 24 images and at the end.
    let distances = measurements(&measured, "FD-");
    assert_eq!(distances.iter().map(|of| of.0).collect::<Vec<_>>(), [24, 48, 64]);
    let kernel = measurements(&measured, "KID-");
    assert_eq!(kernel.len(), 3);
    let lines = log(&measured);
    assert!(lines.iter().all(|line| line["metric_samples"] == 6), "{lines:?}");
    let lowest = *distances.iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("three");
    let best = measured.join("best.ckpt");
    assert_eq!(images_of(&best), lowest.0);
    let result: Value =
        serde_json::from_str(printed.lines().last().expect("a line")).expect("JSON");
    assert_eq!(
        (&result["best"]["images"], &result["best"]["value"]),
        (&lowest.0.into(), &lowest.1.into())
    );
    // One checkpoint remains, and the best one beside it.
    assert_eq!(fs::read_dir(measured.join("checkpoints")).expect("there").count(), 1);

    // `trainer evaluate` finds the same values for the same weights.
    let at = |values: &[(u64, f64)]| values.iter().find(|of| of.0 == lowest.0).expect("there").1;
    let evaluate = ["evaluate", "--json", "--weights", text(&best), "--seeds", "0-5"];
    let more = ["--classes", "random", "--metrics", "fid,kid", "--reference"];
    let flags = [&evaluate[..], &more, &[text(&setting.reference)], &features()].concat();
    let report: Value = serde_json::from_str(&run(&flags)).expect("JSON");
    assert_eq!(report["samples"]["source"]["random_classes"], 1911);
    let results = report["results"].as_object().expect("results");
    for (start, want) in [("FD-", at(&distances)), ("KID-", at(&kernel))] {
        let (_, found) = results.iter().find(|(name, _)| name.starts_with(start)).expect("there");
        let found = found["value"].as_f64().expect("a number");
        assert!((found / want - 1.0).abs() < 1e-9, "{start}: {found}, not {want}");
    }

    // The event file, the chart, the report and the check of the files.
    let events = fs::read_dir(&measured).expect("there").map(|e| e.expect("entry").path());
    let mut events = events.filter(|path| text(path).contains("tfevents"));
    let events = fs::read(events.next().expect("a file")).expect("readable");
    let (name, _) = results.iter().find(|(name, _)| name.starts_with("FD-")).expect("there");
    assert_eq!(events.windows(name.len()).filter(|part| *part == name.as_bytes()).count(), 3);
    let chart = setting.path("chart.svg");
    run(&["plot", text(&measured), "--value", "fd-", "-o", text(&chart)]);
    let svg = fs::read_to_string(&chart).expect("written");
    assert!(svg.contains(&format!("{name} over the number of images seen")), "{svg}");
    let error = fails(&["plot", text(&measured), "--value", "fid", "-o", text(&chart)]);
    assert!(error.contains("no value has this name") && error.contains(name), "{error}");
    let checked = run(&["verify", text(&measured)]);
    assert!(checked.contains("best.ckpt: checkpoint after"), "{checked}");
}

#[test]
fn measurements_go_on_when_a_run_is_resumed() {
    let setting = Setting::new();
    let (whole, parts) = (setting.path("whole"), setting.path("parts"));
    let flags = setting.metric("fid");
    run(&setting.train(&whole, &[&flags[..], &["--duration", "120"]].concat()));
    let whole = only_run(&whole);
    assert_eq!(measurements(&whole, "FD-").len(), 5);

    // Killed when it has kept a state, it resumes with the same flags.
    let args = setting.train(&parts, &flags);
    let mut child = Command::new(trainer().get_program())
        .args([&args[..], &["--duration", "120", "--save-every", "8"]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let deadline = Instant::now() + Duration::from_secs(300);
    let kept = || {
        let runs = fs::read_dir(&parts).into_iter().flatten().flatten();
        runs.map(|run| run.path().join("best.ckpt")).any(|path| path.exists())
    };
    while !kept() {
        assert!(Instant::now() < deadline, "no state was kept");
        assert!(child.try_wait().expect("a process").is_none(), "it ended without one");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    let parts = only_run(&parts);
    run(&["train", "--resume", text(&parts)]);
    assert_eq!(log(&parts), log(&whole));
    assert!(latest(&parts) == latest(&whole));
    assert!(tensors(&parts.join("best.ckpt")) == tensors(&whole.join("best.ckpt")));

    // The state of the best measurement can be resumed, too. Values of another metric are not
    // compared with it.
    let best = parts.join("best.ckpt");
    let images = images_of(&best);
    let duration = (images + 24).to_string();
    let resume = ["train", "--resume", text(&best), "--duration", &duration, "--metric", "kid"];
    let assert = trainer().args(resume).assert().success();
    let said = String::from_utf8(assert.get_output().stderr.clone()).expect("text");
    assert!(said.contains("cannot be compared with the measurements to come"), "{said}");
    assert!(parts.join("best.ckpt.aside").exists() && best.exists());
    assert!(measurements(&parts, "KID-").iter().all(|of| of.0 > images));
    assert!(!measurements(&parts, "KID-").is_empty());

    // Disabled.
    let before = log(&parts).len();
    let duration = (images + 48).to_string();
    run(&["train", "--resume", text(&parts), "--duration", &duration, "--metric-every", "0"]);
    assert_eq!(log(&parts).len(), before);
}

#[test]
fn a_measurement_that_was_due_is_made_up_for() {
    let setting = Setting::new();
    let out = setting.path("runs");
    let mut flags = setting.metric("kid");
    flags[3] = "8";
    // It ends after the first step, without the measurement that is then due.
    let args = [&flags[..], &["--duration", "16", "--max-time", "0s"]].concat();
    run(&setting.train(&out, &args));
    let folder = only_run(&out);
    assert!(measurements(&folder, "KID-").is_empty());
    run(&["train", "--resume", text(&folder)]);
    let images: Vec<u64> = measurements(&folder, "KID-").into_iter().map(|of| of.0).collect();
    assert_eq!(images, [8, 16]);
}

/// A measurement that would take hours does not keep a run from being stopped.
#[cfg(unix)]
#[test]
fn a_signal_ends_a_measurement() {
    let setting = Setting::new();
    let out = setting.path("runs");
    let mut flags = setting.metric("fid");
    (flags[3], flags[5]) = ("8", "1M");
    let mut child = Command::new(trainer().get_program())
        .args(setting.train(&out, &[&flags[..], &["--duration", "80"]].concat()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let deadline = Instant::now() + Duration::from_secs(300);
    while !out.exists() {
        assert!(Instant::now() < deadline && child.try_wait().expect("a process").is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    // The first step takes far less.
    std::thread::sleep(Duration::from_secs(2));
    send("-TERM", &child);
    let status = loop {
        if let Some(status) = child.try_wait().expect("a process") {
            break status;
        }
        assert!(Instant::now() < deadline, "it goes on");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(143));
    let folder = only_run(&out);
    assert_eq!(fs::read_dir(folder.join("checkpoints")).expect("there").count(), 1);
}

#[test]
fn flags_of_a_measurement_are_checked_before_training() {
    let setting = Setting::new();
    let (out, reference) = (setting.path("runs"), text(&setting.reference));
    let features = features();
    let with = |flags: &[&str]| fails(&setting.train(&out, flags));
    let measured = |flags: &[&str]| with(&[flags, &["--reference", reference], &features].concat());
    for (error, message) in [
        (with(&["--metric", "fid"]), "--metric needs --reference FILE"),
        (with(&["--metric-every", "8"]), "--metric-every is for the measurement"),
        (with(&["--reference", reference]), "--reference is for the measurement"),
        (with(&["--metric", "fid", "--reference", "no such.npz"]), "no such.npz: No such file"),
        (
            with(&["--metric", "fid", "--reference", reference, "--network", network()]),
            "of the published weights of Inception",
        ),
        (
            with(&["--metric", "fid", "--reference", reference, "--network", "no such.pth"]),
            "no such.pth: No such file",
        ),
        (measured(&["--metric", "is"]), "cannot compute IS"),
        (measured(&["--metric", "sfid"]), "cannot compute sFID"),
        (measured(&["--metric", "precision-recall"]), "put another metric before it"),
        (measured(&["--metric", "fid", "--metric-samples", "1"]), "take 2 to 1000000 samples"),
        (
            measured(&["--metric", "kid,fid-infinity", "--metric-samples", "19"]),
            "take 20 to 1000000 samples",
        ),
        (measured(&["--metric", "fid", "--metric-samples", "2M"]), "take 2 to 1000000 samples"),
    ] {
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    }
    // A dry run checks them, too, and writes nothing.
    let dry = [&setting.metric("fid")[..], &["--dry-run"]].concat();
    run(&setting.train(&out, &dry));
    let error = with(&["--metric", "fid", "--dry-run"]);
    assert!(error.contains("needs --reference"), "{error}");
    assert!(!out.exists());
    // Random classes need classes.
    let weights = setting.path("plain");
    let plain = ["--preset", "tiny", "--duration", "8"];
    run(&setting.train(&weights, &plain));
    let weights = only_run(&weights);
    let evaluate = ["evaluate", "--reference", reference, "--classes", "random", "--weights"];
    let error = fails(&[&evaluate[..], &[text(&weights)], &features].concat());
    assert!(error.contains("this model has no classes"), "{error}");
}
