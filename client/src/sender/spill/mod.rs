//! Batches in files: a folder of them, each written so that it is whole or not there.

mod file;
mod lock;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use file::{BATCH, UNFINISHED, batch_of, body, head, name};
pub(super) use file::{DAMAGED, REFUSED, file_bytes};
use lock::SpillLock;

/// Why a spill's folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpillError {
    /// Another sender works with the folder.
    #[error("{dir} is in use by {holder}: give every sender a folder of its own")]
    Held {
        /// The folder.
        dir: String,
        /// Who works with it: `process 4711`.
        holder: String,
    },
    /// A file or the folder cannot be made, read or written.
    #[error("{path} cannot be used for events that wait: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// What failed.
        source: io::Error,
    },
}

/// A folder of batches. All of its functions wait for the disk.
#[derive(Debug)]
pub(super) struct Spill {
    dir: PathBuf,
    /// The folder itself, where that can be opened: to sync it takes no handle that there may not be then.
    folder: Option<File>,
    _lock: SpillLock,
}

impl Spill {
    /// Opens a folder, which is made if it does not exist; returns the batches in it with the bytes of their files.
    ///
    /// # Errors
    /// See [`SpillError`].
    pub(super) fn open(dir: &Path) -> Result<(Self, BTreeMap<Uuid, u64>), SpillError> {
        let failed = |source| SpillError::Io { path: dir.display().to_string(), source };
        make(dir).map_err(failed)?;
        let lock = SpillLock::acquire(dir)?;
        let spill = Self { dir: dir.to_owned(), folder: folder(dir).map_err(failed)?, _lock: lock };
        let left = spill.survey().map_err(failed)?;
        Ok((spill, left))
    }

    fn survey(&self) -> io::Result<BTreeMap<Uuid, u64>> {
        let mut left = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let Some(file_name) = file_name.to_str() else { continue };
            if let Some(id) = batch_of(file_name, BATCH) {
                left.insert(id, entry.metadata()?.len());
            } else if batch_of(file_name, UNFINISHED).is_some() {
                // Nobody was told that it is there.
                fs::remove_file(entry.path())?;
            }
        }
        Ok(left)
    }

    /// Writes a batch; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn write(&self, id: Uuid, lines: &[u8]) -> io::Result<()> {
        let (unfinished, whole) = (self.path(id, UNFINISHED), self.path(id, BATCH));
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(head(lines).as_bytes())?;
            file.write_all(lines)?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| fs::rename(&unfinished, &whole));
        if let Err(error) = renamed {
            // It may not even have been made; the next survey removes it otherwise.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        if let Err(error) = self.sync() {
            // Whoever is told so keeps the batch. Should the file stay, it is sent twice, under one key.
            let _ = fs::remove_file(&whole);
            return Err(error);
        }
        Ok(())
    }

    /// The lines of a batch.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when the file is not what was written.
    pub(super) fn read(&self, id: Uuid) -> io::Result<Bytes> {
        fs::read(self.path(id, BATCH)).and_then(body)
    }

    /// Removes a batch. Should it be there again after a crash, it is sent again under the same key.
    ///
    /// # Errors
    /// When it is still there.
    pub(super) fn remove(&self, id: Uuid) -> io::Result<()> {
        match fs::remove_file(self.path(id, BATCH)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Renames a batch that is [`DAMAGED`] or [`REFUSED`]: it is kept and not sent again.
    ///
    /// # Errors
    /// When it is not renamed.
    pub(super) fn set_aside(&self, id: Uuid, ending: &str) -> io::Result<()> {
        fs::rename(self.path(id, BATCH), self.path(id, ending))?;
        // A crash may give it its name back: then it is read, or sent, in vain once more.
        let _ = self.sync();
        Ok(())
    }

    fn path(&self, id: Uuid, ending: &str) -> PathBuf {
        self.dir.join(name(id, ending))
    }

    /// A file's name is on the disk when its folder is.
    fn sync(&self) -> io::Result<()> {
        self.folder.as_ref().map_or(Ok(()), File::sync_all)
    }
}

/// A folder to sync; none where folders cannot be opened.
fn folder(dir: &Path) -> io::Result<Option<File>> {
    if cfg!(unix) { File::open(dir).map(Some) } else { Ok(None) }
}

/// Makes a folder and those that it lies in; those that were made are on the disk when this returns.
fn make(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make(parent)?;
    if let Err(error) = fs::create_dir(dir) {
        // Somebody else may have been quicker.
        if !dir.is_dir() {
            return Err(error);
        }
    }
    folder(parent)?.map_or(Ok(()), |parent| parent.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"{\"a\":1}\n{\"b\":2}\n";

    #[test]
    fn a_batch_outlives_the_sender() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let (early, late) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (spill, left) = Spill::open(&folder).unwrap();
        assert!(left.is_empty());
        spill.write(late, LINES).unwrap();
        spill.write(early, LINES).unwrap();
        assert!(matches!(Spill::open(&folder), Err(SpillError::Held { .. })));
        drop(spill);
        fs::write(folder.join(name(Uuid::from_u128(3), UNFINISHED)), "half").unwrap();
        let (spill, left) = Spill::open(&folder).unwrap();
        assert_eq!(Vec::from_iter(left), [(early, file_bytes(LINES)), (late, file_bytes(LINES))]);
        assert_eq!(spill.read(early).unwrap(), LINES);
        spill.remove(early).unwrap();
        assert_eq!(spill.read(early).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(spill);
        let (_spill, left) = Spill::open(&folder).unwrap();
        assert_eq!(Vec::from_iter(left.into_keys()), [late]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "the lock and a batch");
    }

    #[test]
    fn what_is_damaged_is_kept_and_not_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (spill, _) = Spill::open(dir.path()).unwrap();
        let id = Uuid::from_u128(1);
        spill.write(id, LINES).unwrap();
        let path = dir.path().join(name(id, BATCH));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(spill.read(id).unwrap_err().kind(), io::ErrorKind::InvalidData);
        spill.set_aside(id, DAMAGED).unwrap();
        assert!(dir.path().join(name(id, DAMAGED)).exists());
        assert!(spill.survey().unwrap().is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_batch_that_may_not_outlive_a_crash_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spill, _) = Spill::open(dir.path()).unwrap();
        // What cannot be synced.
        spill.folder = Some(File::open("/dev/null").unwrap());
        let id = Uuid::from_u128(1);
        assert!(spill.write(id, LINES).is_err());
        assert!(spill.survey().unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_said() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(Spill::open(&dir.path().join("file/a/b")), Err(SpillError::Io { .. })));
    }
}
