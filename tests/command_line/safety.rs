//! Losing no work: what is saved, what is resumed, and what training goes on without.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tests::trainer;

#[cfg(unix)]
use crate::support::send;
use crate::support::{fails, file_names, latest, only_run, run, small_options, text, weights};

/// Returns the names of the checkpoints of a run, sorted.
fn checkpoints(run_folder: &Path) -> Vec<String> {
    file_names(&run_folder.join("checkpoints"))
}

/// Runs a command line in a shell in `folder`.
#[cfg(unix)]
fn shell(folder: &Path, line: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).env("NO_COLOR", "1");
    command.env_remove("CARGO").env_remove("CARGO_PKG_NAME");
    command.output().expect("a shell")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Starts a run in `folder`/runs.
fn start(folder: &Path, more: &[&str]) -> PathBuf {
    let options = small_options(folder);
    let out = folder.join("runs");
    run(&[&["train", "--options", &options, "--grid", "0", "--out", text(&out)], more].concat());
    only_run(&out)
}

/// The first step at an absurd learning rate is taken, and makes all others infinite.
#[test]
fn a_run_that_diverges_keeps_its_last_good_checkpoint() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("diverges");
    let diverging = ["--lr", "1e30", "--lr-ramp", "0"];
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out)];
    let more = ["--from", "scratch", "--duration", "64", "--save-every", "16"];
    let error = fails(&[&args[..], &diverging, &more].concat());
    assert!(error.contains("no checkpoint is saved after 16 images"), "{error}");
    assert_eq!(error.matches("no checkpoint is saved").count(), 1, "{error}");
    assert!(error.contains("ended after 64 images") && error.contains("lower --lr"), "{error}");
    let diverged = only_run(&out);
    assert!(checkpoints(&diverged).is_empty());
    assert!(!diverged.join("weights.safetensors").exists());

    let good = start(folder.path(), &["--duration", "24", "--keep", "1"]);
    let before = latest(&good);
    let resume = ["train", "--resume", text(&good), "--duration", "480", "--save-every", "8"];
    let error = fails(&[&resume[..], &diverging].concat());
    // The state after the step that was taken does not replace the good one.
    assert!(error.contains("10 steps in a row"), "{error}");
    assert!(error.contains("000000024.ckpt --lr 5e29"), "{error}");
    assert!(checkpoints(&good).contains(&"000000024.ckpt".to_string()));
    let good_checkpoint = good.join("checkpoints/000000024.ckpt");
    run(&["train", "--resume", text(&good_checkpoint), "--duration", "32", "--lr", "1e-4"]);
    let after = latest(&good);
    assert_eq!(before.len(), after.len());
}

#[test]
fn a_run_is_locked_before_its_checkpoints_are_read() {
    let folder = TempDir::new().expect("a temporary folder");
    let run_folder = start(folder.path(), &["--duration", "8"]);
    let lock = File::open(run_folder.join("lock")).expect("a lock");
    lock.try_lock().expect("free");
    // The run is complete, and its checkpoint is being written.
    let resume = ["train", "--resume", text(&run_folder), "--duration", "16"];
    fs::write(run_folder.join("checkpoints/000000016.ckpt"), "half").expect("written");
    for more in [&[][..], &["--duration=8"]] {
        let args = if more.is_empty() { resume.to_vec() } else { [&resume[..3], more].concat() };
        let error = fails(&args);
        assert!(error.contains("another process is training this run"), "{error}");
        assert!(!error.contains("damaged"), "{error}");
    }
    // A dry run only looks.
    run(&["train", "--resume", text(&run_folder), "--dry-run", "--duration", "16"]);
}

/// The command is typed in a shell, in the folder in which the run was started.
#[cfg(unix)]
#[test]
fn the_printed_command_resumes_the_run_with_its_settings() {
    let folder = TempDir::new().expect("a temporary folder");
    small_options(folder.path());
    let program = trainer().get_program().to_owned();
    let program = program.to_str().expect("a plain path");
    let settings = "--devices 2 --grid 0 --save-every 16 --keep 7 --keep-every 100";
    let first = format!(
        "'{program}' train --options small.json --duration 1M --max-time 1s {settings} \
         --out \"it's here/runs\""
    );
    let output = shell(folder.path(), &first);
    assert!(output.status.success(), "{}", said(&output));
    let run_folder = only_run(&folder.path().join("it's here/runs"));
    let command = |output: &Output| {
        let said = said(output);
        let line = said.lines().find_map(|line| line.strip_prefix("to resume: "));
        line.unwrap_or_else(|| panic!("{said}")).to_string()
    };
    let typed = command(&output);
    assert!(typed.contains(r"train --resume 'it'\''s here/runs/00000-"), "{typed}");
    let launch = |run_folder: &Path| -> Value {
        let file = fs::read(run_folder.join("launch.json")).expect("the settings");
        serde_json::from_slice(&file).expect("JSON")
    };
    let before = launch(&run_folder);
    assert_eq!((&before["devices"], &before["keep"]), (&2.into(), &7.into()));

    // As typed, until it is told to stop, and with more flags. In the foreground, it is told once.
    let output = shell(folder.path(), &format!("timeout --foreground -s INT 3 {typed}"));
    assert!(said(&output).contains("resuming after"), "{}", said(&output));
    let stopped = said(&output);
    let (_, again) = stopped.split_once("to resume:\n  ").expect("a command");
    assert_eq!(again.trim(), typed);
    assert_eq!(launch(&run_folder), before);
    assert_eq!(fs::read_dir(run_folder.join("grids")).expect("there").count(), 0);

    // The form for `cargo run`, with another program in place of cargo.
    let cargo = format!("CARGO=cargo CARGO_PKG_NAME=trainer {typed} --max-time 1s --keep 2");
    let output = shell(folder.path(), &cargo);
    let typed = command(&output);
    let (build, arguments) = typed.split_once(" -- ").expect("cargo's form");
    let features = [("metrics", cfg!(feature = "metrics")), ("hub", cfg!(feature = "hub"))];
    let features: Vec<&str> = features.iter().filter(|of| of.1).map(|of| of.0).collect();
    let flag = if features.is_empty() { "" } else { " --features " };
    assert_eq!(build, format!("cargo run -p trainer{flag}{}", features.join(",")));
    let output =
        shell(folder.path(), &format!("'{program}' {arguments} --max-time 1s --keep-every 0"));
    assert!(output.status.success(), "{}", said(&output));
    let after = launch(&run_folder);
    assert_eq!((&after["devices"], &after["keep"]), (&2.into(), &2.into()));
    assert_eq!(after["keep_every"], 0);
}

#[test]
fn the_newest_run_is_resumed_by_name() {
    let folder = TempDir::new().expect("a temporary folder");
    let first = start(folder.path(), &["--duration", "8"]);
    let options = folder.path().join("small.json");
    let out = folder.path().join("runs");
    let newest = ["train", "--resume", "latest", "--out", text(&out)];
    run(&["train", "--options", text(&options), "--duration", "8", "--out", text(&out)]);
    run(&[&newest[..], &["--duration", "16"]].concat());
    assert_eq!(checkpoints(&first), ["000000008.ckpt"]);
    let nowhere = folder.path().join("nowhere");
    let error = fails(&["train", "--resume", "latest", "--out", text(&nowhere)]);
    assert!(error.contains("nowhere"), "{error}");
    let error = fails(&["train", "--resume", text(&first), "--out", text(&out)]);
    assert!(error.contains("--out cannot be used with --resume"), "{error}");
}

/// Writes a different image for each number, named by it.
fn write_images(folder: &Path, numbers: std::ops::Range<u8>) {
    fs::create_dir_all(folder).expect("made");
    for i in numbers {
        let image = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([x as u8 * i, y as u8, i]));
        image.save(folder.join(format!("{i}.png"))).expect("written");
    }
}

/// Removes the fingerprint from a checkpoint, as in those of earlier versions.
fn remove_fingerprint(checkpoint: &Path) {
    let mut bytes = fs::read(checkpoint).expect("there");
    let start = br#"\"fingerprint\":"#;
    let at = bytes.windows(start.len()).position(|part| part == start).expect("a fingerprint");
    let length = bytes[at..].windows(2).position(|part| part == b"},").expect("its end") + 2;
    bytes[at..at + length].fill(b' ');
    let sum = Sha256::digest(&bytes[40..]);
    bytes[8..40].copy_from_slice(&sum);
    fs::write(checkpoint, bytes).expect("written");
}

#[test]
fn a_run_goes_on_with_the_data_that_it_was_trained_on() {
    let folder = TempDir::new().expect("a temporary folder");
    let images = folder.path().join("images");
    write_images(&images, 0..8);
    small_options(folder.path());
    // A relative path, which is used from another folder later.
    let args = ["--options", "small.json", "--preset", "tiny", "--data", "images", "--grid", "0"];
    let more = ["train", "--duration", "8", "--out", "runs"];
    trainer().args(more).args(args).current_dir(folder.path()).assert().success();
    let run_folder = only_run(&folder.path().join("runs"));
    let options = fs::read(run_folder.join("options.json")).expect("there");
    let options: Value = serde_json::from_slice(&options).expect("JSON");
    assert!(Path::new(options["data"].as_str().expect("a path")).is_absolute());
    let resume = |duration| ["train", "--resume", text(&run_folder), "--duration", duration];
    run(&resume("16"));

    write_images(&images, 8..9);
    let error = fails(&resume("24"));
    assert!(error.contains("not the data that this run was trained on so far"), "{error}");
    assert!(error.contains("they are 9 images, not 8"), "{error}");
    fs::remove_file(images.join("8.png")).expect("removed");
    fs::rename(images.join("0.png"), images.join("9.png")).expect("renamed");
    let error = fails(&resume("24"));
    assert!(error.contains("images, their order or their classes differ"), "{error}");
    fs::rename(images.join("9.png"), images.join("0.png")).expect("renamed");

    let moved = folder.path().join("moved");
    fs::rename(&images, &moved).expect("moved");
    let error = fails(&resume("24"));
    assert!(error.contains("use --data") && error.contains("images: No such file"), "{error}");
    run(&[&resume("24")[..], &["--data", text(&moved)]].concat());
    run(&resume("32"));
    let other = folder.path().join("other");
    write_images(&other, 1..9);
    let error = fails(&[&resume("40")[..], &["--data", text(&other)]].concat());
    assert!(error.contains("their order or their classes differ"), "{error}");
    assert!(error.contains("other: not the data"), "{error}");

    // A checkpoint of an earlier version has no fingerprint.
    let last = run_folder.join("checkpoints/000000032.ckpt");
    remove_fingerprint(&last);
    run(&resume("40"));
    assert!(fails(&[&resume("48")[..], &["--data", text(&other)]].concat()).contains("not the"));
    remove_fingerprint(&run_folder.join("checkpoints/000000040.ckpt"));
    let assert = trainer().args(resume("48")).args(["--data", text(&moved)]).assert().success();
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(said.contains("--data is not checked"), "{said}");
}

#[test]
fn training_goes_on_without_grids() {
    let folder = TempDir::new().expect("a temporary folder");
    let run_folder = start(folder.path(), &["--duration", "8"]);
    fs::remove_dir_all(run_folder.join("grids")).expect("removed");
    fs::write(run_folder.join("grids"), "not a folder").expect("written");
    let resume = ["train", "--resume", text(&run_folder), "--duration", "24", "--grid", "1"];
    let more = ["--sample-every", "8", "--save-every", "1M"];
    let assert = trainer().args(resume).args(more).assert().success();
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(said.contains("warning: cannot write") && said.contains("training goes on"), "{said}");
    // Saved at the first failure after a step, and at the end.
    assert_eq!(checkpoints(&run_folder), ["000000008.ckpt", "000000016.ckpt", "000000024.ckpt"]);
    weights(&run_folder.join("weights.safetensors"));
}

#[test]
fn saving_does_not_change_the_result() {
    let folder = TempDir::new().expect("a temporary folder");
    let profiles = ["--ema-profiles", "0.1", "--duration", "80"];
    let mut found = Vec::new();
    for (name, more) in [("rarely", &[][..]), ("always", &["--save-every", "8", "--keep", "100"])] {
        let out = folder.path().join(name);
        fs::create_dir(&out).expect("made");
        let run_folder = start(&out, &[&profiles[..], more].concat());
        found.push((latest(&run_folder), weights(&run_folder.join("weights.safetensors"))));
        let count = checkpoints(&run_folder).len();
        assert_eq!(count, if more.is_empty() { 1 } else { 10 }, "{name}");
    }
    assert!(found[0] == found[1], "the result differs");
}

/// A folder that is a file for a while stands for a disk that is full for a while.
#[cfg(unix)]
#[test]
fn training_goes_on_while_checkpoints_cannot_be_written() {
    use std::time::{Duration, Instant};
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let [out, said] = ["runs", "said"].map(|name| folder.path().join(name));
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out)];
    let more = ["--duration", "1M", "--save-every", "80", "--keep", "2"];
    let mut child = Command::new(trainer().get_program())
        .args(args)
        .args(more)
        .stderr(File::create(&said).expect("made"))
        .spawn()
        .expect("started");
    let wait_until = |what: &str, is_so: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < Duration::from_secs(300), "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let newest = || {
        let run_folder = fs::read_dir(&out).ok()?.find_map(Result::ok)?.path();
        let names = fs::read_dir(run_folder.join("checkpoints")).ok()?.filter_map(Result::ok);
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let images = |name: String| name.strip_suffix(".ckpt")?.parse::<u64>().ok();
        names.filter_map(images).max()
    };
    wait_until("no checkpoint appears", &|| newest().is_some());
    let run_folder = only_run(&out);
    let [place, aside] = ["checkpoints", "aside"].map(|name| run_folder.join(name));
    fs::rename(&place, &aside).expect("renamed");
    fs::write(&place, b"").expect("written");
    let warnings = || {
        let said = fs::read_to_string(&said).expect("text");
        said.matches("earlier checkpoints are unchanged").count()
    };
    // It is tried again before the next one is due.
    wait_until("no warnings", &|| warnings() > 1);
    fs::remove_file(&place).expect("removed");
    fs::rename(&aside, &place).expect("renamed");
    let before = newest().expect("kept");
    wait_until("no later checkpoint appears", &|| newest() > Some(before));
    send("-INT", &child);
    assert_eq!(child.wait().expect("ended").code(), Some(130));
    let said = fs::read_to_string(&said).expect("text");
    assert!(said.contains("training goes on, and saves again later"), "{said}");
    assert_eq!(checkpoints(&run_folder).len(), 2);
    run(&["train", "--resume", text(&run_folder), "--max-time", "1s", "--grid", "0"]);
}

/// A limit on the file size stands for a full disk.
#[cfg(unix)]
#[test]
fn training_goes_on_without_its_log() {
    let folder = TempDir::new().expect("a temporary folder");
    let run_folder = start(folder.path(), &["--duration", "8"]);
    let path = run_folder.join("stats.jsonl");
    let blocks = 8192;
    let frame = "{\"images\":8,\"padding\":\"\"}\n";
    let padding = "x".repeat(blocks * 512 - frame.len() - 20);
    let line = frame.replace("\"\"", &format!("\"{padding}\""));
    fs::write(&path, &line).expect("written");
    let program = trainer().get_program().to_owned();
    let limited = format!(
        "trap '' XFSZ; ulimit -f {blocks}; exec '{}' train --resume '{}' --duration 2408 \
         --save-every 1M",
        program.display(),
        run_folder.display()
    );
    let output = shell(folder.path(), &limited);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("warning: cannot write stats.jsonl"), "{}", said(&output));
    assert_eq!(checkpoints(&run_folder), ["000000008.ckpt", "000001000.ckpt", "000002408.ckpt"]);
    // No part of a line remains.
    assert!(fs::read_to_string(&path).expect("there") == line);
}

/// Standard output and error are files on a full disk, then a closed pipe.
#[cfg(target_os = "linux")]
#[test]
fn training_goes_on_without_its_output() {
    let folder = TempDir::new().expect("a temporary folder");
    small_options(folder.path());
    let program = trainer().get_program().to_owned();
    for (i, output) in [">/dev/full 2>/dev/full", "2>&1 | true"].into_iter().enumerate() {
        let line = format!(
            "'{}' train --options small.json --grid 0 --json --out {i} --duration 1600 {output}",
            program.display()
        );
        let output = shell(folder.path(), &line);
        assert!(output.status.success(), "{}", said(&output));
        weights(&only_run(&folder.path().join(i.to_string())).join("weights.safetensors"));
    }
}

#[cfg(unix)]
#[test]
fn files_have_the_permissions_of_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().expect("a temporary folder");
    small_options(folder.path());
    let program = trainer().get_program().to_owned();
    for (umask, want) in [("077", 0o600), ("002", 0o664)] {
        let line = format!(
            "umask {umask}; exec '{}' train --options small.json --grid 0 --duration 8 \
             --keep-every 0 --out {umask}",
            program.display()
        );
        let output = shell(folder.path(), &line);
        assert!(output.status.success(), "{}", said(&output));
        let run_folder = only_run(&folder.path().join(umask));
        for file in ["options.json", "weights.safetensors", "checkpoints/000000008.ckpt"] {
            let mode = fs::metadata(run_folder.join(file)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, want, "{file} with umask {umask}");
        }
    }
}

/// A path that is too short to contain the run folder.
#[test]
fn a_checkpoint_is_resumed_from_its_own_folder() {
    let folder = TempDir::new().expect("a temporary folder");
    let run_folder = start(folder.path(), &["--duration", "8"]);
    for (current, path, duration) in [
        ("checkpoints", "000000008.ckpt", "16"),
        ("", "checkpoints/000000016.ckpt", "24"),
        ("grids", "../checkpoints/000000024.ckpt", "32"),
        ("", ".", "40"),
    ] {
        let resume = ["train", "--resume", path, "--duration", duration];
        trainer().args(resume).current_dir(run_folder.join(current)).assert().success();
    }
    let last = fs::read(run_folder.join("checkpoints/000000040.ckpt")).expect("saved");
    SafeTensors::deserialize(&last[40..]).expect("whole");
}
