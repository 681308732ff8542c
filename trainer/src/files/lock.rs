//! Advisory file locks.

use std::fs::{File, TryLockError};

/// Locks a file for this process until it is closed. Returns `false` if another process holds the
/// lock.
///
/// # Errors
///
/// If the file system does not support locks.
pub fn try_lock(file: &File) -> std::io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
