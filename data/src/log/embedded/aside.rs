//! Records that stand in the place of others, which could not be read and were given up.
//!
//! A place that was set aside holds its new record for good, even if the first one can be read again: whoever counts
//! has passed it. The new ones lie in a keyspace of their own, and not over the old ones. A second value of an old
//! offset would make files whose ranges overlap, and of those the crate's FIFO strategy says by a panic of its one
//! thread that there are none. There are few of them, so they stay when the log is trimmed.

use std::collections::BTreeSet;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::RwLock;

use super::super::LogError;
use super::errors::{reading, storage};
use super::value;

const NAME: &str = "set-aside";
const KEY_BYTES: usize = 4 + 8;

/// The places that were set aside, and their records.
pub(super) struct Aside(RwLock<Option<Kept>>);

struct Kept {
    keyspace: Keyspace,
    places: BTreeSet<(u32, u64)>,
}

impl Aside {
    /// What was set aside in this log until now; most logs have nothing of it.
    pub(super) fn open(db: &Database) -> Result<Self, LogError> {
        if !db.list_keyspace_names().iter().any(|known| **known == *NAME) {
            return Ok(Self(RwLock::new(None)));
        }
        let keyspace = db.keyspace(NAME, create_options).map_err(|e| storage(&e))?;
        let mut places = BTreeSet::new();
        for entry in keyspace.iter() {
            let key = entry.key().map_err(|e| storage(&e))?;
            places.insert(place_of(&key).ok_or_else(|| {
                LogError::Storage(format!("the log names a place that was set aside with {} bytes", key.len()))
            })?);
        }
        Ok(Self(RwLock::new(Some(Kept { keyspace, places }))))
    }

    /// The record that stands at a place now; none where the first one does.
    pub(super) fn get(&self, partition: u32, offset: u64) -> Result<Option<Bytes>, LogError> {
        let kept = self.0.read();
        let Some(Kept { keyspace, .. }) = kept.as_ref().filter(|kept| kept.places.contains(&(partition, offset)))
        else {
            return Ok(None);
        };
        match keyspace.get(key_of(partition, offset)).map_err(|error| reading(&error, partition, offset))? {
            Some(stored) => value::unwrap(&stored.into(), partition, offset).map(Some),
            None => Err(LogError::Corrupt {
                partition,
                offset,
                reason: "the record that was put in its place is missing".to_owned(),
            }),
        }
    }

    /// Puts a record in a place, durably.
    pub(super) fn put(&self, db: &Database, partition: u32, offset: u64, record: &Bytes) -> Result<(), LogError> {
        let mut kept = self.0.write();
        let keyspace = db.keyspace(NAME, create_options).map_err(|e| storage(&e))?;
        let stored = value::place(value::envelope(record), partition, offset);
        keyspace.insert(key_of(partition, offset), stored).map_err(|e| storage(&e))?;
        db.persist(PersistMode::SyncAll).map_err(|e| storage(&e))?;
        kept.get_or_insert_with(|| Kept { keyspace, places: BTreeSet::new() }).places.insert((partition, offset));
        Ok(())
    }
}

fn create_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(4 * 1024 * 1024)
}

fn key_of(partition: u32, offset: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let bytes = partition.to_be_bytes().into_iter().chain(offset.to_be_bytes());
    key.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = byte);
    key
}

fn place_of(key: &[u8]) -> Option<(u32, u64)> {
    let (partition, offset) = key.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*partition), u64::from_be_bytes(offset.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_the_place() {
        assert_eq!(place_of(&key_of(3, u64::MAX - 1)), Some((3, u64::MAX - 1)));
        assert_eq!(place_of(&key_of(3, 1)[1..]), None);
    }
}
