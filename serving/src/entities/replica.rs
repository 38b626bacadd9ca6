//! All records, on this machine: an embedded store that follows the journal.
//!
//! ```text
//! records   entity id                    ─▶ number (8 bytes), place (4), the record as JSON
//! channels  channel, a zero byte, id     ─▶ nothing
//! meta      "state"                      ─▶ the journal's identity (16 bytes), the number followed up to (8), its token (16)
//! ```
//!
//! Changes and the number that they follow are one durable commit, so that after a crash it goes on from where it was. Without a state
//! it is not whole, and nothing is answered from it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable as _};
use uuid::Uuid;

use super::error::EntityError;
use super::model::{Change, Entity, Record, Version};
use super::object::Kept;
use super::view::View;

const KEYSPACES: [&str; 3] = ["records", "channels", "meta"];
const STATE: &str = "state";
const CACHE_BYTES: u64 = 16 << 20;
const MEMTABLE_BYTES: u64 = 4 << 20;
/// The crate's least.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Open files it may keep.
const FILES_MAX: usize = 32;
/// Rows of a commit that removes everything.
const REMOVED_AT_ONCE: usize = 10_000;
/// One that was just closed in this process lets go of its lock a moment later.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(50);
/// Bytes of a version before a record.
const VERSION_BYTES: usize = 12;

/// What a replica follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// Which journal.
    pub(super) identity: Uuid,
    /// Up to which number.
    pub(super) position: u64,
    /// The token of the object with that number; nil when nobody can say.
    pub(super) token: Uuid,
}

/// The embedded store. Everything here blocks.
pub(super) struct Replica {
    db: Database,
    records: Keyspace,
    channels: Keyspace,
    meta: Keyspace,
}

impl Replica {
    /// Opens the store in a folder. One that is damaged is thrown away: the journal has it all.
    ///
    /// # Errors
    /// When another process has it, or the folder cannot be used.
    pub(super) fn open(dir: &Path) -> Result<Self, EntityError> {
        match Self::open_once(dir) {
            Ok(replica) => return Ok(replica),
            Err(OpenError::Locked) => {
                let message = format!("another process has the entities in {} open", dir.display());
                return Err(EntityError::unavailable(message));
            }
            Err(OpenError::Broken(reason)) => {
                tracing::warn!(%reason, dir = %dir.display(), "the entities of this machine are read anew from the data directory");
            }
        }
        let failed = |error: &dyn std::fmt::Display| {
            EntityError::unavailable(format!("the entities in {} cannot be opened: {error}", dir.display()))
        };
        std::fs::remove_dir_all(dir).map_err(|error| failed(&error))?;
        Self::open_once(dir).map_err(|error| match error {
            OpenError::Locked => failed(&"another process has them open"),
            OpenError::Broken(reason) => failed(&reason),
        })
    }

    fn open_once(dir: &Path) -> Result<Self, OpenError> {
        // Without its version file the crate would take the folder for an empty one, and make a store beside what is left.
        if dir.exists() && !dir.join("version").is_file() {
            std::fs::remove_dir_all(dir).map_err(|error| OpenError::Broken(error.to_string()))?;
        }
        std::fs::create_dir_all(dir).map_err(|error| OpenError::Broken(error.to_string()))?;
        // The crate asserts some things about its files that a damaged disk can make untrue.
        let open = || {
            for _ in 1..LOCK_TRIES {
                match Self::database(dir) {
                    Err(fjall::Error::Locked) => thread::sleep(LOCK_WAIT),
                    other => return other,
                }
            }
            Self::database(dir)
        };
        match catch_unwind(AssertUnwindSafe(open)) {
            Ok(Ok(replica)) => Ok(replica),
            Ok(Err(fjall::Error::Locked)) => Err(OpenError::Locked),
            Ok(Err(error)) => Err(OpenError::Broken(error.to_string())),
            Err(_) => Err(OpenError::Broken("its files do not fit".to_owned())),
        }
    }

    fn database(dir: &Path) -> Result<Self, fjall::Error> {
        let db = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .max_cached_files(Some(FILES_MAX))
            .max_journaling_size(JOURNAL_BYTES)
            .journal_compression(CompressionType::None)
            .open()?;
        // Asked for by name, one that is lost would be made anew, empty, and the state would lie.
        let there = db.list_keyspace_names().len();
        if there != 0 && there != KEYSPACES.len() {
            return Err(fjall::Error::Unrecoverable);
        }
        let keyspace = |name| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES));
        let [records, channels, meta] = KEYSPACES.map(keyspace);
        let (records, channels, meta) = (records?, channels?, meta?);
        Ok(Self { db, records, channels, meta })
    }

    /// What it follows; none when it is not whole.
    pub(super) fn state(&self) -> Result<Option<State>, EntityError> {
        self.meta.get(STATE)?.map(|value| read_state(&value)).transpose()
    }

    /// All records as they are now.
    pub(super) fn view(&self) -> Result<View, EntityError> {
        let snapshot = self.db.snapshot();
        // Of the very snapshot: one that was taken while everything is read anew has none.
        let state = snapshot.get(&self.meta, STATE)?.map(|value| read_state(&value)).transpose()?;
        let Some(State { position, .. }) = state else {
            return Err(EntityError::unavailable("they are still being read from the data directory"));
        };
        Ok(View::new(snapshot, self.records.clone(), self.channels.clone(), position))
    }

    /// Makes the changes of an object.
    pub(super) fn apply(&self, state: State, changes: &[Change]) -> Result<(), EntityError> {
        // The last change of an entity counts; a commit must not hold a key twice.
        let mut last: BTreeMap<&str, (Version, &Change)> = BTreeMap::new();
        for (place, change) in (0_u32..).zip(changes) {
            last.insert(change.entity_id(), (Version(state.position, place), change));
        }
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for (entity_id, (version, change)) in last {
            let before = self.records.get(entity_id)?.map(|value| read_record(&value)).transpose()?;
            let channel_before = before.and_then(|record| record.entity.channel);
            let channel = match change {
                Change::Put(entity) => entity.channel.as_deref(),
                Change::Delete(_) => None,
            };
            if let Some(old) = channel_before.as_deref().filter(|old| Some(*old) != channel) {
                batch.remove(&self.channels, channel_key(old, entity_id));
            }
            match change {
                Change::Put(entity) => self.insert(&mut batch, version, entity)?,
                Change::Delete(_) => batch.remove(&self.records, entity_id),
            }
        }
        batch.insert(&self.meta, STATE, write_state(state));
        Ok(batch.commit()?)
    }

    /// Forgets everything. Views that are there already keep what they show.
    pub(super) fn clear(&self) -> Result<(), EntityError> {
        self.meta.remove(STATE)?;
        // Before anything else is gone: without its records a state would lie.
        self.db.persist(PersistMode::SyncAll)?;
        for keyspace in [&self.records, &self.channels] {
            // One way over all of them: whoever begins anew has to pass everything that is removed already.
            let mut all = keyspace.iter().map(fjall::Guard::key);
            loop {
                let keys = all.by_ref().take(REMOVED_AT_ONCE).collect::<Result<Vec<_>, _>>()?;
                if keys.is_empty() {
                    break;
                }
                let mut batch = self.db.batch();
                keys.into_iter().for_each(|key| batch.remove(keyspace, key));
                batch.commit()?;
            }
        }
        Ok(())
    }

    /// Adds records of a snapshot to an empty store.
    pub(super) fn load(&self, kept: &[Kept]) -> Result<(), EntityError> {
        let mut batch = self.db.batch();
        for Kept { version, entity } in kept {
            self.insert(&mut batch, *version, entity)?;
        }
        Ok(batch.commit()?)
    }

    /// Says that it is whole.
    pub(super) fn finish(&self, state: State) -> Result<(), EntityError> {
        self.db.persist(PersistMode::SyncAll)?;
        self.meta.insert(STATE, write_state(state))?;
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    fn insert(&self, batch: &mut OwnedWriteBatch, version: Version, entity: &Entity) -> Result<(), EntityError> {
        let mut value = Vec::with_capacity(256);
        value.extend_from_slice(&version.0.to_be_bytes());
        value.extend_from_slice(&version.1.to_be_bytes());
        serde_json::to_writer(&mut value, entity).map_err(EntityError::unavailable)?;
        batch.insert(&self.records, entity.entity_id.as_str(), value);
        if let Some(channel) = &entity.channel {
            batch.insert(&self.channels, channel_key(channel, &entity.entity_id), Vec::new());
        }
        Ok(())
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").finish_non_exhaustive()
    }
}

enum OpenError {
    Locked,
    Broken(String),
}

/// Channels have no control characters in them, so that the zero byte ends one.
pub(super) fn channel_key(channel: &str, entity_id: &str) -> Vec<u8> {
    [channel.as_bytes(), &[0], entity_id.as_bytes()].concat()
}

pub(super) fn read_record(value: &[u8]) -> Result<Record, EntityError> {
    let damaged = |reason: String| {
        EntityError::unavailable(format!(
            "a record in the store of this machine cannot be read ({reason}): remove its folder, replica/entities"
        ))
    };
    let (version, json) = value.split_at_checked(VERSION_BYTES).ok_or_else(|| damaged("it is too short".to_owned()))?;
    Ok(Record {
        version: read_version(version).ok_or_else(|| damaged("it has no version".to_owned()))?,
        entity: serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))?,
    })
}

fn read_version(bytes: &[u8]) -> Option<Version> {
    let (number, place) = bytes.split_at_checked(8)?;
    Some(Version(u64::from_be_bytes(number.try_into().ok()?), u32::from_be_bytes(place.try_into().ok()?)))
}

fn write_state(state: State) -> Vec<u8> {
    [&state.identity.into_bytes()[..], &state.position.to_be_bytes(), state.token.as_bytes()].concat()
}

fn read_state(value: &[u8]) -> Result<State, EntityError> {
    let state = value.split_at_checked(16).and_then(|(identity, rest)| {
        let (position, token) = rest.split_at_checked(8)?;
        let position = u64::from_be_bytes(position.try_into().ok()?);
        let (identity, token) = (Uuid::from_slice(identity).ok()?, Uuid::from_slice(token).unwrap_or_default());
        Some(State { identity, position, token })
    });
    state.ok_or_else(|| {
        EntityError::unavailable("the store of this machine is damaged: remove its folder, replica/entities")
    })
}
