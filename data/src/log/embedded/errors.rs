//! What the storage crate's errors mean for a log.

use std::io;

use super::super::LogError;

/// Why a commit failed; every append in it gets a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no room left.
    Full,
    /// Anything else, in words.
    Storage(String),
}

impl Failure {
    /// The failure of a commit that was under way. [`Self::Full`] says that nothing was stored, which nobody
    /// knows any more.
    pub(super) fn in_commit(self) -> Self {
        match self {
            Self::Full => Self::Storage("the disk was full in the middle of a commit".to_owned()),
            other @ Self::Storage(_) => other,
        }
    }
}

impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full => Self::Full,
            Failure::Storage(what) => Self::Storage(what),
        }
    }
}

impl From<&fjall::Error> for Failure {
    fn from(error: &fjall::Error) -> Self {
        match io_error(error) {
            Some(error) if is_full(error) => Self::Full,
            _ => Self::Storage(describe(error)),
        }
    }
}

/// An error that concerns no record: of a commit, the meta data, or the opening.
pub(super) fn storage(error: &fjall::Error) -> LogError {
    Failure::from(error).into()
}

/// An I/O error of a file of our own.
pub(super) fn io_failed(what: &str, error: &io::Error) -> LogError {
    if is_full(error) { LogError::Full } else { LogError::Storage(format!("{what}: {error}")) }
}

/// What the operating system says of a sector that cannot be read.
const EIO: i32 = 5;

/// An error while reading one record: damage, unless the operating system says otherwise. Of a sector that cannot be read
/// it says so every time; should it be read once after all, whoever takes it for damage has lost nothing.
pub(super) fn reading(error: &fjall::Error, partition: u32, offset: u64) -> LogError {
    let is_damage = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
            || (cfg!(unix) && error.raw_os_error() == Some(EIO))
    };
    match io_error(error) {
        Some(error) if !is_damage(error) => {
            LogError::Storage(format!("reading partition {partition}, offset {offset}: {error}"))
        }
        _ => LogError::Corrupt { partition, offset, reason: describe(error) },
    }
}

fn describe(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Poisoned => "an earlier write failed; the log must be opened anew".to_owned(),
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => error.to_string(),
        other => format!("{other:?}"),
    }
}

const fn io_error(error: &fjall::Error) -> Option<&io::Error> {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => Some(error),
        _ => None,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_that_cannot_be_read_is_damage_and_a_busy_system_is_not() {
        let read = |code| reading(&fjall::Error::Io(io::Error::from_raw_os_error(code)), 1, 2);
        assert!(matches!(read(EIO), LogError::Corrupt { partition: 1, offset: 2, .. }));
        // EAGAIN
        assert!(matches!(read(11), LogError::Storage(_)));
    }

    #[test]
    fn a_disk_that_fills_up_in_a_commit_leaves_its_outcome_unknown() {
        let full = fjall::Error::Io(io::ErrorKind::StorageFull.into());
        assert_eq!(Failure::from(&full), Failure::Full);
        assert!(matches!(LogError::from(Failure::from(&full).in_commit()), LogError::Storage(_)));
    }
}
