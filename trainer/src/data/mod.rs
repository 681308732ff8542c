//! Training data: where pictures come from, and what is wrong with those that cannot be used.
//!
//! Every source is read to the end before training starts, so that a bad file is found then.

mod cifar;
pub mod commands;
mod decode;
mod emoji;
mod fetch;
mod files;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use decode::Picture;

/// Name of the embedded data set, where a path is expected.
pub const EMBEDDED: &str = "emoji";

/// One picture of a source, usable or not.
pub struct Item {
    /// Its name inside the source.
    pub name: String,
    /// The picture, or why it cannot be used.
    pub picture: Result<Picture, String>,
    /// Its class, if the source has classes.
    pub class: Option<u32>,
}

/// Everything that a source holds.
pub struct Contents {
    /// The pictures, in the order of training.
    pub items: Vec<Item>,
    /// Names of the classes; empty if there are none.
    pub classes: Vec<String>,
}

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// Not a format that is read here.
    #[error(
        "{0}: not a data set that can be read; give a folder or zip of PNG or JPEG files, \
         cifar-10-python.tar.gz, cifar-10-binary.tar.gz, or `{EMBEDDED}`"
    )]
    Unknown(PathBuf),
    /// The archive itself is damaged, or is not what its name promises.
    #[error("{path}: {reason}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that leads out of the archive.
    #[error("{path}: the entry `{name}` leads out of the archive, which no honest one does")]
    Escape {
        /// The archive.
        path: PathBuf,
        /// The entry.
        name: String,
    },
    /// Nothing to train on.
    #[error("{0}: holds no PNG or JPEG file")]
    Empty(PathBuf),
    /// The model does not work on pictures.
    #[error(
        "data are pictures of 1 or 3 channels, and this model works on {0}: latents of an \
         autoencoder are not made here"
    )]
    Channels(usize),
    /// The file `dataset.json` does not fit the pictures.
    #[error("{path}: dataset.json: {reason}")]
    Labels {
        /// The folder or archive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Pictures that cannot be used.
    #[error(
        "{path}: {count} of {total} pictures cannot be used:\n{list}\n(`trainer data check` lists all)"
    )]
    Bad {
        /// The source.
        path: PathBuf,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first few, each with its reason.
        list: String,
    },
}

impl DataError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    fn archive(path: &Path, reason: impl ToString) -> Self {
        Self::Archive { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Reads a source, whatever its format.
///
/// # Errors
///
/// If the source as a whole cannot be read. A bad picture is no error here: its [`Item`] says so.
pub fn read(source: &Path) -> Result<Contents, DataError> {
    if source == Path::new(EMBEDDED) {
        return emoji::read();
    }
    let metadata = std::fs::metadata(source).map_err(|e| DataError::io(source, e))?;
    if metadata.is_dir() {
        return files::read_folder(source);
    }
    let mut start = Vec::new();
    File::open(source)
        .and_then(|file| file.take(4).read_to_end(&mut start))
        .map_err(|e| DataError::io(source, e))?;
    match start[..] {
        [b'P', b'K', ..] => {
            let file = File::open(source).map_err(|e| DataError::io(source, e))?;
            files::read_zip(source, std::io::BufReader::new(file))
        }
        [0x1f, 0x8b, ..] => cifar::read(source),
        _ => Err(DataError::Unknown(source.to_owned())),
    }
}

/// Pictures ready for training: all usable, all of one size.
pub struct Dataset {
    /// Shape of one picture, `[C, H, W]`.
    pub shape: [usize; 3],
    /// All pictures, one after the other, each `[C, H, W]`.
    pixels: Vec<u8>,
}

impl Dataset {
    /// Opens a source whose pictures must have this shape.
    ///
    /// # Errors
    ///
    /// If the source cannot be read, is empty, or holds a picture that cannot be used.
    pub fn open(source: &Path, shape: [usize; 3]) -> Result<Self, DataError> {
        let contents = read(source)?;
        let total = contents.items.len();
        if total == 0 {
            return Err(DataError::Empty(source.to_owned()));
        }
        let [c, h, w] = shape;
        if c != 1 && c != 3 {
            return Err(DataError::Channels(c));
        }
        let mut pixels = Vec::with_capacity(total * c * h * w);
        let mut bad = Vec::new();
        for item in contents.items {
            match item.picture.and_then(|picture| picture.channels_first(shape)) {
                Ok(picture) => pixels.extend(picture),
                Err(reason) => bad.push(format!("  {}: {reason}", item.name)),
            }
        }
        if !bad.is_empty() {
            let count = bad.len();
            bad.truncate(5);
            let list = bad.join("\n");
            return Err(DataError::Bad { path: source.to_owned(), count, total, list });
        }
        Ok(Self { shape, pixels })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.pixels.len() / self.shape.iter().product::<usize>()
    }

    /// One picture, `[C, H, W]`.
    pub fn picture(&self, index: usize) -> &[u8] {
        let size = self.shape.iter().product::<usize>();
        &self.pixels[index * size..][..size]
    }
}

/// What `trainer data check` reports.
#[derive(Default)]
pub struct Report {
    /// Pictures that can be used, by size: width, height.
    pub sizes: BTreeMap<(usize, usize), usize>,
    /// Pictures of each class, by name.
    pub classes: Vec<(String, usize)>,
    /// Mean of all values, with 0 for black and 1 for white, per channel.
    pub mean: [f64; 3],
    /// Standard deviation of all values, per channel.
    pub deviation: [f64; 3],
    /// Pictures that cannot be used, each with its reason.
    pub bad: Vec<(String, String)>,
}

impl Report {
    /// Goes through all pictures of a source.
    pub fn new(contents: &Contents) -> Self {
        let mut report = Self::default();
        let mut of_class = vec![0; contents.classes.len()];
        let (mut sum, mut squares, mut pixels) = ([0.0; 3], [0.0; 3], 0.0);
        for item in &contents.items {
            let picture = match &item.picture {
                Ok(picture) => picture,
                Err(reason) => {
                    report.bad.push((item.name.clone(), reason.clone()));
                    continue;
                }
            };
            *report.sizes.entry((picture.width, picture.height)).or_default() += 1;
            if let Some(count) = item.class.and_then(|class| of_class.get_mut(class as usize)) {
                *count += 1;
            }
            pixels += (picture.width * picture.height) as f64;
            for pixel in picture.rgb.chunks_exact(3) {
                for (channel, byte) in pixel.iter().enumerate() {
                    let value = f64::from(*byte) / 255.0;
                    sum[channel] += value;
                    squares[channel] += value * value;
                }
            }
        }
        if pixels > 0.0 {
            report.mean = sum.map(|sum| sum / pixels);
            report.deviation = std::array::from_fn(|channel| {
                let variance = squares[channel] / pixels - report.mean[channel].powi(2);
                variance.max(0.0).sqrt()
            });
        }
        report.classes = contents.classes.iter().cloned().zip(of_class).collect();
        report
    }

    /// Pictures that can be used.
    pub fn usable(&self) -> usize {
        self.sizes.values().sum()
    }
}
