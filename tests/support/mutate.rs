//! Damaged and malicious files: crafted ones, and those that are made from valid ones.

use std::path::PathBuf;

use model::noise::{Random, Stream};

/// Numbers that sizes, offsets and counts are replaced with.
const NUMBERS: [u64; 10] =
    [0, 1, 2, 255, 65_535, 1 << 31, u32::MAX as u64, 1 << 40, i64::MAX as u64, u64::MAX];

/// A reader of files, and the memory that it may take.
pub struct Reader<R, M> {
    /// Reads a file.
    pub read: R,
    /// Returns the largest number of bytes that are allocated at a time in a call of this thread.
    pub measure: M,
    /// Factor of a file's size in the number of bytes that it may allocate.
    pub times: usize,
    /// Bytes that it may allocate in addition.
    pub more: usize,
}

/// Returns the crafted files of a format, `tests/corpus/FORMAT`, with their paths.
///
/// # Panics
///
/// If there are none.
pub fn corpus(format: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = crate::root().join("tests/corpus").join(format);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{}: no files", folder.display());
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

/// Reads the crafted files of a format, then `count` files that are made from valid ones. Some of the
/// latter must be refused, and none of all may take more memory than the reader may.
///
/// # Panics
///
/// If one does, or a valid file is refused, or the reader panics.
pub fn read_all<E: std::fmt::Debug>(
    format: &str,
    valid: &[Vec<u8>],
    count: u64,
    reader: Reader<impl Fn(&[u8]) -> Result<(), E>, impl Fn(&mut dyn FnMut()) -> u64>,
) {
    let Reader { read, measure, times, more } = reader;
    for valid in valid {
        read(valid).expect("a valid file");
    }
    let limit = |file: &[u8]| (times * file.len() + more) as u64;
    for (path, file) in corpus(format) {
        // It is shown if the reader panics.
        println!("{}", path.display());
        let used = measure(&mut || {
            let _ = read(&file);
        });
        let limit = limit(&file);
        assert!(used <= limit, "{} took {used} bytes, not {limit}", path.display());
    }
    let (mut refused, mut most) = (0, 0);
    for number in 0..count {
        let file = mutated(valid, number);
        let used = measure(&mut || refused += u64::from(read(&file).is_err()));
        most = most.max(used);
        let limit = limit(&file);
        assert!(used <= limit, "file {number} of {} bytes took {used}, not {limit}", file.len());
    }
    println!("{refused} of {count} files were refused; the most memory was {most} bytes");
    assert!(refused > count / 10, "only {refused} of {count} files were refused");
}

/// Returns the `number`-th file that is made from valid ones, with one to four changes: flipped bits,
/// other bytes, other numbers, missing, repeated and moved parts, and cut ends. It is always the same.
///
/// # Panics
///
/// If there is no valid file.
pub fn mutated(valid: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = Random::new(number, Stream::Order, 0);
    let mut file = choice(valid, &mut random).clone();
    for _ in 0..=random.below(4) {
        change(&mut file, valid, &mut random);
    }
    file
}

fn choice<'a, T>(all: &'a [T], random: &mut Random) -> &'a T {
    &all[random.below(all.len() as u32) as usize]
}

/// Returns a place in a file. Half of them are near its start or its end, where archives and other
/// formats have their tables.
fn place(length: usize, random: &mut Random) -> usize {
    let anywhere = random.below(length.max(1) as u32) as usize;
    match random.below(4) {
        0 => anywhere.min(random.below(600) as usize),
        1 => anywhere.max(length.saturating_sub(1 + random.below(600) as usize)),
        _ => anywhere,
    }
}

/// Returns a part of a file, mostly a short one.
fn part(file: &[u8], random: &mut Random) -> std::ops::Range<usize> {
    let start = place(file.len(), random).min(file.len());
    let longest = if random.below(4) == 0 { 5_000 } else { 40 };
    start..file.len().min(start + random.below(longest) as usize)
}

fn change(file: &mut Vec<u8>, valid: &[Vec<u8>], random: &mut Random) {
    let at = place(file.len(), random);
    match random.below(9) {
        0 | 1 => {
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(byte) = file.get_mut(at) {
                *byte = *choice(&[0, 0xff, b'9', b'{', b'"', random.bits() as u8], random);
            }
        }
        // A number of two, four or eight bytes, in either order.
        3 | 4 => {
            let number = *choice(&NUMBERS, random);
            let size = *choice(&[2, 4, 8], random);
            let bytes = match random.below(2) {
                0 => number.to_le_bytes()[..size].to_vec(),
                _ => number.to_be_bytes()[8 - size..].to_vec(),
            };
            for (to, from) in file.iter_mut().skip(at).zip(bytes) {
                *to = from;
            }
        }
        // A number in text.
        5 => {
            let digit = |i: &usize| file[*i].is_ascii_digit();
            if let Some(start) = (at..file.len()).find(digit) {
                let end = (start..file.len()).find(|i| !digit(i)).unwrap_or(file.len());
                let number = match random.below(3) {
                    0 => "-1".to_string(),
                    1 => "1e400".to_string(),
                    _ => choice(&NUMBERS, random).to_string(),
                };
                file.splice(start..end, number.into_bytes());
            }
        }
        6 => {
            file.truncate(at);
        }
        7 => {
            let part = part(file, random);
            file.drain(part);
        }
        _ => {
            let other = choice(valid, random);
            let part = other[part(other, random)].to_vec();
            let at = at.min(file.len());
            file.splice(at..at, part);
        }
    }
}
