//! Advisory file locks.

use std::fs::{File, TryLockError};
use std::io::Result;

/// Locks a file for this process until it is closed. Returns `false` if another process holds the
/// lock.
///
/// # Errors
///
/// If the file system does not support locks.
pub fn try_lock(file: &File) -> Result<bool> {
    obtained(file.try_lock())
}

/// Locks a file together with other processes that do the same. Returns `false` if another process
/// holds the lock alone.
///
/// # Errors
///
/// If the file system does not support locks.
pub fn try_lock_shared(file: &File) -> Result<bool> {
    obtained(file.try_lock_shared())
}

fn obtained(result: std::result::Result<(), TryLockError>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
