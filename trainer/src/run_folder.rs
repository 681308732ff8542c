//! The folder of one run: what lies in it, and finding it again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::config::TrainConfig;

/// A run's folder.
///
/// | in it | is |
/// |---|---|
/// | `options.json` | the recipe |
/// | `stats.jsonl` | a line of numbers every so often |
/// | `events.out.tfevents.*` | the same and the grids, for TensorBoard |
/// | `grids/*.png` | pictures from fixed seeds, named by images seen |
/// | `checkpoints/*.ckpt` | named by images seen |
/// | `weights.safetensors` | the result |
/// | `lock` | held by the process that trains |
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Makes the next numbered folder in `out`, such as `00012-tiny-emoji-batch32`.
    ///
    /// # Errors
    ///
    /// If the file system refuses.
    pub fn create(out: &Path, label: &str) -> anyhow::Result<Self> {
        let context = || format!("cannot make a run folder in {}", out.display());
        fs::create_dir_all(out).with_context(context)?;
        let mut number = 0;
        for entry in fs::read_dir(out).with_context(context)? {
            let name = entry.with_context(context)?.file_name();
            let digits =
                name.to_string_lossy().split('-').next().and_then(|n| n.parse::<u32>().ok());
            number = number.max(digits.map_or(0, |n| n + 1));
        }
        let label: String = label
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' })
            .collect();
        let folder = out.join(format!("{number:05}-{label}"));
        // Two runs that start at once do not end up in one folder: one of them fails here.
        fs::create_dir(&folder).with_context(context)?;
        for part in ["grids", "checkpoints"] {
            fs::create_dir(folder.join(part)).with_context(context)?;
        }
        Ok(Self(folder))
    }

    /// The run that `path` belongs to: its folder, or one of its checkpoints. Also returns the
    /// checkpoint, or all of them, latest first, if a folder was given.
    ///
    /// # Errors
    ///
    /// If there is no such run, or no checkpoint in it.
    pub fn find(path: &Path) -> anyhow::Result<(Self, Vec<PathBuf>)> {
        if path.is_dir() {
            let run = Self(path.to_owned());
            let mut checkpoints = run.checkpoints()?;
            checkpoints.reverse();
            ensure!(!checkpoints.is_empty(), "{}: holds no checkpoint yet", run.0.display());
            return Ok((run, checkpoints));
        }
        if !path.exists() {
            bail!("{}: there is no such run or checkpoint", path.display());
        }
        match path.parent().and_then(Path::parent) {
            Some(folder) if folder.join("options.json").exists() => {
                Ok((Self(folder.to_owned()), vec![path.to_owned()]))
            }
            _ => bail!("{}: does not lie in the checkpoints of a run folder", path.display()),
        }
    }

    /// The checkpoints, earliest first.
    fn checkpoints(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.0.join("checkpoints"))
            .with_context(|| format!("{}: not a run folder", self.0.display()))?;
        let mut checkpoints: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "ckpt"))
            .collect();
        checkpoints.sort();
        Ok(checkpoints)
    }

    /// Takes the folder for this process, until the file that is returned is dropped.
    ///
    /// # Errors
    ///
    /// If another process has it.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.0.join("lock");
        let context = || format!("cannot write {}", path.display());
        let file =
            OpenOptions::new().create(true).append(true).open(&path).with_context(context)?;
        ensure!(
            take(&file).with_context(context)?,
            "{}: another process trains this run",
            self.0.display()
        );
        self.clean();
        Ok(file)
    }

    /// Removes what a crash left half written. What cannot be removed does no harm.
    fn clean(&self) {
        for folder in [self.0.clone(), self.0.join("checkpoints"), self.0.join("grids")] {
            for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
                if entry.file_name().to_string_lossy().starts_with(WRITING) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// Gives checkpoints that were saved after `images` another name: those of a run that goes on
    /// from an earlier one are no longer its own. `warn` is told of them.
    ///
    /// # Errors
    ///
    /// If the file system refuses.
    pub fn set_aside_after(&self, images: u64, warn: impl Fn(&str)) -> anyhow::Result<()> {
        let last = self.checkpoint(images);
        for path in self.checkpoints()?.into_iter().filter(|path| *path > last) {
            let aside = path.with_extension("ckpt.aside");
            fs::rename(&path, &aside)
                .with_context(|| format!("cannot rename {}", path.display()))?;
            warn(&format!(
                "{} was saved later than this run now goes on from; it is kept as {}",
                path.display(),
                aside.display()
            ));
        }
        Ok(())
    }

    /// Removes all checkpoints but the latest `n`, and those at whole multiples of `every` images.
    ///
    /// # Errors
    ///
    /// If the file system refuses.
    pub fn keep(&self, n: usize, every: Option<u64>) -> anyhow::Result<()> {
        let checkpoints = self.checkpoints()?;
        let mut multiple = 0;
        for path in &checkpoints[..checkpoints.len().saturating_sub(n)] {
            let images = path.file_stem().and_then(|name| name.to_str()?.parse::<u64>().ok());
            if let (Some(every), Some(images)) = (every, images) {
                // The first at or after each multiple: checkpoints come at ends of steps.
                if images / every > multiple {
                    multiple = images / every;
                    continue;
                }
            }
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes down the recipe.
    ///
    /// # Errors
    ///
    /// If the file system refuses.
    pub fn write_options(&self, config: &TrainConfig) -> anyhow::Result<()> {
        let path = self.0.join("options.json");
        write_file(&path, serde_json::to_string_pretty(config)?.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Where the grid of pictures goes that is made after `images`.
    pub fn grid(&self, images: u64) -> PathBuf {
        self.0.join("grids").join(format!("{images:09}.png"))
    }

    /// Where the checkpoint goes that is made after `images`.
    pub fn checkpoint(&self, images: u64) -> PathBuf {
        self.0.join("checkpoints").join(format!("{images:09}.ckpt"))
    }

    /// Where the result goes.
    pub fn weights(&self) -> PathBuf {
        self.0.join("weights.safetensors")
    }

    /// Opens the numbers for appending, after dropping lines that lie ahead of `images`: those
    /// of steps that a crash undid, and a last line that was cut short.
    ///
    /// # Errors
    ///
    /// If the file system refuses.
    pub fn stats(&self, images: u64) -> anyhow::Result<File> {
        let path = self.0.join("stats.jsonl");
        let context = || format!("cannot write {}", path.display());
        if path.exists() {
            let mut kept = String::new();
            for line in BufReader::new(File::open(&path).with_context(context)?).lines() {
                let line = line.with_context(context)?;
                let seen = serde_json::from_str::<serde_json::Value>(&line)
                    .ok()
                    .and_then(|value| value.get("images")?.as_u64());
                if seen.is_some_and(|seen| seen <= images) {
                    kept += &line;
                    kept.push('\n');
                }
            }
            write_file(&path, kept.as_bytes()).with_context(context)?;
        }
        OpenOptions::new().create(true).append(true).open(&path).with_context(context)
    }
}

/// Locks a file for this process until it is closed; `false` if another process has it.
///
/// # Errors
///
/// If the file system cannot.
pub fn take(file: &File) -> std::io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// How the names of files begin that are being written.
const WRITING: &str = ".writing-";

/// Writes a file so that at any moment either the old or the new one is there, whole.
///
/// # Errors
///
/// If the file system refuses; the old file is then untouched.
pub fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(WRITING).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    // Temporary files are private; what is left behind should not be.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_numbered_and_found_again() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let first = RunFolder::create(out.path(), "tiny-a b/c").expect("made");
        assert!(first.path().ends_with("00000-tiny-a_b_c"));
        let second = RunFolder::create(out.path(), "tiny").expect("made");
        assert!(second.path().ends_with("00001-tiny"));

        let missing = RunFolder::find(first.path()).expect_err("empty").to_string();
        assert!(missing.contains("holds no checkpoint"), "{missing}");
        for images in [100, 2000, 30] {
            fs::write(first.checkpoint(images), "x").expect("written");
        }
        let config = TrainConfig::preset("tiny").expect("a preset");
        first.write_options(&config).expect("written");
        let (_, latest) = RunFolder::find(first.path()).expect("found");
        assert_eq!(latest, [2000, 100, 30].map(|images| first.checkpoint(images)));
        let (run, chosen) = RunFolder::find(&first.checkpoint(30)).expect("found");
        assert_eq!((run.path(), chosen), (first.path(), vec![first.checkpoint(30)]));
        assert!(RunFolder::find(&out.path().join("nowhere")).is_err());
    }

    #[test]
    fn the_latest_and_every_so_many_are_kept() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        for images in [40, 96, 104, 150, 208, 296, 304, 310] {
            fs::write(run.checkpoint(images), "x").expect("written");
        }
        run.keep(2, Some(100)).expect("removed");
        let kept = [104, 208, 304, 310].map(|images| run.checkpoint(images));
        assert_eq!(run.checkpoints().expect("listed"), kept);
        run.keep(1, None).expect("removed");
        assert_eq!(run.checkpoints().expect("listed"), [run.checkpoint(310)]);
    }

    #[test]
    fn a_run_belongs_to_one_process() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        let lock = run.lock().expect("free");
        let error = run.lock().expect_err("taken").to_string();
        assert!(error.contains("another process"), "{error}");
        drop(lock);
        run.lock().expect("free again");
    }

    #[test]
    fn numbers_of_undone_steps_are_dropped() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        let path = run.path().join("stats.jsonl");
        fs::write(&path, "{\"images\":10}\n{\"images\":20}\n{\"images\":30}\n{\"ima")
            .expect("written");
        writeln!(run.stats(20).expect("opened"), "{{\"images\":25}}").expect("written");
        let text = fs::read_to_string(&path).expect("there");
        assert_eq!(text, "{\"images\":10}\n{\"images\":20}\n{\"images\":25}\n");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        write_file(&path, b"old").expect("written");
        assert!(write_file(&path.join("below-a-file"), b"new").is_err());
        assert_eq!(fs::read(&path).expect("there"), b"old");
        write_file(&path, b"new").expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"new");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
    }
}
