//! Stopping and resuming runs.

use std::fs::{self, File};
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tests::trainer;

#[cfg(unix)]
use crate::support::send;
use crate::support::{fails, file_names, latest, log, only_run, run, small_options, text, weights};

#[test]
fn going_on_gives_what_not_stopping_gives() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let train = |out: &Path, threads: &str, more: &[&str]| {
        let mut args = vec!["train", "--grid", "0"];
        let start = ["--options", &options, "--seed", "5", "--out", text(out)];
        if more[0] != "--resume" {
            args.extend(start);
        }
        args.extend(more);
        // The result does not depend on the number of threads.
        trainer().args(&args).env("RAYON_NUM_THREADS", threads).assert().success();
    };
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    train(&whole, "2", &["--duration", "2400"]);
    // Stopped within the first epoch of 1911 images, resumed into the second.
    train(&parts, "1", &["--duration", "1000"]);
    let run_folder = only_run(&parts);
    train(&parts, "3", &["--resume", text(&run_folder), "--duration", "2400"]);
    let whole = only_run(&whole);
    let (found, want) = (latest(&run_folder), latest(&whole));
    assert_eq!(found.len(), want.len());
    for (found, want) in found.iter().zip(&want) {
        assert!(found == want, "{} differs", found.0);
    }
    assert_eq!(log(&run_folder), log(&whole));
    let name = "weights.safetensors";
    assert_eq!(weights(&whole.join(name)), weights(&run_folder.join(name)));

    // A process that ended before it wrote the weights file is continued without a step.
    let made = weights(&run_folder.join(name));
    fs::remove_file(run_folder.join(name)).expect("removed");
    let before = log(&run_folder);
    train(&parts, "3", &["--resume", text(&run_folder), "--duration", "2400"]);
    assert_eq!(weights(&run_folder.join(name)), made);
    assert_eq!(log(&run_folder), before);

    let done = fails(&["train", "--resume", text(&run_folder)]);
    assert!(done.contains("has already seen its 2400 images"), "{done}");
    let nowhere = fails(&["train", "--resume", text(&folder.path().join("nowhere"))]);
    assert!(nowhere.contains("no such run or checkpoint"), "{nowhere}");
}

/// With Muon, learning-rate decay, immiscible noise and validation images.
#[test]
fn every_recipe_goes_on_as_if_it_had_not_stopped() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let said = run(&[
        "train",
        "--options",
        &options,
        "--optimizer",
        "muon",
        "--muon-lr",
        "1e-3",
        "--lr-ramp",
        "500",
        "--lr-decay",
        "0.5",
        "--immiscible",
        "--validate",
        "16",
        "--validate-every",
        "400",
        "--save-every",
        "600",
        "--duration",
        "1200",
        "--grid",
        "0",
        "--json",
        "--out",
        text(&out),
    ]);
    let run_folder = only_run(&out);
    let (tensors, lines) = (latest(&run_folder), log(&run_folder));
    let weights_file = run_folder.join("weights.safetensors");
    let made = weights(&weights_file);

    // The validation loss is measured at each interval and at the end, and reported everywhere.
    let held_out: Vec<(u64, f64)> = lines
        .iter()
        .filter_map(|line| Some((line["images"].as_u64()?, line["validation_loss"].as_f64()?)))
        .collect();
    assert_eq!(held_out.iter().map(|of| of.0).collect::<Vec<_>>(), [400, 800, 1200]);
    assert!(held_out.iter().all(|of| of.1 > 0.0 && of.1 < 10.0), "{held_out:?}");
    assert!(held_out[2].1 < held_out[0].1, "nothing was learned: {held_out:?}");
    let last = held_out[2].1;
    let said: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(said.len(), lines.len() + 1);
    assert_eq!(said.last().expect("the result")["validation_loss"], last);
    for what in [&weights_file, &run_folder] {
        let info = run(&["info", text(what), "--json"]);
        let info: Value = serde_json::from_str(&info).expect("JSON");
        assert_eq!(info["card"]["validation_loss"], last);
    }
    let events = fs::read_dir(&run_folder).expect("there").map(|e| e.expect("entry").path());
    let mut events = events.filter(|path| text(path).contains("tfevents"));
    let events = fs::read(events.next().expect("a file")).expect("readable");
    let times = events.windows(15).filter(|name| name == b"validation_loss").count();
    assert_eq!(times, 3);
    // The logged learning rate is that of the last step.
    let rates: Vec<f64> = lines.iter().filter_map(|line| line["lr"].as_f64()).collect();
    let want = 5e-4 * 208.0 / 600.0;
    assert!(rates.len() == 1 && (rates[0] / want - 1.0).abs() < 1e-9, "{rates:?}, not {want}");

    let half = run_folder.join("checkpoints/000000600.ckpt");
    trainer()
        .args(["train", "--resume", text(&half), "--grid", "0", "--validate-every", "400"])
        .env("RAYON_NUM_THREADS", "3")
        .assert()
        .success();
    let found = latest(&run_folder);
    assert_eq!(found.len(), tensors.len());
    for (found, want) in found.iter().zip(&tensors) {
        assert!(found == want, "{} differs", found.0);
    }
    assert_eq!(log(&run_folder), lines);
    assert!(weights(&weights_file) == made, "the weights differ");

    // The number of held-out images cannot change.
    let resume = ["train", "--resume", text(&run_folder), "--grid", "0", "--duration", "1208"];
    let error = fails(&[&resume[..], &["--validate", "17"]].concat());
    assert!(
        error.contains("must hold out the same images") && error.contains("use --validation-data"),
        "{error}"
    );
    for flag in ["--optimizer=adam", "--immiscible"] {
        let error = fails(&[&resume[..], &[flag]].concat());
        assert!(error.contains("cannot be used with"), "{error}");
    }
}

/// A run that is killed repeatedly, at arbitrary moments, ends with the same result as one that is
/// not.
#[test]
fn being_killed_loses_nothing_but_time() {
    use std::process::{Command, Stdio};
    use std::time::Duration;
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let start = |out: &Path| -> Vec<String> {
        let args =
            ["train", "--options", &options, "--grid", "0", "--seed", "3", "--out", text(out)];
        args.map(String::from).to_vec()
    };
    let goal = ["--duration", "480", "--save-every", "16"].map(String::from);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    trainer().args(start(&whole)).args(&goal).assert().success();

    let program = trainer().get_program().to_owned();
    let errors = folder.path().join("errors");
    let mut kills = 0;
    for round in 0u64.. {
        let runs = fs::read_dir(&killed).map(|runs| runs.count()).unwrap_or(0);
        let saved = runs > 0
            && fs::read_dir(only_run(&killed).join("checkpoints")).is_ok_and(|c| {
                c.filter_map(Result::ok).any(|e| e.path().extension().is_some_and(|e| e == "ckpt"))
            });
        let args = if saved {
            vec![
                "train".into(),
                "--grid".into(),
                "0".into(),
                "--resume".into(),
                text(&only_run(&killed)).into(),
            ]
        } else {
            // Killed before the first checkpoint: there is nothing to resume.
            let _ = fs::remove_dir_all(&killed);
            start(&killed)
        };
        let mut child = Command::new(&program)
            .args(args)
            .args(&goal)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&errors).expect("a file"))
            .spawn()
            .expect("started");
        // Longer each time, so that the test ends on slow machines too.
        let patience = Duration::from_millis(300 + 170 * round);
        let started = std::time::Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().expect("asked") {
                break Some(status);
            }
            if started.elapsed() > patience {
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        match ended {
            Some(status) => {
                let said = fs::read_to_string(&errors).expect("text");
                assert!(status.success(), "round {round}: {status}: {said}");
                break;
            }
            None => {
                child.kill().expect("killed");
                child.wait().expect("ended");
                kills += 1;
                // It had nothing left to do but to end.
                let written = |run: &Path| run.join("weights.safetensors").exists();
                if saved && written(&only_run(&killed)) {
                    break;
                }
            }
        }
    }
    assert!(kills > 1, "it was never killed");
    let (whole, killed) = (only_run(&whole), only_run(&killed));
    assert!(latest(&whole) == latest(&killed), "the checkpoints differ");
    assert_eq!(log(&whole), log(&killed));
}

#[test]
fn a_resumed_run_says_which_options_change_and_how_long_it_takes() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    run(&["train", "--options", &options, "--grid", "0", "--duration", "8", "--out", text(&out)]);
    let run_folder = only_run(&out);
    let resume = |more: &[&str]| -> Vec<String> {
        let args = ["train", "--resume", text(&run_folder), "--grid", "0"];
        let assert = trainer().args(args).args(more).assert().success();
        let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert!(said.contains(" left at the speed of the run so far"), "{said}");
        let changes = said.lines().filter_map(|line| line.strip_prefix("changed option: "));
        changes.map(String::from).collect()
    };
    let changes = resume(&["--duration", "16", "--lr", "1e-4"]);
    assert_eq!(changes, ["adam.lr: 0.0005 -> 0.0001", "duration: 8 -> 16"]);
    // A flag with the value that the run has changes nothing.
    assert_eq!(resume(&["--duration", "24", "--lr", "1e-4"]), ["duration: 16 -> 24"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_loudly() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out)];
    run(&[&args[..], &["--duration", "24", "--save-every", "8"]].concat());
    let run_folder = only_run(&out);
    let newest = run_folder.join("checkpoints/000000024.ckpt");
    let bytes = fs::read(&newest).expect("there");
    fs::write(&newest, &bytes[..bytes.len() - 1]).expect("cut");
    let args = ["train", "--resume", text(&run_folder), "--grid", "0", "--duration", "32"];
    let assert = trainer().args(args).assert().success();
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(said.contains("000000024.ckpt: this checkpoint is damaged"), "{said}");
    assert!(said.contains("resuming after 16 images"), "{said}");
    // The damaged checkpoint is renamed, so that it is not mistaken for one of the resumed run.
    let aside = run_folder.join("checkpoints/000000024.ckpt.aside");
    assert_eq!(fs::read(&aside).expect("kept").len(), bytes.len() - 1);
    // A checkpoint given by name is not replaced by another.
    fs::copy(&aside, &newest).expect("copied");
    let named = fails(&["train", "--resume", text(&newest), "--duration", "40"]);
    assert!(named.contains("000000024.ckpt: this checkpoint is damaged"), "{named}");
}

#[test]
fn going_back_to_an_earlier_checkpoint_leaves_the_later_ones_behind() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out), "--keep", "2"];
    run(&[&args[..], &["--duration", "32", "--save-every", "16"]].concat());
    let checkpoints = only_run(&out).join("checkpoints");
    let back = checkpoints.join("000000016.ckpt");
    let args = ["train", "--resume", text(&back), "--grid", "0", "--lr", "1e-5", "--keep", "1"];
    let assert = trainer().args(args).args(["--duration", "24"]).assert().success();
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(said.contains("000000032.ckpt.aside"), "{said}");
    let names = file_names(&checkpoints);
    assert_eq!(names, ["000000024.ckpt", "000000032.ckpt.aside"]);
}

/// A limit on the file size stands for a full disk.
#[cfg(unix)]
#[test]
fn a_checkpoint_that_does_not_fit_is_an_error_and_harms_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out)];
    run(&[&args[..], &["--duration", "8"]].concat());
    let run_folder = only_run(&out);
    let saved = fs::read(run_folder.join("checkpoints/000000008.ckpt")).expect("saved");
    let blocks = saved.len() / 2 / 512;
    let program = trainer().get_program().to_owned();
    let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let output = std::process::Command::new("sh")
        .args(["-c", &limited])
        .arg(program)
        .args(["train", "--resume", text(&run_folder), "--duration", "16", "--grid", "0"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["000000016.ckpt", " MB", "earlier checkpoints are unchanged", "File too large"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(fs::read(run_folder.join("checkpoints/000000008.ckpt")).expect("there"), saved);
    assert_eq!(fs::read_dir(run_folder.join("checkpoints")).expect("there").count(), 1);
    run(&["train", "--resume", text(&run_folder), "--duration", "16", "--grid", "0"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};
    let folder = TempDir::new().expect("a temporary folder");
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let out = folder.path().join(signal);
        let command = trainer();
        let mut child = Command::new(command.get_program())
            .args([
                "train",
                "--from",
                "scratch",
                "--batch",
                "4",
                "--grid",
                "0",
                "--duration",
                "1M",
                "--out",
            ])
            .arg(&out)
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let started = Instant::now();
        while !out.exists() || fs::read_dir(&out).expect("there").count() == 0 {
            assert!(started.elapsed() < Duration::from_secs(300), "no run folder appears");
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_secs(1));
        let lock = File::open(only_run(&out).join("lock")).expect("a lock");
        assert!(lock.try_lock().is_err(), "the run is free while it is trained");
        send(signal, &child);
        let mut stderr = child.stderr.take().expect("piped");
        assert_eq!(child.wait().expect("ended").code(), Some(code));
        let mut said = String::new();
        std::io::Read::read_to_string(&mut stderr, &mut said).expect("text");
        assert!(said.contains("to resume:") && said.contains("train --resume"), "{said}");
        assert!(said.contains("reading the data: emoji"), "{said}");
        let stopping = said.find("stopping after this step").expect("an answer to the signal");
        assert!(stopping < said.find("to resume:").expect("the end"), "{said}");
        let checkpoints = only_run(&out).join("checkpoints");
        assert_eq!(fs::read_dir(checkpoints).expect("there").count(), 1);
    }
}
