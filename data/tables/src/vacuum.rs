//! Deleting what no version within the retention refers to.
//!
//! A data file goes when all of this holds: it is older than the retention, it is not live, and no
//! commit within the retention removed it (the version before that commit still refers to it). So a
//! file that is simply not committed yet stays, and one that nobody ever committed goes in the end.
//!
//! Lists of the store are believed in what they show, and never in what they lack: a store may leave entries out, or
//! show the state of some time ago. Commits are read by their names, up to the newest version.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use deltalake_core::checkpoints::cleanup_expired_logs_for;
use deltalake_core::kernel::Action;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use reckon_data::minute::{MICROS_PER_HOUR, MICROS_PER_MINUTE};
use reckon_data::table::{Table, TableError};

use crate::actions;
use crate::format::storage;
use crate::load::Listing;
use crate::log::TableLog;
use crate::store::{Storage, log_folder};

/// No retention is shorter: a writer may need that long from a file to its commit, or a paused one
/// from what it read to what it writes.
const RETENTION_MIN: i64 = MICROS_PER_HOUR;
/// Clocks of the store and of committers may differ by that much.
const SKEW: i64 = 5 * MICROS_PER_MINUTE;
/// Objects deleted or log entries read at the same time.
const CONCURRENCY: usize = 16;

/// A table's log, as far as a sweep needs it.
#[async_trait]
pub trait Swept: Sync {
    /// Which table.
    fn table(&self) -> Table;

    /// The newest version, and the files that are live in it.
    ///
    /// # Errors
    /// As [`Tables::snapshot`](reckon_data::table::Tables::snapshot).
    async fn newest(&self) -> Result<(u64, Vec<Path>), TableError>;

    /// The files that a commit removed; none if the log does not hold it any more.
    ///
    /// # Errors
    /// As [`Tables::snapshot`](reckon_data::table::Tables::snapshot).
    async fn removed_by(&self, version: u64) -> Result<Option<Vec<Path>>, TableError>;
}

#[async_trait]
impl Swept for TableLog {
    fn table(&self) -> Table {
        self.table
    }

    async fn newest(&self) -> Result<(u64, Vec<Path>), TableError> {
        let state = Box::pin(self.refresh()).await?;
        Ok((state.version, state.files.keys().map(|path| Storage::path(self.table, path)).collect()))
    }

    async fn removed_by(&self, version: u64) -> Result<Option<Vec<Path>>, TableError> {
        let Some(text) = self.read(version).await? else { return Ok(None) };
        let removed = actions::from_bytes(self.table, version, &text)?.into_iter().filter_map(|action| match action {
            Action::Remove(file) => Some(Storage::path(self.table, &file.path)),
            _ => None,
        });
        Ok(Some(removed.collect()))
    }
}

/// Deletes data files and log entries, and returns how many.
pub(crate) async fn vacuum(log: &TableLog, retention_micros: i64) -> Result<u64, TableError> {
    let cutoff = log.clock.now().saturating_sub(retention_micros.max(RETENTION_MIN));
    let version = log.refresh().await?.version;
    // By the way that knows the files' checksums, to forget them.
    let deleted = sweep(log, &log.storage.store(), cutoff).await?;
    let cleaned = cleanup_expired_logs_for(version, &*log.delta, cutoff.div_euclid(1_000), None)
        .await
        .map_err(|error| storage(log.table, error))?;
    Ok(deleted + cleaned as u64)
}

/// Deletes the data files of a table that were written before `cutoff` (microseconds) and that no version since
/// refers to, and returns how many.
///
/// # Errors
/// As [`Tables::vacuum`](reckon_data::table::Tables::vacuum).
pub async fn sweep(log: &dyn Swept, store: &Arc<dyn ObjectStore>, cutoff: i64) -> Result<u64, TableError> {
    let table = log.table();
    let (newest, live) = log.newest().await?;
    let listing = Listing::of(store, table).await?;
    let Some(removed) = removed_since(log, &listing, newest, cutoff.saturating_sub(SKEW)).await? else {
        tracing::warn!(table = table.name(), "the log was cleaned within the retention: no data file is deleted");
        return Ok(0);
    };
    let old = old_files(store, table, cutoff).await?;
    // Live files are asked for before and after the listing: what was committed meanwhile is among the latter, what was
    // removed meanwhile among the former.
    let mut kept: HashSet<Path> = live.into_iter().chain(removed).collect();
    kept.extend(log.newest().await?.1);
    let doomed: Vec<Path> = old.into_iter().filter(|path| !kept.contains(path)).collect();
    delete(table, store, doomed).await
}

/// The files that commits from `cutoff` to version `newest` removed; none if the log does not reach back that far.
async fn removed_since(
    log: &dyn Swept,
    listing: &Listing,
    newest: u64,
    cutoff: i64,
) -> Result<Option<Vec<Path>>, TableError> {
    let old = listing.commits.range(..=newest).rev().find(|(_, written)| **written < cutoff);
    let from = match (old, listing.commits.first_key_value()) {
        (Some((version, _)), _) => version + 1,
        (None, Some((oldest, _))) if *oldest > 0 => return Ok(None),
        (None, _) => 0,
    };
    let mut commits = futures::stream::iter(from..=newest).map(|version| log.removed_by(version)).buffered(CONCURRENCY);
    let mut removed = Vec::new();
    while let Some(of_commit) = commits.try_next().await? {
        let Some(of_commit) = of_commit else { return Ok(None) };
        removed.extend(of_commit);
    }
    Ok(Some(removed))
}

/// The table's Parquet files that were written before `cutoff`.
async fn old_files(store: &Arc<dyn ObjectStore>, table: Table, cutoff: i64) -> Result<Vec<Path>, TableError> {
    let logs = log_folder(table);
    let is_old = |file: &ObjectMeta| {
        file.last_modified.timestamp_micros() < cutoff
            && file.location.as_ref().ends_with(".parquet")
            && !file.location.prefix_matches(&logs)
    };
    let files = store.list(Some(&Path::from(table.name())));
    let old = files.try_filter(|file| futures::future::ready(is_old(file))).map_ok(|file| file.location);
    old.try_collect().await.map_err(|error| storage(table, error))
}

async fn delete(table: Table, store: &Arc<dyn ObjectStore>, paths: Vec<Path>) -> Result<u64, TableError> {
    let deletions = futures::stream::iter(paths)
        .map(|path| async move {
            match store.delete(&path).await {
                Ok(()) => Ok(1),
                // Another has deleted it, or the list was an old one.
                Err(Error::NotFound { .. }) => Ok(0),
                Err(error) => Err(storage(table, error)),
            }
        })
        .buffer_unordered(CONCURRENCY);
    deletions.try_fold(0, |sum, one| futures::future::ready(Ok(sum + one))).await
}
