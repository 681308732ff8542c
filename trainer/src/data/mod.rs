//! Training data: where pictures come from, and what is wrong with those that cannot be used.
//!
//! Every source is read to the end before training starts, so that a bad file is found then.

mod cifar;
pub mod commands;
mod decode;
mod emoji;
mod encode;
mod fetch;
mod files;
pub mod latents;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use model::card::ClassGroup;
use model::config::ModelConfig;

use crate::augment::mirror_x;
pub use decode::Picture;
pub use encode::encode;
pub use latents::{Latents, Origin};

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
    /// The classes; empty if there are none.
    pub classes: Classes,
}

/// The classes of a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classes {
    /// Their names.
    pub names: Vec<String>,
    /// Groups of them; empty if there are none.
    pub groups: Vec<ClassGroup>,
}

impl From<Vec<String>> for Classes {
    fn from(names: Vec<String>) -> Self {
        Self { names, groups: Vec::new() }
    }
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
         cifar-10-python.tar.gz, cifar-10-binary.tar.gz, latents, or `{EMBEDDED}`"
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
        "data are pictures of 1 or 3 channels, and this model works on {0}: if those are latents of an \
         autoencoder, `trainer data encode` makes them of pictures"
    )]
    Channels(usize),
    /// A file of latents that cannot be used.
    #[error("{path}: these latents cannot be used: {reason}")]
    Latents {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// More classes than the model has.
    #[error(
        "{path}: has {found} classes, and the model has {known}: set \
         {{\"model\": {{\"network\": {{\"classes\": {found}}}}}}} with --options"
    )]
    Classes {
        /// The data.
        path: PathBuf,
        /// How many classes there are.
        found: usize,
        /// How many the model has.
        known: usize,
    },
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

/// What is done with each picture, and whether the next is wanted.
type Each<'a> = dyn FnMut(Item) -> ControlFlow<()> + 'a;

/// Reads a source as [`visit`] does, and keeps all of it.
///
/// # Errors
///
/// As [`visit`].
pub fn read(source: &Path) -> Result<Contents, DataError> {
    let mut items = Vec::new();
    let classes = visit(source, &mut |item| {
        items.push(item);
        ControlFlow::Continue(())
    })?;
    Ok(Contents { items, classes })
}

/// Goes through a source, whatever its format, in the order of training; not all of it is in memory
/// at a time. Returns the classes.
///
/// # Errors
///
/// If the source as a whole cannot be read. A bad picture is no error here: its [`Item`] says so.
fn visit(source: &Path, each: &mut Each) -> Result<Classes, DataError> {
    if source == Path::new(EMBEDDED) {
        return emoji::visit(each);
    }
    let metadata = std::fs::metadata(source).map_err(|e| DataError::io(source, e))?;
    if metadata.is_dir() {
        return files::visit_folder(source, each);
    }
    let start = start(source).map_err(|e| DataError::io(source, e))?;
    match start[..] {
        _ if Latents::may_be(&start) => Err(DataError::Latents {
            path: source.to_owned(),
            reason: "pictures are wanted here".into(),
        }),
        [b'P', b'K', ..] => {
            let file = File::open(source).map_err(|e| DataError::io(source, e))?;
            files::visit_zip(source, std::io::BufReader::new(file), each)
        }
        [0x1f, 0x8b, ..] => {
            let Contents { items, classes } = cifar::read(source)?;
            let _ = items.into_iter().try_for_each(each);
            Ok(classes)
        }
        _ => Err(DataError::Unknown(source.to_owned())),
    }
}

/// The first nine bytes of a file, or fewer, which tell what it is.
fn start(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(file)?.take(9).read_to_end(&mut start)?;
    Ok(start)
}

/// Whether a source is a file of latents, or is meant to be.
pub fn is_latents(source: &Path) -> bool {
    // What cannot be read is no latents; whoever reads it will say why.
    source.is_file() && start(source).is_ok_and(|start| Latents::may_be(&start))
}

/// Gives every picture of a source, with its class, to `take`, which says why if it cannot use one.
/// Returns the classes.
///
/// # Errors
///
/// If there is no picture, or one that cannot be used.
fn usable(
    source: &Path,
    mut take: impl FnMut(Picture, Option<u32>) -> Result<(), String>,
) -> Result<Classes, DataError> {
    let (mut total, mut count, mut list) = (0, 0, Vec::new());
    let classes = visit(source, &mut |Item { name, picture, class }| {
        total += 1;
        if let Err(reason) = picture.and_then(|picture| take(picture, class)) {
            count += 1;
            if count <= 5 {
                list.push(format!("  {name}: {reason}"));
            }
        }
        ControlFlow::Continue(())
    })?;
    let path = source.to_owned();
    match (total, count) {
        (0, _) => Err(DataError::Empty(path)),
        (_, 0) => Ok(classes),
        _ => Err(DataError::Bad { path, count, total, list: list.join("\n") }),
    }
}

/// One entry of the data: a picture, or what is known of its latent.
pub struct Entry {
    /// The picture, of values -1 to 1, or the mean of its latent, `[C, H, W]`.
    pub image: Vec<f32>,
    /// Standard deviation of the latent, `[C, H, W]`. A picture has none: it is what it is.
    pub std: Option<Vec<f32>>,
    /// Its class.
    pub class: Option<usize>,
}

/// Data ready for training: all usable, all of one size.
pub struct Dataset {
    /// Shape of one picture or latent, `[C, H, W]`.
    pub shape: [usize; 3],
    store: Store,
    /// The classes; empty where the data have none, or the model has no use for them.
    pub class_names: Classes,
    /// The class of each; empty as the names are.
    classes: Vec<Option<u32>>,
}

enum Store {
    /// Each `[C, H, W]`.
    Pictures(Vec<Vec<u8>>),
    Latents(Latents),
}

impl Dataset {
    /// Opens a source of what a model works on.
    ///
    /// # Errors
    ///
    /// If the source cannot be read, is empty, or holds anything that cannot be used.
    pub fn open(source: &Path, model: &ModelConfig) -> Result<Self, DataError> {
        let shape = model.image_shape();
        let (store, mut classes, mut class_names) = if is_latents(source) {
            let latents = Latents::open(source)?;
            if latents.shape != shape {
                let side = shape[1] * latents.origin.vae.factor();
                let reason = format!(
                    "they are {:?}, and the model works on {shape:?}; `trainer data encode --size \
                     {side}` makes some of {} values a side",
                    latents.shape, shape[1]
                );
                return Err(DataError::Latents { path: source.to_owned(), reason });
            }
            let labels = latents.labels.iter().map(|label| Some(*label)).collect();
            let names = latents.origin.classes.clone().into();
            (Store::Latents(latents), labels, names)
        } else {
            if ![1, 3].contains(&shape[0]) {
                return Err(DataError::Channels(shape[0]));
            }
            let (mut pictures, mut labels) = (Vec::new(), Vec::new());
            let names = usable(source, |picture, class| {
                pictures.push(picture.channels_first(shape)?);
                labels.push(class);
                Ok(())
            })?;
            (Store::Pictures(pictures), labels, names)
        };
        let known = model.classes();
        let found = class_names.names.len();
        if known == 0 {
            classes.clear();
            class_names = Classes::default();
        } else if found > known {
            return Err(DataError::Classes { path: source.to_owned(), found, known });
        }
        Ok(Self { shape, store, class_names, classes })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        match &self.store {
            Store::Pictures(pictures) => pictures.len(),
            Store::Latents(latents) => latents.len(),
        }
    }

    /// What the data are latents of, if they are latents.
    pub fn latents_of(&self) -> Option<&Origin> {
        match &self.store {
            Store::Pictures(_) => None,
            Store::Latents(latents) => Some(&latents.origin),
        }
    }

    /// One entry, or that of its mirror image.
    pub fn entry(&self, index: usize, mirrored: bool) -> Entry {
        let class = self.classes.get(index).copied().flatten().map(|class| class as usize);
        match &self.store {
            Store::Pictures(pictures) => {
                let mut image = vec![0.0; pictures[index].len()];
                model::image::from_bytes(&pictures[index], &mut image);
                if mirrored {
                    mirror_x(&mut image, self.shape[2]);
                }
                Entry { image, std: None, class }
            }
            Store::Latents(latents) => {
                let [image, std] = latents.moments(index, mirrored);
                Entry { image, std: Some(std), class }
            }
        }
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
        let mut of_class = vec![0; contents.classes.names.len()];
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
        report.classes = contents.classes.names.iter().cloned().zip(of_class).collect();
        report
    }

    /// Pictures that can be used.
    pub fn usable(&self) -> usize {
        self.sizes.values().sum()
    }
}
