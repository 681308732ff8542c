//! NumPy's `.npz` files: zip archives of arrays. Sizes in a file are not trusted.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use model::picture::Rgb;
use npyz::{NpyHeader, Order, WriterBuilder};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use crate::MetricsError;

/// Maximum number of values of an array that is read as a whole.
const MAX_VALUES: u64 = 1 << 28;

/// Maximum height and width of an image.
const MAX_SIDE: u64 = 8192;

/// Maximum size of a text in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// Maximum size of the header of an array in bytes. NumPy writes about a hundred.
const MAX_HEADER: u32 = 1 << 16;

/// Maximum number of brackets that are opened in such a header. NumPy writes two for an array of numbers.
const MAX_BRACKETS: usize = 8;

/// An array of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Shape.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f64>,
}

/// An open `.npz` file.
pub struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is no zip archive.
    pub fn open(path: &Path) -> Result<Self, MetricsError> {
        let file = File::open(path).map_err(|error| MetricsError::io(path, error))?;
        let archive = ZipArchive::new(BufReader::new(file))
            .map_err(|error| MetricsError::file(path, format!("not an .npz file: {error}")))?;
        Ok(Self { path: path.to_owned(), archive })
    }

    /// Returns whether there is an array of this name.
    pub fn has(&self, name: &str) -> bool {
        self.archive.index_for_name(&format!("{name}.npy")).is_some()
    }

    /// Reads an array of `f64` or `f32`, or returns `None` if there is none of this name.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is of another type.
    pub fn array(&mut self, name: &str) -> Result<Option<Array>, MetricsError> {
        if !self.has(name) {
            return Ok(None);
        }
        let path = self.path.clone();
        let wrong = |reason: String| MetricsError::file(&path, format!("array {name}: {reason}"));
        let mut entry =
            self.archive.by_name(&format!("{name}.npy")).map_err(|e| wrong(e.to_string()))?;
        let header = header(&mut entry).map_err(|e| wrong(e.to_string()))?;
        let dtype = header.dtype().descr();
        let size = match dtype.as_str() {
            "'<f8'" => 8,
            "'<f4'" => 4,
            _ => return Err(wrong(format!("its type is {dtype}, not '<f8' or '<f4'"))),
        };
        let shape = header.shape();
        let count = shape.iter().try_fold(1u64, |n, size| n.checked_mul(*size));
        let count = count
            .filter(|count| *count <= MAX_VALUES)
            .ok_or_else(|| wrong(format!("its shape {shape:?} is too large")))?;
        let mut bytes = Vec::new();
        entry.take(count * size).read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
        if bytes.len() as u64 != count * size {
            return Err(wrong("it ends too early".into()));
        }
        let stored: Vec<f64> = match size {
            8 => bytes
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
                .collect(),
            _ => bytes
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
                .collect(),
        };
        let shape: Vec<usize> = shape.iter().map(|size| *size as usize).collect();
        let values = match (header.order(), &shape[..]) {
            (Order::C, _) | (_, [] | [_]) => stored,
            (Order::Fortran, &[rows, columns]) => {
                (0..rows * columns).map(|at| stored[at % columns * rows + at / columns]).collect()
            }
            _ => return Err(wrong("it is stored in Fortran's order".into())),
        };
        Ok(Some(Array { shape, values }))
    }

    /// Reads an entry that is a text, or returns `None` if there is none of this name.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, MetricsError> {
        if self.archive.index_for_name(name).is_none() {
            return Ok(None);
        }
        let path = self.path.clone();
        let wrong = |reason: String| MetricsError::file(&path, format!("entry {name}: {reason}"));
        let entry = self.archive.by_name(name).map_err(|e| wrong(e.to_string()))?;
        let mut text = String::new();
        entry.take(MAX_TEXT).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
        Ok(Some(text))
    }

    /// Passes every image of the array `arr_0`, `uint8` `[N, H, W, 3]`, to `each` until it returns
    /// an error, one after the other. Images of one channel are repeated.
    ///
    /// # Errors
    ///
    /// If the array cannot be read or holds no images, or that of `each`.
    pub fn images<E: From<MetricsError>>(
        &mut self,
        mut each: impl FnMut(usize, Rgb) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.path.clone();
        let wrong = |reason: String| MetricsError::file(&path, format!("array arr_0: {reason}"));
        let mut entry = self.archive.by_name("arr_0.npy").map_err(|e| wrong(e.to_string()))?;
        let header = header(&mut entry).map_err(|e| wrong(e.to_string()))?;
        let dtype = header.dtype().descr();
        let (count, height, width, channels) = match (header.shape(), header.order()) {
            (&[n, h, w, c @ (1 | 3)], Order::C)
                if (1..=MAX_SIDE).contains(&h) && (1..=MAX_SIDE).contains(&w) =>
            {
                (n as usize, h as usize, w as usize, c as usize)
            }
            (shape, _) => {
                let reason = format!("its shape is {shape:?}, not that of images, [N, H, W, 3]");
                return Err(wrong(reason).into());
            }
        };
        if dtype != "'|u1'" && dtype != "'<u1'" {
            return Err(wrong(format!("its type is {dtype}, not '|u1' (uint8)")).into());
        }
        let mut bytes = vec![0; height * width * channels];
        for i in 0..count {
            entry
                .read_exact(&mut bytes)
                .map_err(|error| wrong(format!("image {i} of {count}: {error}")))?;
            let bytes = match channels {
                1 => bytes.iter().flat_map(|grey| [*grey; 3]).collect(),
                _ => bytes.clone(),
            };
            each(i, Rgb { width, height, bytes })?;
        }
        Ok(())
    }
}

/// Reads the header of an array of numbers.
fn header(mut entry: impl Read) -> std::io::Result<NpyHeader> {
    // The magic, the version, and the length of the rest: two bytes in version 1, and four in others.
    let mut bytes = vec![0; 10];
    entry.read_exact(&mut bytes)?;
    let mut length = u32::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    if bytes[6] > 1 {
        let mut high = [0; 2];
        entry.read_exact(&mut high)?;
        bytes.extend(high);
        length |= u32::from(u16::from_le_bytes(high)) << 16;
    }
    let start = bytes.len();
    entry.take(length.min(MAX_HEADER).into()).read_to_end(&mut bytes)?;
    // The library allocates as much as the length says, and each level of brackets doubles its time.
    let brackets = bytes[start..].iter().filter(|byte| b"([{".contains(byte)).count();
    if length > MAX_HEADER || brackets > MAX_BRACKETS {
        return Err(std::io::Error::other("its header is not that of an array of numbers"));
    }
    NpyHeader::from_reader(&bytes[..])
}

/// Returns whether a file is an `.npz` file with images, `arr_0`.
pub fn has_images(path: &Path) -> bool {
    Npz::open(path).is_ok_and(|npz| npz.has("arr_0"))
}

/// An `.npz` file that is being written, in memory.
pub struct NpzWriter(ZipWriter<Cursor<Vec<u8>>>);

impl Default for NpzWriter {
    fn default() -> Self {
        Self(ZipWriter::new(Cursor::new(Vec::new())))
    }
}

impl NpzWriter {
    /// Adds an array.
    ///
    /// # Errors
    ///
    /// If the values do not fill the shape, or the file becomes too large.
    pub fn array<T>(&mut self, name: &str, shape: &[usize], values: &[T]) -> std::io::Result<()>
    where
        T: npyz::AutoSerialize + Copy,
    {
        self.start(&format!("{name}.npy"))?;
        let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&shape)
            .writer(&mut self.0)
            .begin_nd()?;
        writer.extend(values.iter().copied())?;
        writer.finish()
    }

    /// Adds a text.
    ///
    /// # Errors
    ///
    /// If the file becomes too large.
    pub fn text(&mut self, name: &str, text: &str) -> std::io::Result<()> {
        self.start(name)?;
        self.0.write_all(text.as_bytes())
    }

    fn start(&mut self, name: &str) -> std::io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .large_file(true);
        self.0.start_file(name, options).map_err(std::io::Error::other)
    }

    /// Returns the bytes of the file.
    ///
    /// # Errors
    ///
    /// If the file is too large.
    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        Ok(self.0.finish().map_err(std::io::Error::other)?.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, fill: impl FnOnce(&mut NpzWriter)) {
        let mut npz = NpzWriter::default();
        fill(&mut npz);
        std::fs::write(path, npz.finish().expect("small")).expect("written");
    }

    #[test]
    fn arrays_and_texts_come_back_as_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.npz");
        write(&path, |npz| {
            npz.array("a", &[2, 3], &[1.5f64, -2.0, 3.0, 4.0, 5.0, 1e300]).expect("written");
            npz.array("b", &[2], &[0.5f32, -1.0]).expect("written");
            npz.text("info.json", "{}").expect("written");
        });
        let mut npz = Npz::open(&path).expect("there");
        assert!(npz.has("a") && !npz.has("c") && !npz.has("info.json"));
        let a = npz.array("a").expect("an array").expect("there");
        assert_eq!(a, Array { shape: vec![2, 3], values: vec![1.5, -2.0, 3.0, 4.0, 5.0, 1e300] });
        let b = npz.array("b").expect("an array").expect("there");
        assert_eq!(b, Array { shape: vec![2], values: vec![0.5, -1.0] });
        assert_eq!(npz.text("info.json").expect("a text").as_deref(), Some("{}"));
        assert_eq!(npz.array("c").expect("none"), None);
    }

    /// Files written by NumPy, by `tests/golden/metrics.py`.
    #[test]
    fn files_of_numpy_are_read() {
        let mut npz = Npz::open(&::tests::root().join("tests/golden/numpy.npz")).expect("there");
        let want = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        for name in ["c_order", "fortran_order", "single"] {
            let found = npz.array(name).expect("an array").expect("there");
            assert_eq!(found, Array { shape: vec![2, 3], values: want.clone() }, "{name}");
        }
        let error = npz.array("whole").expect_err("of integers").to_string();
        assert!(error.contains("numpy.npz: array whole: its type is '<i8'"), "{error}");
        let mut images = Vec::new();
        npz.images(|i, image| {
            images.push((i, image));
            Ok::<(), MetricsError>(())
        })
        .expect("images");
        assert_eq!(images.len(), 2);
        let bytes: Vec<u8> = (12..24).collect();
        assert_eq!(images[1], (1, Rgb { width: 2, height: 2, bytes }));
    }

    #[test]
    fn damaged_files_and_other_arrays_are_errors() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("b.npz");
        let of = |path: &Path| {
            Npz::open(path)
                .and_then(|mut npz| npz.images(|_, _| Ok::<(), MetricsError>(())))
                .expect_err("no images")
                .to_string()
        };
        std::fs::write(&path, b"plain").expect("written");
        assert!(of(&path).contains("b.npz: not an .npz file"));
        write(&path, |npz| npz.array("arr_0", &[4], &[1u8; 4]).expect("written"));
        assert!(of(&path).contains("its shape is [4], not that of images"), "{}", of(&path));
        write(&path, |npz| npz.array("arr_0", &[1, 2, 2, 3], &[1.0f32; 12]).expect("written"));
        assert!(of(&path).contains("its type is '<f4', not '|u1'"), "{}", of(&path));
        assert!(has_images(&path) && !has_images(folder.path()));

        // An array that claims more values than the file has.
        let mut npz = NpzWriter::default();
        npz.start("a.npy").expect("started");
        let text =
            format!("{:<117}\n", "{'descr': '<f8', 'fortran_order': False, 'shape': (9, 9), }");
        let mut npy = b"\x93NUMPY\x01\x00".to_vec();
        npy.extend((text.len() as u16).to_le_bytes());
        npy.extend(text.as_bytes());
        npy.extend([0; 80]);
        npz.0.write_all(&npy).expect("written");
        std::fs::write(&path, npz.finish().expect("small")).expect("written");
        let error = Npz::open(&path).expect("a zip").array("a").expect_err("short").to_string();
        assert!(error.contains("array a: it ends too early"), "{error}");
    }

    /// Headers that would take gigabytes, or years.
    #[test]
    fn absurd_headers_are_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.npz");
        for (length, text) in [
            (u32::MAX, String::new()),
            (60, "{".repeat(60)),
            (60, "[".repeat(60)),
            (60, "(1,".repeat(20)),
        ] {
            let mut npz = NpzWriter::default();
            npz.start("a.npy").expect("started");
            let length = length.to_le_bytes();
            let npy = [&b"\x93NUMPY\x02\x00"[..], &length, text.as_bytes()].concat();
            npz.0.write_all(&npy).expect("written");
            std::fs::write(&path, npz.finish().expect("small")).expect("written");
            let array = Npz::open(&path).expect("a zip").array("a");
            let error = array.expect_err("no array").to_string();
            assert!(error.contains("its header is not that of an array of numbers"), "{error}");
        }
    }
}
