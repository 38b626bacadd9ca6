//! Older versions of a table, as long as their log entries and their files are there.
//!
//! ```text
//! oldest log entry ── version ────────────────── newest
//!                        │ files that are no longer live in the newest: vacuumed, or still there?
//! ```
//!
//! The library replays the log up to a version. Whether its files are all there the log does not say: those that
//! are live in the newest version are, and the store is asked for the others.

use std::collections::{BTreeMap, HashSet};

use deltalake_core::kernel::{Action, CommitInfo};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _};
use reckon_data::table::{Snapshot, TableError, Version};

use crate::actions;
use crate::format::storage;
use crate::load::{self, Listing};
use crate::log::TableLog;
use crate::state::State;
use crate::store::Storage;

/// Log entries or files asked for at the same time.
const CONCURRENCY: usize = 16;
/// Versions that are looked through, at most, for the oldest one that can still be read.
const LOOK_BACK_MAX: u64 = 4_096;

/// The newest versions, the newest first, as far as the log has them.
pub(crate) async fn history(log: &TableLog, limit: usize) -> Result<Vec<Version>, TableError> {
    let newest = log.refresh().await?.version;
    let oldest = newest.saturating_sub((limit as u64).saturating_sub(1));
    let mut entries = futures::stream::iter((oldest..=newest).rev().take(limit))
        .map(|version| entry(log, version))
        .buffered(CONCURRENCY);
    let mut versions = Vec::new();
    // Entries are cleaned away from the oldest on.
    while let Some(Some(version)) = entries.try_next().await? {
        versions.push(version);
    }
    Ok(versions)
}

/// What the log's entry of a version says; none when there is no such entry, or no longer.
pub(crate) async fn entry(log: &TableLog, version: u64) -> Result<Option<Version>, TableError> {
    let Some((text, written)) = log.read_written(version).await? else { return Ok(None) };
    Ok(Some(told(version, &actions::from_bytes(log.table, version, &text)?, written)))
}

/// What the actions of a version say of it; `written` is when its entry was, microseconds.
fn told(version: u64, found: &[Action], written: i64) -> Version {
    let info: Option<&CommitInfo> = found.iter().find_map(|action| match action {
        Action::CommitInfo(info) => Some(info),
        _ => None,
    });
    let transactions: BTreeMap<String, i64> = (found.iter())
        .filter_map(|action| match action {
            Action::Txn(txn) => Some((txn.app_id.clone(), txn.version)),
            _ => None,
        })
        .collect();
    let committed_at = info.and_then(|info| info.timestamp?.checked_mul(1_000)).unwrap_or(written);
    let operation = info.and_then(|info| info.operation.clone()).unwrap_or_default();
    Version { version, committed_at, operation, token: info.and_then(actions::token), transactions }
}

/// A version, if it can still be read.
pub(crate) async fn snapshot_at(log: &TableLog, version: u64) -> Result<Snapshot, TableError> {
    let newest = log.refresh().await?;
    if newest.version == version {
        return Ok(newest.snapshot());
    }
    if newest.version > version
        && let Some(state) = replayed(log, version).await?
    {
        let older: Vec<&String> = state.files.keys().filter(|path| !newest.files.contains_key(*path)).collect();
        // A damaged one concerns nobody but whoever asks for it.
        older.iter().for_each(|path| log.storage.removed(log.table, path));
        let older = older.into_iter().map(|path| Storage::path(log.table, path)).collect();
        if all_there(log, older).await? {
            return Ok(state.snapshot());
        }
    }
    let oldest = oldest(log, &newest).await?;
    Err(TableError::NoVersion { table: log.table.name(), version, oldest, newest: newest.version })
}

/// The version as the log tells of it; none if that does not reach back so far.
async fn replayed(log: &TableLog, version: u64) -> Result<Option<State>, TableError> {
    let listing = Listing::of(&log.store, log.table).await?;
    match Box::pin(load::replay(log, &listing, Some(version))).await {
        Ok((state, _)) => Ok((state.version == version).then_some(state)),
        // The library does not say apart why it cannot: below what can be replayed nothing else was to be expected.
        Err(_) if floor(&listing) > version => Ok(None),
        Err(error) => Err(error),
    }
}

/// The oldest version that the log's entries and checkpoints make up.
fn floor(listing: &Listing) -> u64 {
    if listing.commits.contains_key(&0) {
        return 0;
    }
    listing.checkpoints.first_key_value().map_or(u64::MAX, |(version, _)| *version)
}

/// Whether some files are still there.
async fn all_there(log: &TableLog, files: Vec<Path>) -> Result<bool, TableError> {
    let heads = futures::stream::iter(files)
        .map(|file| async move {
            match log.store.head(&file).await {
                Ok(_) => Ok(true),
                Err(Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(storage(log.table, error)),
            }
        })
        .buffer_unordered(CONCURRENCY);
    let heads: Vec<bool> = heads.try_collect().await?;
    Ok(heads.into_iter().all(|is_there| is_there))
}

/// The oldest version from which on all can still be read. Commits are undone from the newest back: a file that one
/// of them removed is needed before it, and one that it added is not.
async fn oldest(log: &TableLog, newest: &State) -> Result<u64, TableError> {
    let listing = Listing::of(&log.store, log.table).await?;
    let floor = floor(&listing).max(newest.version.saturating_sub(LOOK_BACK_MAX));
    let there = data_files(log).await?;
    // Whoever swept them may have been another process.
    log.storage.forget_gone(log.table, &there);
    let mut version = newest.version;
    while version > floor {
        let Some(text) = log.read(version).await? else { break };
        let gone = |action: &Action| match action {
            Action::Remove(remove) => !there.contains(&Storage::path(log.table, &remove.path)),
            _ => false,
        };
        if actions::from_bytes(log.table, version, &text)?.iter().any(gone) {
            break;
        }
        version -= 1;
    }
    Ok(version)
}

async fn data_files(log: &TableLog) -> Result<HashSet<Path>, TableError> {
    let files = log.store.list(Some(&Path::from(log.table.name()))).map_ok(|file| file.location);
    files.try_collect().await.map_err(|error| storage(log.table, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_can_tell_begins_at_its_creation_or_at_a_checkpoint() {
        let commits = |versions: &[u64]| versions.iter().map(|version| (*version, 0)).collect();
        let whole = Listing { commits: commits(&[0, 1, 2]), checkpoints: BTreeMap::from([(1, Vec::new())]) };
        assert_eq!(floor(&whole), 0);
        let cleaned = Listing { commits: commits(&[3, 4, 5]), checkpoints: BTreeMap::from([(4, Vec::new())]) };
        assert_eq!(floor(&cleaned), 4);
        assert_eq!(floor(&Listing::default()), u64::MAX);
    }

    #[test]
    fn a_commit_of_another_program_was_made_when_its_entry_was_written() {
        let version = told(7, &[], 1_234);
        assert_eq!((version.version, version.committed_at, version.token), (7, 1_234, None));
        assert!(version.operation.is_empty() && version.transactions.is_empty());
    }
}
