//! Zip archives of PNG and JPEG files.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use flate2::Crc;
use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::classes::{self, is_image};
use super::decode::{DecodedImage, MAX_FILE};
use super::error::DataError;
use super::item::{Index, Stored};
use super::source::{Format, Source};
use crate::files::at::Bytes;

/// Zip archives.
pub const FORMAT: Format = Format {
    what: "a zip of PNG or JPEG files",
    open: |candidate| {
        candidate.start.starts_with(b"PK").then(|| {
            let path = candidate.path;
            let file = File::open(path).map_err(|e| DataError::io(path, e))?;
            open(path, Bytes::File(file))
        })
    },
};

/// Maximum size of `dataset.json` in bytes.
const MAX_JSON: u64 = 1 << 30;

/// Size of the header before an entry, without its name.
const HEADER: usize = 30;

/// Position of an entry.
struct Entry {
    /// Offset of its header in the archive.
    header: u64,
    /// Number of bytes in the archive.
    compressed: u64,
    /// Number of bytes of the file.
    size: u64,
    crc: u32,
    method: CompressionMethod,
    encrypted: bool,
}

/// A zip archive whose table of contents was read.
struct ZipFile {
    bytes: Bytes,
    entries: Vec<Entry>,
    index: Index,
}

/// Opens an archive, of which only the table of contents and `dataset.json` are read.
///
/// # Errors
///
/// If it is damaged, or `dataset.json` is invalid.
pub fn open(path: &Path, bytes: Bytes) -> Result<Box<dyn Source>, DataError> {
    let table = match &bytes {
        Bytes::File(file) => contents(path, BufReader::with_capacity(1 << 16, file)),
        Bytes::Memory(bytes) => contents(path, Cursor::new(bytes)),
    };
    let (mut found, json) = table?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let json = json.map(|entry| {
        read(&bytes, &entry, MAX_JSON, MAX_JSON)
            .map_err(|reason| DataError::Labels { path: path.to_owned(), reason })
    });
    let json = json.transpose()?;
    let listed = |(name, entry): (String, Entry)| ((name, Stored::Size(entry.size)), entry);
    let (files, entries): (Vec<_>, Vec<Entry>) = found.into_iter().map(listed).unzip();
    let index = classes::index(path, files, json)?;
    Ok(Box::new(ZipFile { bytes, entries, index }))
}

/// Images of an archive by name, and its `dataset.json`.
type Contents = (Vec<(String, Entry)>, Option<Entry>);

/// Reads the table of contents.
fn contents(path: &Path, file: impl Read + Seek) -> Result<Contents, DataError> {
    let damaged = |e: zip::result::ZipError| DataError::archive(path, e);
    let zip = ZipArchive::new(file).map_err(damaged)?;
    let (mut images, mut json) = (Vec::new(), None);
    for i in 0..zip.len() {
        // Not `by_index`, which reads a header from the archive.
        let found = zip.by_index_data(i).map_err(damaged)?;
        let name = found.name().map_err(damaged)?.into_owned();
        if found.enclosed_name().is_none() || name.split(['/', '\\']).any(|part| part == "..") {
            return Err(DataError::Escape { path: path.to_owned(), name });
        }
        let entry = Entry {
            header: found.header_start(),
            compressed: found.compressed_size(),
            size: found.size(),
            crc: found.crc32(),
            method: found.compression(),
            encrypted: found.encrypted(),
        };
        if name == classes::FILE {
            json = Some(entry);
        } else if found.is_file() && is_image(&name) {
            images.push((name, entry));
        }
    }
    Ok((images, json))
}

/// Reads the first `limit` bytes of an entry of at most `max` bytes, whatever size it claims.
fn read(archive: &Bytes, entry: &Entry, limit: u64, max: u64) -> Result<Vec<u8>, String> {
    let damaged = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "damaged (it is truncated)".to_string(),
        _ => format!("damaged ({e})"),
    };
    if entry.encrypted {
        return Err("it is encrypted".into());
    }
    let header = archive.read(entry.header, HEADER).map_err(damaged)?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err("damaged (no entry at its place in the archive)".into());
    }
    let length = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let start = entry.header + HEADER as u64 + length(26) + length(28);
    let whole = limit >= max;
    // A part of a compressed file: the compressed bytes may be a little longer than the file.
    let part = entry.compressed.min(limit.saturating_add(1024)).min(max + 1024);
    let mut bytes = archive.read(start, part as usize).map_err(damaged)?;
    match entry.method {
        CompressionMethod::Stored => {}
        CompressionMethod::Deflated => {
            let mut file = Vec::new();
            DeflateDecoder::new(&bytes[..])
                .take(if whole { max + 1 } else { limit })
                .read_to_end(&mut file)
                .map_err(damaged)?;
            bytes = file;
        }
        other => {
            return Err(format!("compressed with {other}; only deflate and none are supported"));
        }
    }
    if bytes.len() as u64 > max || entry.size > max {
        return Err(format!("decompresses to more than {max} bytes"));
    }
    if whole {
        let mut crc = Crc::new();
        crc.update(&bytes);
        if crc.sum() != entry.crc || bytes.len() as u64 != entry.size {
            return Err("damaged (its checksum is wrong)".into());
        }
    }
    bytes.truncate(limit as usize);
    Ok(bytes)
}

impl Source for ZipFile {
    fn index(&self) -> &Index {
        &self.index
    }

    fn image(&self, i: usize) -> Result<DecodedImage, String> {
        DecodedImage::decode(&read(&self.bytes, &self.entries[i], MAX_FILE, MAX_FILE)?)
    }

    fn size(&self, i: usize) -> Result<[usize; 2], String> {
        DecodedImage::size(|limit| read(&self.bytes, &self.entries[i], limit, MAX_FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    /// A zip in memory.
    fn zip(entries: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        for (name, bytes) in entries {
            zip.start_file(*name, options).expect("started");
            zip.write_all(bytes).expect("written");
        }
        zip.finish().expect("finished").into_inner()
    }

    fn open_bytes(bytes: Vec<u8>) -> Result<Box<dyn Source>, DataError> {
        open(Path::new("data.zip"), Bytes::Memory(bytes.leak()))
    }

    fn png(side: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let pixel = |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, (x * y * 13) as u8]);
        let image = image::RgbImage::from_fn(side, side, pixel);
        image.write_to(&mut bytes, image::ImageFormat::Png).expect("encoded");
        bytes.into_inner()
    }

    #[test]
    fn images_are_read_whether_compressed_or_not() {
        // Of the larger one, not the whole file is read to find its size.
        let entries = [("b.png", png(200)), ("a.png", png(3))];
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let source = open_bytes(zip(&entries, method)).expect("whole");
            let names: Vec<_> = source.index().images.iter().map(|image| &*image.name).collect();
            assert_eq!(names, ["a.png", "b.png"]);
            assert_eq!([0, 1].map(|i| source.size(i)), [Ok([3, 3]), Ok([200, 200])]);
            let image = source.image(1).expect("whole");
            assert_eq!(image.rgb[3 * 201..3 * 202], [7, 5, 13]);
        }
    }

    #[test]
    fn damaged_entries_are_refused_and_others_are_read() {
        let entries = [("a.png", png(40)), ("b.png", png(40))];
        for (method, message) in [
            (CompressionMethod::Stored, "checksum is wrong"),
            (CompressionMethod::Deflated, "damaged"),
        ] {
            let mut bytes = zip(&entries, method);
            bytes[30 + 5 + 200] ^= 0xff;
            let source = open_bytes(bytes).expect("its table of contents is whole");
            let error = source.image(0).err().expect("damaged");
            assert!(error.contains("damaged") && error.contains(message), "{error}");
            source.image(1).expect("whole");
        }
        // An entry that is larger than its table of contents says, and one beyond the end.
        let bytes = zip(&entries, CompressionMethod::Stored);
        let at = bytes.windows(4).position(|four| four == b"PK\x01\x02").expect("an entry");
        for (field, message) in [(24, "checksum is wrong"), (21, "truncated"), (42, "no entry at")]
        {
            let mut bytes = bytes.clone();
            bytes[at + field] = bytes[at + field].wrapping_add(40);
            let source = open_bytes(bytes).expect("its table of contents is whole");
            let error = source.image(0).err().expect("damaged");
            assert!(error.contains(message), "{field}: {error}");
        }
    }
}
