//! Latent datasets: images encoded by an autoencoder, in a memory-mapped safetensors file.
//!
//! | entry | content |
//! |---|---|
//! | `labels` | `[N]` of `U32`, the class of each image; absent if there are no classes |
//! | `moments` | `[N, 2, 2, C, H, W]` of `F32`: for each image and its mirror image, mean and standard deviation of the latent, times the autoencoder's scale |
//! | metadata, `diffit-latents` | [`Origin`] as JSON |

use std::path::Path;

use memmap2::Mmap;
use model::vae::VaeConfig;
use model::weights::f32_values;
use rayon::prelude::*;
use safetensors::tensor::Dtype;
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::DataError;
use crate::files::mapped::map;

const KEY: &str = "diffit-latents";
const VERSION: u32 = 1;

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

impl Origin {
    /// Returns the SHA-256 of the images and of the autoencoder.
    pub fn hashes(&self) -> [String; 2] {
        [self.pictures_sha256.clone(), self.vae_sha256.clone()]
    }
}

/// Returns everything before the moments of a file with `n` images.
///
/// # Panics
///
/// If there are classes but not `n` labels.
pub fn header(origin: &Origin, labels: &[u32], n: usize, shape: [usize; 3]) -> Vec<u8> {
    let [c, h, w] = shape;
    let labelled = !origin.classes.is_empty();
    assert_eq!(labels.len(), if labelled { n } else { 0 });
    let mut origin = serde_json::to_value(origin).expect("plain data");
    origin["version"] = VERSION.into();
    let (start, end) = (4 * labels.len(), 4 * labels.len() + n * record_size(shape));
    let mut json = json!({
        "__metadata__": { KEY: origin.to_string() },
        "moments": {
            "dtype": "F32",
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

/// Returns the size in bytes of the moments of an image.
pub fn record_size(shape: [usize; 3]) -> usize {
    4 * 4 * shape.iter().product::<usize>()
}

/// A latent dataset that was read and verified.
pub struct Latents {
    /// Origin.
    pub origin: Origin,
    /// Shape of a latent, `[C, H, W]`.
    pub shape: [usize; 3],
    /// Class of each image; empty if there are no classes.
    pub labels: Vec<u32>,
    file: Mmap,
    /// Offset of the moments in the file.
    start: usize,
    /// Number of images.
    len: usize,
}

impl Latents {
    /// Returns whether a file can be a safetensors file, judging by its first nine bytes.
    pub fn may_be(start: &[u8]) -> bool {
        start.get(8) == Some(&b'{')
    }

    /// Opens a file and verifies all of it.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or its content is invalid.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = map(path).map_err(|e| DataError::io(path, e))?;
        let wrong = |reason: String| DataError::Latents { path: path.to_owned(), reason };
        Self::parse(file).map_err(wrong)
    }

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
        if *version != VERSION {
            return Err(format!(
                "it has format version {version}, but this program reads version {VERSION}"
            ));
        }
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
        if moments.dtype() != Dtype::F32 {
            return Err(format!("its `moments` are {:?}, not F32", moments.dtype()));
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
        let latents = Self { origin, shape, labels, start, len, file };
        let bad = (0..len).into_par_iter().find_first(|&index| {
            [false, true].into_iter().any(|mirrored| {
                let [mean, std] = latents.moments(index, mirrored);
                !mean.iter().all(|m| m.is_finite())
                    || !std.iter().all(|s| s.is_finite() && *s >= 0.0)
            })
        });
        match bad {
            None => Ok(latents),
            Some(index) => Err(format!(
                "the moments of image {index} are not finite, or a standard deviation is negative"
            )),
        }
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns mean and standard deviation of an image or its mirror image, `[C, H, W]` each.
    pub fn moments(&self, index: usize, mirrored: bool) -> [Vec<f32>; 2] {
        let values: usize = self.shape.iter().product();
        let first = self.start + index * record_size(self.shape);
        [0, 1].map(|moment| {
            let place = first + 4 * values * (2 * usize::from(mirrored) + moment);
            f32_values(&self.file[place..][..4 * values])
        })
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
            let mut file = header(&origin(classes), labels, 3, SHAPE);
            assert_eq!(record_size(SHAPE), 256);
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
        let file = [header(&origin(&["a"]), &[0, 0], 2, SHAPE), good.clone()].concat();
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
        says(&foreign(&[moments], r#"{"version": 2}"#), "format version 2");
        says(&foreign(&[moments], r#"{"version": 1}"#), "is invalid");
        says(&foreign(&[moments], &known(&[]).replace("0.18215", "-1.0")), "vae.scale is -1");
        says(&foreign(&[], &known(&[])), "no tensor `moments`");
        let of = |shape| foreign(&[("moments", Dtype::F32, shape, &good[..])], &known(&[]));
        says(&of(&[2, 2, 2, 2, 4, 2]), "[2, 2, 2, 2, 4, 2], not [N, 2, 2, 4, H, W]");
        says(&of(&[128]), "[128], not");
        let empty = foreign(&[("moments", Dtype::F32, &[0, 2, 2, 4, 2, 2], &[])], &known(&[]));
        says(&empty, "[0, 2, 2, 4, 2, 2], not");
        let half = foreign(&[("moments", Dtype::F16, shape, &good[..256])], &known(&[]));
        says(&half, "F16, not F32");

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
