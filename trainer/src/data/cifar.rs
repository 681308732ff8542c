//! The official CIFAR-10 archives.
//!
//! The Python version contains pickles. A pickle is a program, which is not executed here: its
//! instructions are skipped, and only the labels and the image data are extracted.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use flate2::Crc;
use flate2::read::GzDecoder;

use super::decode::DecodedImage;
use super::error::DataError;
use super::item::{Index, Listed, Stored};
use super::source::{Format, Source};
use crate::files::at::Bytes;

const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;
/// Bytes of an image: all of red, then green, then blue.
const BYTES: usize = 3 * PIXELS;

/// Maximum size of a file in the archive. A batch file has 30 MB.
const MAX_FILE: u64 = 64 << 20;

const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The Python and the binary version.
pub const FORMAT: Format = Format {
    what: "cifar-10-python.tar.gz or cifar-10-binary.tar.gz",
    open: |candidate| {
        let is_gzip = candidate.start.starts_with(&[0x1f, 0x8b]);
        is_gzip.then(|| Ok(Box::new(read(candidate.path)?) as Box<dyn Source>))
    },
};

/// The training images. They are unpacked to a temporary file, since a place in a compressed archive cannot
/// be read without all before it. One file of the archive is in memory at a time.
struct Cifar {
    /// The colour planes of all images, in the order of the archive.
    planes: Bytes,
    /// Offset of each image in the file.
    offsets: Vec<u64>,
    index: Index,
}

impl Source for Cifar {
    fn index(&self) -> &Index {
        &self.index
    }

    fn image(&self, i: usize) -> Result<DecodedImage, String> {
        let planes = self.planes.read(self.offsets[i], BYTES);
        let planes = planes.map_err(|e| format!("the temporary file cannot be read ({e})"))?;
        let rgb = (0..BYTES).map(|i| planes[i % 3 * PIXELS + i / 3]).collect();
        Ok(DecodedImage { width: SIDE, height: SIDE, rgb })
    }

    fn size(&self, _: usize) -> Result<[usize; 2], String> {
        Ok([SIDE; 2])
    }
}

/// The images of a file of the archive: their classes, and their colour planes.
type Batch<'a> = Vec<(u8, &'a [u8])>;

/// Reads the training images of the Python or the binary version.
fn read(path: &Path) -> Result<Cifar, DataError> {
    let file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let mut tar = tar::Archive::new(GzDecoder::new(file));
    let unpacked = |e: std::io::Error| {
        let folder = std::env::temp_dir();
        let reason = "the variable TMPDIR chooses another folder";
        DataError::archive(
            path,
            format!("cannot be unpacked to {} ({e}); {reason}", folder.display()),
        )
    };
    let mut planes = tempfile::tempfile().map_err(unpacked)?;
    let mut offset = 0;
    // Classes, offsets and checksums of images by the names of their files.
    let mut batches: Vec<(String, Vec<(u8, u64, u32)>)> = Vec::new();
    let damaged = |e: std::io::Error| DataError::archive(path, format!("damaged ({e})"));
    for entry in tar.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if name.starts_with('/') || name.split(['/', '\\']).any(|part| part == "..") {
            return Err(DataError::Escape { path: path.to_owned(), name });
        }
        let file = name.rsplit('/').next().unwrap_or_default().to_string();
        if !file.starts_with("data_batch_") {
            continue;
        }
        let mut bytes = Vec::new();
        entry.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(damaged)?;
        let parsed = if bytes.len() as u64 > MAX_FILE {
            Err("larger than a batch of CIFAR-10".to_string())
        } else if file.ends_with(".bin") {
            binary(&bytes)
        } else {
            pickled(&bytes)
        };
        let parsed =
            parsed.map_err(|reason| DataError::archive(path, format!("{name}: {reason}")))?;
        let mut images = Vec::with_capacity(parsed.len());
        for (class, image) in parsed {
            planes.write_all(image).map_err(unpacked)?;
            let mut crc = Crc::new();
            crc.update(image);
            images.push((class, offset, crc.sum()));
            offset += BYTES as u64;
        }
        batches.push((file, images));
    }
    if batches.is_empty() {
        return Err(DataError::archive(
            path,
            "contains no data_batch files: not a CIFAR-10 archive",
        ));
    }
    batches.sort_by(|a, b| a.0.cmp(&b.0));
    let classes = CLASSES.map(String::from).to_vec().into();
    let mut index = Index { images: Vec::new(), classes, note: None };
    let mut offsets = Vec::new();
    for (file, images) in batches {
        for (i, (class, offset, crc)) in images.into_iter().enumerate() {
            let (name, class) = (format!("{file}#{i}").into(), Some(class.into()));
            index.images.push(Listed { name, class, problem: None, stored: Stored::Crc(crc) });
            offsets.push(offset);
        }
    }
    Ok(Cifar { planes: Bytes::File(planes), offsets, index })
}

/// Checks classes.
fn check_classes(images: Batch) -> Result<Batch, String> {
    match images.iter().find(|(class, _)| usize::from(*class) >= CLASSES.len()) {
        Some((class, _)) => Err(format!("invalid label {class}, not 0 to 9")),
        None => Ok(images),
    }
}

/// Parses a batch of the binary version: records of a label and an image.
fn binary(bytes: &[u8]) -> Result<Batch<'_>, String> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(1 + BYTES) {
        return Err(format!("{} bytes are not a whole number of records; truncated?", bytes.len()));
    }
    let records = bytes.chunks_exact(1 + BYTES);
    check_classes(records.map(|record| (record[0], &record[1..])).collect())
}

/// Parses a batch of the Python version: a pickled dictionary with `labels`, a list of small
/// integers, and `data`, an array whose bytes are one long string in the pickle.
fn pickled(bytes: &[u8]) -> Result<Batch<'_>, String> {
    let mut data: Option<&[u8]> = None;
    let mut labels = Vec::new();
    let mut key: &[u8] = b"";
    let mut in_labels = false;
    for step in Pickle(bytes) {
        match step? {
            Step::Text(text) if text.len() >= BYTES => {
                if data.replace(text).is_some() {
                    return Err("two image arrays".into());
                }
            }
            Step::Text(text) => key = text,
            Step::ListStart => in_labels = key == b"labels" && labels.is_empty(),
            Step::ListEnd => in_labels = false,
            Step::Small(value) if in_labels => labels.push(value),
            Step::Small(_) | Step::Other => {}
        }
    }
    let planes = data.ok_or("no image array")?;
    if planes.len() != labels.len() * BYTES {
        return Err(format!("{} labels and {} bytes of images", labels.len(), planes.len()));
    }
    check_classes(labels.into_iter().zip(planes.chunks_exact(BYTES)).collect())
}

/// A pickle instruction, as far as it matters here.
enum Step<'a> {
    Text(&'a [u8]),
    Small(u8),
    ListStart,
    ListEnd,
    Other,
}

/// Iterator over the instructions of a pickle of protocol 0 to 2. Only those that CIFAR-10 uses are
/// known.
struct Pickle<'a>(&'a [u8]);

impl<'a> Pickle<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self.0.split_at_checked(n).ok_or("truncated")?;
        self.0 = tail;
        Ok(head)
    }

    fn line(&mut self) -> Result<&'a [u8], String> {
        let end = self.0.iter().position(|b| *b == b'\n').ok_or("truncated")?;
        let line = self.take(end + 1)?;
        Ok(&line[..end])
    }

    fn length(&mut self) -> Result<usize, String> {
        let bytes = self.take(4)?;
        let length = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        usize::try_from(length).map_err(|_| "a string of negative length".into())
    }

    fn step(&mut self, opcode: u8) -> Result<Step<'a>, String> {
        Ok(match opcode {
            // SHORT_BINSTRING, BINSTRING, BINUNICODE
            b'U' => {
                let n = self.take(1)?[0];
                Step::Text(self.take(n.into())?)
            }
            b'T' | b'X' => {
                let n = self.length()?;
                Step::Text(self.take(n)?)
            }
            // BININT1
            b'K' => Step::Small(self.take(1)?[0]),
            // EMPTY_LIST; APPENDS, APPEND
            b']' => Step::ListStart,
            b'e' | b'a' => Step::ListEnd,
            // PROTO, BINPUT, BINGET
            0x80 | b'q' | b'h' => {
                self.take(1)?;
                Step::Other
            }
            // BININT2
            b'M' => {
                self.take(2)?;
                Step::Other
            }
            // BININT, LONG_BINPUT, LONG_BINGET
            b'J' | b'r' | b'j' => {
                self.take(4)?;
                Step::Other
            }
            // GLOBAL, the name of a function
            b'c' => {
                self.line()?;
                self.line()?;
                Step::Other
            }
            // EMPTY_DICT, MARK, TUPLE.., REDUCE, BUILD, NONE, NEWTRUE, NEWFALSE, SETITEM(S)
            b'}'
            | b'('
            | b't'
            | b')'
            | 0x85..=0x87
            | b'R'
            | b'b'
            | b'N'
            | 0x88
            | 0x89
            | b's'
            | b'u' => Step::Other,
            other => {
                return Err(format!("unexpected pickle instruction {other:#04x}"));
            }
        })
    }
}

impl<'a> Iterator for Pickle<'a> {
    type Item = Result<Step<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.split_first() {
            None => Some(Err("truncated".into())),
            // STOP
            Some((b'.', _)) => None,
            Some((opcode, rest)) => {
                self.0 = rest;
                Some(self.step(*opcode))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` images whose bytes depend on their positions.
    fn planes(n: usize) -> Vec<u8> {
        (0..n * BYTES).map(|i| (i / PIXELS * 7 + i % 13) as u8).collect()
    }

    /// A pickle of `n` images, as Python 2 wrote it for the official archive.
    fn pickle(n: usize) -> Vec<u8> {
        let mut bytes =
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x04testq\x03U\x06labelsq\x04]q\x05(".to_vec();
        for i in 0..n {
            bytes.extend([b'K', (i % 10) as u8]);
        }
        bytes.extend(
            b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08",
        );
        bytes.extend(
            b"K\x00\x85q\tU\x01bq\n\x87q\x0bRq\x0c(K\x01K\x02M\x00\x0c\x86q\rcnumpy\ndtype\nq\x0e",
        );
        bytes.extend(b"U\x02u1q\x0fK\x00K\x01\x87q\x10Rq\x11(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x13b\x89T");
        bytes.extend(((n * BYTES) as u32).to_le_bytes());
        bytes.extend(planes(n));
        bytes.extend(b"tq\x14bU\tfilenamesq\x15]q\x16(U\x05a.pngq\x17eu.");
        bytes
    }

    fn records(n: usize) -> Vec<u8> {
        let planes = planes(n);
        let records = planes.chunks_exact(BYTES).enumerate();
        records
            .flat_map(|(i, p)| std::iter::once((i % 10) as u8).chain(p.iter().copied()))
            .collect()
    }

    fn archive(files: &[(&str, Vec<u8>)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let gz = flate2::write::GzEncoder::new(
            file.reopen().expect("the same file"),
            Default::default(),
        );
        let mut tar = tar::Builder::new(gz);
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            // Written by hand, since the builder refuses such names.
            header.as_gnu_mut().expect("a GNU header").name[..name.len()]
                .copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, &bytes[..]).expect("written to a file");
        }
        tar.into_inner().and_then(|gz| gz.finish()).and_then(|mut f| f.flush()).expect("written");
        file
    }

    #[test]
    fn python_and_binary_versions_give_the_same_images() {
        let python = archive(&[
            ("cifar-10-batches-py/data_batch_2", pickle(3)),
            ("cifar-10-batches-py/data_batch_1", pickle(12)),
            ("cifar-10-batches-py/test_batch", pickle(5)),
        ]);
        let binary = archive(&[
            ("cifar-10-batches-bin/data_batch_1.bin", records(12)),
            ("cifar-10-batches-bin/data_batch_2.bin", records(3)),
            ("cifar-10-batches-bin/batches.meta.txt", b"airplane".to_vec()),
        ]);
        let [a, b] = [python, binary].map(|file| read(file.path()).expect("a good archive"));
        assert_eq!((a.index.images.len(), b.index.images.len()), (15, 15));
        for i in 0..15 {
            let [one, other] = [&a, &b].map(|cifar| {
                let Listed { class, stored, .. } = cifar.index.images[i];
                (class, stored, cifar.image(i).expect("unpacked").rgb)
            });
            assert_eq!(one, other);
        }
        // The second pixel's green is byte PIXELS + 1 of the planes.
        assert_eq!(a.image(0).expect("unpacked").rgb[4], planes(1)[PIXELS + 1]);
        assert_eq!(a.image(0).expect("unpacked").rgb, a.image(12).expect("unpacked").rgb);
        assert_eq!(a.index.images[11].class, Some(1));
    }

    #[test]
    fn damaged_files_are_errors() {
        let cut = |mut bytes: Vec<u8>, by: usize| {
            bytes.truncate(bytes.len() - by);
            bytes
        };
        let mut label = records(2);
        label[0] = 10;
        let cases = [
            ("data_batch_1", cut(pickle(2), 30), "data_batch_1: truncated"),
            ("data_batch_1", b"\x80\x02cos\nsystem\n(U\x02lstR.".to_vec(), "no image array"),
            ("data_batch_1", b"\x80\x04\x95.".to_vec(), "unexpected pickle instruction 0x95"),
            ("data_batch_1.bin", cut(records(2), 1), "not a whole number of records"),
            ("data_batch_1.bin", label, "invalid label 10"),
            ("data_batch_1.bin", Vec::new(), "not a whole number of records"),
            ("../data_batch_1.bin", records(1), "is outside the archive"),
            ("/data_batch_1.bin", records(1), "is outside the archive"),
            ("readme.html", Vec::new(), "not a CIFAR-10 archive"),
        ];
        for (name, bytes, message) in cases {
            let file = archive(&[(name, bytes)]);
            let error = read(file.path()).err().expect(message).to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    #[test]
    fn a_truncated_archive_is_an_error() {
        let whole = archive(&[("data_batch_1.bin", records(20))]);
        let bytes = std::fs::read(whole.path()).expect("just written");
        let cut = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(cut.path(), &bytes[..bytes.len() / 2]).expect("written");
        let error = read(cut.path()).err().expect("it is cut").to_string();
        assert!(error.contains("damaged"), "{error}");
    }
}
