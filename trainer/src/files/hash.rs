//! Hashes in hexadecimal.

use std::fs::File;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Returns the SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Returns the SHA-256 of a file, in hexadecimal, without reading all of it into memory.
///
/// # Errors
///
/// If the file cannot be read.
pub fn sha256_of_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}

/// Returns the hash that Git has for a file: SHA-1 of the word `blob`, its size, and its bytes.
///
/// # Errors
///
/// If the file cannot be read.
pub fn git_blob_of_file(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", file.metadata()?.len()));
    std::io::copy(&mut file, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}

/// Returns bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of FIPS 180-2.
    #[test]
    fn the_hashes_are_sha_256_and_that_of_git() {
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), want);
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), b"abc").expect("written");
        assert_eq!(sha256_of_file(file.path()).expect("readable"), want);
        // As `git hash-object` says.
        let want = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";
        assert_eq!(git_blob_of_file(file.path()).expect("readable"), want);
    }
}
