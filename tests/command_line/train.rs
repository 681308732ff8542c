//! Training, from the command line to the run folder.

use std::fs;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tests::{Tensors, assert_close, cifar10, trainer};

use crate::support::{fails, latest, only_run, png, run, small_options, text};

/// Trains a few steps on `data`, exports and samples. `size` is that of the grid, and `parameters`
/// the number of parameters.
fn train_export_sample(data: &str, size: (u32, u32), parameters: u64) {
    let folder = TempDir::new().expect("a temporary folder");
    let out = folder.path().join("runs");
    let said = run(&[
        "train",
        "--from",
        "scratch",
        "--data",
        data,
        "--duration",
        "64",
        "--batch",
        "16",
        "--grid",
        "1",
        "--out",
        text(&out),
    ]);
    assert!(said.contains(" -- sample --weights"), "{said}");
    let run_folder = only_run(&out);
    // It ends with what changed, in numbers and as a picture of both grids.
    let change = said.lines().last().expect("a line");
    assert!(change.starts_with("From the first grid to the last, pixels changed by "), "{said}");
    let both = run_folder.join("first-and-last.png");
    assert!(change.ends_with(&format!("Side by side: {}", text(&both))), "{said}");
    let (width, height) = (png(&both).width(), png(&both).height());
    assert!(width > 2 * size.0 && height > size.1, "{width}x{height}");
    let grid = png(&run_folder.join("grids/000000064.png"));
    assert_eq!(grid.dimensions(), size);
    let options = fs::read(run_folder.join("options.json")).expect("the recipe");
    let options: Value = serde_json::from_slice(&options).expect("JSON");
    assert_eq!((&options["batch"], &options["duration"]), (&16.into(), &64.into()));

    // In half precision, with a field of the model card.
    let half = folder.path().join("half.safetensors");
    let card = folder.path().join("card.json");
    fs::write(&card, r#"{"licence": "CC0"}"#).expect("written");
    run(&[
        "export",
        text(&run_folder),
        "-o",
        text(&half),
        "--precision",
        "f16",
        "--card",
        text(&card),
    ]);
    let info: Value =
        serde_json::from_str(&run(&["info", text(&half), "--json"])).expect("one JSON object");
    assert_eq!(info["card"]["images_seen"], 64);
    assert_eq!(info["card"]["licence"], "CC0");
    assert_eq!(info["parameters"], parameters);
    let size = |path: &Path| fs::metadata(path).expect("there").len();
    let full = run_folder.join("weights.safetensors");
    assert!(size(&half) * 10 < size(&full) * 6);
    let again = fails(&["export", text(&run_folder), "-o", text(&half)]);
    assert!(again.contains("use --overwrite to replace it"), "{again}");

    let picture = folder.path().join("a.png");
    run(&[
        "sample",
        "--weights",
        text(&half),
        "--seeds",
        "7",
        "--steps",
        "2",
        "-o",
        text(&picture),
    ]);
    let picture = png(&picture);
    assert_eq!(picture.dimensions(), (32, 32));
    let values: std::collections::HashSet<_> = picture.pixels().collect();
    assert!(values.len() > 16, "an even colour");
}

#[test]
fn trains_on_the_embedded_set_exports_and_samples() {
    // With captions.
    train_export_sample("emoji", (104, 132), 3394627);
}

#[test]
fn trains_on_cifar10_exports_and_samples() {
    match cifar10() {
        Some(path) => train_export_sample(text(&path), (32, 32), 3150019),
        None => eprintln!("CIFAR-10 not found: nothing was tested"),
    }
}

#[test]
fn parts_of_a_batch_make_the_whole() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = ["train", "--grid", "0", "--duration", "80", "--out", text(&out)];
        let options = ["--options", &options, "--lr-ramp", "0"];
        run(&[&args[..], &options, more].concat());
        let file = Tensors::open(&only_run(&out).join("weights.safetensors"));
        ["head.conv.bias", "encoder.0.blocks.0.conv.weight"].map(|name| file.get(name).1)
    };
    let whole = train("whole", &[]);
    let parts = train("parts", &["--micro-batch", "2"]);
    for (whole, parts) in whole.iter().zip(&parts) {
        assert_close("weights", parts, whole, 1e-3);
    }
    let clipped = train("clipped", &["--clip", "1e-3"]);
    assert_ne!(whole, clipped);
}

#[test]
fn other_processes_train_and_sample() {
    let folder = TempDir::new().expect("a temporary folder");
    for kind in ["vp", "ve"] {
        let path = small_options(folder.path());
        let mut options: Value =
            serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
        options["loss"] = serde_json::json!({"kind": kind});
        options["model"]["precond"] = serde_json::json!({"kind": kind});
        fs::write(&path, options.to_string()).expect("written");
        let out = folder.path().join(kind);
        run(&["train", "--options", &path, "--grid", "1", "--duration", "16", "--out", text(&out)]);
        let options = fs::read(only_run(&out).join("options.json")).expect("the recipe");
        let options: Value = serde_json::from_slice(&options).expect("JSON");
        assert_eq!(
            (&options["loss"]["kind"], &options["model"]["precond"]["kind"]),
            (&kind.into(), &kind.into())
        );
        let grid = png(&only_run(&out).join("grids/000000016.png"));
        let values: std::collections::HashSet<_> = grid.pixels().collect();
        assert!(values.len() > 16, "{kind}: an even colour");
    }
}

#[test]
fn two_workers_train_as_one_does() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out), "--json"];
        let said = run(&[&args[..], &["--duration", "2048"], more].concat());
        let first: Value =
            serde_json::from_str(said.lines().next().expect("a line")).expect("JSON");
        first["loss"].as_f64().expect("a number")
    };
    let one = train("one", &["--micro-batch", "4"]);
    let two = train("two", &["--micro-batch", "2", "--devices", "2"]);
    assert!((one / two - 1.0).abs() < 1e-3, "{one} and {two}");
    let out = folder.path().join("three");
    let error = fails(&["train", "--options", &options, "--devices", "3", "--out", text(&out)]);
    assert!(error.contains("a batch of 8 cannot be split evenly across 3 devices"), "{error}");
}

/// The recipe names the initial weights by their hash.
#[test]
fn initial_weights_are_recorded() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--duration", "8"];
    run(&[&args[..], &["--out", text(&out)]].concat());
    let first = only_run(&out);
    let recipe = |run: &Path| {
        let text = fs::read(run.join("options.json")).expect("the recipe");
        serde_json::from_slice::<Value>(&text).expect("JSON")
    };
    assert_eq!(recipe(&first).get("from_sha256"), None, "random weights");
    let weights = folder.path().join("a.safetensors");
    fs::rename(first.join("weights.safetensors"), &weights).expect("moved");
    fs::remove_dir_all(&out).expect("removed");
    run(&[&args[..], &["--out", text(&out), "--from", text(&weights)]].concat());
    let hash = format!("{:x}", Sha256::digest(fs::read(&weights).expect("weights")));
    let second = only_run(&out);
    assert_eq!(recipe(&second)["from_sha256"], hash);
    // A resumed run keeps it.
    run(&["train", "--resume", text(&second), "--duration", "16", "--grid", "0"]);
    assert_eq!(recipe(&second)["from_sha256"], hash);
    // The recipe of the run is not used with other weights by mistake.
    let same = folder.path().join("same.json");
    fs::copy(second.join("options.json"), &same).expect("copied");
    let again = ["train", "--options", text(&same), "--grid", "0", "--out", text(&out)];
    let error = fails(&again);
    assert!(error.contains(&hash) && error.contains("--from scratch"), "{error}");
    for from in [text(&weights), "scratch"] {
        run(&[&again[..], &["--from", from, "--duration", "8"]].concat());
    }
}

#[test]
fn a_dry_run_explains_every_value_and_writes_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let said =
        run(&["train", "--options", &options, "--lr", "0.25", "--out", text(&out), "--dry-run"]);
    let line = |name: &str| {
        let line = said.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("{said:?} has no {name}")).to_string()
    };
    assert!(line("adam.lr").contains("0.25") && line("adam.lr").ends_with("flags"));
    assert!(line("batch").ends_with("small.json"));
    assert!(line("lr_ramp").ends_with("preset tiny-emoji"));
    for part in ["parameters", "multiply-adds", "memory", "time", "run folder"] {
        assert!(said.lines().any(|line| line.starts_with(part)), "{said:?} has no {part}");
    }
    assert!(!out.exists());
    // A preset for data that are not given.
    let assert = trainer().args(["train", "--preset", "cifar10", "--dry-run"]).assert().success();
    let output = assert.get_output();
    assert!(String::from_utf8_lossy(&output.stdout).contains("28702339"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cifar10 needs --data"), "{output:?}");
    fs::write(&options, r#"{"bacth": 8}"#).expect("written");
    let error = fails(&["train", "--options", &options, "--dry-run"]);
    assert!(error.contains("unknown field `bacth`") && error.contains("small.json"), "{error}");
}

/// Earlier versions called the CPU `flex`.
#[test]
fn the_cpu_is_a_device_of_that_name() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    for name in ["cpu", "flex"] {
        let out = folder.path().join(name);
        let args = ["train", "--options", &options, "--grid", "0", "--duration", "8"];
        run(&[&args[..], &["--device", name, "--out", text(&out)]].concat());
        let run_folder = only_run(&out);
        let device = || {
            let launch = fs::read(run_folder.join("launch.json")).expect("the settings");
            serde_json::from_slice::<Value>(&launch).expect("JSON")["device"].clone()
        };
        assert_eq!(device(), "cpu", "{name}");
        run(&["train", "--resume", text(&run_folder), "--duration", "16", "--grid", "0"]);
        assert_eq!(device(), "cpu", "{name}");
    }
    for said in [run(&["train", "--help"]), fails(&["train", "--device", "tpu"])] {
        assert!(said.contains("cpu") && !said.contains("flex"), "{said}");
    }
}

#[test]
fn programs_can_read_what_a_run_says() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let assert = trainer()
        .args(["train", "--options", &options, "--grid", "1", "--duration", "2400", "--json"])
        .args(["--out", text(&out)])
        .assert()
        .success();
    let output = assert.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON in every line"))
        .collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[..2].iter().all(|line| line["loss"].as_f64() > Some(0.0)));
    assert_eq!(lines[2]["images"], 2400);
    assert!(Path::new(lines[2]["weights"].as_str().expect("a path")).exists());
}

#[test]
fn the_log_says_where_the_time_went_and_the_environment_how_much_is_told() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--duration", "1200", "--out"];
    let train = |log: &str| {
        let assert = trainer().args(args).arg(&out).env("RUST_LOG", log).assert().success();
        String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
    };
    let said = train("trainer=debug");
    let lines = |what: &str| said.lines().filter(|line| line.contains(what)).count();
    assert_eq!(lines("DEBUG trainer::commands::train::session: step images="), 150, "{said}");
    assert!(lines("INFO trainer::commands::train::saves: checkpoint written path=") > 0, "{said}");
    assert!(lines("TRACE") == 0, "{said}");

    let log = fs::read_to_string(only_run(&out).join("stats.jsonl")).expect("a log");
    let line: Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    let seconds = |name: &str| line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}"));
    let parts = ["data_wait", "forward_backward", "optimizer"].map(seconds);
    assert!(parts[1] > parts[2] && parts[2] > 0.0, "{line}");
    assert!(parts.iter().sum::<f64>() <= seconds("seconds"), "{line}");

    let said = train("trainer=loud");
    assert!(said.contains("warning: RUST_LOG=trainer=loud is ignored"), "{said}");
    assert!(!said.contains("DEBUG") && !said.contains("INFO"), "{said}");
}

#[test]
fn a_run_that_explodes_stops_and_says_how_to_go_back() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out)];
    run(&[&args[..], &["--duration", "16", "--lr", "1e-4"]].concat());
    let run_folder = only_run(&out);
    let before = latest(&run_folder);
    let error = fails(&[
        "train",
        "--resume",
        text(&run_folder),
        "--lr",
        "1e30",
        "--lr-ramp",
        "0",
        "--grid",
        "0",
        "--duration",
        "1k",
    ]);
    for part in ["10 steps in a row", "learning rate 1e30", "000000016.ckpt --lr 5e29"] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    // The images of the last step.
    let (_, last) = error.split_once("up to image ").expect("a number");
    let last: u64 = last.split(' ').next().expect("a word").parse().expect("a number");
    let mut order = model::examples::Order::new(0, (0..1911).collect());
    let batch: Vec<String> = (last - 8..last).map(|k| order.index(k).to_string()).collect();
    let (_, named) = error.split_once("these numbers in the data, from 0: ").expect("numbers");
    let (named, _) = named.split_once(". ").expect("an end");
    assert!(named.split(", ").all(|number| batch.contains(&number.to_string())), "{error}");
    // The last good checkpoint was not overwritten.
    assert_eq!(latest(&run_folder), before);
}
