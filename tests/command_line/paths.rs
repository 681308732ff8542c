//! Paths that are not UTF-8.
#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;
use tests::trainer;

use crate::support::{only_run, small_options};

/// Runs `trainer train` in the folder `current`, with a flag that takes a path.
fn train(current: &Path, args: &[&str], flag: &str, path: &Path) -> Output {
    let mut command = trainer();
    command.arg("train").args(args).args(["--grid", "0"]).arg(flag).arg(path);
    command.current_dir(current).output().expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_path_that_is_not_utf8_is_used_or_refused_at_the_start() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let odd = folder.path().join(OsStr::from_bytes(b"odd \xff"));
    fs::create_dir(&odd).expect("made");

    // What is only opened can have any name, and so can the current folder.
    let file = odd.join(OsStr::from_bytes(b"options-\xff.json"));
    fs::copy(&options, &file).expect("copied");
    let more = ["--duration", "8", "--out", "runs", "--json"];
    let output = train(&odd, &more, "--options", &file);
    assert!(output.status.success(), "{}", said(&output));
    let run_folder = only_run(&odd.join("runs"));
    let relative = run_folder.strip_prefix(&odd).expect("a run in it");
    let output = train(&odd, &["--duration", "16"], "--resume", relative);
    assert!(output.status.success(), "{}", said(&output));

    // What is stored or printed cannot.
    let new = ["--preset", "tiny", "--options", &options, "--duration", "8"];
    let validate = [&new[..], &["--validate", "1"]].concat();
    for json in [&[][..], &["--json"]] {
        for (args, flag, path) in [
            (&new[..], "--out", odd.join("new")),
            (&new[..], "--data", odd.clone()),
            (&validate[..], "--validation-data", odd.clone()),
            (&new[..], "--vae", odd.join("vae")),
            (&["--duration", "24"][..], "--resume", run_folder.clone()),
            // A relative path is stored as an absolute one.
            (&new[..], "--data", "runs".into()),
        ] {
            let output = train(&odd, &[args, json].concat(), flag, &path);
            let said = said(&output);
            assert_eq!(output.status.code(), Some(1), "{flag}: {said}");
            assert!(said.starts_with(&format!("error: {flag} ")), "{said}");
            assert!(said.contains(": this path is not UTF-8"), "{flag}: {said}");
        }
    }
    assert!(!odd.join("new").exists());
    assert_eq!(fs::read_dir(odd.join("runs")).expect("there").count(), 1);
}
