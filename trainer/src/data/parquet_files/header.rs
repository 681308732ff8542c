//! Headers of pages, in Thrift's compact protocol.
//!
//! The crate `parquet` reads the pages of a column one after the other and does not say where they are,
//! except for files with an index of pages, which few have. Of a header, only sizes and counts are read
//! here.

/// Header of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Number of bytes of the header.
    pub length: usize,
    /// Number of bytes that follow the header.
    pub compressed: u32,
    /// Number of bytes of the page when it is decompressed.
    pub uncompressed: u32,
    /// The part of the page that is not compressed, whatever the compression of its column.
    pub plain: Plain,
}

/// A part of a page that is not compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// This number of bytes at its start: the levels of a page of version 2.
    Start(u32),
    /// All of it.
    All,
}

/// Kind of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Values, of this number.
    Data(u32),
    /// Values to which pages with values refer.
    Dictionary,
    /// A page without values.
    Other,
}

/// Reason why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// There are too few bytes.
    Cut,
    /// It is no header of a page.
    Wrong,
}

/// Types of the compact protocol.
mod types {
    pub const STOP: u8 = 0;
    pub const TRUE: u8 = 1;
    pub const FALSE: u8 = 2;
    pub const BYTE: u8 = 3;
    pub const I16: u8 = 4;
    pub const I32: u8 = 5;
    pub const I64: u8 = 6;
    pub const DOUBLE: u8 = 7;
    pub const BINARY: u8 = 8;
    pub const LIST: u8 = 9;
    pub const SET: u8 = 10;
    pub const STRUCT: u8 = 12;
}

/// Depth of structs within structs. Headers of pages have two levels, and statistics below them.
const MAX_DEPTH: u8 = 8;

impl Header {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// If there are too few bytes, or it is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, Bad> {
        let mut thrift = Thrift { bytes, at: 0 };
        let (mut kind, mut sizes) = (None, [None; 2]);
        // By the kinds of headers.
        let [mut first, mut second] = [None::<Values>; 2];
        let mut has_dictionary = false;
        thrift.fields(MAX_DEPTH, |thrift, id, of| {
            match (id, of) {
                (1, types::I32) => kind = Some(thrift.integer()?),
                (2 | 3, types::I32) => {
                    let size = thrift.integer()?;
                    sizes[usize::from(id == 3)] =
                        Some(u32::try_from(size).map_err(|_| Bad::Wrong)?);
                }
                (5, types::STRUCT) => first = Some(thrift.values()?),
                (7, types::STRUCT) => {
                    thrift.values()?;
                    has_dictionary = true;
                }
                (8, types::STRUCT) => second = Some(thrift.values()?),
                _ => thrift.skip(of, MAX_DEPTH)?,
            }
            Ok(())
        })?;
        let kind = match kind {
            Some(0) => Kind::Data(first.ok_or(Bad::Wrong)?.number),
            Some(3) => Kind::Data(second.ok_or(Bad::Wrong)?.number),
            Some(2) if has_dictionary => Kind::Dictionary,
            Some(1) => Kind::Other,
            _ => return Err(Bad::Wrong),
        };
        let [Some(uncompressed), Some(compressed)] = sizes else { return Err(Bad::Wrong) };
        let plain = second.map_or(Plain::Start(0), |values| values.plain);
        Ok(Self { kind, length: thrift.at, compressed, uncompressed, plain })
    }
}

/// The fields that are used of a header of a kind of pages.
#[derive(Clone, Copy)]
struct Values {
    number: u32,
    /// Of version 2 only.
    plain: Plain,
}

/// A reader of the compact protocol.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Result<u8, Bad> {
        let byte = *self.bytes.get(self.at).ok_or(Bad::Cut)?;
        self.at += 1;
        Ok(byte)
    }

    fn pass(&mut self, count: u64) -> Result<(), Bad> {
        let left = (self.bytes.len() - self.at) as u64;
        if count > left {
            return Err(Bad::Cut);
        }
        self.at += count as usize;
        Ok(())
    }

    fn unsigned(&mut self) -> Result<u64, Bad> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Bad::Wrong)
    }

    fn integer(&mut self) -> Result<i64, Bad> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Passes the number and the type of every field of a struct to `each`, which must read the field.
    fn fields(
        &mut self,
        depth: u8,
        mut each: impl FnMut(&mut Self, i64, u8) -> Result<(), Bad>,
    ) -> Result<(), Bad> {
        if depth == 0 {
            return Err(Bad::Wrong);
        }
        let mut id = 0i64;
        loop {
            let byte = self.byte()?;
            let of = byte & 0x0f;
            if of == types::STOP {
                return Ok(());
            }
            id = match byte >> 4 {
                0 => self.integer()?,
                by => id.saturating_add(by.into()),
            };
            each(self, id, of)?;
        }
    }

    /// Reads a header of a kind of pages, whose first field is the number of values. In version 2, the
    /// fields 5 and 6 are the sizes of levels, and 7 tells whether the rest is compressed.
    fn values(&mut self) -> Result<Values, Bad> {
        let (mut number, mut levels, mut is_compressed) = (None, [0; 2], true);
        self.fields(MAX_DEPTH - 1, |thrift, id, of| {
            match (id, of) {
                (1, types::I32) => number = Some(thrift.integer()?),
                (5 | 6, types::I32) => levels[usize::from(id == 6)] = thrift.integer()?,
                (7, types::TRUE | types::FALSE) => is_compressed = of == types::TRUE,
                _ => thrift.skip(of, MAX_DEPTH - 1)?,
            }
            Ok(())
        })?;
        let size = |size: i64| u32::try_from(size).map_err(|_| Bad::Wrong);
        let levels = size(levels[0])?.checked_add(size(levels[1])?).ok_or(Bad::Wrong)?;
        let plain = if is_compressed { Plain::Start(levels) } else { Plain::All };
        Ok(Values { number: size(number.ok_or(Bad::Wrong)?)?, plain })
    }

    fn skip(&mut self, of: u8, depth: u8) -> Result<(), Bad> {
        match of {
            // The value is a part of the type.
            types::TRUE | types::FALSE => Ok(()),
            types::BYTE => self.pass(1),
            types::I16 | types::I32 | types::I64 => self.unsigned().map(|_| ()),
            types::DOUBLE => self.pass(8),
            types::BINARY => {
                let length = self.unsigned()?;
                self.pass(length)
            }
            types::LIST | types::SET if depth > 0 => {
                let byte = self.byte()?;
                let count = match byte >> 4 {
                    15 => self.unsigned()?,
                    count => count.into(),
                };
                for _ in 0..count {
                    match byte & 0x0f {
                        types::TRUE | types::FALSE => self.pass(1)?,
                        of => self.skip(of, depth - 1)?,
                    }
                }
                Ok(())
            }
            types::STRUCT if depth > 0 => {
                self.fields(depth - 1, |thrift, _, of| thrift.skip(of, depth - 1))
            }
            // Maps are in no header of a page.
            _ => Err(Bad::Wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 1 is the kind, 2 and 3 are the sizes 300 and 5, and 5 is a header with 7 values.
    const DATA: [u8; 14] = [0x15, 0, 0x15, 0xd8, 0x04, 0x15, 10, 0x2c, 0x15, 14, 0x15, 0, 0, 0];

    #[test]
    fn headers_are_read() {
        let want = Header {
            kind: Kind::Data(7),
            length: 14,
            compressed: 5,
            uncompressed: 300,
            plain: Plain::Start(0),
        };
        assert_eq!(Header::parse(&DATA), Ok(want));
        let followed = [&DATA[..], &[9; 20]].concat();
        assert_eq!(Header::parse(&followed), Ok(want));
        for end in 0..DATA.len() {
            assert_eq!(Header::parse(&DATA[..end]), Err(Bad::Cut), "{end}");
        }
        // Statistics and a checksum in between: a struct with text, a list of structs, a double.
        let more = [
            0x15, 0, 0x15, 0xd8, 0x04, 0x15, 10, 0x15, 3, 0x1c, 0x15, 14, 0x4c, 0x18, 2, b'a',
            b'b', 0x11, 0x19, 0x2c, 0, 0, 0x17, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0,
        ];
        assert_eq!(Header::parse(&more), Ok(Header { length: more.len(), ..want }));
        // Version 2, with 4 and 1 bytes of levels.
        for (is_compressed, plain) in [(types::TRUE, Plain::Start(5)), (types::FALSE, Plain::All)] {
            let second = [
                0x15,
                6,
                0x15,
                0xd8,
                0x04,
                0x15,
                10,
                0x5c,
                0x15,
                14,
                0x15,
                0,
                0x15,
                14,
                0x15,
                0,
                0x15,
                8,
                0x15,
                2,
                0x10 | is_compressed,
                0,
                0,
            ];
            let want = Header { length: second.len(), plain, ..want };
            assert_eq!(Header::parse(&second), Ok(want));
        }
    }

    #[test]
    fn damaged_headers_are_refused() {
        for (place, byte) in [(1, 1 << 4), (6, 9), (9, 13), (7, 0x1b)] {
            let mut bytes = DATA;
            bytes[place] = byte;
            assert_eq!(Header::parse(&bytes), Err(Bad::Wrong), "{place}");
        }
        assert_eq!(Header::parse(&[0xff; 40]), Err(Bad::Wrong));
        // Structs without end.
        assert_eq!(Header::parse(&[0x1c; 4_000]), Err(Bad::Wrong));
    }
}
