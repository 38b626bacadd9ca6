//! A table's log: reading on from a version, and writing the next one.
//!
//! A commit is an object `_delta_log/<version>.json` that can only be created. So whoever writes
//! version v + 1 has seen every commit up to v, as long as no log entry after v was cleaned away;
//! cleaning removes entries from the oldest on, so v being there still proves that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use deltalake_core::kernel::Action;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use parking_lot::Mutex;
use reckon_data::clock::Clock;
use reckon_data::table::{Table, TableError};
use tokio::sync::Semaphore;
use url::Url;

use crate::actions;
use crate::format::{storage, unusable};
use crate::load;
use crate::state::State;
use crate::store::{Storage, log_folder};

/// Commits after which a checkpoint is written.
const CHECKPOINT_EVERY: u64 = 64;

/// Entries that are read back, at most, to find who made a commit.
const LOOK_BACK_MAX: u64 = 4_096;

/// What became of an attempt to write a version.
#[derive(Debug)]
pub(crate) enum Written {
    /// The version is ours and durable.
    Yes,
    /// The version exists already.
    Taken,
}

/// One table's log and the newest version of it that this process has seen.
#[derive(Debug)]
pub(crate) struct TableLog {
    pub table: Table,
    /// The store rooted at the tables.
    pub store: Arc<dyn ObjectStore>,
    pub storage: Storage,
    /// The same as the library wants it.
    pub delta: LogStoreRef,
    pub clock: Arc<dyn Clock>,
    newest: Mutex<Option<Arc<State>>>,
    /// One commit of this process at a time: they could only get into each other's way.
    pub turn: Semaphore,
    /// The version of the newest checkpoint known.
    checkpointed: AtomicU64,
    checkpointing: AtomicBool,
}

impl TableLog {
    pub fn new(table: Table, storage: &Storage, clock: Arc<dyn Clock>) -> Result<Self, TableError> {
        let store = storage.plain();
        // The library takes paths from a URL: below a scheme of no meaning, they are those of the store.
        let url =
            Url::parse(&format!("reckon:///{}/", table.name())).map_err(|error| unusable(table, error.to_string()))?;
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&store), table.name()));
        let delta = default_logstore(prefixed, Arc::clone(&store), &url, &StorageConfig::default());
        Ok(Self {
            table,
            store,
            storage: storage.clone(),
            delta,
            clock,
            newest: Mutex::new(None),
            turn: Semaphore::new(1),
            checkpointed: AtomicU64::new(0),
            checkpointing: AtomicBool::new(false),
        })
    }

    /// The newest version that this process has seen.
    pub fn newest(&self) -> Option<Arc<State>> {
        self.newest.lock().clone()
    }

    /// The folder of the log in the store.
    pub fn folder(&self) -> Path {
        log_folder(self.table)
    }

    /// Makes durable what was read in the log: a create that failed may have left an entry that is not.
    pub async fn sync(&self) -> Result<(), TableError> {
        self.storage.sync(&self.folder()).await.map_err(|error| storage(self.table, error))
    }

    fn entry(&self, version: u64) -> Path {
        self.folder().join(format!("{version:020}.json"))
    }

    /// The text of a log entry, if there is one.
    pub async fn read(&self, version: u64) -> Result<Option<Bytes>, TableError> {
        Ok(self.read_written(version).await?.map(|(text, _)| text))
    }

    /// The same, and when it was written by the store's clock, microseconds.
    pub async fn read_written(&self, version: u64) -> Result<Option<(Bytes, i64)>, TableError> {
        let read = async {
            let found = self.store.get(&self.entry(version)).await?;
            let written = found.meta.last_modified.timestamp_micros();
            Ok::<_, Error>((found.bytes().await?, written))
        };
        match read.await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(storage(self.table, error)),
        }
    }

    async fn exists(&self, version: u64) -> Result<bool, TableError> {
        match self.store.head(&self.entry(version)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(storage(self.table, error)),
        }
    }

    /// Creates a log entry. An error says nothing about whether it exists now.
    pub async fn create(&self, version: u64, text: Bytes) -> Result<Written, TableError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.entry(version), text.into(), options).await {
            Ok(_) => Ok(Written::Yes),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Written::Taken),
            Err(error) => Err(storage(self.table, error)),
        }
    }

    /// Writes the version after `version`, if nobody has. After an error what was written may lie below the
    /// table's checkpoint; [`TableLog::refresh`] does not take it for a version.
    pub async fn follow(&self, version: u64, text: Bytes) -> Result<Written, TableError> {
        match self.create(version + 1, text).await? {
            Written::Taken => Ok(Written::Taken),
            Written::Yes if self.exists(version).await? => Ok(Written::Yes),
            Written::Yes => {
                // We slept so long that the log was cleaned past our version: what we wrote lies below
                // the table's checkpoint, and nobody will ever read it.
                self.store.delete(&self.entry(version + 1)).await.map_err(|error| storage(self.table, error))?;
                *self.newest.lock() = None;
                Ok(Written::Taken)
            }
        }
    }

    /// The newest version, read on from the one known.
    pub async fn refresh(&self) -> Result<Arc<State>, TableError> {
        let known = self.newest.lock().clone();
        let mut base = match known {
            Some(state) => state,
            None => self.load().await?,
        };
        loop {
            let state = self.read_on(Arc::clone(&base)).await?;
            // Entries are cleaned away from the oldest on: as this one is there, all that were read after it follow
            // it, and the last is the newest.
            if self.exists(base.version).await? {
                return Ok(self.advance(state));
            }
            let loaded = self.load().await?;
            if loaded.id != base.id || loaded.version < base.version {
                return Err(unusable(self.table, "it was deleted or made anew while it was in use"));
            }
            if loaded.version == base.version {
                return Ok(self.advance(loaded));
            }
            base = loaded;
        }
    }

    async fn read_on(&self, mut state: Arc<State>) -> Result<Arc<State>, TableError> {
        while let Some(text) = self.read(state.version + 1).await? {
            let found = actions::from_bytes(self.table, state.version + 1, &text)?;
            for action in &found {
                match action {
                    Action::Add(add) => self.storage.know(self.table, add)?,
                    Action::Remove(remove) => self.storage.removed(self.table, &remove.path),
                    _ => {}
                }
            }
            state = Arc::new(state.apply(found)?);
        }
        Ok(state)
    }

    async fn load(&self) -> Result<Arc<State>, TableError> {
        let (state, checkpoint) = load::load(self).await?;
        self.checkpointed.fetch_max(checkpoint, Ordering::Relaxed);
        Ok(Arc::new(state))
    }

    /// Keeps the newer of `state` and what is known, and returns it: versions never go back.
    pub fn advance(&self, state: Arc<State>) -> Arc<State> {
        let mut newest = self.newest.lock();
        match &*newest {
            Some(known) if known.version >= state.version => Arc::clone(known),
            _ => {
                *newest = Some(Arc::clone(&state));
                state
            }
        }
    }

    /// The version a commit made, looked up in the log from `newest` back.
    pub async fn find(&self, token: uuid::Uuid, newest: u64) -> Result<Option<u64>, TableError> {
        for version in (newest.saturating_sub(LOOK_BACK_MAX)..=newest).rev() {
            let Some(text) = self.read(version).await? else { break };
            if actions::from_bytes(self.table, version, &text)?.iter().any(|action| match action {
                Action::CommitInfo(info) => actions::token(info) == Some(token),
                _ => false,
            }) {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Writes a checkpoint beside the work when enough commits have come since the last one. That it
    /// fails costs time at the next start only.
    pub fn checkpoint_when_due(self: &Arc<Self>, version: u64) {
        if version.saturating_sub(self.checkpointed.load(Ordering::Relaxed)) < CHECKPOINT_EVERY
            || self.checkpointing.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let turn = Checkpointing(Arc::clone(self));
        tokio::spawn(async move {
            if let Err(error) = turn.0.checkpoint().await {
                tracing::warn!(table = turn.0.table.name(), version, %error, "checkpoint failed");
            }
        });
    }

    /// Writes a checkpoint of the newest version.
    pub async fn checkpoint(&self) -> Result<u64, TableError> {
        let mut table = deltalake_core::DeltaTable::new(Arc::clone(&self.delta));
        table.load().await.map_err(|error| storage(self.table, error))?;
        let version = table.version().unwrap_or(0);
        deltalake_core::checkpoints::create_checkpoint(&table, None)
            .await
            .map_err(|error| storage(self.table, error))?;
        self.checkpointed.fetch_max(version, Ordering::Relaxed);
        Ok(version)
    }
}

/// Lets the next checkpoint be written when this one is over, however it ends.
struct Checkpointing(Arc<TableLog>);

impl Drop for Checkpointing {
    fn drop(&mut self) {
        self.0.checkpointing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use object_store::memory::InMemory;
    use reckon_data::clock::ManualClock;

    use super::*;

    #[test]
    fn a_checkpoint_that_was_given_up_does_not_keep_the_next_from_being_written() {
        let storage = Storage::in_store(Arc::new(InMemory::new()));
        let log = Arc::new(TableLog::new(Table::Imports, &storage, Arc::new(ManualClock::at(0))).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { log.checkpoint_when_due(CHECKPOINT_EVERY) });
        assert!(log.checkpointing.load(Ordering::Acquire));
        drop(runtime);
        assert!(!log.checkpointing.load(Ordering::Acquire));
    }
}
