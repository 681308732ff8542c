//! Pages of a column: where they are, and their values.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::basic::{Compression, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescPtr;

use super::header::{Bad, Header, Kind, Plain};
use crate::files::at::Bytes as File;
use crate::files::guard::caught;

/// Number of bytes that mostly contain the header of a page. With statistics, one may have some
/// thousands.
const START: u64 = 4 << 10;

/// Maximum size of the header of a page in bytes.
const MAX_HEADER: u64 = 1 << 20;

/// Maximum size of a decompressed page in bytes.
pub const MAX_PAGE: u32 = 1 << 30;

/// A part of a file that has values of one column.
pub struct Chunk {
    /// Number of the file.
    pub file: u32,
    column: ColumnDescPtr,
    compression: Compression,
    /// The values to which its pages refer.
    dictionary: Option<Place>,
}

/// Position of a page.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    offset: u64,
    /// Number of bytes of the header and the page.
    length: u32,
    uncompressed: u32,
}

impl Chunk {
    /// Returns the number of bytes in the file of a page and of the values that it refers to.
    pub fn stored(&self, page: Place) -> u64 {
        let dictionary = self.dictionary.map_or(0, |place| place.length);
        u64::from(page.length) + u64::from(dictionary)
    }

    /// Returns the memory in bytes for a page of `rows` values, with the values that it refers to.
    pub fn memory(&self, page: Place, rows: usize) -> u64 {
        let dictionary = self.dictionary.map_or(0, |place| place.uncompressed);
        u64::from(page.uncompressed) + u64::from(dictionary) + 64 * rows as u64
    }

    /// Lists the pages of a column of a row group, with their numbers of values. Only headers are read.
    ///
    /// # Errors
    ///
    /// If the file is damaged or too large to read, or the values are repeated in a row.
    pub fn list(
        number: u32,
        file: &File,
        meta: &ColumnChunkMetaData,
    ) -> Result<(Self, Vec<(Place, usize)>), String> {
        let column = meta.column_descr_ptr();
        let name = column.path().string();
        let wrong = |reason: &str| format!("column `{name}`: {reason}");
        if column.max_rep_level() != 0 {
            return Err(wrong("lists of values, not one value in each row"));
        }
        if meta.file_path().is_some_and(|path| !path.is_empty()) {
            return Err(wrong("its values are in another file"));
        }
        let compression = meta.compression();
        if let Some(name) = unsupported(compression) {
            return Err(wrong(&format!(
                "compressed with {name}; only Snappy, Zstandard and gzip are read: write the file again, for \
                 example with PyArrow: pq.write_table(pq.read_table(\"OLD\"), \"NEW\", compression=\"zstd\")"
            )));
        }
        let size = file.len().map_err(|e| e.to_string())?;
        let offset = |offset: i64| u64::try_from(offset).map_err(|_| wrong("damaged (its place)"));
        let data = offset(meta.data_page_offset())?;
        // Some writers store 0 where there is no dictionary.
        let start = match meta.dictionary_page_offset() {
            Some(at) if at > 0 => data.min(offset(at)?),
            _ => data,
        };
        let end = start.checked_add(offset(meta.compressed_size())?).filter(|end| *end <= size);
        let end = end.ok_or_else(|| wrong("truncated"))?;
        let mut chunk = Self { file: number, column, compression, dictionary: None };
        let mut pages = Vec::new();
        let mut at = start;
        while at < end {
            let header = header(file, at, end).map_err(|e| wrong(&e))?;
            let length = header.length as u64 + u64::from(header.compressed);
            let whole = u32::try_from(length).ok().filter(|_| length <= end - at);
            let length = whole.ok_or_else(|| wrong("a page is larger than its column"))?;
            let place = Place { offset: at, length, uncompressed: header.uncompressed };
            chunk.check_size(&header).map_err(|e| wrong(&e))?;
            match header.kind {
                Kind::Data(values) => pages.push((place, values as usize)),
                Kind::Dictionary if chunk.dictionary.is_none() && pages.is_empty() => {
                    chunk.dictionary = Some(place);
                }
                Kind::Dictionary => return Err(wrong("damaged (two dictionaries)")),
                Kind::Other => {}
            }
            at += u64::from(length);
        }
        Ok((chunk, pages))
    }

    /// Checks that a page may be decompressed, before memory for it is allocated.
    fn check_size(&self, header: &Header) -> Result<(), String> {
        let [compressed, uncompressed] = [header.compressed, header.uncompressed].map(u64::from);
        // Snappy's shortest element of 3 bytes is a copy of 64, and that of gzip of 2 bits one of 258.
        // Zstandard can compress more, but images are compressed already.
        let most = match self.compression {
            Compression::UNCOMPRESSED => compressed,
            Compression::SNAPPY => 32 * compressed + 64,
            _ => 1_032 * compressed + 64,
        };
        if uncompressed > most || uncompressed > MAX_PAGE.into() {
            return Err(format!(
                "a page of {compressed} bytes that decompresses to {uncompressed}, more than the limit \
                 of {}",
                most.min(MAX_PAGE.into())
            ));
        }
        Ok(())
    }

    /// Reads the values of a page, which are `rows`. `None` is a missing value.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is damaged.
    pub fn read<T: DataType>(
        &self,
        path: &Path,
        page: Place,
        rows: usize,
    ) -> Result<Vec<Option<T::T>>, String> {
        let file = std::fs::File::open(path).map_err(|e| format!("cannot be read ({e})"))?;
        self.read_from::<T>(&File::File(file), page, rows)
    }

    /// Reads the values of a page as [`Chunk::read`] does, from an open file.
    ///
    /// # Errors
    ///
    /// As [`Chunk::read`].
    pub fn read_from<T: DataType>(
        &self,
        file: &File,
        page: Place,
        rows: usize,
    ) -> Result<Vec<Option<T::T>>, String> {
        let bytes = |place: Place| {
            let read = file.read(place.offset, place.length as usize);
            read.map(Bytes::from).map_err(|e| format!("cannot be read ({e})"))
        };
        let dictionary = self.dictionary.map(bytes).transpose()?;
        let page = bytes(page)?;
        // The crate slices the values of a damaged page beyond its end, for example, and panics. What it
        // works on is not used afterwards.
        caught(|| self.decode::<T>(dictionary, page, rows))
            .unwrap_or_else(|| Err(ParquetError::EOF("its values end early".into())))
            .map_err(|e| format!("damaged ({e})"))
    }

    fn decode<T: DataType>(
        &self,
        dictionary: Option<Bytes>,
        page: Bytes,
        rows: usize,
    ) -> ParquetResult<Vec<Option<T::T>>> {
        let pages = dictionary.into_iter().chain([page]).map(|bytes| self.page(bytes));
        let pages = Pages(pages.collect::<ParquetResult<_>>()?);
        let max = self.column.max_def_level();
        let mut reader = ColumnReaderImpl::<T>::new(self.column.clone(), Box::new(pages));
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let (found, _, _) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
        if found != rows {
            return Err(ParquetError::General(format!("{found} values, not {rows}")));
        }
        if max == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        Ok(levels
            .into_iter()
            .map(|level| if level == max { values.next() } else { None })
            .collect())
    }

    /// Decompresses a page.
    fn page(&self, bytes: Bytes) -> ParquetResult<Page> {
        if matches!(self.compression, Compression::GZIP(_)) {
            check_gzip(&bytes)?;
        }
        let meta = ColumnChunkMetaData::builder(self.column.clone())
            .set_compression(self.compression)
            .set_data_page_offset(0)
            .set_total_compressed_size(bytes.len() as i64)
            .build()?;
        let mut reader = SerializedPageReader::new(Arc::new(bytes), &meta, 0, None)?;
        reader.get_next_page()?.ok_or_else(|| ParquetError::EOF("no page".into()))
    }
}

/// Reads the header of the page at an offset of a column that ends at `end`.
fn header(file: &File, at: u64, end: u64) -> Result<Header, String> {
    let parse = |limit: u64| {
        let bytes = file.read(at, limit.min(end - at) as usize).map_err(|e| e.to_string())?;
        Ok::<_, String>(Header::parse(&bytes))
    };
    let found = match parse(START)? {
        Err(Bad::Cut) => parse(MAX_HEADER)?,
        found => found,
    };
    found.map_err(|_| "damaged (no page at its place)".to_string())
}

/// Returns the name of a compression that is not read.
fn unsupported(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::UNCOMPRESSED
        | Compression::SNAPPY
        | Compression::ZSTD(_)
        | Compression::GZIP(_) => None,
        Compression::BROTLI(_) => Some("Brotli"),
        Compression::LZ4 | Compression::LZ4_RAW => Some("LZ4"),
        Compression::LZO => Some("LZO"),
    }
}

/// Checks that a page with its header does not decompress to more bytes than the header says. The crate
/// would decompress any number.
fn check_gzip(bytes: &[u8]) -> ParquetResult<()> {
    let wrong = |reason: &str| ParquetError::General(reason.into());
    let header = Header::parse(bytes).map_err(|_| wrong("no page at its place"))?;
    let Plain::Start(plain) = header.plain else { return Ok(()) };
    let compressed = bytes.get(header.length + plain as usize..);
    let compressed = compressed.ok_or_else(|| wrong("its levels are larger than the page"))?;
    let most = u64::from(header.uncompressed.saturating_sub(plain));
    let mut values = MultiGzDecoder::new(compressed).take(most + 1);
    if io::copy(&mut values, &mut io::sink())? > most {
        return Err(wrong("it decompresses to more bytes than its header says"));
    }
    Ok(())
}

/// Returns whether values of a type are whole numbers.
pub fn is_integer(of: Type) -> bool {
    matches!(of, Type::INT32 | Type::INT64)
}

/// Pages that are in memory.
struct Pages(VecDeque<Page>);

impl Iterator for Pages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.pop_front().map(Ok)
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        Ok(self.0.pop_front())
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        Ok(self.0.front().map(|page| PageMetadata {
            num_rows: None,
            num_levels: page.is_data_page().then(|| page.num_values() as usize),
            is_dict: page.is_dictionary_page(),
        }))
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.0.pop_front();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    /// A header of version 2 with 2 bytes of levels, and sizes of one byte.
    fn page(uncompressed: u8, is_compressed: bool, values: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(values).expect("written");
        let compressed = gzip.finish().expect("compressed");
        let flag = if is_compressed { 0x11 } else { 0x12 };
        let header = [
            0x15,
            6,
            0x15,
            2 * uncompressed,
            0x15,
            20,
            0x5c,
            0x15,
            2,
            0x15,
            0,
            0x15,
            2,
            0x15,
            0,
            0x15,
            4,
            0x15,
            0,
            flag,
            0,
            0,
        ];
        [&header[..], &[7, 7], &compressed].concat()
    }

    #[test]
    fn pages_of_gzip_are_as_large_as_their_headers_say() {
        let (small, large) = ([1; 10], vec![1; 1 << 20]);
        check_gzip(&page(12, true, &small)).expect("10 bytes after 2 of levels");
        check_gzip(&page(40, true, &small)).expect("fewer, which the crate finds");
        check_gzip(&page(12, false, &large)).expect("not compressed at all");
        for (uncompressed, values) in [(11, &small[..]), (12, &large), (0, &small)] {
            let page = page(uncompressed, true, values);
            let used = allocation_counter::measure(|| {
                let error = check_gzip(&page).expect_err("more");
                assert!(error.to_string().contains("more bytes than its header says"), "{error}");
            });
            assert!(used.bytes_max < 1 << 18, "{} bytes", used.bytes_max);
        }
        let whole = page(12, true, &small);
        assert!(check_gzip(&whole[..whole.len() - 9]).is_err());
        assert!(check_gzip(&whole[..23]).is_err() && check_gzip(&whole[..9]).is_err());
    }
}
