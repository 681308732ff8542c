//! Latent datasets: images encoded by an autoencoder, in memory-mapped safetensors files.
//!
//! | entry | content |
//! |---|---|
//! | `labels` | `[N]` of `U32`, the class of each image; absent if there are no classes |
//! | `moments` | `[N, 2, 2, C, H, W]` of `F32` or `F16`: for each image and its mirror image, mean and standard deviation of the latent, times the autoencoder's scale |
//! | metadata, `diffit-latents` | [`Origin`] as JSON, with the [`Part`] if it is not the whole encoding |
//!
//! A dataset is a file, or a folder with the files of all parts of one encoding.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::f16;
use memmap2::Mmap;
use model::vae::VaeConfig;
use model::weights::{Precision, f32_values};
use rayon::prelude::*;
use safetensors::tensor::Dtype;
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::classes::is_image;
use super::error::DataError;
use crate::files::mapped::map;

const KEY: &str = "diffit-latents";

/// Format version of a file with all images of an encoding.
const VERSION: u32 = 1;

/// Format version of a file with a part of them. Earlier versions of the program, which would take it
/// for the whole, do not read it.
const VERSION_OF_PARTS: u32 = 2;

/// Number of bytes at the start of a file that is named `*.safetensors` in which the name of the
/// metadata must be, for it to be taken for a part.
const START: u64 = 512;

/// Origin of a latent dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// SHA-256 of the images with their sizes and classes.
    pub pictures_sha256: String,
    /// Configuration of the autoencoder.
    pub vae: VaeConfig,
    /// SHA-256 of the autoencoder's file.
    pub vae_sha256: String,
    /// Names of the classes; empty if there are none.
    pub classes: Vec<String>,
}

/// Part of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number of the part, from 1.
    pub number: usize,
    /// Number of parts.
    pub count: usize,
    /// Number of images of the whole encoding.
    pub images: usize,
}

impl Part {
    /// Returns the numbers of the images of this part.
    pub fn range(self) -> Range<usize> {
        let start =
            |part: usize| (part as u128 * self.images as u128 / self.count as u128) as usize;
        start(self.number - 1)..start(self.number)
    }
}

/// Returns everything before the moments of a file: of all images, or of a part of them. `labels` are
/// those of all images. The precision is `F32` or `F16`.
///
/// # Panics
///
/// If there are classes but not as many labels as images, or the precision is another.
pub fn header(
    origin: &Origin,
    labels: &[u32],
    part: Part,
    shape: [usize; 3],
    precision: Precision,
) -> Vec<u8> {
    let [c, h, w] = shape;
    let labelled = !origin.classes.is_empty();
    assert_eq!(labels.len(), if labelled { part.images } else { 0 });
    let range = part.range();
    let (n, labels) = (range.len(), if labelled { &labels[range] } else { labels });
    let mut origin = serde_json::to_value(origin).expect("plain data");
    origin["version"] = if part.count == 1 { VERSION } else { VERSION_OF_PARTS }.into();
    if part.count > 1 {
        origin["part"] = serde_json::to_value(part).expect("plain data");
    }
    let start = 4 * labels.len();
    let end = start + n * record_size(shape, precision);
    let dtype = match precision {
        Precision::F32 => "F32",
        Precision::F16 => "F16",
        Precision::Bf16 => panic!("moments are not stored in bf16"),
    };
    let mut json = json!({
        "__metadata__": { KEY: origin.to_string() },
        "moments": {
            "dtype": dtype,
            "shape": [n, 2, 2, c, h, w],
            "data_offsets": [start, end],
        },
    });
    if labelled {
        json["labels"] = json!({"dtype": "U32", "shape": [n], "data_offsets": [0, start]});
    }
    let mut json = json.to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header.extend(labels.iter().flat_map(|label| label.to_le_bytes()));
    header
}

/// Returns the size in bytes of a value.
fn value_size(precision: Precision) -> usize {
    if precision == Precision::F32 { 4 } else { 2 }
}

/// Returns the size in bytes of the moments of an image.
pub fn record_size(shape: [usize; 3], precision: Precision) -> usize {
    4 * value_size(precision) * shape.iter().product::<usize>()
}

/// Returns the bytes of moments in a file. A value beyond the range of 16 bits becomes infinite.
pub fn bytes_of(moments: &[f32], precision: Precision) -> Vec<u8> {
    match precision {
        Precision::F32 => moments.iter().flat_map(|value| value.to_le_bytes()).collect(),
        _ => moments.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;
    use std::collections::HashMap;

    const SHAPE: [usize; 3] = [4, 2, 2];

    fn origin(classes: &[&str]) -> Origin {
        Origin {
            pictures_sha256: "p".into(),
            vae: VaeConfig::tiny(),
            vae_sha256: "v".into(),
            classes: classes.iter().map(ToString::to_string).collect(),
        }
    }

    fn bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
        values.flat_map(f32::to_le_bytes).collect()
    }

    fn whole(images: usize) -> Part {
        Part { number: 1, count: 1, images }
    }

    fn opened(file: &[u8]) -> Result<Latents, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("l.safetensors");
        std::fs::write(&path, file).expect("written");
        Latents::open(&path).map_err(|error| {
            let text = error.to_string();
            assert!(text.contains("l.safetensors"), "{text}");
            text
        })
    }

    #[test]
    fn a_dataset_is_read_as_written() {
        let values = |picture: usize, part: usize| {
            (0..16).map(move |i| (100 * picture + 20 * part + i) as f32)
        };
        for (classes, labels) in [(&["a", "b"][..], &[1, 0, 1][..]), (&[], &[])] {
            let mut file = header(&origin(classes), labels, whole(3), SHAPE, Precision::F32);
            assert_eq!(record_size(SHAPE, Precision::F32), 256);
            for picture in 0..3 {
                (0..4).for_each(|part| file.extend(bytes(values(picture, part))));
            }
            let latents = opened(&file).expect("whole");
            assert_eq!((latents.len(), latents.shape, &latents.labels[..]), (3, SHAPE, labels));
            assert_eq!(latents.origin, origin(classes));
            for picture in 0..3 {
                for mirrored in [false, true] {
                    let [mean, std] = latents.moments(picture, mirrored);
                    let part = 2 * usize::from(mirrored);
                    assert!(mean.into_iter().eq(values(picture, part)));
                    assert!(std.into_iter().eq(values(picture, part + 1)));
                }
            }
        }
    }

    /// Values that 16 bits hold are the same in both precisions; others are rounded.
    #[test]
    fn moments_are_stored_in_16_bits() {
        let values: Vec<f32> = (0..64).map(|i| i as f32 / 8.0).chain([1.0 / 3.0; 64]).collect();
        let mut file = header(&origin(&[]), &[], whole(2), SHAPE, Precision::F16);
        assert_eq!(record_size(SHAPE, Precision::F16), 128);
        file.extend(bytes_of(&values, Precision::F16));
        let half = opened(&file).expect("whole");
        let mut file = header(&origin(&[]), &[], whole(2), SHAPE, Precision::F32);
        file.extend(bytes_of(&values, Precision::F32));
        let single = opened(&file).expect("whole");
        for mirrored in [false, true] {
            assert_eq!(half.moments(0, mirrored), single.moments(0, mirrored));
            let [mean, std] = half.moments(1, mirrored);
            for value in mean.into_iter().chain(std) {
                assert!(value != 1.0 / 3.0 && (value - 1.0 / 3.0).abs() < 1e-4, "{value}");
            }
        }
        assert_eq!(half.hashes(), ["p", "v, f16"]);
        assert_eq!(single.hashes(), ["p", "v"]);
        let mut file = header(&origin(&[]), &[], whole(2), SHAPE, Precision::F16);
        file.extend(bytes_of(&[1e6; 128], Precision::F16));
        assert!(opened(&file).err().expect("infinite").contains("image 0 are not finite"));
    }

    /// The parts of a folder are the whole file, in whatever order their names are.
    #[test]
    fn parts_are_read_together() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        let labels = [1, 0, 1, 1, 0, 0, 1];
        let values = |i: usize| (0..64).map(move |v| (100 * i + v) as f32);
        let write = |name: &str, part: Part, origin: &Origin| {
            let mut file = header(origin, &labels, part, SHAPE, Precision::F32);
            part.range().for_each(|i| file.extend(bytes(values(i))));
            std::fs::write(path(name), file).expect("written");
        };
        let of = |number| Part { number, count: 3, images: 7 };
        assert_eq!([1, 2, 3].map(|number| of(number).range()), [0..2, 2..4, 4..7]);
        let classes = origin(&["a", "b"]);
        let fails = |message: &str| {
            let error = Latents::open(folder.path()).err().expect(message).to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        };
        fails("the folder has no file with latents");
        write("c.latents", of(1), &classes);
        write("a.latents", of(3), &classes);
        std::fs::write(path("notes.txt"), "about them").expect("written");
        std::fs::write(path("vae.safetensors"), "of no dataset").expect("written");
        fails("1 of the 3 parts of this encoding are missing (2/3)");
        write("b.safetensors", of(2), &classes);
        let latents = Latents::open(folder.path()).expect("whole");
        assert_eq!((latents.len(), &latents.labels[..]), (7, &labels[..]));
        for i in 0..7 {
            let [mean, _] = latents.moments(i, false);
            assert!(mean.into_iter().eq(values(i).take(16)), "image {i}");
        }
        write("d.latents", of(2), &classes);
        fails("d.latents: cannot use this latent dataset: ");
        fails("b.safetensors has the same part of the encoding");
        write("d.latents", of(2), &Origin { vae_sha256: "w".into(), ..classes.clone() });
        fails("it is not of the same encoding as");
        write("d.latents", whole(7), &classes);
        fails("it is not of the same encoding as");
        // What was encoded from images can be beside them.
        assert!(!Latents::files_of(folder.path()).is_empty());
        std::fs::write(path("1.png"), "an image").expect("written");
        assert!(Latents::files_of(folder.path()).is_empty());
    }

    /// A file as another program could write it.
    fn foreign(tensors: &[(&str, Dtype, &[usize], &[u8])], origin: &str) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), bytes).expect("it fits"))
        });
        let metadata = HashMap::from([(KEY.to_string(), origin.to_string())]);
        safetensors::serialize(views, Some(metadata)).expect("it fits")
    }

    #[test]
    fn invalid_files_are_refused_with_a_reason() {
        let says = |file: &[u8], message: &str| {
            let error = opened(file).err().unwrap_or_else(|| panic!("{message}: it was opened"));
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        };
        let known = |classes: &[&str]| {
            let mut origin = serde_json::to_value(origin(classes)).expect("plain data");
            origin["version"] = VERSION.into();
            origin.to_string()
        };
        let good = bytes((0..128).map(|i| i as f32));
        let header = header(&origin(&["a"]), &[0, 0], whole(2), SHAPE, Precision::F32);
        let file = [header, good.clone()].concat();
        assert!(opened(&file).is_ok());
        says(&file[..file.len() - 1], "truncated");
        says(&[&file[..], b"more"].concat(), "does not match its header");
        says(&file[..100], "damaged");
        says(b"\xff\xff\xff\xff\xff\xff\xff\x7f{", "damaged");

        let shape: &[usize] = &[2, 2, 2, 4, 2, 2];
        let moments = ("moments", Dtype::F32, shape, &good[..]);
        let plain = safetensors::serialize(
            [("moments", TensorView::new(Dtype::F32, shape.to_vec(), &good).expect("it fits"))],
            None,
        );
        says(&plain.expect("it fits"), "metadata has no `diffit-latents`");
        says(&foreign(&[moments], "{"), "is invalid");
        says(&foreign(&[moments], r#"{"version": 3}"#), "format version 3");
        says(&foreign(&[moments], r#"{"version": 1}"#), "is invalid");
        says(&foreign(&[moments], &known(&[]).replace("0.18215", "-1.0")), "vae.scale is -1");
        says(&foreign(&[], &known(&[])), "no tensor `moments`");
        let of = |shape| foreign(&[("moments", Dtype::F32, shape, &good[..])], &known(&[]));
        says(&of(&[2, 2, 2, 2, 4, 2]), "[2, 2, 2, 2, 4, 2], not [N, 2, 2, 4, H, W]");
        says(&of(&[128]), "[128], not");
        let empty = foreign(&[("moments", Dtype::F32, &[0, 2, 2, 4, 2, 2], &[])], &known(&[]));
        says(&empty, "[0, 2, 2, 4, 2, 2], not");
        let half = foreign(&[("moments", Dtype::BF16, shape, &good[..256])], &known(&[]));
        says(&half, "BF16, not F32 or F16");
        let part = |part: serde_json::Value| {
            let mut origin: serde_json::Value = serde_json::from_str(&known(&[])).expect("JSON");
            origin["part"] = part;
            foreign(&[moments], &origin.to_string())
        };
        says(&part(json!({"number": 1, "count": 2})), "is invalid (missing field `images`)");
        for [number, count, images] in [[0, 2, 4], [3, 2, 4], [1, 2, 9], [1, 0, 2], [1, 9, 2]] {
            let part = part(json!({"number": number, "count": count, "images": images}));
            says(&part, "2 images, which cannot be part");
        }
        let alone = part(json!({"number": 2, "count": 2, "images": 4}));
        says(&alone, "1 of the 2 parts of this encoding are missing (1/2)");

        let labelled = |dtype, labels: &[u8]| {
            let n = labels.len() / 4;
            foreign(&[moments, ("labels", dtype, &[n], labels)], &known(&["a"]))
        };
        says(&foreign(&[moments], &known(&["a"])), "no tensor `labels`");
        says(&labelled(Dtype::U32, &[0; 12]), "[3] of U32, not [2] of U32");
        says(&labelled(Dtype::F32, &[0; 8]), "[2] of F32, not [2] of U32");
        says(&labelled(Dtype::U32, &[0, 0, 0, 0, 9, 0, 0, 0]), "1 classes, but a label is 9");

        let spoiled = |place: usize, value: f32| {
            let values = (0..128).map(|i| if i == place { value } else { i as f32 });
            foreign(&[("moments", Dtype::F32, shape, &bytes(values))], &known(&[]))
        };
        says(&spoiled(70, f32::NAN), "moments of image 1 are not finite");
        says(
            &spoiled(50, -1.0),
            "moments of image 0 are not finite, or a standard deviation is negative",
        );
        assert!(opened(&spoiled(33, -1.0)).is_ok(), "a mean may be negative");
    }
}
