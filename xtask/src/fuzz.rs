//! `cargo xtask fuzz`: reads damaged files with the fuzz targets.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::shell::{cargo, run};
use crate::tools;

/// Seconds for each target, unless another number is given.
const SECONDS: u32 = 60;

/// Limit of the memory of a target in MB. An image may take 1 GB.
const MEMORY: u32 = 1_536;

/// Seconds after which a single file is one that takes too long.
const TIMEOUT: u32 = 20;

/// Runs one target, or all, each for a number of seconds.
///
/// # Errors
///
/// If the arguments are invalid, the targets cannot be built, or one finds something.
pub fn fuzz(args: &[&str]) -> anyhow::Result<()> {
    let (target, seconds) = match args {
        [] => (None, None),
        [one] if one.parse::<u32>().is_ok() => (None, Some(*one)),
        [target] => (Some(*target), None),
        [target, seconds] => (Some(*target), Some(*seconds)),
        _ => anyhow::bail!("expected the name of a target and a number of seconds"),
    };
    let seconds: u32 = match seconds {
        None => SECONDS,
        Some(text) => text.parse().with_context(|| format!("{text}: not a number of seconds"))?,
    };
    let all = targets()?;
    let chosen: Vec<&String> =
        all.iter().filter(|name| target.is_none_or(|target| target == *name)).collect();
    ensure!(!chosen.is_empty(), "no such target; there are {}", all.join(", "));
    tools::cargo_fuzz()?;
    // Files in memory: some readers take a path.
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let folder = folder.context("a temporary folder")?;
    let mut found = Vec::new();
    for name in chosen {
        let mut fuzz = cargo();
        // Instrumentation is a feature of nightly compilers.
        fuzz.env("RUSTC_BOOTSTRAP", "1").env("TMPDIR", folder.path());
        // There is hardly any unsafe code for the address sanitizer, which takes long to build.
        fuzz.args(["fuzz", "run", name, "--sanitizer", "none"]);
        // Inputs that reach new code go to the first folder, which must exist.
        let corpora = ["fuzz", "tests"].map(|folder| format!("{folder}/corpus/{name}"));
        std::fs::create_dir_all(&corpora[0]).with_context(|| corpora[0].clone())?;
        fuzz.args(corpora).arg("--");
        fuzz.args([
            format!("-max_total_time={seconds}"),
            format!("-rss_limit_mb={MEMORY}"),
            format!("-timeout={TIMEOUT}"),
            "-print_final_stats=1".into(),
        ]);
        // All of them, so that one run shows everything.
        if let Err(error) = run(&mut fuzz) {
            eprintln!("error: {error:#}");
            found.push(name.as_str());
        }
    }
    ensure!(
        found.is_empty(),
        "failed: {}; the files are in fuzz/artifacts/, and `RUSTC_BOOTSTRAP=1 cargo fuzz run TARGET FILE` \
         reads one again",
        found.join(", ")
    );
    Ok(())
}

/// Returns the names of all targets.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = Path::new("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}
