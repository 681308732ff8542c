//! Sources of images: folders, archives, and whatever else is in the list of formats.

use std::fs::File;
use std::io::Read;
use std::ops::{ControlFlow, Range};
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
    /// breaks. Few images are in memory at a time; of images that are decoded, no more bytes than
    /// [`MEMORY_PER_THREAD`] allows, or a single one that is larger. On a terminal, a bar shows the
    /// progress if it takes long, unless `bar` is `None`; `bar` says what is done.
    pub fn in_order<T: Send>(
        &self,
        bar: Option<&str>,
        reads: Reads,
        read: impl Fn(usize) -> Result<T, String> + Sync,
        mut each: impl FnMut(usize, Result<T, String>) -> ControlFlow<()>,
    ) {
        let count = self.index().images.len();
        let what = bar.unwrap_or_default();
        let mut bar = SlowBar::new(bar.is_some(), what, Unit::Images, count as u64);
        let threads = rayon::current_num_threads();
        let chunk = PER_THREAD * threads;
        for first in (0..count).step_by(chunk) {
            let numbers = first..count.min(first + chunk);
            let sizes: Vec<u64> = match reads {
                Reads::Headers => vec![0; numbers.len()],
                Reads::Images => numbers.into_par_iter().map(|i| self.decoded_size(i)).collect(),
            };
            for group in groups(&sizes, MEMORY_PER_THREAD * threads as u64) {
                let numbers = first + group.start..first + group.end;
                let read: Vec<_> =
                    numbers.clone().into_par_iter().map(|i| self.get(i, &read)).collect();
                for (i, read) in numbers.zip(read) {
                    if each(i, read).is_break() {
                        return;
                    }
                }
                bar.advance((first + group.end) as u64);
            }
        }
    }

    /// Returns the number of bytes of image `i` when it is decoded, by its header. 0 if it cannot be
    /// used.
    fn decoded_size(&self, i: usize) -> u64 {
        let size = self.get(i, |i| self.size(i));
        size.map_or(0, |[width, height]| 3 * width as u64 * height as u64)
    }
}

/// The part of images that is read.
#[derive(Clone, Copy, Debug)]
pub enum Reads {
    /// Their headers.
    Headers,
    /// Whole images, which are decoded.
    Images,
}

/// Maximum number of images that are in memory for each thread.
const PER_THREAD: usize = 8;

/// Maximum memory of decoded images in bytes for each thread, unless one takes more.
const MEMORY_PER_THREAD: u64 = 64 << 20;

/// Splits images of these sizes into groups of at most `limit` bytes, in order. A larger image is a
/// group of its own.
fn groups(sizes: &[u64], limit: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (i, size) in sizes.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if sum + size <= limit => {
                group.end = i + 1;
                sum += size;
            }
            _ => {
                groups.push(i..i + 1);
                sum = *size;
            }
        }
    }
    groups
}

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
        Reads::Images,
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

/// Leaves out the images of an open dataset that cannot be used. For that, `check` reads every image,
/// with a bar if that takes long and `bar` is set. Returns the others, and a text about those that were
/// left out if there are some. `path` is that of the dataset, for messages.
///
/// # Errors
///
/// If no image can be used.
pub fn without_unusable(
    path: &Path,
    source: Box<dyn Source>,
    bar: bool,
    check: impl Fn(&dyn Source, usize) -> Result<(), String> + Sync,
) -> Result<(Box<dyn Source>, Option<String>), DataError> {
    let (mut places, mut unusable) = (Vec::new(), Unusable::default());
    let bar = bar.then_some("looking for unusable images:");
    source.in_order(
        bar,
        Reads::Images,
        |i| check(&*source, i),
        |i, checked| {
            places.extend(unusable.note(&source.index().images[i].name, checked.map(|()| i)));
            ControlFlow::Continue(())
        },
    );
    if places.is_empty() || unusable.count == 0 {
        return unusable.check(path).map(|()| (source, None));
    }
    let Unusable { total, count, .. } = unusable;
    let list = unusable.list();
    let text = format!(
        "{}: {count} of {total} images cannot be used and are left out:\n{list}",
        path.display()
    );
    let Index { images, classes, note } = source.index();
    let images = places.iter().map(|&i| images[i].clone()).collect();
    let index = Index { images, classes: classes.clone(), note: note.clone() };
    Ok((Box::new(Selection { source, index, places }), Some(text)))
}

/// Some images of a source.
struct Selection {
    source: Box<dyn Source>,
    index: Index,
    /// Number of each image in the list of the source.
    places: Vec<usize>,
}

impl Source for Selection {
    fn index(&self) -> &Index {
        &self.index
    }

    fn image(&self, i: usize) -> Result<DecodedImage, String> {
        self.source.image(self.places[i])
    }

    fn size(&self, i: usize) -> Result<[usize; 2], String> {
        self.source.size(self.places[i])
    }
}

/// Number of unusable images that messages list.
pub const LISTED: usize = 5;

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
        if self.count <= LISTED {
            self.list.push(format!("  {name}: {reason}"));
        }
        None
    }

    /// Returns the first images with their reasons, and the number of the others.
    fn list(&self) -> String {
        let list = self.list.join("\n");
        match self.count - self.list.len() {
            0 => list,
            more => format!("{list}\n  and {more} more"),
        }
    }

    /// Checks that there are images and all can be used.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn check(self, path: &Path) -> Result<(), DataError> {
        let list = self.list();
        let Self { total, count, .. } = self;
        let path = path.to_owned();
        match (total, count) {
            (0, _) => Err(DataError::Empty(path)),
            (_, 0) => Ok(()),
            _ => Err(DataError::Bad { path, count, total, list }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::item::{Listed, Stored};
    use std::sync::Mutex;

    /// Images without pixels, of these widths and heights. Those of width 0 cannot be used.
    struct Sizes {
        sizes: Vec<[usize; 2]>,
        index: Index,
    }

    impl Sizes {
        fn new(sizes: Vec<[usize; 2]>) -> Self {
            let listed = |i: usize| Listed {
                name: format!("{i:02}").into(),
                class: Some(i as u32),
                problem: None,
                stored: Stored::Unknown,
            };
            let images = (0..sizes.len()).map(listed).collect();
            let index = Index { images, ..Index::default() };
            Self { sizes, index }
        }
    }

    impl Source for Sizes {
        fn index(&self) -> &Index {
            &self.index
        }

        fn image(&self, i: usize) -> Result<DecodedImage, String> {
            let [width, height] = self.size(i)?;
            Ok(DecodedImage { width, height, rgb: Vec::new() })
        }

        fn size(&self, i: usize) -> Result<[usize; 2], String> {
            if self.sizes[i][0] == 0 { Err("empty".into()) } else { Ok(self.sizes[i]) }
        }
    }

    #[test]
    fn images_are_grouped_by_their_bytes() {
        assert!(groups(&[], 10).is_empty());
        assert_eq!(groups(&[3, 3, 4, 1], 10), [0..3, 3..4]);
        assert_eq!(groups(&[11, 5, 5, 0, 20, 20, 1], 10), [0..1, 1..4, 4..5, 5..6, 6..7]);
        assert_eq!(groups(&[0; 5], 10).len(), 1);
    }

    #[test]
    fn images_that_are_decoded_have_limited_memory() {
        let limit = MEMORY_PER_THREAD * rayon::current_num_threads() as u64;
        // Of 192 MB, 3 MB and less, in some order.
        let sides = [8_000, 1_000, 1, 700, 1_000, 1_000, 0, 4_000];
        let sizes = (0..500).map(|i| [sides[i * i % 97 % 8]; 2]).collect();
        let source = Sizes::new(sizes);
        let bytes = |i: usize| 3 * source.sizes[i].map(|side| side as u64).iter().product::<u64>();
        let largest = bytes(0);
        // The bytes in memory, and the most that there were.
        let memory = Mutex::new([0u64; 2]);
        let mut seen = Vec::new();
        let dynamic: &dyn Source = &source;
        dynamic.in_order(
            None,
            Reads::Images,
            |i| {
                let [now, most] = &mut *memory.lock().expect("no thread has panicked");
                *now += bytes(i);
                *most = (*most).max(*now);
                dynamic.size(i)
            },
            |i, size| {
                memory.lock().expect("no thread has panicked")[0] -= bytes(i);
                seen.push((i, size));
                ControlFlow::Continue(())
            },
        );
        let want: Vec<_> = (0..500).map(|i| (i, source.size(i))).collect();
        assert_eq!(seen, want);
        let [left, most] = *memory.lock().expect("no thread has panicked");
        assert_eq!((left, largest), (0, 192_000_000));
        assert!(most <= limit.max(largest), "{most} bytes, with a limit of {limit}");
        // Several are decoded at a time.
        assert!(most > limit / 2, "{most} bytes, with a limit of {limit}");
    }

    #[test]
    fn unusable_images_are_left_out() {
        let sizes = [1usize, 0, 2, 0, 0, 3, 0, 0, 0, 0].map(|side| [side, 7]);
        let open = |sizes: &[[usize; 2]]| {
            let check = |source: &dyn Source, i| source.image(i).map(drop);
            let source = Box::new(Sizes::new(sizes.to_vec()));
            without_unusable(Path::new("data"), source, false, check)
        };
        let (source, text) = open(&sizes).expect("three can be used");
        let images = &source.index().images;
        let names: Vec<&str> = images.iter().map(|listed| &*listed.name).collect();
        let classes: Vec<_> = images.iter().map(|listed| listed.class).collect();
        assert_eq!(names, ["00", "02", "05"]);
        assert_eq!(classes, [Some(0), Some(2), Some(5)]);
        for (i, width) in [(0, 1), (1, 2), (2, 3)] {
            assert_eq!(source.size(i), Ok([width, 7]));
            assert_eq!(source.image(i).map(|image| image.width), Ok(width));
        }
        let want = "data: 7 of 10 images cannot be used and are left out:\n  01: empty\n  03: empty\n  \
                    04: empty\n  06: empty\n  07: empty\n  and 2 more";
        assert_eq!(text.as_deref(), Some(want));
        let (source, text) = open(&sizes[..1]).expect("it can be used");
        assert_eq!((source.index().images.len(), text), (1, None));
        // Nothing is left.
        let error = open(&sizes[3..5]).err().expect("both are unusable").to_string();
        assert!(error.contains("2 of 2 images cannot be used:\n  00: empty"), "{error}");
        assert!(!error.contains("--skip-bad"), "{error}");
        assert!(matches!(open(&[]), Err(DataError::Empty(_))));
    }

    #[test]
    fn five_problems_are_listed_and_the_others_counted() {
        let error = |bad: usize, good: usize| {
            let mut unusable = Unusable::default();
            (0..good).for_each(|_| assert_eq!(unusable.note("good", Ok(3)), Some(3)));
            for i in 0..bad {
                assert_eq!(unusable.note(&format!("{i}.png"), Err::<(), _>("cut".into())), None);
            }
            unusable.check(Path::new("data")).expect_err("some are bad").to_string()
        };
        let five = error(5, 1);
        assert!(five.contains("data: 5 of 6 images cannot be used:\n  0.png: cut\n"), "{five}");
        assert!(five.contains("  4.png: cut\n(") && !five.contains("more"), "{five}");
        let eight = error(8, 1);
        assert!(eight.contains("data: 8 of 9 images cannot be used:\n"), "{eight}");
        assert!(eight.contains("  4.png: cut\n  and 3 more\n("), "{eight}");
        assert!(eight.contains("--skip-bad leaves them out"), "{eight}");
    }
}
