//! Run folders.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::config::TrainConfig;
use crate::files::atomic::{remove_temporary, write};
use crate::files::lock::try_lock;

/// The folder of a run.
///
/// | file | content |
/// |---|---|
/// | `options.json` | the recipe |
/// | `stats.jsonl` | the log, JSON Lines |
/// | `events.out.tfevents.*` | the log and the grids, for TensorBoard |
/// | `grids/*.png` | samples from fixed seeds, named by the number of images seen |
/// | `checkpoints/*.ckpt` | checkpoints, named by the number of images seen |
/// | `weights.safetensors` | the weights file of the finished run |
/// | `lock` | the lock file of the training process |
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Creates the next numbered folder in `out`, such as `00012-tiny-emoji-batch32`.
    ///
    /// # Errors
    ///
    /// If the folder cannot be created.
    pub fn create(out: &Path, label: &str) -> anyhow::Result<Self> {
        let context = || format!("cannot create a run folder in {}", out.display());
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
        // If two runs start at the same time, this fails for one of them.
        fs::create_dir(&folder).with_context(context)?;
        for part in ["grids", "checkpoints"] {
            fs::create_dir(folder.join(part)).with_context(context)?;
        }
        Ok(Self(folder))
    }

    /// Returns the run of a run folder or checkpoint, and the checkpoints to try: the given one, or
    /// all of the run, latest first.
    ///
    /// # Errors
    ///
    /// If there is no such run, or it has no checkpoint.
    pub fn find(path: &Path) -> anyhow::Result<(Self, Vec<PathBuf>)> {
        if path.is_dir() {
            let run = Self(path.to_owned());
            let mut checkpoints = run.checkpoints()?;
            checkpoints.reverse();
            ensure!(!checkpoints.is_empty(), "{}: contains no checkpoint", run.0.display());
            return Ok((run, checkpoints));
        }
        if !path.exists() {
            bail!("{}: no such run or checkpoint", path.display());
        }
        match path.parent().and_then(Path::parent) {
            Some(folder) if folder.join("options.json").exists() => {
                Ok((Self(folder.to_owned()), vec![path.to_owned()]))
            }
            _ => bail!("{}: not in the checkpoints folder of a run", path.display()),
        }
    }

    /// Returns the checkpoints, earliest first.
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

    /// Locks the run for this process until the returned file is dropped, and removes temporary
    /// files of a crash.
    ///
    /// # Errors
    ///
    /// If another process holds the lock.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.0.join("lock");
        let context = || format!("cannot write {}", path.display());
        let file =
            OpenOptions::new().create(true).append(true).open(&path).with_context(context)?;
        ensure!(
            try_lock(&file).with_context(context)?,
            "{}: another process is training this run",
            self.0.display()
        );
        for folder in [self.0.clone(), self.0.join("checkpoints"), self.0.join("grids")] {
            remove_temporary(&folder);
        }
        Ok(file)
    }

    /// Renames checkpoints later than `images` images, which a run that was resumed from an earlier
    /// checkpoint must not use. `warn` receives a message for each.
    ///
    /// # Errors
    ///
    /// If a file cannot be renamed.
    pub fn set_aside_later_checkpoints(
        &self,
        images: u64,
        warn: impl Fn(&str),
    ) -> anyhow::Result<()> {
        let last = self.checkpoint(images);
        for path in self.checkpoints()?.into_iter().filter(|path| *path > last) {
            let aside = path.with_extension("ckpt.aside");
            fs::rename(&path, &aside)
                .with_context(|| format!("cannot rename {}", path.display()))?;
            warn(&format!(
                "{} is later than the checkpoint that this run resumes from; renamed to {}",
                path.display(),
                aside.display()
            ));
        }
        Ok(())
    }

    /// Removes all checkpoints except the latest `n`, and the first one at or after each multiple
    /// of `every` images.
    ///
    /// # Errors
    ///
    /// If a file cannot be removed.
    pub fn remove_old_checkpoints(&self, n: usize, every: Option<u64>) -> anyhow::Result<()> {
        let checkpoints = self.checkpoints()?;
        let mut multiple = 0;
        for path in &checkpoints[..checkpoints.len().saturating_sub(n)] {
            let images = path.file_stem().and_then(|name| name.to_str()?.parse::<u64>().ok());
            if let (Some(every), Some(images)) = (every, images) {
                // Checkpoints are saved after whole steps, rarely at an exact multiple.
                if images / every > multiple {
                    multiple = images / every;
                    continue;
                }
            }
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the recipe.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write_options(&self, config: &TrainConfig) -> anyhow::Result<()> {
        let path = self.0.join("options.json");
        write(&path, serde_json::to_string_pretty(config)?.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Returns the path of the grid after `images` images.
    pub fn grid(&self, images: u64) -> PathBuf {
        self.0.join("grids").join(format!("{images:09}.png"))
    }

    /// Returns the path of the checkpoint after `images` images.
    pub fn checkpoint(&self, images: u64) -> PathBuf {
        self.0.join("checkpoints").join(format!("{images:09}.ckpt"))
    }

    /// Returns the path of the weights file.
    pub fn weights(&self) -> PathBuf {
        self.0.join("weights.safetensors")
    }

    /// Opens the log for appending. First removes lines later than `images` images, whose steps a
    /// resumed run repeats, and an incomplete last line.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written.
    pub fn open_stats(&self, images: u64) -> anyhow::Result<File> {
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
            write(&path, kept.as_bytes()).with_context(context)?;
        }
        OpenOptions::new().create(true).append(true).open(&path).with_context(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn runs_are_numbered_and_found_again() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let first = RunFolder::create(out.path(), "tiny-a b/c").expect("made");
        assert!(first.path().ends_with("00000-tiny-a_b_c"));
        let second = RunFolder::create(out.path(), "tiny").expect("made");
        assert!(second.path().ends_with("00001-tiny"));

        let missing = RunFolder::find(first.path()).expect_err("empty").to_string();
        assert!(missing.contains("contains no checkpoint"), "{missing}");
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
    fn the_latest_and_periodic_checkpoints_are_kept() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        for images in [40, 96, 104, 150, 208, 296, 304, 310] {
            fs::write(run.checkpoint(images), "x").expect("written");
        }
        run.remove_old_checkpoints(2, Some(100)).expect("removed");
        let kept = [104, 208, 304, 310].map(|images| run.checkpoint(images));
        assert_eq!(run.checkpoints().expect("listed"), kept);
        run.remove_old_checkpoints(1, None).expect("removed");
        assert_eq!(run.checkpoints().expect("listed"), [run.checkpoint(310)]);
    }

    #[test]
    fn a_run_is_locked_by_one_process() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        let lock = run.lock().expect("free");
        let error = run.lock().expect_err("taken").to_string();
        assert!(error.contains("another process"), "{error}");
        drop(lock);
        run.lock().expect("free again");
    }

    #[test]
    fn log_lines_of_repeated_steps_are_removed() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        let path = run.path().join("stats.jsonl");
        fs::write(&path, "{\"images\":10}\n{\"images\":20}\n{\"images\":30}\n{\"ima")
            .expect("written");
        writeln!(run.open_stats(20).expect("opened"), "{{\"images\":25}}").expect("written");
        let text = fs::read_to_string(&path).expect("there");
        assert_eq!(text, "{\"images\":10}\n{\"images\":20}\n{\"images\":25}\n");
    }
}
