//! Parquet files in the layout of Hugging Face datasets.
//!
//! A column `image` or `img` has the bytes of PNG or JPEG files, alone or in a struct `{bytes, path}`. A
//! column `label` or `fine_label` has numbers of classes, whose names are in the metadata `huggingface`.
//!
//! A column is stored in pages of mostly 1 MB or 100 images, each of which is decompressed as a whole, with
//! the dictionary that it may refer to, of mostly up to 1 MB. When
//! a file is opened, only the headers of the pages and the labels are read. For an image, its page is read
//! and decompressed, and the last pages stay in memory up to [`CACHE`]: one pass in order reads each page
//! once, but in the random order of training about every image takes a page.

mod cache;
mod header;
mod pages;
pub mod splits;

use std::path::{Path, PathBuf};

use parquet::basic::Type;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader,
    ParquetStatisticsPolicy, RowGroupMetaData,
};
use serde_json::Value;

use self::cache::Cache;
use self::pages::{Chunk, Place, is_integer};
use super::classes::{by_number, is_image};
use super::decode::{DecodedImage, MAX_FILE, check_file};
use super::error::DataError;
use super::item::{Classes, Index, Listed, Stored};
use super::slow_bar::{SlowBar, Unit};
use super::source::{Candidate, Format, Source};
use crate::files::at::Bytes;
use crate::files::guard::caught;

/// Files, and folders of them without images beside them.
pub const FORMAT: Format = Format {
    what: "Parquet files of Hugging Face datasets (one, or a folder of them)",
    open: |candidate| {
        if !candidate.is_folder {
            let name = candidate.path.file_name().unwrap_or_default().to_string_lossy();
            let is_parquet = candidate.start.starts_with(b"PAR1");
            return is_parquet
                .then(|| open(candidate, vec![(name.into(), candidate.path.into())], None));
        }
        let mut names = Vec::new();
        list(candidate.path, "", DEPTH, &mut names)?;
        (!names.is_empty()).then(|| {
            let chosen = splits::choose(names);
            let chosen = chosen.map_err(|reason| DataError::archive(candidate.path, reason))?;
            let files = chosen.names.into_iter().map(|name| {
                let path = candidate.path.join(&name);
                (name, path)
            });
            open(candidate, files.collect(), chosen.note)
        })
    },
};

/// Maximum memory in bytes for pages that may be needed again. One page that is larger is kept too.
pub const CACHE: u64 = 64 << 20;

/// Depth of folders in which files are looked for: those of a configuration and a split.
const DEPTH: usize = 3;

/// Columns of images, the most usual first.
const IMAGES: [&str; 2] = ["image", "img"];

/// Columns of classes, the most usual first.
const LABELS: [&str; 2] = ["label", "fine_label"];

/// Minimum number of bytes of a file for each of its rows. A damaged file can claim any number of rows, which
/// take memory.
const BYTES_PER_ROW: u64 = 4;

/// Adds the names of the Parquet files in a folder to `names`. `None` if there are images or tar files, or
/// the folder cannot be read.
fn list(root: &Path, below: &str, depth: usize, names: &mut Vec<String>) -> Option<()> {
    for entry in std::fs::read_dir(root.join(below)).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let within = if below.is_empty() { name.to_string() } else { format!("{below}/{name}") };
        let lower = name.to_ascii_lowercase();
        if entry.path().is_dir() {
            if depth > 1 {
                list(root, &within, depth - 1, names)?;
            }
        } else if lower.ends_with(".parquet") {
            names.push(within);
        } else if is_image(&lower) || lower.ends_with(".tar") {
            return None;
        }
    }
    Some(())
}

/// Files whose pages were listed.
struct ParquetFiles {
    /// Opened for every read: there may be more of them than files that can be open.
    files: Vec<PathBuf>,
    chunks: Vec<Chunk>,
    pages: Vec<ImagePage>,
    cache: Cache<Vec<Option<ByteArray>>>,
    index: Index,
}

/// A page of images.
struct ImagePage {
    place: Place,
    chunk: usize,
    /// Number of the first image.
    first: usize,
    rows: usize,
}

/// Lists the images of files with these names.
fn open(
    candidate: &Candidate,
    files: Vec<(String, PathBuf)>,
    note: Option<String>,
) -> Result<Box<dyn Source>, DataError> {
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    let total = files.iter().map(|(_, path)| size(path)).sum();
    let mut bar = SlowBar::new(candidate.bar, "listing", Unit::Bytes, total);
    let (mut found, mut done) = (Found::default(), 0);
    for (number, (name, path)) in files.iter().enumerate() {
        found.add(number as u32, name, path)?;
        done += size(path);
        bar.advance(done);
    }
    let Found { images, chunks, pages, labels, names } = found;
    let (classes, images) = classes(candidate.path, images, labels, names)?;
    Ok(Box::new(ParquetFiles {
        files: files.into_iter().map(|(_, path)| path).collect(),
        chunks,
        pages,
        cache: Cache::new(CACHE),
        index: Index { images, classes, note },
    }))
}

/// What was found in files so far.
#[derive(Default)]
struct Found {
    images: Vec<Listed>,
    chunks: Vec<Chunk>,
    pages: Vec<ImagePage>,
    /// Class of each image, if it has one.
    labels: Vec<Option<u32>>,
    /// Names of classes in the metadata, with the file.
    names: Option<(Vec<String>, PathBuf)>,
}

impl Found {
    /// Adds the images of a file.
    fn add(&mut self, number: u32, name: &str, path: &Path) -> Result<(), DataError> {
        let io = |e| DataError::io(path, e);
        let wrong = |reason: String| DataError::archive(path, reason);
        let file = std::fs::File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let meta = metadata(&file).map_err(wrong)?;
        let file = Bytes::File(file);
        let columns = Columns::of(&meta).map_err(wrong)?;
        let stated: u64 =
            meta.row_groups().iter().map(|group| group.num_rows().max(0) as u64).sum();
        if stated > length / BYTES_PER_ROW {
            return Err(wrong(format!("{stated} rows in {length} bytes; it is damaged")));
        }
        let mut row = 0;
        for group in meta.row_groups() {
            let rows = rows(group).map_err(wrong)?;
            let (chunk, pages) =
                listed(number, &file, group.columns().get(columns.image), rows).map_err(wrong)?;
            for (place, rows) in pages {
                let first = self.images.len();
                self.pages.push(ImagePage { place, chunk: self.chunks.len(), first, rows });
                for row in row..row + rows {
                    let name = format!("{name}#{row}").into();
                    let stored = Stored::Page(chunk.stored(place));
                    self.images.push(Listed { name, class: None, problem: None, stored });
                }
                row += rows;
            }
            self.chunks.push(chunk);
            match columns.label {
                None => self.labels.extend(std::iter::repeat_n(None, rows)),
                Some((column, of)) => {
                    let (chunk, pages) =
                        listed(number, &file, group.columns().get(column), rows).map_err(wrong)?;
                    for (place, rows) in pages {
                        let labels = match of {
                            Type::INT32 => integers::<Int32Type>(&chunk, &file, place, rows),
                            _ => integers::<Int64Type>(&chunk, &file, place, rows),
                        };
                        let column = &columns.label_name;
                        let labels = labels.map_err(|e| wrong(format!("column `{column}`: {e}")));
                        self.labels.extend(labels?);
                    }
                }
            }
        }
        match (class_names(&meta, &columns.label_name), &self.names) {
            (Some(found), Some((known, first))) if found != *known => {
                let first = first.display();
                Err(wrong(format!("its classes are not those of {first}")))
            }
            (Some(found), None) => {
                self.names = Some((found, path.to_owned()));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Reads the table of contents.
fn metadata(file: &std::fs::File) -> Result<ParquetMetaData, String> {
    // Statistics are not needed, and can be large.
    let options = ParquetMetaDataOptions::new()
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let read =
        || ParquetMetaDataReader::new().with_metadata_options(Some(options)).parse_and_finish(file);
    // A damaged table can lead to a panic of the crate, which keeps nothing.
    let read = caught(read).ok_or("damaged (its table of contents)")?;
    read.map_err(|e| format!("damaged ({e})"))
}

/// Returns the number of rows of a row group.
fn rows(group: &RowGroupMetaData) -> Result<usize, String> {
    usize::try_from(group.num_rows()).map_err(|_| "damaged (its number of rows)".into())
}

/// Lists the pages of a column of a row group, which must have as many values as there are rows.
fn listed(
    number: u32,
    file: &Bytes,
    column: Option<&ColumnChunkMetaData>,
    rows: usize,
) -> Result<(Chunk, Vec<(Place, usize)>), String> {
    let column = column.ok_or("damaged (a row group without a column)")?;
    let (chunk, pages) = Chunk::list(number, file, column)?;
    let found: usize = pages.iter().map(|(_, rows)| rows).sum();
    if found != rows {
        let name = column.column_path().string();
        return Err(format!("column `{name}`: damaged ({found} values in {rows} rows)"));
    }
    Ok((chunk, pages))
}

/// Reads whole numbers. Negative ones, which stand for unknown, and missing ones are `None`.
fn integers<T: DataType<T: Into<i64>>>(
    chunk: &Chunk,
    file: &Bytes,
    place: Place,
    rows: usize,
) -> Result<Vec<Option<u32>>, String> {
    let values = chunk.read_from::<T>(file, place, rows)?;
    let class = |value: Option<T::T>| match value.map(Into::into) {
        None | Some(..0) => Ok(None),
        Some(class) => u32::try_from(class).map(Some).map_err(|_| format!("{class} is no class")),
    };
    values.into_iter().map(class).collect()
}

/// Columns that are read, by their numbers.
struct Columns {
    image: usize,
    label: Option<(usize, Type)>,
    label_name: String,
}

impl Columns {
    /// Finds the columns of a file.
    ///
    /// # Errors
    ///
    /// If there is none of images, or a column has values of another type.
    fn of(meta: &ParquetMetaData) -> Result<Self, String> {
        let schema = meta.file_metadata().schema_descr();
        let find = |path: &[&str]| {
            schema.columns().iter().position(|column| {
                column.path().parts().iter().map(String::as_str).eq(path.iter().copied())
            })
        };
        let image = IMAGES.iter().find_map(|name| {
            find(&[name, "bytes"]).or_else(|| find(&[name])).map(|column| (column, name))
        });
        let Some((image, name)) = image else {
            let mut found: Vec<&str> = schema
                .columns()
                .iter()
                .filter_map(|c| c.path().parts().first())
                .map(|s| &**s)
                .collect();
            found.dedup();
            return Err(format!(
                "no column `image` or `img` of images, but {}",
                found
                    .iter()
                    .take(20)
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        };
        let of = schema.column(image).physical_type();
        if of != Type::BYTE_ARRAY {
            return Err(format!(
                "the column `{name}` has values of type {of}, not files of images"
            ));
        }
        let label = LABELS.iter().find_map(|name| Some((find(&[name])?, name)));
        let Some((label, label_name)) = label else {
            return Ok(Self { image, label: None, label_name: String::new() });
        };
        let of = schema.column(label).physical_type();
        if !is_integer(of) {
            return Err(format!(
                "the column `{label_name}` has values of type {of}, not numbers of classes"
            ));
        }
        Ok(Self { image, label: Some((label, of)), label_name: (*label_name).to_string() })
    }
}

/// Returns the names of classes in the metadata of the library `datasets`.
fn class_names(meta: &ParquetMetaData, label: &str) -> Option<Vec<String>> {
    let pairs = meta.file_metadata().key_value_metadata()?;
    let text = pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_ref()?;
    let json: Value = serde_json::from_str(text).ok()?;
    let names = json.get("info")?.get("features")?.get(label)?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(String::from)).collect()
}

/// Adds classes to images, and returns the classes.
fn classes(
    path: &Path,
    mut images: Vec<Listed>,
    labels: Vec<Option<u32>>,
    names: Option<(Vec<String>, PathBuf)>,
) -> Result<(Classes, Vec<Listed>), DataError> {
    let wrong = |reason: String| DataError::archive(path, reason);
    let Some(with) = labels.iter().position(Option::is_some) else {
        return Ok((Classes::default(), images));
    };
    if let Some(without) = labels.iter().position(Option::is_none) {
        let [with, without] = [with, without].map(|i| &images[i].name);
        return Err(wrong(format!("no class for {without}, but one for {with}")));
    }
    let max = labels.iter().flatten().max().copied();
    let classes = match names {
        Some((names, _)) => {
            let max = max.map_or(0, |max| max as usize);
            if max >= names.len() {
                return Err(wrong(format!("{} class names, but a label is {max}", names.len())));
            }
            names.into()
        }
        None => by_number(max).map_err(wrong)?,
    };
    for (listed, class) in images.iter_mut().zip(labels) {
        listed.class = class;
    }
    Ok((classes, images))
}

impl ParquetFiles {
    /// Returns the file of an image.
    fn file(&self, i: usize) -> Result<ByteArray, String> {
        let number = self.pages.partition_point(|page| page.first <= i) - 1;
        let ImagePage { place, chunk, first, rows } = self.pages[number];
        let chunk = &self.chunks[chunk];
        let path = &self.files[chunk.file as usize];
        let read = || chunk.read::<ByteArrayType>(path, place, rows);
        let page = self.cache.get(number, chunk.memory(place, rows), read)?;
        let bytes = page[i - first].clone().ok_or("no image in this row")?;
        check_file(bytes.len() as u64)?;
        Ok(bytes)
    }
}

impl Source for ParquetFiles {
    fn index(&self) -> &Index {
        &self.index
    }

    fn image(&self, i: usize) -> Result<DecodedImage, String> {
        DecodedImage::decode(self.file(i)?.data())
    }

    fn size(&self, i: usize) -> Result<[usize; 2], String> {
        let file = self.file(i)?;
        DecodedImage::size(|limit| {
            let limit = limit.min(MAX_FILE).min(file.len() as u64);
            Ok(file.data()[..limit as usize].to_vec())
        })
    }
}

#[cfg(test)]
mod tests;
