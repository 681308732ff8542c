//! Parts that the fuzz targets share: each reads files or texts of one format, which it starts from small valid
//! ones.
//!
//! A target finds a panic, memory without bounds, or a file that is read otherwise than it was written.

#[path = "../../tests/support/formats.rs"]
pub mod formats;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A reader of files, which may take a path to write a file to.
pub type Read = fn(&[u8], &Path) -> Result<(), String>;

/// Makes a fuzz target of a name, a function that returns valid files, and a [`Read`].
#[macro_export]
macro_rules! target {
    ($name:literal, $valid:path, $read:path) => {
        ::libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds($name, &$valid()),
            |bytes: &[u8]| $crate::read(bytes, $read)
        );
    };
}

/// Writes valid files to the corpus of a target, before it is read.
///
/// # Panics
///
/// If they cannot be written.
pub fn write_seeds(target: &str, valid: &[Vec<u8>]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder).expect("a folder for the corpus");
    for (number, file) in valid.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number}")), file).expect("a seed");
    }
}

/// Reads a file with a reader, which may refuse it.
pub fn read(bytes: &[u8], read: Read) {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH
        .get_or_init(|| std::env::temp_dir().join(format!("diffit-fuzz-{}", std::process::id())));
    let _ = read(bytes, path);
}
