//! A folder of pictures, one file per seed, that several processes fill.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::args::Shard;
use crate::files::atomic::{remove_temporary, write_unsynced};
use crate::files::lock::{try_lock, try_lock_shared};

/// Name of the file whose lock the processes share. A process that needs the folder for itself locks
/// it exclusively.
const LOCK: &str = ".lock";

/// The last chunk of every PNG file: no data, its name and its CRC.
const END_OF_PNG: [u8; 12] = *b"\0\0\0\0IEND\xae\x42\x60\x82";

/// Number of seeds of a subfolder.
const SUBFOLDER: u64 = 1000;

/// A folder of pictures. Files have the names of EDM's sampling script.
pub struct Store {
    root: PathBuf,
    /// Whether every thousand seeds have a folder of their own.
    subfolders: bool,
    lock: File,
    /// Lock of the shard, held until the end.
    _shard: File,
}

/// Returns the name of a seed's picture within the folder: `000123.png`, or `000000/000123.png`.
pub fn name(seed: u64, subfolders: bool) -> String {
    match subfolders {
        true => format!("{:06}/{seed:06}.png", seed - seed % SUBFOLDER),
        false => format!("{seed:06}.png"),
    }
}

/// Returns the seed in the name of a PNG file.
fn seed_of(path: &Path) -> Option<u64> {
    let png = path.extension().is_some_and(|extension| extension == "png");
    path.file_stem().filter(|_| png)?.to_str()?.parse().ok()
}

impl Store {
    /// Opens a folder, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// If it cannot be written, or another process writes the same shard.
    pub fn open(root: &Path, subfolders: bool, shard: Shard) -> anyhow::Result<Self> {
        let context = || format!("cannot write to {}", root.display());
        fs::create_dir_all(root).with_context(context)?;
        let open = |name: &str| {
            OpenOptions::new().create(true).append(true).open(root.join(name)).with_context(context)
        };
        let lock = open(LOCK)?;
        ensure!(
            try_lock_shared(&lock).with_context(context)?,
            "{}: another process is completing these pictures; wait for it",
            root.display()
        );
        let Shard { number, count } = shard;
        let shard_lock = open(&format!(".lock-{number}-of-{count}"))?;
        ensure!(
            try_lock(&shard_lock).with_context(context)?,
            "{}: another process is generating {}",
            root.display(),
            if count == 1 { "these pictures".into() } else { format!("shard {shard}") }
        );
        Ok(Self { root: root.to_owned(), subfolders, lock, _shard: shard_lock })
    }

    /// Waits until no other process checks or writes the record of the settings, and keeps others from
    /// it until the returned file is dropped.
    ///
    /// # Errors
    ///
    /// If the file cannot be written or locked.
    pub fn wait_for_turn(&self) -> anyhow::Result<File> {
        let path = self.root.join(".lock-record");
        let context = || format!("cannot lock {}", path.display());
        let file =
            OpenOptions::new().create(true).append(true).open(&path).with_context(context)?;
        file.lock().with_context(context)?;
        Ok(file)
    }

    /// Tries to get the folder for this process alone. Without success, it is locked no longer.
    ///
    /// # Errors
    ///
    /// If the file system does not support locks.
    pub fn lock_alone(&self) -> std::io::Result<bool> {
        self.lock.unlock()?;
        try_lock(&self.lock)
    }

    /// Shares the folder with other processes again.
    ///
    /// # Errors
    ///
    /// If the file system does not support locks.
    pub fn share(&self) -> std::io::Result<()> {
        self.lock.unlock()?;
        self.lock.lock_shared()
    }

    /// Returns the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the name of a seed's picture within the folder.
    pub fn name(&self, seed: u64) -> String {
        name(seed, self.subfolders)
    }

    /// Returns the path of a seed's picture.
    pub fn path(&self, seed: u64) -> PathBuf {
        self.root.join(self.name(seed))
    }

    /// Returns whether a seed's picture is there, judging by the end of its file.
    pub fn has(&self, seed: u64) -> bool {
        let end = || {
            let mut file = File::open(self.path(seed))?;
            file.seek(SeekFrom::End(-(END_OF_PNG.len() as i64)))?;
            let mut end = [0; END_OF_PNG.len()];
            file.read_exact(&mut end)?;
            std::io::Result::Ok(end)
        };
        end().is_ok_and(|end| end == END_OF_PNG)
    }

    /// Writes a seed's picture. If the process is killed, the file is complete or absent.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn put(&self, seed: u64, png: &[u8]) -> std::io::Result<()> {
        let path = self.path(seed);
        match write_unsynced(&path, png) {
            Err(error) if error.kind() == ErrorKind::NotFound && self.subfolders => {
                fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
                write_unsynced(&path, png)
            }
            result => result,
        }
    }

    /// Returns whether the folder has no picture of any layout.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn is_empty(&self) -> anyhow::Result<bool> {
        for entry in walkdir::WalkDir::new(&self.root).max_depth(2) {
            if seed_of(entry?.path()).is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the seeds of all pictures in the folder, also of those that are not complete.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn seeds(&self) -> anyhow::Result<BTreeSet<u64>> {
        let mut seeds = BTreeSet::new();
        for entry in walkdir::WalkDir::new(&self.root).max_depth(2) {
            let entry = entry?;
            let path = entry.path();
            seeds.extend(seed_of(path).filter(|seed| self.path(*seed) == path));
        }
        Ok(seeds)
    }

    /// Removes what interrupted processes left. No other process may use the folder.
    pub fn clean(&self) {
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        remove_temporary(&self.root);
        for entry in entries(&self.root) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_temporary(&entry.path());
            } else if entry.file_name().to_string_lossy().starts_with(LOCK) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Shard = Shard { number: 1, count: 1 };

    fn open(root: &Path, subfolders: bool, shard: Shard) -> anyhow::Result<Store> {
        Store::open(root, subfolders, shard)
    }

    fn png() -> Vec<u8> {
        let picture = model::picture::Rgb { width: 1, height: 1, bytes: vec![7; 3] };
        picture.to_png(None).expect("small")
    }

    #[test]
    fn pictures_have_the_names_of_edm() {
        assert_eq!(name(123, false), "000123.png");
        assert_eq!(name(123, true), "000000/000123.png");
        assert_eq!(name(49_999, true), "049000/049999.png");
        assert_eq!(name(u64::MAX, true), "18446744073709551000/18446744073709551615.png");
    }

    #[test]
    fn incomplete_pictures_are_not_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for subfolders in [false, true] {
            let store = open(&folder.path().join("a/b"), subfolders, WHOLE).expect("made");
            assert!(!store.has(1234));
            store.put(1234, &png()).expect("written");
            assert!(store.has(1234));
            assert!(store.seeds().expect("listed").contains(&1234));
            for length in 0..png().len() {
                fs::write(store.path(5), &png()[..length]).unwrap_or_else(|_| {
                    fs::create_dir_all(store.path(5).parent().expect("a folder")).expect("made");
                });
                assert!(!store.has(5), "{length}");
            }
            fs::write(store.path(5), vec![0; 500]).expect("written");
            assert!(!store.has(5));
        }
    }

    #[test]
    fn other_files_are_no_pictures() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = open(folder.path(), true, WHOLE).expect("made");
        store.put(7, &png()).expect("written");
        fs::create_dir(folder.path().join("000001")).expect("made");
        for name in ["7.png", "000008.png", "000001/000009.png", "000000/000011.jpg", "x.png"] {
            fs::write(folder.path().join(name), png()).expect("written");
        }
        fs::write(folder.path().join("000000/.writing-000010.png"), b"").expect("written");
        assert_eq!(store.seeds().expect("listed"), BTreeSet::from([7]));
        assert!(!store.is_empty().expect("listed"));
        store.clean();
        assert!(!folder.path().join("000000/.writing-000010.png").exists());
    }

    #[test]
    fn a_shard_belongs_to_one_process() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let of = |number| open(folder.path(), false, Shard { number, count: 2 });
        let first = of(1).expect("free");
        let error = of(1).err().expect("taken").to_string();
        assert!(error.contains("generating shard 1/2"), "{error}");
        let second = of(2).expect("free");
        assert!(!first.lock_alone().expect("locks"), "the second is at work");
        assert!(second.lock_alone().expect("locks"));
        drop(first);
        let error = of(1).err().expect("taken").to_string();
        assert!(error.contains("completing"), "{error}");
        second.share().expect("locks");
        of(1).expect("free");
    }
}
