//! The record of all changes: objects with increasing numbers that can only be created, and snapshots of what they come to.
//!
//! ```text
//! entities/identity                     whose journal it is
//! entities/journal/00000000000000000017 changes; whoever creates the number first has made the 17th change
//! entities/snapshots/00000000000000001000     names the parts that hold all records as of that change
//! entities/parts/00000000000000001000-<token>-00000
//! ```
//!
//! Of the journal only what the last but one snapshot holds is removed: the floor. A number at or below the floor could be
//! created a second time by somebody who slept for long, so nobody believes an object before having seen that the floor is below it.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::error::EntityError;
use super::model::Change;
use super::object::{Found, Kept, Object, decode, encode};

const IDENTITY: &str = "identity";
const JOURNAL: &str = "journal";
const SNAPSHOTS: &str = "snapshots";
const PARTS: &str = "parts";

/// The objects of entities in a store.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    store: Arc<dyn ObjectStore>,
}

impl Journal {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// Whose journal it is: `fresh`, when it is new.
    pub(super) async fn identity(&self, fresh: Uuid) -> Result<Uuid, EntityError> {
        let path = Path::from(IDENTITY);
        match self.store.put_opts(&path, fresh.to_string().into(), created()).await {
            Ok(_) => return Ok(fresh),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let bytes = self.store.get(&path).await?.bytes().await?;
        let text = String::from_utf8_lossy(&bytes);
        text.trim().parse().map_err(|_| damaged(&path, format!("{text:?} is no identity")))
    }

    /// Object `number`; none when there is none.
    pub(super) async fn read(&self, number: u64) -> Result<Option<Found<Change>>, EntityError> {
        self.get(&numbered(JOURNAL, number), number).await
    }

    /// The token of object `number`; nil when it is not there, or cannot be read.
    pub(super) async fn token(&self, number: u64) -> Result<Uuid, EntityError> {
        match self.read(number).await {
            Ok(Some(Found::Object(Object { token, .. }))) => Ok(token),
            Ok(_) | Err(EntityError::Damaged { .. }) => Ok(Uuid::nil()),
            Err(error) => Err(error),
        }
    }

    /// Refuses a journal that goes on behind a number that is not there: it has lost an object, and whoever wrote that number
    /// anew would write into the past. Without `far` only the very next number is looked for.
    pub(super) async fn check_end(&self, number: u64, far: bool) -> Result<(), EntityError> {
        let goes_on = if far {
            self.list(JOURNAL).await?.iter().filter_map(number_of).any(|later| later > number)
        } else {
            match self.store.head(&numbered(JOURNAL, number.saturating_add(1))).await {
                Ok(_) => true,
                Err(Error::NotFound { .. }) => false,
                Err(error) => return Err(error.into()),
            }
        };
        if !goes_on {
            return Ok(());
        }
        // It may have been written since it was looked for.
        if self.read(number).await?.is_some() {
            return Ok(());
        }
        Err(damaged(&numbered(JOURNAL, number), "it is gone, and later ones are there"))
    }

    /// Makes the changes of `text`, which holds object `number` with `token`; false when another made other changes under
    /// that number.
    pub(super) async fn append(&self, number: u64, token: Uuid, text: Bytes) -> Result<bool, EntityError> {
        match self.store.put_opts(&numbered(JOURNAL, number), text.into(), created()).await {
            Ok(_) => Ok(true),
            // It may be ours: the outcome of an earlier try is unknown.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(matches!(
                self.read(number).await?,
                Some(Found::Object(Object { token: own, .. })) if own == token
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// The numbers of the snapshots, ascending.
    pub(super) async fn snapshots(&self) -> Result<Vec<u64>, EntityError> {
        let mut numbers: Vec<u64> = self.list(SNAPSHOTS).await?.iter().filter_map(number_of).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The names of a snapshot's parts; none when it has been removed.
    pub(super) async fn parts(&self, number: u64) -> Result<Option<Vec<String>>, EntityError> {
        let path = numbered(SNAPSHOTS, number);
        match self.get(&path, number).await? {
            Some(Found::Object(Object { lines, .. })) => Ok(Some(lines)),
            Some(Found::GivenUp) => Err(damaged(&path, "a snapshot cannot be given up: remove it")),
            None => Ok(None),
        }
    }

    /// The records of a part; none when it has been removed.
    pub(super) async fn part(&self, number: u64, name: &str) -> Result<Option<Vec<Kept>>, EntityError> {
        let path = Path::from_iter([PARTS, name]);
        match self.get(&path, number).await? {
            Some(Found::Object(Object { lines, .. })) => Ok(Some(lines)),
            Some(Found::GivenUp) => Err(damaged(&path, "a part of a snapshot cannot be given up: remove the snapshot")),
            None => Ok(None),
        }
    }

    /// Writes a part; its name.
    pub(super) async fn put_part(
        &self,
        number: u64,
        token: Uuid,
        at: usize,
        text: Bytes,
    ) -> Result<String, EntityError> {
        let name = format!("{number:020}-{token}-{at:05}");
        self.store.put(&Path::from_iter([PARTS, &name]), text.into()).await?;
        Ok(name)
    }

    /// Makes a snapshot of its parts. Another's of the same number holds the same.
    pub(super) async fn put_snapshot(&self, number: u64, token: Uuid, parts: &[String]) -> Result<(), EntityError> {
        let text = encode(number, token, parts).map_err(EntityError::unavailable)?;
        match self.store.put_opts(&numbered(SNAPSHOTS, number), text.into(), created()).await {
            Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what nobody needs any more: all below the last but one snapshot.
    pub(super) async fn clean(&self) -> Result<(), EntityError> {
        let snapshots = self.snapshots().await?;
        let floor = floor(&snapshots);
        let below = |object: &ObjectMeta, most: u64| number_of(object).is_some_and(|number| number <= most);
        // In this order: a snapshot that is there has its parts, and the journal above the floor is whole.
        for (folder, most) in [(SNAPSHOTS, floor.saturating_sub(1)), (PARTS, floor.saturating_sub(1)), (JOURNAL, floor)]
        {
            for object in self.list(folder).await?.iter().filter(|object| below(object, most)) {
                match self.store.delete(&object.location).await {
                    Ok(()) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    async fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>, EntityError> {
        Ok(self.store.list(Some(&Path::from(folder))).try_collect().await?)
    }

    async fn get<T: DeserializeOwned>(&self, path: &Path, number: u64) -> Result<Option<Found<T>>, EntityError> {
        let bytes = match self.store.get(path).await {
            Ok(object) => object.bytes().await?,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        decode(number, &bytes).map(Some).map_err(|reason| damaged(path, reason))
    }
}

/// The number up to which the journal may have been removed, by the numbers of the snapshots: the last but one.
pub(super) fn floor(snapshots: &[u64]) -> u64 {
    snapshots.iter().rev().nth(1).copied().unwrap_or(0)
}

fn created() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

fn numbered(folder: &str, number: u64) -> Path {
    Path::from_iter([folder, &format!("{number:020}")])
}

/// The number that an object's name begins with.
fn number_of(object: &ObjectMeta) -> Option<u64> {
    object.location.filename()?.split('-').next()?.parse().ok()
}

fn damaged(path: &Path, reason: impl Into<String>) -> EntityError {
    EntityError::Damaged { path: path.to_string(), reason: reason.into() }
}
