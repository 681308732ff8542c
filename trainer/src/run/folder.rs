//! Run folders.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::snapshots::SNAPSHOTS;
use crate::config::TrainConfig;
use crate::files::atomic::{remove_temporary, write};
use crate::files::lock::try_lock;

/// The folder of a run.
///
/// | file | content |
/// |---|---|
/// | `options.json` | the recipe |
/// | `launch.json` | the launch settings: device, intervals and other flags outside the recipe |
/// | `stats.jsonl` | the log, JSON Lines |
/// | `events.out.tfevents.*` | the log and the grids, for TensorBoard |
/// | `grids/*.png` | samples from fixed seeds, named by the number of images seen |
/// | `checkpoints/*.ckpt` | checkpoints, named by the number of images seen |
/// | `best.ckpt` | the checkpoint with the best image quality, if that is measured |
/// | `ema/*.safetensors` | snapshots of moving averages, named by images and standard deviation |
/// | `first-and-last.png` | the first and the last grid, side by side |
/// | `weights.safetensors` | the weights file of the finished run |
/// | `report.html` | the report that `trainer report` writes |
/// | `lock` | the lock file of the training process |
#[derive(Clone, Debug)]
pub struct RunFolder(pub(super) PathBuf);

impl RunFolder {
    /// Creates the next numbered folder in `out`, such as `00012-tiny-emoji-batch32`.
    ///
    /// # Errors
    ///
    /// If the folder cannot be created.
    pub fn create(out: &Path, label: &str) -> anyhow::Result<Self> {
        let context = || format!("cannot create a run folder in {}", out.display());
        fs::create_dir_all(out).with_context(context)?;
        // Two runs that start at the same time must not get the same number. Not all systems can
        // lock a folder; without the lock, equal numbers are possible, but not equal folders.
        let lock = File::open(out).and_then(|folder| folder.lock().map(|()| folder));
        let label: String = label
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' })
            .collect();
        let folder = loop {
            let number = Self::numbered(out).with_context(context)?;
            let number = number.last().map_or(0, |(number, _)| number + 1);
            let folder = out.join(format!("{number:05}-{label}"));
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => (),
                result => break result.map(|()| folder).with_context(context)?,
            }
        };
        drop(lock);
        for part in ["grids", "checkpoints"] {
            fs::create_dir(folder.join(part)).with_context(context)?;
        }
        Ok(Self(folder))
    }

    /// Returns the numbers and paths of the entries of `out` that start with a number, in order.
    fn numbered(out: &Path) -> std::io::Result<Vec<(u32, PathBuf)>> {
        let mut runs = Vec::new();
        for entry in fs::read_dir(out)? {
            let entry = entry?;
            let name = entry.file_name();
            let number =
                name.to_string_lossy().split('-').next().and_then(|n| n.parse::<u32>().ok());
            runs.extend(number.map(|number| (number, entry.path())));
        }
        runs.sort();
        Ok(runs)
    }

    /// Returns the path of the run with the highest number in `out`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn newest(out: &Path) -> anyhow::Result<PathBuf> {
        let mut runs = Self::numbered(out).with_context(|| out.display().to_string())?;
        runs.retain(|(_, path)| path.is_dir());
        let newest = runs.pop().with_context(|| format!("{}: contains no run", out.display()))?;
        Ok(newest.1)
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
        if let Some(folder) = path.parent().filter(|folder| folder.join("options.json").exists()) {
            return Ok((Self(folder.to_owned()), vec![path.to_owned()]));
        }
        // The path can be too short to contain the folders, as in the folder of checkpoints.
        let folder = match path.parent() {
            Some(parent) if parent.parent().is_some_and(|folder| folder != Path::new("")) => {
                parent.parent().map(Path::to_owned)
            }
            Some(parent) => {
                let parent = if parent == Path::new("") { Path::new(".") } else { parent };
                fs::canonicalize(parent).ok().and_then(|p| p.parent().map(Path::to_owned))
            }
            None => None,
        };
        match folder {
            Some(folder) if folder.join("options.json").exists() => {
                Ok((Self(folder), vec![path.to_owned()]))
            }
            _ => bail!("{}: not in the checkpoints folder of a run", path.display()),
        }
    }

    /// Returns the checkpoints, earliest first. Files whose name is not a number are not of the run.
    ///
    /// # Errors
    ///
    /// If it is not a run folder.
    pub fn checkpoints(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.0.join("checkpoints"))
            .with_context(|| format!("{}: not a run folder", self.0.display()))?;
        let mut checkpoints: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "ckpt") && images(path).is_some())
            .collect();
        // Numbers of more than nine digits are not in the order of their text.
        checkpoints.sort_by_key(|path| images(path));
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
        remove_temporary(&self.0);
        for folder in ["checkpoints", "grids", SNAPSHOTS] {
            remove_temporary(&self.0.join(folder));
        }
        Ok(file)
    }

    /// Renames checkpoints and snapshots of moving averages later than `last` images, which a run that
    /// was resumed from an earlier checkpoint must not use. `warn` receives a message for each
    /// checkpoint.
    ///
    /// # Errors
    ///
    /// If a file cannot be renamed.
    pub fn set_aside_later(&self, last: u64, warn: impl Fn(&str)) -> anyhow::Result<()> {
        let later = self.snapshots()?.into_iter().filter(|snapshot| snapshot.images > last);
        for snapshot in later {
            set_aside(&snapshot.path)?;
        }
        for path in self.checkpoints()?.into_iter().filter(|path| images(path) > Some(last)) {
            let aside = set_aside(&path)?;
            warn(&format!(
                "{} is later than the checkpoint that this run resumes from; renamed to {}",
                path.display(),
                aside.display()
            ));
        }
        Ok(())
    }

    /// Removes all checkpoints except the latest `n`, and the first one at or after each multiple
    /// of `every` images, unless `every` is 0.
    ///
    /// # Errors
    ///
    /// If a file cannot be removed.
    pub fn remove_old_checkpoints(&self, n: usize, every: Option<u64>) -> anyhow::Result<()> {
        let checkpoints = self.checkpoints()?;
        let mut multiple = 0;
        for path in &checkpoints[..checkpoints.len().saturating_sub(n)] {
            // Checkpoints are saved after whole steps, rarely at an exact multiple.
            let passed =
                images(path).and_then(|images| images.checked_div(every?)).unwrap_or_default();
            if passed > multiple {
                multiple = passed;
                continue;
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

    /// Returns the path of the launch settings.
    pub fn launch(&self) -> PathBuf {
        self.0.join("launch.json")
    }

    /// Returns the path of the grid after `images` images.
    pub fn grid(&self, images: u64) -> PathBuf {
        self.0.join("grids").join(format!("{images:09}.png"))
    }

    /// Returns the path of the checkpoint after `images` images.
    pub fn checkpoint(&self, images: u64) -> PathBuf {
        self.0.join("checkpoints").join(format!("{images:09}.ckpt"))
    }

    /// Returns the path of the checkpoint with the best image quality.
    pub fn best(&self) -> PathBuf {
        self.0.join("best.ckpt")
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

/// Renames a file of a run, to its name with `.aside`, or `.aside2` and so on. Returns the new path.
///
/// # Errors
///
/// If the file cannot be renamed.
pub fn set_aside(path: &Path) -> anyhow::Result<PathBuf> {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let mut aside = path.with_extension(format!("{extension}.aside"));
    let mut copies = 1;
    while aside.exists() {
        copies += 1;
        aside = path.with_extension(format!("{extension}.aside{copies}"));
    }
    fs::rename(path, &aside).with_context(|| format!("cannot rename {}", path.display()))?;
    Ok(aside)
}

/// Returns the number of images in the name of a checkpoint or a grid.
pub(super) fn images(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
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
    fn checkpoints_are_ordered_by_number() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        let numbers = [999_999_000, 1_000_000_000, 10_000_000_000];
        for images in numbers {
            fs::write(run.checkpoint(images), "x").expect("written");
        }
        // A copy that the user made is neither resumed nor removed.
        let copy = run.path().join("checkpoints/best.ckpt");
        fs::write(&copy, "x").expect("written");
        let (_, latest) = RunFolder::find(run.path()).expect("found");
        assert_eq!(latest[0], run.checkpoint(10_000_000_000));
        run.set_aside_later(1_000_000_000, |_| ()).expect("renamed");
        assert_eq!(run.checkpoints().expect("listed").len(), 2);
        run.remove_old_checkpoints(1, Some(0)).expect("removed");
        assert_eq!(run.checkpoints().expect("listed"), [run.checkpoint(1_000_000_000)]);
        assert!(copy.exists());
    }

    #[test]
    fn a_checkpoint_set_aside_twice_is_kept_twice() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        for content in ["a", "b", "c"] {
            fs::write(run.checkpoint(20), content).expect("written");
            run.set_aside_later(10, |_| ()).expect("renamed");
        }
        for (name, content) in [("aside", "a"), ("aside2", "b"), ("aside3", "c")] {
            let path = run.checkpoint(20).with_extension(format!("ckpt.{name}"));
            assert_eq!(fs::read_to_string(path).expect("kept"), content);
        }
        assert!(run.checkpoints().expect("listed").is_empty());
    }

    #[test]
    fn runs_created_at_the_same_time_have_different_numbers() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let create = |label: usize| {
            let label = if label.is_multiple_of(2) { "x".into() } else { format!("{label}") };
            RunFolder::create(out.path(), &label).expect("made");
        };
        std::thread::scope(|scope| {
            for label in 0..16 {
                scope.spawn(move || create(label));
            }
        });
        let numbers = RunFolder::numbered(out.path()).expect("listed");
        let numbers: Vec<u32> = numbers.into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, (0..16).collect::<Vec<_>>());
        let newest = RunFolder::newest(out.path()).expect("some");
        assert!(newest.file_name().expect("a name").to_string_lossy().starts_with("00015-"));
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
