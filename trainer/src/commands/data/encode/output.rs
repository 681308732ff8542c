//! The files of a latent dataset that is written, and their resuming.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use model::weights::Precision;

use crate::args::EncodeArgs;
use crate::data::latents::{Latents, Origin, Part, header, record_size};
use crate::files::lock::try_lock;

/// Number of images after which a file is synced.
const SYNC_INTERVAL: usize = 16;

/// Bytes of the header of a file beyond those of its origin.
const HEADER: u64 = 1 << 10;

/// Returns the number of parts of an encoding, none of which is larger than `limit` bytes.
///
/// # Errors
///
/// If not even one image fits.
pub fn parts_of(
    origin: &Origin,
    images: usize,
    limit: u64,
    record: usize,
) -> anyhow::Result<usize> {
    let of_origin = serde_json::to_string(origin)?;
    // As text within text, every quotation mark and backslash may take one more byte.
    let fixed = HEADER + 2 * of_origin.len() as u64;
    // The record and the class.
    let each = record as u64 + 4;
    let fit = limit.saturating_sub(fixed) / each;
    ensure!(fit > 0, "--shard-size {limit}: a file with one image takes {} bytes", fixed + each);
    Ok((images as u64).div_ceil(fit) as usize)
}

/// A file of a latent dataset: all images, or a part of them.
pub struct Output {
    /// The file.
    pub path: PathBuf,
    /// Numbers of the images, one for each record.
    pub images: Range<usize>,
    /// SHA-256 of all images of the dataset up to its last one.
    pub digest: String,
    header: Vec<u8>,
    /// Size of a record in bytes.
    record: usize,
}

impl Output {
    /// Returns the file at `path` of a part of an encoding. `labels` are those of all images.
    pub fn new(
        path: PathBuf,
        digest: String,
        origin: &Origin,
        labels: &[u32],
        part: Part,
        (shape, precision): ([usize; 3], Precision),
    ) -> Self {
        let header = header(origin, labels, part, shape, precision);
        Self { path, images: part.range(), digest, header, record: record_size(shape, precision) }
    }

    /// Returns the size of the file in bytes.
    pub fn size(&self) -> usize {
        self.header.len() + self.images.len() * self.record
    }

    /// Returns whether the file exists and is complete.
    ///
    /// # Errors
    ///
    /// If there is a file with other content, which may not be overwritten.
    pub fn is_complete(&self, overwrite: bool) -> anyhow::Result<bool> {
        let Ok(metadata) = self.path.metadata() else { return Ok(false) };
        if overwrite {
            return Ok(false);
        }
        let same = starts_with(&self.path, &self.header)? && metadata.len() == self.size() as u64;
        ensure!(
            same,
            "{} exists with other content than the latents of these images by this autoencoder; use \
             --overwrite to replace it",
            self.path.display()
        );
        Ok(true)
    }

    /// Opens the partial file after its last record that is known to be on disk.
    ///
    /// # Errors
    ///
    /// If it cannot be written, belongs to another encoding, or another process writes to it.
    pub fn open(&self, args: &EncodeArgs) -> anyhow::Result<Records<'_>> {
        let path = partial_path(&self.path);
        let name = path.display();
        let cannot_write = || format!("cannot write {name}");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(cannot_write)?;
        ensure!(
            try_lock(&file).with_context(cannot_write)?,
            "{name}: another process is writing to this file"
        );
        let len = usize::try_from(file.metadata().with_context(cannot_write)?.len())?;
        let same = starts_with(&path, &self.header)?;
        ensure!(
            same || args.overwrite || len <= self.header.len(),
            "{name} belongs to an encoding of other images, with another --size or another \
             autoencoder; use --overwrite to start over"
        );
        // After a power failure, records written since the last sync may be lost, although the file has
        // its full length.
        let records = if same { (len - self.header.len()) / self.record } else { 0 };
        let done =
            (records.saturating_sub(1) / SYNC_INTERVAL * SYNC_INTERVAL).min(self.images.len());
        // Images are put together in the batches in which they would be without the interruption.
        let batch = usize::from(args.batch);
        let count = done / batch * batch;
        if !same {
            file.set_len(0).with_context(cannot_write)?;
            file.write_all(&self.header).with_context(cannot_write)?;
        }
        let end = (self.header.len() + count * self.record) as u64;
        file.set_len(end).with_context(cannot_write)?;
        file.seek(SeekFrom::Start(end)).with_context(cannot_write)?;
        Ok(Records { output: self, file, path, count })
    }
}

/// The records of a file that is written.
pub struct Records<'a> {
    /// What the file will be.
    pub output: &'a Output,
    file: File,
    path: PathBuf,
    count: usize,
}

impl Records<'_> {
    /// Returns the number of records so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the number of the next image.
    pub fn next(&self) -> usize {
        self.output.images.start + self.count
    }

    /// Appends records. The file is synced at each multiple of [`SYNC_INTERVAL`] records.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub fn append(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        let record = self.output.record;
        while !bytes.is_empty() {
            let left = SYNC_INTERVAL - self.count % SYNC_INTERVAL;
            let (now, later) = bytes.split_at(bytes.len().min(left * record));
            self.file.write_all(now).with_context(|| self.cannot_write())?;
            self.count += now.len() / record;
            if self.count.is_multiple_of(SYNC_INTERVAL) {
                self.file.sync_data().with_context(|| self.cannot_write())?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| self.cannot_write())?;
        std::fs::rename(&self.path, &self.output.path)
            .with_context(|| format!("cannot write {}", self.output.path.display()))
    }

    fn cannot_write(&self) -> String {
        format!("cannot write {} ({} MB)", self.path.display(), self.output.size() / 1_000_000)
    }
}

/// Returns the paths of the files of `count` parts in a folder, which is made if it is not there.
///
/// # Errors
///
/// If the folder cannot be made, or has latents of another encoding.
pub fn paths_in(folder: &Path, count: usize) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = |number| folder.join(format!("part-{number:05}-of-{count:05}.latents"));
    let paths: Vec<PathBuf> = (1..=count).map(path).collect();
    let there = Latents::files_of(folder);
    if let Some(other) = there.iter().find(|path| !paths.contains(path)) {
        anyhow::bail!(
            "{} is of another encoding than this one in {count} parts: remove it, or use another folder",
            other.display()
        );
    }
    Ok(paths)
}

/// Returns the path of the partial file of an encoding.
fn partial_path(output: &Path) -> PathBuf {
    let mut partial = output.to_owned().into_os_string();
    partial.push(".partial");
    partial.into()
}

/// Returns whether a file starts with the given bytes.
fn starts_with(path: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes.len() as u64).read_to_end(&mut start))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(start == bytes)
}
