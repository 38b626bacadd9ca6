//! Deleting what no version within the retention refers to.
//!
//! A data file goes when all of this holds: it is older than the retention, it is not live, and no
//! commit within the retention removed it (the version before that commit still refers to it). So a
//! file that is simply not committed yet stays, and one that nobody ever committed goes in the end.

use std::collections::HashSet;

use deltalake_core::checkpoints::cleanup_expired_logs_for;
use deltalake_core::kernel::Action;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStoreExt as _};
use reckon_data::minute::{MICROS_PER_HOUR, MICROS_PER_MINUTE};
use reckon_data::table::TableError;

use crate::actions;
use crate::format::storage;
use crate::load::Listing;
use crate::log::TableLog;
use crate::store::Storage;

/// No retention is shorter: a writer may need that long from a file to its commit, or a paused one
/// from what it read to what it writes.
const RETENTION_MIN: i64 = MICROS_PER_HOUR;
/// Clocks of the store and of committers may differ by that much.
const SKEW: i64 = 5 * MICROS_PER_MINUTE;
/// Objects deleted or log entries read at the same time.
const CONCURRENCY: usize = 16;

/// Deletes data files and log entries, and returns how many.
pub(crate) async fn vacuum(log: &TableLog, retention_micros: i64) -> Result<u64, TableError> {
    let cutoff = log.clock.now().saturating_sub(retention_micros.max(RETENTION_MIN));
    let state = log.refresh().await?;
    let listing = Listing::of(log).await?;
    let mut deleted = 0;
    if let Some(mut kept) = removed_since(log, &listing, cutoff.saturating_sub(SKEW)).await? {
        let old = old_files(log, cutoff).await?;
        // Live files are asked for after the listing: what was committed meanwhile is among them.
        kept.extend(log.refresh().await?.files.keys().map(|path| Storage::path(log.table, path)));
        let doomed: Vec<Path> = old.into_iter().filter(|path| !kept.contains(path)).collect();
        deleted += delete(log, doomed).await?;
    } else {
        tracing::warn!(table = log.table.name(), "the log was cleaned within the retention: no data file is deleted");
    }
    let cleaned = cleanup_expired_logs_for(state.version, &*log.delta, cutoff.div_euclid(1_000), None)
        .await
        .map_err(|error| storage(log.table, error))?;
    Ok(deleted + cleaned as u64)
}

/// The files that commits since `cutoff` removed; none if the log does not reach back that far.
async fn removed_since(log: &TableLog, listing: &Listing, cutoff: i64) -> Result<Option<HashSet<Path>>, TableError> {
    if let Some((oldest, written)) = listing.commits.first_key_value()
        && *oldest > 0
        && *written >= cutoff
    {
        return Ok(None);
    }
    let recent: Vec<u64> =
        listing.commits.iter().filter(|(_, written)| **written >= cutoff).map(|(version, _)| *version).collect();
    let mut commits = futures::stream::iter(recent)
        .map(|version| async move { Ok::<_, TableError>((version, log.read(version).await?)) })
        .buffered(CONCURRENCY);
    let mut removed = HashSet::new();
    while let Some((version, text)) = commits.try_next().await? {
        let Some(text) = text else { return Ok(None) };
        for action in actions::from_bytes(log.table, version, &text)? {
            if let Action::Remove(file) = action {
                removed.insert(Storage::path(log.table, &file.path));
            }
        }
    }
    Ok(Some(removed))
}

/// The table's Parquet files that were written before `cutoff`.
async fn old_files(log: &TableLog, cutoff: i64) -> Result<Vec<Path>, TableError> {
    let logs = log.folder();
    let is_old = |file: &ObjectMeta| {
        file.last_modified.timestamp_micros() < cutoff
            && file.location.as_ref().ends_with(".parquet")
            && !file.location.prefix_matches(&logs)
    };
    let files = log.store.list(Some(&Path::from(log.table.name())));
    let old = files.try_filter(|file| futures::future::ready(is_old(file))).map_ok(|file| file.location);
    old.try_collect().await.map_err(|error| storage(log.table, error))
}

async fn delete(log: &TableLog, paths: Vec<Path>) -> Result<u64, TableError> {
    // By the way that knows their checksums, to forget them.
    let store = &log.storage.store();
    let deletions = futures::stream::iter(paths)
        .map(|path| async move {
            match store.delete(&path).await {
                Ok(()) => Ok(1),
                Err(Error::NotFound { .. }) => Ok(0),
                Err(error) => Err(storage(log.table, error)),
            }
        })
        .buffer_unordered(CONCURRENCY);
    deletions.try_fold(0, |sum, one| futures::future::ready(Ok(sum + one))).await
}
