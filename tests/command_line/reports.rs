//! Reports, charts and checks of runs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{fails, only_run, run, small_options, text};

/// Trains a small network until it has logged its loss twice, with validation and grids.
fn trained(folder: &Path) -> PathBuf {
    let options = small_options(folder);
    let out = folder.join("runs");
    let train = ["train", "--preset", "tiny-emoji", "--from", "scratch", "--options", &options];
    let more = ["--batch", "32", "--duration", "2048", "--validate", "16", "--grid", "4"];
    run(&[&train[..], &more, &["--sample-every", "1k", "--out", text(&out)]].concat());
    only_run(&out)
}

#[test]
fn a_report_shows_what_the_run_did() {
    let folder = TempDir::new().expect("a temporary folder");
    let run_folder = trained(folder.path());
    let said = run(&["report", text(&run_folder), "--samples", "2"]);
    let path = run_folder.join("report.html");
    assert_eq!(said.trim(), text(&path));
    let page = fs::read_to_string(&path).expect("written");
    // Loss with validation, learning rate, gradient norm, speed.
    assert_eq!(page.matches("<svg").count(), 4);
    // Three grids (after 1,024 and 2,048 images, and at the end), two samples, six training images.
    let grids = fs::read_dir(run_folder.join("grids")).expect("a folder").count();
    assert_eq!(page.matches("<img").count(), grids + 2 + 6);
    for part in ["validation", "after 2,048 images", "1,911", "sample: grinning", "half_life"] {
        assert!(page.contains(part), "{part} is not in the report");
    }
    assert!(!page.contains("<script"));

    // Values that other commands log.
    let mut stats = fs::read_to_string(run_folder.join("stats.jsonl")).expect("there");
    stats += &format!("{}\n", json!({"images": 2048, "fid": 12.5}));
    stats += "{\"images\":20";
    fs::write(run_folder.join("stats.jsonl"), stats).expect("written");
    let elsewhere = folder.path().join("elsewhere.html");
    run(&["report", text(&run_folder), "--samples", "0", "-o", text(&elsewhere)]);
    let page = fs::read_to_string(&elsewhere).expect("written");
    assert_eq!(page.matches("<svg").count(), 5);
    assert!(page.contains("--samples 0") && page.contains("Metrics"));
    assert!(page.contains("Lines of stats.jsonl that cannot be read: 1."));

    // Other data, and data that is not there.
    let nowhere = ["--data", "/nowhere/data"];
    run(&[&["report", text(&run_folder)], &nowhere[..]].concat());
    let page = fs::read_to_string(&path).expect("written");
    assert!(page.contains("Not looked up: the data is not at /nowhere/data"));
    let pictures = crate::support::some_pictures(folder.path(), 3);
    run(&["report", text(&run_folder), "--data", &pictures]);
    let page = fs::read_to_string(&path).expect("written");
    assert!(page.contains("is not that of the run"));
}

#[test]
fn charts_of_one_and_of_two_runs() {
    let folder = TempDir::new().expect("a temporary folder");
    let run_folder = trained(folder.path());
    let svg = folder.path().join("curve.svg");
    run(&["plot", text(&run_folder), "-o", text(&svg)]);
    let one = fs::read_to_string(&svg).expect("written");
    assert!(one.starts_with("<svg") && one.contains("training") && one.contains("validation"));
    let lines = |svg: &str| svg.matches("<polyline").count();
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).expect("made");
    for name in ["options.json", "stats.jsonl"] {
        fs::copy(run_folder.join(name), copy.join(name)).expect("copied");
    }
    let both = [text(&run_folder), text(&copy)];
    run(&["plot", both[0], both[1], "--value", "lr", "-o", text(&svg)]);
    let two = fs::read_to_string(&svg).expect("written");
    assert!(two.contains("copy") && two.contains("learning rate") && lines(&two) >= 2, "{two}");

    let error = fails(&["plot", "/nowhere", "-o", text(&svg)]);
    assert!(error.contains("/nowhere: no such run"), "{error}");
    let error = fails(&["plot", text(folder.path()), "-o", text(&svg)]);
    assert!(error.contains("no options.json"), "{error}");
    fs::write(copy.join("stats.jsonl"), "").expect("written");
    let error = fails(&["plot", text(&copy), "-o", text(&svg)]);
    assert!(error.contains("no values of loss"), "{error}");
    let error = fails(&["plot", text(&run_folder), "-o", "/nowhere/x.svg"]);
    assert!(error.contains("cannot write /nowhere/x.svg"), "{error}");
    // A run that has not come to a checkpoint has a report.
    run(&["report", text(&copy)]);
    let page = fs::read_to_string(copy.join("report.html")).expect("written");
    assert!(page.contains("no checkpoint yet"));
}

#[test]
fn damaged_files_of_a_run_are_found() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let train = ["train", "--options", &options, "--grid", "0", "--duration", "24"];
    run(&[&train[..], &["--save-every", "8", "--out", text(&out)]].concat());
    let run_folder = only_run(&out);
    let said = run(&["verify", text(&run_folder)]);
    assert_eq!(said.matches("good").count(), 6, "{said}");
    assert!(said.contains("000000016.ckpt: checkpoint after 16 images"), "{said}");

    let checkpoint = run_folder.join("checkpoints/000000016.ckpt");
    let weights = run_folder.join("weights.safetensors");
    let damage = |path: &Path| {
        let mut bytes = fs::read(path).expect("there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).expect("written");
    };
    damage(&checkpoint);
    let bytes = fs::read(&weights).expect("there");
    fs::write(&weights, &bytes[..bytes.len() - 4]).expect("written");
    let output = tests::trainer().args(["verify", text(&run_folder)]).assert().code(1);
    let said = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    assert_eq!((said.matches("good").count(), said.matches("DAMAGED").count()), (4, 2), "{said}");
    for name in ["000000016.ckpt: this checkpoint is damaged", "weights.safetensors: "] {
        assert!(said.contains(&format!("DAMAGED  {}", run_folder.display())), "{said}");
        assert!(said.contains(name), "{said}");
    }
    // Single files.
    run(&["verify", text(&run_folder.join("checkpoints/000000024.ckpt"))]);
    tests::trainer().args(["verify", text(&checkpoint)]).assert().code(1);
    tests::trainer().args(["verify", "/nowhere"]).assert().code(1);
}
