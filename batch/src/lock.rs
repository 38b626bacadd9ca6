//! The lock on a data directory: one process at a time works on a folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// The lock's file in the data directory.
const FILE: &str = "reckon.lock";

/// Why a folder cannot be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process works on the folder.
    #[error(
        "{dir} is in use by {holder}: stop it, or ask it instead with --url, \
         or give this one another folder with --data-dir"
    )]
    Held {
        /// The folder.
        dir: String,
        /// Who works on it: `reckon up (process 4711)`.
        holder: String,
    },
    /// The lock's file cannot be made or written.
    #[error("{path} cannot be locked: {source}")]
    Io {
        /// The lock's file.
        path: String,
        /// What failed.
        source: io::Error,
    },
}

/// A locked data directory; free again when dropped, or when the process ends however it does.
#[derive(Debug)]
pub struct DirLock {
    path: PathBuf,
    // Holds the lock as long as it is open.
    _file: File,
}

impl DirLock {
    /// Locks `dir`, which is created if it does not exist, for `role` (`up`, `batch`).
    ///
    /// # Errors
    /// [`LockError::Held`] at once when somebody else has it; [`LockError::Io`].
    pub fn acquire(dir: &Path, role: &str) -> Result<Self, LockError> {
        let path = dir.join(FILE);
        let failed = |source| LockError::Io { path: path.display().to_string(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        // Not truncated: the file may be somebody else's.
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { dir: dir.display().to_string(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let line = format!("reckon {role} (process {})\n", std::process::id());
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(line.as_bytes())).map_err(failed)?;
        Ok(Self { path, _file: file })
    }

    /// The lock's file. It stays when the lock is released: removing it would let two others lock two files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Who wrote the file; some systems don't let it be read while it is locked.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(256).read_to_string(&mut text);
    match text.trim() {
        known if read.is_ok() && !known.is_empty() => known.to_owned(),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_free_again_after() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path(), "up").unwrap();
        let error = DirLock::acquire(dir.path(), "batch").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, LockError::Held { .. }));
        assert!(text.contains(&format!("reckon up (process {})", std::process::id())), "{text}");
        drop(lock);
        DirLock::acquire(dir.path(), "batch").unwrap();
    }

    #[test]
    fn a_folder_that_does_not_exist_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(&dir.path().join("a/b"), "up").unwrap();
        assert!(lock.path().exists());
    }
}
