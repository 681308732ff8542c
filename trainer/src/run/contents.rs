//! Reading what a run wrote.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::folder::{RunFolder, images};
use crate::config::TrainConfig;

impl RunFolder {
    /// Opens the folder of a run, also of one without a checkpoint.
    ///
    /// # Errors
    ///
    /// If it is not the folder of a run.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        ensure!(path.exists(), "{name}: no such run");
        ensure!(
            path.join("options.json").is_file(),
            "{name}: not a run folder: it has no options.json"
        );
        Ok(Self(path.to_owned()))
    }

    /// Returns the name of the folder.
    pub fn name(&self) -> String {
        let absolute = std::path::absolute(&self.0).unwrap_or_else(|_| self.0.clone());
        absolute.file_name().unwrap_or(absolute.as_os_str()).to_string_lossy().into_owned()
    }

    /// Reads the recipe.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is of another version.
    pub fn read_options(&self) -> anyhow::Result<TrainConfig> {
        let path = self.0.join("options.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// Returns the numbers of images and the paths of the grids, earliest first.
    pub fn grids(&self) -> Vec<(u64, PathBuf)> {
        let entries = fs::read_dir(self.0.join("grids")).into_iter().flatten().flatten();
        let mut grids: Vec<(u64, PathBuf)> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
            .filter_map(|path| Some((images(&path)?, path)))
            .collect();
        grids.sort();
        grids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_as_it_was_written() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        let error = RunFolder::open(run.path()).expect_err("no options").to_string();
        assert!(error.contains("no options.json"), "{error}");
        assert!(RunFolder::open(&out.path().join("nothing")).is_err());
        let config = TrainConfig::preset("tiny").expect("a preset");
        run.write_options(&config).expect("written");
        let run = RunFolder::open(run.path()).expect("a run");
        assert_eq!(run.read_options().expect("written"), config);
        assert_eq!(run.name(), "00000-x");
        for name in ["000000200.png", "1000000000.png", "000000100.png", "notes.txt", "best.png"] {
            fs::write(run.path().join("grids").join(name), "").expect("written");
        }
        let images: Vec<u64> = run.grids().into_iter().map(|(images, _)| images).collect();
        assert_eq!(images, [100, 200, 1_000_000_000]);
    }
}
