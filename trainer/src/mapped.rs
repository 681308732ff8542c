//! Large files, which the system reads where they are looked at.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

/// Maps a file into memory.
///
/// # Errors
///
/// If it cannot be read.
#[allow(unsafe_code)]
pub fn map(path: &Path) -> std::io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is only read, and files like these are replaced as a whole and not written
    // to in place. Should someone do that all the same, values change or the process ends.
    unsafe { Mmap::map(&file) }
}
