//! The log's meta data: format, identity, number of partitions, trim points.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use uuid::Uuid;

use super::super::LogError;
use super::errors::storage;

/// The format this program writes. A newer one is refused.
const FORMAT: u32 = 1;
const NAME: &str = "meta";

/// The keyspace that holds the meta data, and what of it never changes.
pub(super) struct Meta {
    keyspace: Keyspace,
    pub(super) identity: Uuid,
    pub(super) partitions: u32,
}

impl Meta {
    /// Writes the meta data of a new log. The caller makes it durable.
    pub(super) fn create(db: &Database, identity: Uuid, partitions: u32) -> Result<(), LogError> {
        let keyspace = db.keyspace(NAME, create_options).map_err(|e| storage(&e))?;
        for (key, value) in [
            ("format", FORMAT.to_be_bytes().to_vec()),
            ("identity", identity.as_bytes().to_vec()),
            ("partitions", partitions.to_be_bytes().to_vec()),
        ] {
            keyspace.insert(key, value).map_err(|e| storage(&e))?;
        }
        Ok(())
    }

    /// Reads the meta data of the log in `dir`.
    pub(super) fn open(db: &Database, dir: &Path) -> Result<Self, LogError> {
        let keyspace = db.keyspace(NAME, create_options).map_err(|e| storage(&e))?;
        let format = u32::from_be_bytes(must(&keyspace, "format", dir)?);
        if format > FORMAT {
            return Err(LogError::Mismatch(format!(
                "the log in {} has format {format}, this program knows formats up to {FORMAT}: use a newer release",
                dir.display()
            )));
        }
        let identity = Uuid::from_bytes(must(&keyspace, "identity", dir)?);
        let partitions = u32::from_be_bytes(must(&keyspace, "partitions", dir)?);
        Ok(Self { keyspace, identity, partitions })
    }

    /// The trim point of a partition; 0 when it was never trimmed.
    pub(super) fn trim_point(&self, partition: u32) -> Result<u64, LogError> {
        Ok(value(&self.keyspace, &trim_key(partition))?.map_or(0, u64::from_be_bytes))
    }

    /// Makes a trim point durable.
    pub(super) fn set_trim_point(&self, db: &Database, partition: u32, below: u64) -> Result<(), LogError> {
        self.keyspace.insert(trim_key(partition), below.to_be_bytes()).map_err(|e| storage(&e))?;
        db.persist(PersistMode::SyncAll).map_err(|e| storage(&e))
    }

    /// Starts a new write buffer. The crate lets go of dropped files only when some buffer is changed, and on
    /// a quiet log that may be never.
    pub(super) fn rotate(&self) -> Result<(), LogError> {
        self.keyspace.rotate_memtable().map(|_| ()).map_err(|e| storage(&e))
    }
}

fn create_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(1024 * 1024)
}

fn trim_key(partition: u32) -> String {
    format!("trim/{partition:010}")
}

fn must<const N: usize>(keyspace: &Keyspace, key: &str, dir: &Path) -> Result<[u8; N], LogError> {
    value(keyspace, key)?
        .ok_or_else(|| LogError::Storage(format!("the log in {} is damaged: it has no {key}", dir.display())))
}

fn value<const N: usize>(keyspace: &Keyspace, key: &str) -> Result<Option<[u8; N]>, LogError> {
    let Some(value) = keyspace.get(key).map_err(|e| storage(&e))? else { return Ok(None) };
    match value.as_ref().try_into() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(LogError::Storage(format!("the log's {key} has {} bytes, not {N}", value.len()))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Makes a log look as if a later release had written it.
    pub(in super::super) fn set_format(db: &Database, format: u32) {
        let keyspace = db.keyspace(NAME, create_options).unwrap();
        keyspace.insert("format", format.to_be_bytes()).unwrap();
        db.persist(PersistMode::SyncAll).unwrap();
    }

    pub(in super::super) const NEWER: u32 = FORMAT + 1;
}
