//! A file of features, to which records are appended while images are processed.
//!
//! Each image has a record: a hash of the image and its features. Memory does not grow with the
//! number of images. An interrupted computation continues after the records that are known to be on
//! disk, and the hashes tell whether the images are still the same. The file starts with a magic,
//! the length of a JSON object, and the object, which identifies the computation.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::MetricsError;
use crate::network::Features;
use crate::rows::Rows;

/// First bytes of a file of features.
const MAGIC: &[u8; 8] = b"features";

/// Size of the hash of an image in bytes.
const HASH: usize = 8;

/// Numbers of features of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Pooled features.
    pub pooled: usize,
    /// Spatial features.
    pub spatial: usize,
}

impl Layout {
    /// Returns the size of a record in bytes.
    fn record(self) -> usize {
        HASH + 4 * (self.pooled + self.spatial)
    }
}

/// A file of features.
pub struct Store {
    path: PathBuf,
    file: File,
    layout: Layout,
    /// Offset of the first record.
    start: u64,
    count: usize,
}

impl Store {
    /// Creates a file without a name, which is deleted when it is closed.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn temporary(layout: Layout) -> Result<Self, MetricsError> {
        let path = std::env::temp_dir();
        let file = tempfile::tempfile().map_err(|error| MetricsError::io(&path, error))?;
        Ok(Self { path, file, layout, start: 0, count: 0 })
    }

    /// Opens a file, or creates it. Records of an earlier, interrupted computation are kept, except
    /// for the last batch, which may not be on disk completely; `len` is then a multiple of `batch`.
    ///
    /// # Errors
    ///
    /// If the file cannot be used, belongs to another computation, or is open in another process.
    pub fn open(
        path: &Path,
        identity: &Value,
        layout: Layout,
        batch: usize,
    ) -> Result<Self, MetricsError> {
        let io = |error| MetricsError::io(path, error);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(MetricsError::file(path, "another process is using this file"));
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let identity = serde_json::to_vec(identity).map_err(|e| MetricsError::file(path, e))?;
        let mut header = MAGIC.to_vec();
        header.extend((identity.len() as u64).to_le_bytes());
        header.extend(&identity);
        let size = file.metadata().map_err(io)?.len();
        let mut found = Vec::new();
        (&file).take(header.len() as u64).read_to_end(&mut found).map_err(io)?;
        if found != header && !header.starts_with(&found) {
            let reason = if found.starts_with(MAGIC) {
                "holds the features of other images, or of another network or batch size; delete \
                 it, or use another file"
            } else {
                "is not a file of features; use another file"
            };
            return Err(MetricsError::file(path, reason));
        }
        let start = header.len() as u64;
        let mut count = 0;
        if found == header {
            let records = ((size - start) / layout.record() as u64) as usize;
            let batch = batch.max(1);
            count = records.saturating_sub(1) / batch * batch;
            file.set_len(start + (count * layout.record()) as u64).map_err(io)?;
        } else {
            file.set_len(0).map_err(io)?;
            file.rewind().map_err(io)?;
            file.write_all(&header).map_err(io)?;
        }
        Ok(Self { path: path.to_owned(), file, layout, start, count })
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends the features of images, and waits until they are on disk. `hashes` tell the images.
    ///
    /// # Errors
    ///
    /// If the features are not finite, or the file cannot be written; nothing is then appended.
    ///
    /// # Panics
    ///
    /// If there are not as many features as the layout asks for.
    pub fn append(&mut self, hashes: &[u64], features: &Features) -> Result<(), MetricsError> {
        let Layout { pooled, spatial } = self.layout;
        assert_eq!(features.pooled.len(), hashes.len() * pooled, "pooled features of each image");
        assert_eq!(
            features.spatial.len(),
            hashes.len() * spatial,
            "spatial features of each image"
        );
        if let Some(i) = features.not_finite(hashes.len()) {
            return Err(MetricsError::NotFinite(format!("features of image {}", self.count + i)));
        }
        let mut bytes = Vec::with_capacity(hashes.len() * self.layout.record());
        for (i, hash) in hashes.iter().enumerate() {
            bytes.extend(hash.to_le_bytes());
            let parts = [
                &features.pooled[i * pooled..][..pooled],
                &features.spatial[i * spatial..][..spatial],
            ];
            bytes.extend(parts.into_iter().flatten().flat_map(|value| value.to_le_bytes()));
        }
        let end = self.offset(self.count);
        let written = self
            .file
            .seek(SeekFrom::Start(end))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What was written of the batch is cut off; if that fails too, reading ignores it.
            let _ = self.file.set_len(end);
            return Err(MetricsError::io(&self.path, error));
        }
        self.count += hashes.len();
        Ok(())
    }

    /// Returns the hash of an image.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn hash(&self, number: usize) -> Result<u64, MetricsError> {
        let mut bytes = [0; HASH];
        self.read_at(self.offset(number), &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Returns the pooled features.
    pub fn pooled(&self) -> StoredRows<'_> {
        StoredRows { store: self, from: HASH, dim: self.layout.pooled }
    }

    /// Returns the spatial features.
    pub fn spatial(&self) -> StoredRows<'_> {
        let from = HASH + 4 * self.layout.pooled;
        StoredRows { store: self, from, dim: self.layout.spatial }
    }

    /// Returns the offset of a record.
    fn offset(&self, number: usize) -> u64 {
        self.start + (number * self.layout.record()) as u64
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), MetricsError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(bytes))
            .map_err(|error| MetricsError::io(&self.path, error))
    }
}

/// One kind of features of all images of a file.
pub struct StoredRows<'a> {
    store: &'a Store,
    /// Offset within a record.
    from: usize,
    dim: usize,
}

impl Rows for StoredRows<'_> {
    fn len(&self) -> usize {
        self.store.count
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<f32>, MetricsError> {
        let record = self.store.layout.record();
        let mut bytes = vec![0; range.len() * record];
        self.store.read_at(self.store.offset(range.start), &mut bytes)?;
        let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let values = bytes
            .chunks_exact(record)
            .flat_map(|record| record[self.from..][..4 * self.dim].chunks_exact(4).map(number));
        Ok(values.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { pooled: 2, spatial: 1 };

    fn features(first: f32, n: usize) -> Features {
        let value = |i: usize| first + i as f32;
        Features {
            pooled: (0..2 * n).map(value).collect(),
            spatial: (0..n).map(|i| -value(i)).collect(),
        }
    }

    fn identity(name: &str) -> Value {
        serde_json::json!({ "name": name })
    }

    fn open(path: &Path, name: &str) -> Result<Store, MetricsError> {
        Store::open(path, &identity(name), LAYOUT, 2)
    }

    #[test]
    fn records_are_read_back_by_kind() {
        let mut store = Store::temporary(LAYOUT).expect("a temporary file");
        assert!(store.is_empty());
        store.append(&[7, 8], &features(0.0, 2)).expect("appended");
        store.append(&[9], &features(10.0, 1)).expect("appended");
        assert_eq!(store.len(), 3);
        assert_eq!([0, 1, 2].map(|i| store.hash(i).expect("there")), [7, 8, 9]);
        assert_eq!(store.pooled().read(1..3).expect("there"), [2.0, 3.0, 10.0, 11.0]);
        assert_eq!(store.spatial().read(0..3).expect("there"), [0.0, -1.0, -10.0]);
        assert!(store.hash(3).is_err());
    }

    #[test]
    fn an_interrupted_computation_continues_after_the_last_batch_but_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let mut store = open(&path, "a").expect("made");
        for batch in 0..3 {
            let hashes = [2 * batch, 2 * batch + 1];
            store.append(&hashes, &features(10.0 * batch as f32, 2)).expect("appended");
        }
        assert!(open(&path, "a").is_err_and(|e| e.to_string().contains("another process")));
        drop(store);
        let file = std::fs::read(&path).expect("there");
        // The last batch is done again; of a partial one nothing is used.
        for cut in [0, 5] {
            std::fs::write(&path, &file[..file.len() - cut]).expect("written");
            let store = open(&path, "a").expect("the same");
            assert_eq!(store.len(), 4);
            assert_eq!(store.pooled().read(2..4).expect("there"), [10.0, 11.0, 12.0, 13.0]);
        }
        // A header that was not written completely.
        std::fs::write(&path, &file[..12]).expect("written");
        assert_eq!(open(&path, "a").expect("started again").len(), 0);
    }

    #[test]
    fn files_of_other_computations_are_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        open(&path, "a").expect("made").append(&[1], &features(0.0, 1)).expect("appended");
        let before = std::fs::read(&path).expect("there");
        let error = |path: &Path| match open(path, "b") {
            Ok(_) => panic!("it is of another computation"),
            Err(error) => error.to_string(),
        };
        assert!(error(&path).contains("state: holds the features of other images"));
        assert_eq!(std::fs::read(&path).expect("there"), before);
        std::fs::write(&path, b"something else, quite long enough").expect("written");
        assert!(error(&path).contains("state: is not a file of features"));
        assert_eq!(std::fs::read(&path).expect("there").len(), 33);
    }

    #[test]
    fn features_that_are_not_finite_are_not_stored() {
        let mut store = Store::temporary(LAYOUT).expect("a temporary file");
        store.append(&[1], &features(0.0, 1)).expect("appended");
        for change in [
            |f: &mut Features| f.pooled[3] = f32::NAN,
            |f: &mut Features| f.spatial[1] = f32::INFINITY,
        ] {
            let mut bad = features(0.0, 2);
            change(&mut bad);
            let error = store.append(&[2, 3], &bad).expect_err("not finite").to_string();
            assert!(error.contains("features of image 2 are not finite"), "{error}");
            assert_eq!(store.len(), 1);
        }
    }
}
