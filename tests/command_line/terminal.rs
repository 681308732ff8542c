//! A run whose terminal is closed.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::trainer;

use crate::support::{only_run, run, saved, send, small_options, text};

/// Returns the folder of the runs in `folder`.
fn runs(folder: &Path) -> PathBuf {
    folder.join("runs")
}

/// Starts a run in `folder`/runs with a command that runs the program.
fn start(folder: &Path, with: &[&str]) -> Child {
    let options = small_options(folder);
    let flags = ["--duration", "1M", "--save-every", "80", "--max-time", "2m", "--grid", "0"];
    Command::new(with[0])
        .args(&with[1..])
        .arg(trainer().get_program())
        .args(["train", "--options", &options, "--out", text(&runs(folder))])
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started")
}

/// Waits for a checkpoint that is later than that of `images`.
fn wait_for_checkpoint(folder: &Path, images: Option<u64>) {
    let started = Instant::now();
    while saved(&runs(folder)) <= images {
        let patient = started.elapsed() < Duration::from_secs(60);
        assert!(patient, "no checkpoint after {images:?} images");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_run_ends_with_its_terminal_and_is_saved() {
    let folder = TempDir::new().expect("a temporary folder");
    // The tests may run where the signal is ignored.
    let child = start(folder.path(), &["env", "--default-signal=HUP"]);
    wait_for_checkpoint(folder.path(), None);
    // The shell of the terminal sends it, and the system.
    let id = child.id().to_string();
    let status = Command::new("kill").args(["-HUP", &id, &id]).status();
    assert!(status.expect("kill").success());
    let output = child.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(129), "{said}");
    let (_, images) = said.split_once("stopped after ").unwrap_or_else(|| panic!("{said}"));
    let images: Option<u64> = images.split(' ').next().and_then(|number| number.parse().ok());
    assert!(images.is_some() && saved(&runs(folder.path())) == images, "{said}");
    assert!(said.contains("to resume:"), "{said}");
    let run_folder = only_run(&runs(folder.path()));
    run(&["train", "--resume", text(&run_folder), "--max-time", "1s"]);
}

#[test]
fn a_run_that_ignores_the_end_of_its_terminal_goes_on() {
    let folder = TempDir::new().expect("a temporary folder");
    let child = start(folder.path(), &["sh", "-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    wait_for_checkpoint(folder.path(), None);
    send("-HUP", &child);
    // A run that stopped would save once more.
    let before = saved(&runs(folder.path())).expect("a checkpoint");
    wait_for_checkpoint(folder.path(), Some(before + 240));
    send("-TERM", &child);
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(143), "{}", String::from_utf8_lossy(&output.stderr));
}
