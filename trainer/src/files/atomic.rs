//! Atomic file writes.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Prefix of the names of temporary files. A crash can leave such files behind.
pub const TEMPORARY_PREFIX: &str = ".writing-";

/// Writes a file atomically: to a temporary file in the same folder, which is synced and renamed.
///
/// A link is followed: the file that it names is written. What is not a regular file, such as
/// `/dev/null` or a pipe, is written to as it is, and not atomically: a renamed file would take its
/// place.
///
/// # Errors
///
/// If the file cannot be written. The old file, if any, is then unchanged.
pub fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes a file atomically, as [`write()`] does, with the bytes that `content` writes to it.
///
/// # Errors
///
/// As [`write()`], or the error of `content`.
pub fn write_with(
    path: &Path,
    content: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let resolved = fs::canonicalize(path);
    let path = resolved.as_deref().unwrap_or(path);
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return content(&mut File::options().write(true).open(path)?);
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    // By default, temporary files are readable by their owner only. The umask applies to this mode.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(TEMPORARY_PREFIX).tempfile_in(folder)?;
    content(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Writes a file atomically without syncing it, for files that can be made again: if the process is
/// killed, the file is complete or absent, but after a power failure it may be damaged.
///
/// # Errors
///
/// If the file cannot be written. The old file, if any, is then unchanged.
pub fn write_unsynced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = std::ffi::OsString::from(format!("{TEMPORARY_PREFIX}{}-", std::process::id()));
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // On a full disk, what was written is in the way.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Appends bytes to a file that is open for appending. After an error, nothing of them remains.
///
/// # Errors
///
/// If the file cannot be written.
pub fn append(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    // A single write: a crash does not leave a part of the bytes.
    let written = file.write_all(bytes);
    if written.is_err() {
        let _ = file.set_len(length);
    }
    written
}

/// Removes temporary files that a crash left in a folder. Errors are ignored: such files do no
/// harm.
pub fn remove_temporary(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        write(&path, b"old").expect("written");
        assert!(write(&path.join("below-a-file"), b"new").is_err());
        assert_eq!(fs::read(&path).expect("there"), b"old");
        write(&path, b"new").expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"new");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_pipes_stay() {
        use std::os::unix::fs::{FileTypeExt, symlink};

        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, b"old").expect("written");
        symlink("file", &link).expect("made");
        write(&link, b"new").expect("written");
        assert_eq!(fs::read(&file).expect("there"), b"new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || fs::read(pipe).expect("read"))
        };
        write(&pipe, b"new").expect("written");
        assert!(fs::metadata(&pipe).expect("there").file_type().is_fifo());
        assert_eq!(reader.join().expect("it ends"), b"new");
    }

    #[test]
    fn a_failed_unsynced_write_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        write_unsynced(&path, b"old").expect("written");
        write_unsynced(&path, b"new").expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"new");
        // A folder cannot be replaced.
        fs::create_dir(folder.path().join("taken")).expect("made");
        assert!(write_unsynced(&folder.path().join("taken"), b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2);
    }

    #[test]
    fn only_temporary_files_are_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in [".writing-a1b2c3", "kept", ".kept"] {
            fs::write(folder.path().join(name), b"x").expect("written");
        }
        remove_temporary(folder.path());
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .expect("there")
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        names.sort();
        assert_eq!(names, [".kept", "kept"]);
    }
}
