//! Reading at offsets, by several threads at a time.

use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};

/// Bytes that are read at offsets: a file, or a part of the program.
pub enum Bytes {
    /// An open file.
    File(File),
    /// Bytes in memory.
    Memory(&'static [u8]),
}

impl Bytes {
    /// Returns the number of bytes.
    ///
    /// # Errors
    ///
    /// If the system does not tell it.
    pub fn len(&self) -> Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Reads `length` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// If there are fewer, or they cannot be read.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let end =
            offset.checked_add(length as u64).filter(|end| self.len().is_ok_and(|l| *end <= l));
        // Before a buffer is allocated: a damaged index can ask for anything.
        end.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let mut buffer = vec![0; length];
        match self {
            Self::File(file) => read_exact_at(file, &mut buffer, offset)?,
            Self::Memory(bytes) => buffer.copy_from_slice(&bytes[offset as usize..][..length]),
        }
        Ok(buffer)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> Result<()> {
    while !buffer.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[n..];
        offset += n as u64;
    }
    Ok(())
}

/// A buffered file that keeps its buffer in short forward seeks.
pub struct Forward(pub std::io::BufReader<File>);

impl Read for Forward {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.0.read(buffer)
    }
}

impl Seek for Forward {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        match to {
            SeekFrom::Current(by) => {
                self.0.seek_relative(by)?;
                self.0.stream_position()
            }
            to => self.0.seek(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_at_offsets_and_not_beyond_the_end() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), b"0123456789").expect("written");
        let file = Bytes::File(File::open(file.path()).expect("there"));
        for bytes in [file, Bytes::Memory(b"0123456789")] {
            assert_eq!(bytes.len().expect("known"), 10);
            assert_eq!(bytes.read(3, 4).expect("there"), b"3456");
            assert_eq!(bytes.read(10, 0).expect("nothing"), b"");
            for (offset, length) in [(7, 4), (11, 0), (u64::MAX, 1), (0, usize::MAX)] {
                assert!(bytes.read(offset, length).is_err(), "{offset} {length}");
            }
        }
    }
}
