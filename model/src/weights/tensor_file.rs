//! A safetensors file, in memory or read in parts, so that gigabytes need not be held twice.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};
use sha2::{Digest, Sha256};

use crate::weights::error::{Precision, WeightsError};

/// Random access to the bytes of a file.
pub trait Bytes {
    /// Returns the number of bytes.
    fn size(&self) -> u64;

    /// Reads the bytes of a range, which lies within the file.
    ///
    /// # Errors
    ///
    /// The reason why they cannot be read, for the user of the file.
    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, String>;
}

/// Storage of a file's bytes.
enum Store<'a> {
    Memory(&'a [u8]),
    Parts(Box<dyn Bytes>),
}

impl Store<'_> {
    fn size(&self) -> u64 {
        match self {
            Store::Memory(bytes) => bytes.len() as u64,
            Store::Parts(bytes) => bytes.size(),
        }
    }

    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, WeightsError> {
        match self {
            Store::Memory(bytes) => {
                Ok(Cow::Borrowed(&bytes[range.start as usize..range.end as usize]))
            }
            Store::Parts(bytes) => bytes.read(range).map_err(WeightsError::Unreadable),
        }
    }
}

/// Kind of a file of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weights of a model, or an unknown file, which fails when it is read as one.
    Model,
    /// An autoencoder between pictures and latents.
    Autoencoder,
}

/// A safetensors file whose header has been checked: its tensors are contiguous and fill it.
pub struct TensorFile<'a> {
    store: Store<'a>,
    metadata: Metadata,
    /// Offset of the first tensor.
    start: u64,
    /// Last read error of a tensor.
    failure: RefCell<Option<String>>,
}

impl std::fmt::Debug for TensorFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorFile").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

impl<'a> TensorFile<'a> {
    /// Opens a file of any kind that is in memory, and checks its header.
    ///
    /// # Errors
    ///
    /// A description of what is wrong with the file, for its user.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WeightsError> {
        Self::new(Store::Memory(bytes))
    }

    /// Opens a file of any kind that is read in parts, and checks its header.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::parse`].
    pub fn open(bytes: impl Bytes + 'static) -> Result<Self, WeightsError> {
        Self::new(Store::Parts(Box::new(bytes)))
    }

    fn new(store: Store<'a>) -> Result<Self, WeightsError> {
        const PREFIX: u64 = 8;
        let size = store.size();
        let read = |end: u64| store.read(0..end.min(size));
        let first = read(PREFIX + 1)?;
        let zip = first.starts_with(b"PK\x03\x04");
        let pickle = first.starts_with(&[0x80]) && first.get(8) != Some(&b'{');
        if zip || pickle {
            return Err(WeightsError::Pickle);
        }
        // Reads the length of the header, which may be wrong, and then the header alone.
        let length = first.first_chunk().map_or(0, |prefix| u64::from_le_bytes(*prefix));
        let start = length.saturating_add(PREFIX);
        // Reading a header takes many times its length, and that of a large model has less than 1 MB. Of a
        // longer one not all is read, so that the library rejects it.
        const MAX_HEADER: u64 = (16 << 20) + PREFIX;
        let header = read(start.min(MAX_HEADER))?;
        let failed = |error| format_error(error, &header, size);
        match SafeTensors::read_metadata(&header) {
            // The header is valid; the tensors' bytes were not read, and their number is checked
            // below.
            Ok(_) | Err(SafeTensorError::MetadataIncompleteBuffer) => {}
            Err(error) => return Err(failed(error)),
        }
        let metadata: Metadata = serde_json::from_slice(&header[PREFIX as usize..])
            .map_err(|error| failed(SafeTensorError::InvalidHeaderDeserialization(error)))?;
        if start.checked_add(metadata.data_len() as u64) != Some(size) {
            return Err(WeightsError::Length(size));
        }
        drop((first, header));
        Ok(Self { store, metadata, start, failure: RefCell::default() })
    }

    /// Returns the kind of the file, judged by the names of its tensors.
    pub fn kind(&self) -> Kind {
        let has = |name: &str| self.info(name).is_some();
        let both = ["encoder.conv_in.weight", "decoder.conv_in.weight"].into_iter().all(has);
        if both { Kind::Autoencoder } else { Kind::Model }
    }

    /// Returns the metadata.
    pub(crate) fn metadata(&self) -> Option<&HashMap<String, String>> {
        self.metadata.metadata().as_ref()
    }

    /// Returns the names of the tensors, in the order of the file.
    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Returns type and shape of a tensor, if it is present.
    pub(crate) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// Reads the bytes of a tensor of the file.
    pub(crate) fn data(&self, info: &TensorInfo) -> Result<Cow<'_, [u8]>, WeightsError> {
        let (first, last) = info.data_offsets;
        let range = self.start + first as u64..self.start + last as u64;
        self.store.read(range)
    }

    /// Returns the SHA-256 of the bytes after the header, which are those of all tensors, in
    /// hexadecimal.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub(crate) fn sha256(&self) -> Result<String, WeightsError> {
        let mut hash = Sha256::new();
        for name in self.names() {
            hash.update(self.data(self.info(&name).expect("it was just listed"))?);
        }
        Ok(format!("{:x}", hash.finalize()))
    }

    /// Reads the values of a tensor, if it is present and has a supported type.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(crate) fn values(&self, name: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        let Some(info) = self.info(name) else { return Ok(None) };
        let Some(precision) = Precision::of(info.dtype) else { return Ok(None) };
        let data = self.data(info)?;
        let pairs = || data.chunks_exact(2).map(|b| [b[0], b[1]]);
        Ok(Some(match precision {
            Precision::F32 => f32_values(&data),
            Precision::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            Precision::Bf16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        }))
    }

    /// Reads the values of a tensor that was checked before. If they cannot be read, returns zeros,
    /// and [`TensorFile::intact`] the error.
    pub(crate) fn checked_values(&self, name: &str) -> Vec<f32> {
        match self.values(name) {
            Ok(values) => values.expect("its presence and its type were checked"),
            Err(error) => {
                self.failure.replace(Some(error.to_string()));
                vec![0.0; self.info(name).map_or(0, |info| info.shape.iter().product())]
            }
        }
    }

    /// Checks that every tensor requested so far could be read.
    ///
    /// # Errors
    ///
    /// The last read error.
    pub fn intact(&self) -> Result<(), WeightsError> {
        match &*self.failure.borrow() {
            Some(why) => Err(WeightsError::Unreadable(why.clone())),
            None => Ok(()),
        }
    }
}

/// Decodes the bytes of an `f32` tensor.
pub fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Decodes the bytes of a tensor of 64-bit integers; `None` for another type.
pub(crate) fn int_values(dtype: Dtype, bytes: &[u8]) -> Option<impl Iterator<Item = i64>> {
    let (values, _) = bytes.as_chunks();
    (dtype == Dtype::I64).then(|| values.iter().map(|bytes| i64::from_le_bytes(*bytes)))
}

/// Converts an error of the library into one for the user of the file.
fn format_error(error: SafeTensorError, bytes: &[u8], size: u64) -> WeightsError {
    let start = bytes.trim_ascii_start();
    let start = start[..start.len().min(9)].to_ascii_lowercase();
    let reason = match error {
        _ if start.starts_with(b"<!doctype") || start.starts_with(b"<html") => {
            "it is a web page".into()
        }
        SafeTensorError::HeaderTooSmall => format!("it has only {size} bytes"),
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => {
            "its first 8 bytes give no sensible length for the header".into()
        }
        SafeTensorError::InvalidHeader(_) | SafeTensorError::InvalidHeaderDeserialization(_) => {
            format!("its header is damaged ({error})")
        }
        SafeTensorError::InvalidOffset(name) => return WeightsError::Layout(name),
        error => error.to_string(),
    };
    WeightsError::Format(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;
    use crate::vae::Vae;
    use crate::weights::Weights;
    use burn::tensor::Device;
    use std::cell::Cell;
    use std::rc::Rc;

    fn golden(name: &str) -> Vec<u8> {
        let path = format!("{}/../tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("a golden file")
    }

    /// A file that is read in parts, records the largest of them, and can be removed.
    struct TestFile {
        bytes: Vec<u8>,
        largest: Rc<Cell<u64>>,
        gone: Rc<Cell<bool>>,
    }

    impl Bytes for TestFile {
        fn size(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, String> {
            if self.gone.get() {
                return Err("it is gone".into());
            }
            self.largest.set(self.largest.get().max(range.end - range.start));
            Ok(Cow::Owned(self.bytes[range.start as usize..range.end as usize].to_vec()))
        }
    }

    #[test]
    fn a_file_read_in_parts_gives_the_same_model() {
        let (bytes, device) = (golden("network.weights.safetensors"), Device::flex());
        let (largest, gone) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let parts = TestFile { bytes: bytes.clone(), largest: largest.clone(), gone: gone.clone() };
        let weights = TensorFile::open(parts).and_then(Weights::from_file).expect("a model");
        let model = Model::from_weights(&weights, &device);
        weights.intact().expect("it is there");
        let whole = Weights::parse(&bytes).expect("the same");
        assert_eq!(model.parameters(), Model::from_weights(&whole, &device).parameters());
        assert!(largest.get() < bytes.len() as u64 / 4, "{} bytes at a time", largest.get());
        // A file that is removed while in use is an error.
        gone.set(true);
        Model::from_weights(&weights, &device);
        let error = weights.intact().expect_err("it is gone").to_string();
        assert!(error.contains("it is gone"), "{error}");
        let parts = TestFile { bytes: bytes.clone(), largest, gone };
        assert!(matches!(TensorFile::open(parts), Err(WeightsError::Unreadable(_))));
    }

    #[test]
    fn kinds_are_recognised_by_the_tensors() {
        for (name, kind) in [
            ("vae.safetensors", Kind::Autoencoder),
            ("network.weights.safetensors", Kind::Model),
            ("latent.official.safetensors", Kind::Model),
            ("vae.expected.safetensors", Kind::Model),
        ] {
            let bytes = golden(name);
            assert_eq!(TensorFile::parse(&bytes).expect(name).kind(), kind, "{name}");
        }
        // Each reader rejects the other's file.
        let (model, vae) = (golden("network.weights.safetensors"), golden("vae.safetensors"));
        let error = Vae::from_safetensors(&model, None, &Device::flex()).expect_err("a model");
        assert!(matches!(error, WeightsError::Tensors(_)));
        let error = Weights::parse(&vae).expect_err("an autoencoder");
        assert!(matches!(error, WeightsError::Foreign { .. }));
    }
}
