//! Memory-mapped files.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

/// Maps a file into memory, read-only.
///
/// # Errors
///
/// If the file cannot be opened or mapped.
#[allow(unsafe_code)]
pub fn map(path: &Path) -> std::io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is only read. This program replaces such files by renaming and never writes
    // to them in place. If another program does, values change or the process is killed.
    unsafe { Mmap::map(&file) }
}
