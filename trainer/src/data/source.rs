//! Sources of images: folders, archives, and whatever else is in the list of formats.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;

use super::decode::DecodedImage;
use super::error::DataError;
use super::item::{Classes, Index, Item, Visitor};
use super::latents::Latents;
use super::slow_bar::{SlowBar, Unit};
use super::{cifar, emoji, folder, parquet_files, tar_shards, zip_file};

/// The formats, in the order in which they are tried.
const FORMATS: &[Format] = &[
    emoji::FORMAT,
    tar_shards::FORMAT,
    parquet_files::FORMAT,
    folder::FORMAT,
    zip_file::FORMAT,
    cifar::FORMAT,
];

/// Images of which a list is in memory, and which are read when they are needed, from several threads
/// at a time.
pub trait Source: Send + Sync {
    /// Returns the list of all images, in the order of training. [`Self::image`] and [`Self::size`]
    /// are not called for images with a problem.
    fn index(&self) -> &Index;

    /// Reads and decodes image `i` of the list.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be used.
    fn image(&self, i: usize) -> Result<DecodedImage, String>;

    /// Returns the width and height of image `i` of the list, without decoding it.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be used, as far as that is known then.
    fn size(&self, i: usize) -> Result<[usize; 2], String>;
}

impl dyn Source + '_ {
    /// Returns what `read` makes of image `i`, or the problem with it.
    pub fn get<T>(&self, i: usize, read: impl Fn(usize) -> Result<T, String>) -> Result<T, String> {
        match &self.index().images[i].problem {
            Some(problem) => Err(problem.to_string()),
            None => read(i),
        }
    }

    /// Makes something of every image in parallel, and passes it to `each` in order, until that
    /// breaks. Few images are in memory at a time. On a terminal, a bar shows the progress if it
    /// takes long, unless `bar` is `None`; `bar` says what is done.
    pub fn in_order<T: Send>(
        &self,
        bar: Option<&str>,
        read: impl Fn(usize) -> Result<T, String> + Sync,
        mut each: impl FnMut(usize, Result<T, String>) -> ControlFlow<()>,
    ) {
        let count = self.index().images.len();
        let what = bar.unwrap_or_default();
        let mut bar = SlowBar::new(bar.is_some(), what, Unit::Images, count as u64);
        let chunk = PER_THREAD * rayon::current_num_threads();
        for first in (0..count).step_by(chunk) {
            let numbers = first..count.min(first + chunk);
            let read: Vec<_> = numbers.into_par_iter().map(|i| self.get(i, &read)).collect();
            for (i, read) in (first..).zip(read) {
                if each(i, read).is_break() {
                    return;
                }
            }
            bar.advance(count.min(first + chunk) as u64);
        }
    }
}

/// Number of images that are in memory for each thread.
const PER_THREAD: usize = 8;

/// A format of datasets.
pub struct Format {
    /// What it is, for messages.
    pub what: &'static str,
    /// Opens a dataset. `None` if it is of another format.
    pub open: fn(&Candidate) -> Option<Result<Box<dyn Source>, DataError>>,
}

/// A path that may be a dataset.
pub struct Candidate<'a> {
    /// Path.
    pub path: &'a Path,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// First bytes of a file, or fewer; of a tar file, the header of its first member.
    pub start: Vec<u8>,
    /// Whether to show the progress.
    pub bar: bool,
}

/// Returns what can be read, for messages.
fn formats() -> String {
    FORMATS.iter().map(|format| format.what).collect::<Vec<_>>().join(", ")
}

/// Opens a dataset of images. They are listed, with a bar if that takes long and `bar` is set, but not
/// read.
///
/// # Errors
///
/// If it cannot be read, or is of no known format.
pub fn open(path: &Path, bar: bool) -> Result<Box<dyn Source>, DataError> {
    let is_folder = path.is_dir();
    let start = if is_folder { Ok(Vec::new()) } else { first_bytes(path, 512) };
    let known = start.as_ref().ok().cloned().unwrap_or_default();
    if Latents::may_be(&known) || (is_folder && is_latents(path)) {
        let reason = "expected a dataset of images".into();
        return Err(DataError::Latents { path: path.to_owned(), reason });
    }
    let candidate = Candidate { path, is_folder, start: known, bar };
    if let Some(source) = FORMATS.iter().find_map(|format| (format.open)(&candidate)) {
        return source;
    }
    Err(match start {
        Ok(_) => DataError::Unknown { path: path.to_owned(), formats: formats() },
        Err(error) => DataError::io(path, error),
    })
}

/// Reads a dataset of images image by image, in the order of training, and returns the classes.
///
/// # Errors
///
/// If the dataset as a whole cannot be read. Images that cannot be used are passed to `visitor`
/// with the reason.
pub fn visit(path: &Path, visitor: &mut Visitor) -> Result<Classes, DataError> {
    let source = open(path, false)?;
    visit_all(&*source, None, visitor);
    Ok(source.index().classes.clone())
}

/// Reads an open dataset as [`visit`] does, with a bar if [`in_order`](Source) is to show one.
pub fn visit_all(source: &dyn Source, bar: Option<&str>, visitor: &mut Visitor) {
    source.in_order(
        bar,
        |i| source.image(i),
        |i, image| {
            let listed = &source.index().images[i];
            visitor(Item { name: listed.name.to_string(), image, class: listed.class })
        },
    );
}

/// Returns whether a path is a latent dataset: a file, judging by its first bytes, or a folder of such
/// files.
pub fn is_latents(path: &Path) -> bool {
    if path.is_dir() {
        return !Latents::files_of(path).is_empty();
    }
    // Whoever opens an unreadable file reports the error.
    path.is_file() && first_bytes(path, 9).is_ok_and(|start| Latents::may_be(&start))
}

/// Returns the first bytes of a file, which tell its format.
fn first_bytes(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut start)?;
    Ok(start)
}

/// Passes every image of an open dataset with its class to `take`, which returns the reason if it cannot
/// use an image. `path` is that of the dataset, for messages.
///
/// # Errors
///
/// If there are no images, or some cannot be used.
pub fn read_usable(
    path: &Path,
    source: &dyn Source,
    mut take: impl FnMut(DecodedImage, Option<u32>) -> Result<(), String>,
) -> Result<(), DataError> {
    let mut unusable = Unusable::default();
    visit_all(source, Some("reading"), &mut |Item { name, image, class }| {
        unusable.note(&name, image.and_then(|image| take(image, class)));
        ControlFlow::Continue(())
    });
    unusable.check(path)
}

/// Images that cannot be used, and the number of all.
#[derive(Default)]
pub struct Unusable {
    total: usize,
    count: usize,
    /// The first of them, with their reasons.
    list: Vec<String>,
}

impl Unusable {
    /// Adds an image, or the reason why it cannot be used, and returns the image.
    pub fn note<T>(&mut self, name: &str, image: Result<T, String>) -> Option<T> {
        self.total += 1;
        let reason = match image {
            Ok(image) => return Some(image),
            Err(reason) => reason,
        };
        self.count += 1;
        if self.count <= 5 {
            self.list.push(format!("  {name}: {reason}"));
        }
        None
    }

    /// Checks that there are images and all can be used.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn check(self, path: &Path) -> Result<(), DataError> {
        let Self { total, count, list } = self;
        let path = path.to_owned();
        match (total, count) {
            (0, _) => Err(DataError::Empty(path)),
            (_, 0) => Ok(()),
            _ => Err(DataError::Bad { path, count, total, list: list.join("\n") }),
        }
    }
}
