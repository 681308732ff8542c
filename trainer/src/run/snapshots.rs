//! Snapshots of moving averages: weights files in the folder `ema` of a run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use model::Model;
use model::card::Card;
use model::weights::{Precision, to_bytes};

use super::folder::RunFolder;
use crate::files::atomic::write;

/// Name of the folder.
pub const SNAPSHOTS: &str = "ema";

/// A snapshot of a moving average with a power-function profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Number of images seen.
    pub images: u64,
    /// Relative standard deviation of the profile.
    pub std: f64,
    /// Weights file.
    pub path: PathBuf,
}

impl RunFolder {
    /// Returns the path of a snapshot, such as `ema/000012000-0.05.safetensors`.
    fn snapshot(&self, images: u64, std: f64) -> PathBuf {
        // The shortest decimal number that is read as the same value.
        self.path().join(SNAPSHOTS).join(format!("{images:09}-{std}.safetensors"))
    }

    /// Writes a snapshot.
    ///
    /// # Errors
    ///
    /// If a value is not finite or the file cannot be written.
    pub fn write_snapshot(
        &self,
        images: u64,
        std: f64,
        average: &Model,
        card: &Card,
    ) -> anyhow::Result<()> {
        let path = self.snapshot(images, std);
        let context = || format!("cannot write {}", path.display());
        // The losses of the card are those of other averages.
        let card = Card { loss: None, validation_loss: None, ..card.clone() };
        let parameters = average.parameters();
        let bytes = to_bytes(&average.config, &card, None, parameters, Precision::F32)?;
        fs::create_dir_all(self.path().join(SNAPSHOTS)).with_context(context)?;
        write(&path, &bytes).with_context(context)
    }

    /// Returns the snapshots, earliest first. Files with other names are not of the run.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn snapshots(&self) -> anyhow::Result<Vec<Snapshot>> {
        let folder = self.path().join(SNAPSHOTS);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let context = || format!("cannot read {}", folder.display());
        let mut snapshots = Vec::new();
        for entry in fs::read_dir(&folder).with_context(context)? {
            let path = entry.with_context(context)?.path();
            snapshots.extend(read_name(&path).map(|(images, std)| Snapshot { images, std, path }));
        }
        snapshots.sort_by(|a, b| a.images.cmp(&b.images).then(a.std.total_cmp(&b.std)));
        Ok(snapshots)
    }
}

/// Returns the number of images and the standard deviation in the name of a snapshot.
fn read_name(path: &Path) -> Option<(u64, f64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".safetensors")?;
    let (images, std) = name.split_once('-')?;
    Some((images.parse().ok()?, std.parse().ok().filter(|std: &f64| std.is_finite())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_found_by_their_names() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        assert_eq!(run.snapshots().expect("none"), []);
        fs::create_dir(run.path().join(SNAPSHOTS)).expect("made");
        let all = [(64, 0.05), (64, 0.1), (1_200, 0.07), (2_000_000_000, 0.1)];
        for (images, std) in all.into_iter().rev() {
            fs::write(run.snapshot(images, std), "x").expect("written");
        }
        for other in ["notes.txt", "best.safetensors", "12-x.safetensors", "-0.1.safetensors"] {
            fs::write(run.path().join(SNAPSHOTS).join(other), "x").expect("written");
        }
        let names = |run: &RunFolder| {
            let found = run.snapshots().expect("listed");
            found.iter().map(|found| (found.images, found.std)).collect::<Vec<_>>()
        };
        assert_eq!(names(&run), all);
        assert!(run.snapshot(64, 0.05).ends_with("ema/000000064-0.05.safetensors"));
        // A run that is resumed from an earlier checkpoint does not use later ones.
        run.set_aside_later(1_000, |_| ()).expect("renamed");
        assert_eq!(names(&run), all[..2]);
        assert!(run.snapshot(1_200, 0.07).with_extension("safetensors.aside").exists());
    }
}
