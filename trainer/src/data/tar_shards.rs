//! WebDataset: tar files with PNG or JPEG files, and with their classes beside them.
//!
//! The members of an example have one name up to its first dot: `key.jpg`, and `key.cls` with the
//! number or the name of its class, or `key.txt` with the name, or `key.json` with a field `class`,
//! `cls` or `label`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::classes::{by_name, by_number, is_image};
use super::decode::{DecodedImage, MAX_FILE, check_file};
use super::error::DataError;
use super::item::{Classes, Index, Listed, Stored};
use super::slow_bar::{SlowBar, Unit};
use super::source::{Candidate, Format, Source};
use crate::files::at::{Bytes, Forward};

/// Tar files, and folders of them without images beside them.
pub const FORMAT: Format = Format {
    what: "WebDataset's tar files (one, or a folder of them)",
    open: |candidate| shards(candidate).map(|shards| open(candidate, shards)),
};

/// Maximum size of a member with a class in bytes.
const MAX_LABEL: u64 = 1 << 20;

/// Names of members with a class, the most reliable first.
const LABELS: [&str; 3] = ["cls", "json", "txt"];

/// Fields of a JSON object that contain a class.
const FIELDS: [&str; 3] = ["class", "cls", "label"];

/// Tar files whose headers were read.
struct TarShards {
    /// Opened for every read: there may be more of them than files that can be open.
    shards: Vec<PathBuf>,
    places: Vec<Place>,
    index: Index,
}

/// Position of an image.
struct Place {
    shard: u32,
    offset: u64,
    size: u64,
}

/// Returns the tar files of a dataset. `None` if it is of another format.
fn shards(candidate: &Candidate) -> Option<Vec<PathBuf>> {
    let path = candidate.path;
    if !candidate.is_folder {
        let is_tar = candidate.start.get(257..262) == Some(b"ustar");
        return is_tar.then(|| vec![path.to_owned()]);
    }
    // The reason why a folder cannot be read is that of the format of folders.
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(path).ok()? {
        let entry = entry.ok()?.path();
        match entry.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("tar") => shards.push(entry),
            _ if entry.is_dir() || is_image(&entry.to_string_lossy()) => return None,
            _ => {}
        }
    }
    shards.sort();
    (!shards.is_empty()).then_some(shards)
}

/// Lists the images of tar files, of which only headers and classes are read.
fn open(candidate: &Candidate, shards: Vec<PathBuf>) -> Result<Box<dyn Source>, DataError> {
    let mut found = Found::default();
    let size = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
    let mut bar =
        SlowBar::new(candidate.bar, "listing", Unit::Bytes, shards.iter().map(size).sum());
    for (number, path) in shards.iter().enumerate() {
        let prefix = match path.file_name() {
            Some(name) if candidate.is_folder => format!("{}/", name.to_string_lossy()),
            _ => String::new(),
        };
        found.list(path, number as u32, &prefix, &mut bar)?;
    }
    let Found { images, places, labels, .. } = found;
    let (classes, names) = classes(candidate.path, &images, &labels)?;
    let images = images.into_iter().enumerate().map(|(i, mut listed)| {
        listed.class = classes.get(i).copied();
        listed
    });
    let index = Index { images: images.collect(), classes: names, note: None };
    Ok(Box::new(TarShards { shards, places, index }))
}

/// What was found in tar files so far.
#[derive(Default)]
struct Found {
    images: Vec<Listed>,
    places: Vec<Place>,
    /// Class of each image, if it has one.
    labels: Vec<Option<Class>>,
    /// Size of the files that were listed.
    bytes: u64,
}

/// A class as it is written.
#[derive(Clone, Debug, PartialEq)]
enum Class {
    Number(u32),
    Name(String),
}

impl Found {
    /// Adds the images of a tar file.
    fn list(
        &mut self,
        path: &Path,
        shard: u32,
        prefix: &str,
        bar: &mut SlowBar,
    ) -> Result<(), DataError> {
        let file = File::open(path).map_err(|e| DataError::io(path, e))?;
        let length = file.metadata().map_err(|e| DataError::io(path, e))?.len();
        let mut tar = tar::Archive::new(Forward(BufReader::with_capacity(1 << 16, file)));
        let mut last = String::new();
        // Classes of the examples of this file by key, with the place in `LABELS`.
        let mut classes: HashMap<String, (usize, Class)> = HashMap::new();
        let first = self.images.len();
        let damaged = |e: std::io::Error, last: &str| {
            let place = match last {
                "" => String::new(),
                last => format!(" after the member `{last}`"),
            };
            DataError::archive(path, format!("damaged{place} ({e})"))
        };
        for entry in tar.entries_with_seek().map_err(|e| damaged(e, ""))? {
            let mut entry = entry.map_err(|e| damaged(e, &last))?;
            let kind = entry.header().entry_type();
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if name.starts_with('/') || name.split(['/', '\\']).any(|part| part == "..") {
                return Err(DataError::Escape { path: path.to_owned(), name });
            }
            last.clone_from(&name);
            bar.advance(self.bytes + entry.raw_file_position());
            let Some((key, extension)) = split(&name).filter(|_| !kind.is_dir()) else { continue };
            let (offset, size) = (entry.raw_file_position(), entry.size());
            if is_image(&name) {
                let there = length.saturating_sub(offset);
                let problem = if !kind.is_file() {
                    Some("a link or a sparse file, not an ordinary one".into())
                } else if size > there {
                    Some(format!("truncated: {there} of its {size} bytes are in the file").into())
                } else {
                    None
                };
                let name = format!("{prefix}{name}").into();
                self.images.push(Listed { name, class: None, problem, stored: Stored::Size(size) });
                self.places.push(Place { shard, offset, size });
            } else if let Some(rank) = LABELS.iter().position(|known| *known == extension) {
                let wrong = |reason: String| {
                    DataError::archive(path, format!("the member `{name}` is no class: {reason}"))
                };
                let mut bytes = Vec::new();
                let read = (&mut entry).take(MAX_LABEL + 1).read_to_end(&mut bytes);
                read.map_err(|e| wrong(e.to_string()))?;
                if bytes.len() as u64 != size {
                    return Err(wrong(if size > MAX_LABEL {
                        format!("{size} bytes, more than the limit of {MAX_LABEL}")
                    } else {
                        format!("truncated: {} of its {size} bytes are in the file", bytes.len())
                    }));
                }
                let class = class(extension, &bytes).map_err(wrong)?;
                let known = classes.get(key).map_or(usize::MAX, |known| known.0);
                if let (Some(class), true) = (class, rank < known) {
                    classes.insert(key.to_string(), (rank, class));
                }
            }
        }
        let class = |listed: &Listed| {
            let key = split(&listed.name[prefix.len()..])?.0;
            Some(classes.get(key)?.1.clone())
        };
        self.bytes += length;
        self.labels.extend(self.images[first..].iter().map(class));
        Ok(())
    }
}

/// Splits the name of a member at the first dot after its folders.
fn split(name: &str) -> Option<(&str, &str)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    Some((&name[..dot], &name[dot + 1..]))
}

/// Returns the class in a member, if there is one.
fn class(extension: &str, bytes: &[u8]) -> Result<Option<Class>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not text")?.trim();
    let of_text = |text: &str| match text.parse() {
        Ok(number) => Class::Number(number),
        Err(_) => Class::Name(text.into()),
    };
    if extension != "json" {
        return if text.is_empty() { Err("empty".into()) } else { Ok(Some(of_text(text))) };
    }
    let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let value = match &json {
        Value::Object(fields) => FIELDS.iter().find_map(|field| fields.get(*field)),
        value => Some(value),
    };
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok(Some(of_text(name))),
        Some(value) => match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(Some(Class::Number(number))),
            None => Err(format!("{value} is neither a number from 0 nor a name")),
        },
    }
}

/// Returns the class of each image, and the classes.
fn classes(
    path: &Path,
    images: &[Listed],
    labels: &[Option<Class>],
) -> Result<(Vec<u32>, Classes), DataError> {
    let wrong = |reason: String| DataError::archive(path, reason);
    let Some(with) = labels.iter().position(Option::is_some) else { return Ok(Default::default()) };
    if let Some(without) = labels.iter().position(Option::is_none) {
        let [with, without] = [with, without].map(|i| &images[i].name);
        return Err(wrong(format!("no class for {without}, but one for {with}")));
    }
    let numbers: Vec<u32> = labels.iter().flatten().filter_map(Class::number).collect();
    if numbers.len() == labels.len() {
        let classes = by_number(numbers.iter().max().copied()).map_err(wrong)?;
        return Ok((numbers, classes));
    }
    // A name may consist of digits.
    let names: Vec<String> = labels.iter().flatten().map(ToString::to_string).collect();
    Ok(by_name(&names.iter().map(String::as_str).collect::<Vec<_>>()))
}

impl Class {
    fn number(&self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(_) => None,
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl TarShards {
    /// Reads at most `limit` bytes of an image file.
    fn file(&self, i: usize, limit: u64) -> Result<Vec<u8>, String> {
        let Place { shard, offset, size } = self.places[i];
        check_file(size)?;
        let read = File::open(&self.shards[shard as usize])
            .and_then(|file| Bytes::File(file).read(offset, size.min(limit) as usize));
        read.map_err(|e| format!("cannot be read ({e})"))
    }
}

impl Source for TarShards {
    fn index(&self) -> &Index {
        &self.index
    }

    fn image(&self, i: usize) -> Result<DecodedImage, String> {
        DecodedImage::decode(&self.file(i, MAX_FILE)?)
    }

    fn size(&self, i: usize) -> Result<[usize; 2], String> {
        DecodedImage::size(|limit| self.file(i, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source;

    fn png() -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::RgbImage::from_pixel(2, 3, image::Rgb([1, 2, 3]));
        image.write_to(&mut bytes, image::ImageFormat::Png).expect("encoded");
        bytes.into_inner()
    }

    fn tar(path: &Path, members: &[(&str, &[u8])]) {
        let mut tar = tar::Builder::new(File::create(path).expect("made"));
        for (name, bytes) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            // Written by hand, since the builder refuses some names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, *bytes).expect("written");
        }
        tar.into_inner().expect("written");
    }

    /// Returns names and classes of the images, and the names of the classes.
    fn listed(path: &Path) -> Result<(Vec<(String, Option<u32>)>, Vec<String>), String> {
        let source = source::open(path, false).map_err(|e| e.to_string())?;
        let Index { images, classes, .. } = source.index();
        let images = images.iter().map(|listed| (listed.name.to_string(), listed.class));
        Ok((images.collect(), classes.names.clone()))
    }

    #[test]
    fn images_are_listed_with_classes_in_the_order_of_the_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let png = png();
        let path = |name: &str| folder.path().join(name);
        tar(&path("b.tar"), &[("x/3.cls", b"1\n"), ("x/3.png", &png), ("other.bin", b"")]);
        tar(
            &path("a.tar"),
            &[
                ("2.jpg", &png),
                ("2.json", br#"{"label": 4, "class": 0}"#),
                ("1.png", &png),
                // The class is that of the member `cls`, whatever is before or after it.
                ("1.txt", b"a caption"),
                ("1.cls", b"2"),
                ("1.json", b"0"),
            ],
        );
        let (images, classes) = listed(folder.path()).expect("whole");
        let images: Vec<_> = images.iter().map(|(name, class)| (&name[..], *class)).collect();
        assert_eq!(
            images,
            [("a.tar/2.jpg", Some(0)), ("a.tar/1.png", Some(2)), ("b.tar/x/3.png", Some(1))]
        );
        assert_eq!(classes, ["0", "1", "2"]);
        let source = source::open(folder.path(), false).expect("whole");
        for i in 0..3 {
            let image = source.image(i).expect("whole");
            assert_eq!((image.width, image.height), (2, 3));
            assert_eq!(source.size(i), Ok([2, 3]));
        }
        // With names, classes are in alphabetical order.
        tar(&path("b.tar"), &[("3.png", &png), ("3.txt", b"zebra")]);
        let (images, classes) = listed(folder.path()).expect("whole");
        assert_eq!(images.iter().map(|image| image.1).collect::<Vec<_>>(), [0, 1, 2].map(Some));
        assert_eq!(classes, ["0", "2", "zebra"]);
        // One file without classes.
        tar(&path("b.tar"), &[("3.png", &png), ("3.json", b"{}")]);
        assert_eq!(listed(&path("b.tar")), Ok((vec![("3.png".into(), None)], Vec::new())));
        let error = listed(folder.path()).expect_err("not all have classes");
        assert!(error.contains("no class for b.tar/3.png, but one for a.tar/2.jpg"), "{error}");
        // A folder with images is one of images.
        std::fs::write(path("image.png"), &png).expect("written");
        assert_eq!(listed(folder.path()), Ok((vec![("image.png".into(), None)], Vec::new())));
    }

    #[test]
    fn damaged_files_and_classes_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.tar");
        let png = png();
        for (members, message) in [
            (&[("../1.png", &png[..])][..], "the path of the entry `../1.png` is outside"),
            (&[("1.png", &png), ("1.cls", b"")], "the member `1.cls` is no class: empty"),
            (&[("1.png", &png), ("1.cls", b"\xff")], "the member `1.cls` is no class: not text"),
            (&[("1.png", &png), ("1.json", b"{")], "the member `1.json` is no class: EOF"),
            (&[("1.png", &png), ("1.json", b"-1")], "-1 is neither a number from 0 nor a name"),
            (&[("1.png", &png), ("1.cls", b"4000000000")], "more than the limit of 1000000"),
        ] {
            tar(&path, members);
            let error = listed(&path).expect_err(message);
            assert!(error.contains(message) && error.contains("a.tar"), "{error:?}: {message:?}");
        }
        tar(&path, &[("1.png", &png), ("2.png", &png), ("3.png", &png)]);
        let whole = std::fs::read(&path).expect("there");
        // In the header of the third member.
        let mut bytes = whole.clone();
        bytes[2 * 1024 + 5] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let error = listed(&path).expect_err("damaged");
        assert!(
            error.contains("a.tar: damaged after the member `2.png` (archive header"),
            "{error}"
        );
        std::fs::write(&path, &whole[..2 * 1024 + 100]).expect("written");
        let error = listed(&path).expect_err("truncated");
        assert!(
            error.contains("a.tar: damaged after the member `2.png` (failed to read"),
            "{error}"
        );
        // In the third member.
        std::fs::write(&path, &whole[..2 * 1024 + 512 + 9]).expect("written");
        let source = source::open(&path, false).expect("the rest is listed");
        let images = &source.index().images;
        assert_eq!(images.len(), 3);
        let problem = images[2].problem.as_deref().expect("it is cut");
        assert_eq!(problem, format!("truncated: 9 of its {} bytes are in the file", png.len()));
        assert!(images[1].problem.is_none() && source.image(1).is_ok());
    }
}
