//! Reading of latent datasets.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::f16;
use memmap2::Mmap;
use model::weights::{Precision, f32_values};
use rayon::prelude::*;
use safetensors::tensor::Dtype;
use safetensors::{SafeTensorError, SafeTensors};

use super::{KEY, Origin, Part, VERSION, VERSION_OF_PARTS, record_size, value_size};
use crate::data::classes::is_image;
use crate::data::error::DataError;
use crate::files::mapped::map;

/// Number of bytes at the start of a file that is named `*.safetensors` in which the name of the
/// metadata must be, for it to be taken for a part.
const START: u64 = 512;

/// A latent dataset that was read and verified.
pub struct Latents {
    /// Origin.
    pub origin: Origin,
    /// Shape of a latent, `[C, H, W]`.
    pub shape: [usize; 3],
    /// Precision of the moments, `F32` or `F16`.
    pub precision: Precision,
    /// Class of each image; empty if there are no classes.
    pub labels: Vec<u32>,
    files: Vec<Moments>,
    /// Number of images.
    len: usize,
}

/// The moments of a file.
struct Moments {
    file: Mmap,
    /// Offset of the moments in the file.
    start: usize,
    /// Number of the first image.
    first: usize,
}

impl Latents {
    /// Returns whether a file can be a safetensors file, judging by its first nine bytes.
    pub fn may_be(start: &[u8]) -> bool {
        start.get(8) == Some(&b'{')
    }

    /// Returns the files of a folder that have parts of a latent dataset, in the order of their names:
    /// those named `*.latents`, and `*.safetensors` with the metadata of one at their start. A folder
    /// with images or other folders has none: what was encoded from it can be in it.
    pub fn files_of(folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() || is_image(&entry.file_name().to_string_lossy()) {
                return Vec::new();
            }
            let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
            if ending == "latents" || (ending == "safetensors" && is_named(&path)) {
                files.push(path);
            }
        }
        files.sort();
        files
    }

    /// Opens a file, or a folder with the files of all parts, and verifies all of it.
    ///
    /// # Errors
    ///
    /// If it cannot be read, its content is invalid, or a part is missing.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let wrong = |path: &Path, reason: String| {
            let path = path.to_owned();
            DataError::Latents { path, reason }
        };
        let paths = if path.is_dir() { Self::files_of(path) } else { vec![path.to_owned()] };
        let mut parts = Vec::new();
        for path in paths {
            let file = map(&path).map_err(|e| DataError::io(&path, e))?;
            let part = OnePart::parse(file).map_err(|reason| wrong(&path, reason))?;
            parts.push((path, part));
        }
        parts.sort_by_key(|(_, part)| part.part.number);
        let whole = Self::join(parts).map_err(|(of, reason)| wrong(&of, reason))?;
        let latents = whole.map_err(|reason| wrong(path, reason))?;
        match latents.first_bad() {
            None => Ok(latents),
            Some(index) => Err(wrong(
                path,
                format!(
                    "the moments of image {index} are not finite, or a standard deviation is negative"
                ),
            )),
        }
    }

    /// Puts parts together, which are in the order of their numbers. The first error is of one of the
    /// files, the second one of all.
    fn join(parts: Vec<(PathBuf, OnePart)>) -> Result<Result<Self, String>, (PathBuf, String)> {
        let Some((first_path, first)) = parts.first() else {
            return Ok(Err("the folder has no file with latents".into()));
        };
        let (origin, shape, precision) = (first.origin.clone(), first.shape, first.precision);
        let Part { count, images, .. } = first.part;
        for (path, part) in &parts[1..] {
            let same = part.origin == origin
                && (part.shape, part.precision) == (shape, precision)
                && (part.part.count, part.part.images) == (count, images);
            if !same {
                let reason = format!("it is not of the same encoding as {}", first_path.display());
                return Err((path.clone(), reason));
            }
        }
        for pair in parts.windows(2) {
            let [(first, a), (second, b)] = pair else { continue };
            if a.part.number == b.part.number {
                let reason = format!("{} has the same part of the encoding", first.display());
                return Err((second.clone(), reason));
            }
        }
        let there = |number: &usize| parts.iter().any(|(_, part)| part.part.number == *number);
        let missing: Vec<String> =
            (1..=count).filter(|n| !there(n)).take(5).map(|n| format!("{n}/{count}")).collect();
        if !missing.is_empty() {
            let more = if count - parts.len() > missing.len() { ", .." } else { "" };
            return Ok(Err(format!(
                "{} of the {count} parts of this encoding are missing ({}{more}): `trainer data encode \
                 --shard` writes them, and --data takes the folder with all",
                count - parts.len(),
                missing.join(", ")
            )));
        }
        let (mut files, mut labels) = (Vec::new(), Vec::new());
        for (_, OnePart { part, file, start, labels: of_part, .. }) in parts {
            files.push(Moments { file, start, first: part.range().start });
            labels.extend(of_part);
        }
        Ok(Ok(Self { origin, shape, precision, labels, files, len: images }))
    }

    /// Returns the number of the first image whose moments cannot be used.
    fn first_bad(&self) -> Option<usize> {
        (0..self.len).into_par_iter().find_first(|&index| {
            [false, true].into_iter().any(|mirrored| {
                let [mean, std] = self.moments(index, mirrored);
                !mean.iter().all(|m| m.is_finite())
                    || !std.iter().all(|s| s.is_finite() && *s >= 0.0)
            })
        })
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns what tells whether two datasets have the same values: the SHA-256 of the images, and
    /// that of the autoencoder with the precision if it is not `F32`.
    pub fn hashes(&self) -> [String; 2] {
        let vae = self.origin.vae_sha256.clone();
        let vae = if self.precision == Precision::F32 { vae } else { format!("{vae}, f16") };
        [self.origin.pictures_sha256.clone(), vae]
    }

    /// Returns mean and standard deviation of an image or its mirror image, `[C, H, W]` each.
    pub fn moments(&self, index: usize, mirrored: bool) -> [Vec<f32>; 2] {
        let after = self.files.partition_point(|file| file.first <= index);
        let Moments { file, start, first } = &self.files[after - 1];
        let size = value_size(self.precision) * self.shape.iter().product::<usize>();
        let record = start + (index - first) * record_size(self.shape, self.precision);
        [0, 1].map(|moment| {
            let place = record + size * (2 * usize::from(mirrored) + moment);
            let bytes = &file[place..][..size];
            match self.precision {
                Precision::F32 => f32_values(bytes),
                _ => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            }
        })
    }
}

/// Returns whether the name of the metadata is near the start of a file.
fn is_named(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(START).read_to_end(&mut start));
    read.is_ok() && start.windows(KEY.len()).any(|part| part == KEY.as_bytes())
}

/// A file of a latent dataset, whose moments were not read yet.
struct OnePart {
    part: Part,
    origin: Origin,
    shape: [usize; 3],
    precision: Precision,
    labels: Vec<u32>,
    file: Mmap,
    start: usize,
}

impl OnePart {
    fn parse(file: Mmap) -> Result<Self, String> {
        let damaged = |error: SafeTensorError| match error {
            SafeTensorError::MetadataIncompleteBuffer => format!(
                "its size of {} bytes does not match its header; it may be truncated",
                file.len()
            ),
            error => format!("it is damaged ({error})"),
        };
        let (_, header) = SafeTensors::read_metadata(&file).map_err(damaged)?;
        let tensors = SafeTensors::deserialize(&file).map_err(damaged)?;
        let origin = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
        let origin = origin.ok_or_else(|| {
            format!("its metadata has no `{KEY}`; `trainer data encode` writes latent datasets")
        })?;
        let unreadable = |e: serde_json::Error| format!("its `{KEY}` is invalid ({e})");
        let origin: serde_json::Value = serde_json::from_str(origin).map_err(unreadable)?;
        let version = &origin["version"];
        if ![VERSION, VERSION_OF_PARTS].iter().any(|known| version == known) {
            return Err(format!(
                "it has format version {version}, but this program reads versions {VERSION} and \
                 {VERSION_OF_PARTS}"
            ));
        }
        let part: Option<Part> = match origin.get("part") {
            Some(part) => Some(serde_json::from_value(part.clone()).map_err(unreadable)?),
            None => None,
        };
        let origin: Origin = serde_json::from_value(origin).map_err(unreadable)?;
        origin.vae.validate().map_err(|e| e.to_string())?;

        let moments =
            tensors.tensor("moments").map_err(|_| "it has no tensor `moments`".to_string())?;
        let (len, shape) = match *moments.shape() {
            [n, 2, 2, c, h, w] if n > 0 && c == origin.vae.latent_channels && h > 0 && w > 0 => {
                (n, [c, h, w])
            }
            _ => {
                return Err(format!(
                    "its `moments` are {:?}, not [N, 2, 2, {}, H, W]",
                    moments.shape(),
                    origin.vae.latent_channels
                ));
            }
        };
        let precision = match moments.dtype() {
            Dtype::F32 => Precision::F32,
            Dtype::F16 => Precision::F16,
            other => return Err(format!("its `moments` are {other:?}, not F32 or F16")),
        };
        let part = part.unwrap_or(Part { number: 1, count: 1, images: len });
        let known = (1..=part.count).contains(&part.number) && part.count <= part.images;
        if !known || part.range().len() != len {
            return Err(format!(
                "it has {len} images, which cannot be part {} of {} of {} images",
                part.number, part.count, part.images
            ));
        }
        // The view points into the mapped file.
        let start = moments.data().as_ptr() as usize - file.as_ptr() as usize;
        let labels = match tensors.tensor("labels") {
            Ok(labels) if labels.dtype() == Dtype::U32 && labels.shape() == [len] => {
                let labels = labels.data().chunks_exact(4);
                labels.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Ok(labels) => {
                return Err(format!(
                    "its `labels` are {:?} of {:?}, not [{len}] of U32",
                    labels.shape(),
                    labels.dtype()
                ));
            }
            Err(_) if origin.classes.is_empty() => Vec::new(),
            Err(_) => return Err("it has class names but no tensor `labels`".into()),
        };
        let count = origin.classes.len();
        if let Some(label) = labels.iter().find(|label| **label as usize >= count) {
            return Err(format!("it has {count} classes, but a label is {label}"));
        }
        Ok(Self { part, origin, shape, precision, labels, start, file })
    }
}
