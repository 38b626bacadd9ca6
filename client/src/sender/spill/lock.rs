//! The lock on a spill's folder: one sender at a time works with it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use super::SpillError;

/// The lock's file in the folder.
const FILE: &str = "sender.lock";

/// A locked folder; free again when dropped, or when the process ends however it does.
#[derive(Debug)]
pub(super) struct SpillLock {
    // Holds the lock as long as it is open.
    _file: File,
}

impl SpillLock {
    /// Locks a folder that exists.
    ///
    /// # Errors
    /// [`SpillError::Held`] at once when somebody else has it; [`SpillError::Io`].
    pub(super) fn acquire(dir: &Path) -> Result<Self, SpillError> {
        let path = dir.join(FILE);
        let failed = |source| SpillError::Io { path: path.display().to_string(), source };
        // Not truncated: the file may be somebody else's. It stays when the lock is released: removing it would let two
        // others lock two files.
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SpillError::Held { dir: dir.display().to_string(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let line = format!("process {}\n", std::process::id());
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(line.as_bytes())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Who wrote the file; some systems don't let it be read while it is locked.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(256).read_to_string(&mut text);
    match text.trim() {
        known if read.is_ok() && !known.is_empty() => known.to_owned(),
        _ => "another sender".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_free_again_after() {
        let dir = tempfile::tempdir().unwrap();
        let lock = SpillLock::acquire(dir.path()).unwrap();
        let error = SpillLock::acquire(dir.path()).unwrap_err();
        let me = format!("process {}", std::process::id());
        assert!(matches!(&error, SpillError::Held { holder, .. } if *holder == me), "{error}");
        drop(lock);
        SpillLock::acquire(dir.path()).unwrap();
    }
}
