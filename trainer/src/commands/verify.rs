//! `trainer verify`: checks the files of a run against their hashes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::println;
use anyhow::{Context, ensure};
use model::weights::Weights;

use crate::args::VerifyArgs;
use crate::files::mapped::map;
use crate::run::checkpoint::Checkpoint;
use crate::run::folder::RunFolder;
use crate::run::history::History;

/// Checks a file, or the checkpoints, the snapshots, the weights file, the recipe and the log of a run.
/// Prints a line for each. The exit code is 1 if one of them is damaged.
///
/// # Errors
///
/// If the path is neither a file nor a run folder.
pub fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let mut bad = 0;
    let mut report = |name: &Path, result: anyhow::Result<String>| match result {
        Ok(what) => println!("good     {}: {what}", name.display()),
        Err(error) => {
            bad += 1;
            println!("DAMAGED  {}: {error:#}", name.display());
        }
    };
    if args.path.is_dir() {
        let folder = RunFolder::open(&args.path)?;
        let options = folder.path().join("options.json");
        report(&options, folder.read_options().map(|_| "recipe".into()));
        report(&folder.path().join("stats.jsonl"), check_log(&folder));
        let mut files: Vec<PathBuf> = folder.checkpoints()?;
        files.extend(folder.snapshots()?.into_iter().map(|snapshot| snapshot.path));
        files.extend([folder.best(), folder.weights()].into_iter().filter(|path| path.exists()));
        for path in files {
            report(&path, check(&path));
        }
    } else {
        report(&args.path, check(&args.path));
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks a checkpoint or a weights file, and describes it.
fn check(path: &Path) -> anyhow::Result<String> {
    let bytes = map(path).context("cannot read it")?;
    if Checkpoint::is_checkpoint(&bytes) {
        let checkpoint = Checkpoint::parse(&bytes)?;
        ensure!(checkpoint.is_finite(), "it has weights that are not finite");
        return Ok(format!(
            "checkpoint after {} images, SHA-256 matches",
            checkpoint.progress.images
        ));
    }
    let weights = Weights::parse(&bytes)?;
    let hash = if weights.check_hash()? {
        "SHA-256 matches"
    } else {
        "all tensors are as described; it has no hash, with which changed values would be found"
    };
    Ok(format!("weights file of \"{}\", {hash}", weights.card().name))
}

fn check_log(folder: &RunFolder) -> anyhow::Result<String> {
    let history = History::read(folder)?;
    let damaged = history.damaged_lines;
    ensure!(
        damaged == 0,
        "{damaged} lines cannot be read; they are removed when the run is resumed"
    );
    Ok(format!("log up to {} images", history.images()))
}
