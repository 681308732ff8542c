//! The official CIFAR-10 archives.
//!
//! The Python version contains pickles. A pickle is a program, which is not executed here: its
//! instructions are skipped, and only the labels and the image data are extracted.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use super::decode::DecodedImage;
use super::error::DataError;
use super::item::{Index, Listed};
use super::source::{Format, Source};

const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;
/// Bytes of an image: all of red, then green, then blue.
const BYTES: usize = 3 * PIXELS;

/// Maximum size of a file in the archive. A batch file has 30 MB.
const MAX_FILE: u64 = 256 << 20;

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

/// The training images, all of which are in memory: a place in a compressed archive cannot be read
/// without all before it.
struct Cifar {
    images: Vec<DecodedImage>,
    index: Index,
}

impl Source for Cifar {
    fn index(&self) -> &Index {
        &self.index
    }

    fn image(&self, i: usize) -> Result<DecodedImage, String> {
        Ok(self.images[i].clone())
    }

    fn size(&self, i: usize) -> Result<[usize; 2], String> {
        Ok([self.images[i].width, self.images[i].height])
    }
}

/// Reads the training images of the Python or the binary version.
fn read(path: &Path) -> Result<Cifar, DataError> {
    let file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let mut tar = tar::Archive::new(GzDecoder::new(file));
    let mut batches = Vec::new();
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
        let images =
            parsed.map_err(|reason| DataError::archive(path, format!("{name}: {reason}")))?;
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
    let mut cifar = Cifar { images: Vec::new(), index: Index { images: Vec::new(), classes } };
    for (file, images) in batches {
        for (i, (class, image)) in images.into_iter().enumerate() {
            let name = format!("{file}#{i}").into();
            cifar.index.images.push(Listed { name, class: Some(class), problem: None });
            cifar.images.push(image);
        }
    }
    Ok(cifar)
}

/// Makes images from classes and colour planes.
fn images(classes: &[u8], planes: &[u8]) -> Result<Vec<(u32, DecodedImage)>, String> {
    if planes.len() != classes.len() * BYTES {
        return Err(format!("{} labels and {} bytes of images", classes.len(), planes.len()));
    }
    classes
        .iter()
        .zip(planes.chunks_exact(BYTES))
        .map(|(&class, planes)| {
            if usize::from(class) >= CLASSES.len() {
                return Err(format!("invalid label {class}, not 0 to 9"));
            }
            let rgb = (0..BYTES).map(|i| planes[i % 3 * PIXELS + i / 3]).collect();
            Ok((class.into(), DecodedImage { width: SIDE, height: SIDE, rgb }))
        })
        .collect()
}

/// Parses a batch of the binary version: records of a label and an image.
fn binary(bytes: &[u8]) -> Result<Vec<(u32, DecodedImage)>, String> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(1 + BYTES) {
        return Err(format!("{} bytes are not a whole number of records; truncated?", bytes.len()));
    }
    let records = bytes.chunks_exact(1 + BYTES);
    let classes: Vec<u8> = records.clone().map(|record| record[0]).collect();
    let planes: Vec<u8> = records.flat_map(|record| &record[1..]).copied().collect();
    images(&classes, &planes)
}

/// Parses a batch of the Python version: a pickled dictionary with `labels`, a list of small
/// integers, and `data`, an array whose bytes are one long string in the pickle.
fn pickled(bytes: &[u8]) -> Result<Vec<(u32, DecodedImage)>, String> {
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
    images(&labels, data.ok_or("no image array")?)
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
    use std::io::Write;

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
        assert_eq!((a.images.len(), b.images.len()), (15, 15));
        for (i, (pa, pb)) in a.images.iter().zip(&b.images).enumerate() {
            let [class, other] = [&a, &b].map(|cifar| cifar.index.images[i].class);
            assert_eq!((class, &pa.rgb), (other, &pb.rgb));
        }
        // The second pixel's green is byte PIXELS + 1 of the planes.
        assert_eq!(a.images[0].rgb[4], planes(1)[PIXELS + 1]);
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
