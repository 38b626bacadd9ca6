//! Opening a table: the newest checkpoint, the commits after it, and creation where there is nothing.
//!
//! The library replays files, protocol and metadata. It can look up one application transaction by
//! its name but not list them, so those are read here, from the same checkpoint and commits.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::{Action, Snapshot};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectMeta, ObjectStore};
use reckon_data::table::{Table, TableError};

use crate::format::{self, storage, unusable};
use crate::log::TableLog;
use crate::state::{State, file_of};
use crate::store::log_folder;
use crate::{actions, read};

/// Times a table is opened anew when its log was cleaned meanwhile.
const ATTEMPTS: usize = 4;
/// Log entries read at the same time.
const CONCURRENCY: usize = 16;

/// What lies in a table's log folder.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Commits, with when they were written (microseconds).
    pub commits: BTreeMap<u64, i64>,
    /// Complete checkpoints, with their parts.
    pub checkpoints: BTreeMap<u64, Vec<ObjectMeta>>,
}

impl Listing {
    /// Lists the log of a table.
    pub async fn of(store: &Arc<dyn ObjectStore>, table: Table) -> Result<Self, TableError> {
        let entries: Vec<ObjectMeta> =
            store.list(Some(&log_folder(table))).try_collect().await.map_err(|error| storage(table, error))?;
        let mut listing = Self::default();
        let mut parts: BTreeMap<(u64, u32), Vec<ObjectMeta>> = BTreeMap::new();
        for entry in entries {
            match parse(entry.location.filename().unwrap_or_default()) {
                Some(Entry::Commit(version)) => {
                    listing.commits.insert(version, entry.last_modified.timestamp_micros());
                }
                Some(Entry::Checkpoint { version, parts: of }) => {
                    parts.entry((version, of)).or_default().push(entry);
                }
                None => {}
            }
        }
        for ((version, of), files) in parts {
            if files.len() == of as usize {
                listing.checkpoints.insert(version, files);
            }
        }
        Ok(listing)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Commit(u64),
    Checkpoint { version: u64, parts: u32 },
}

/// Reads `<version>.json`, `<version>.checkpoint.parquet` and `<version>.checkpoint.<part>.<parts>.parquet`.
fn parse(name: &str) -> Option<Entry> {
    let (digits, rest) = name.split_once('.')?;
    if digits.len() != 20 {
        return None;
    }
    let version = digits.parse().ok()?;
    match rest.split('.').collect::<Vec<_>>()[..] {
        ["json"] => Some(Entry::Commit(version)),
        ["checkpoint", "parquet"] => Some(Entry::Checkpoint { version, parts: 1 }),
        ["checkpoint", _, parts, "parquet"] => Some(Entry::Checkpoint { version, parts: parts.parse().ok()? }),
        _ => None,
    }
}

/// The newest version of a table, which is created if it does not exist, and its newest checkpoint's (0 if none).
pub(crate) async fn load(log: &TableLog) -> Result<(State, u64), TableError> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let listing = Listing::of(&log.store, log.table).await?;
        if listing.commits.is_empty() && listing.checkpoints.is_empty() {
            let created = format::creation(log.table, &*log.clock)?;
            // Whether it was us or another: version 0 exists now.
            log.create(0, actions::to_bytes(log.table, &created)?).await?;
            continue;
        }
        match Box::pin(replay(log, &listing, None)).await {
            Err(TableError::Storage { reason, .. }) => last = Some(reason),
            other => return other,
        }
    }
    Err(storage(log.table, last.unwrap_or_else(|| "it cannot be created".to_owned())))
}

/// The version `at`, the newest if none, and its checkpoint's (0 if none).
pub(crate) async fn replay(log: &TableLog, listing: &Listing, at: Option<u64>) -> Result<(State, u64), TableError> {
    let snapshot = Snapshot::try_new(&*log.delta, at).await.map_err(|error| delta_error(log.table, error))?;
    format::verify_protocol(log.table, snapshot.protocol())?;
    let upgrade = format::verify_metadata(log.table, snapshot.metadata())?;
    let version = snapshot.version();
    let mut state = State::new(log.table, snapshot.metadata().id().to_owned(), version);
    state.upgrade = upgrade.map(Arc::new);
    let mut files = snapshot.file_views(&*log.delta, None);
    while let Some(file) = files.try_next().await.map_err(|error| delta_error(log.table, error))? {
        let path = file.path().into_owned();
        if file.deletion_vector_descriptor().is_some() {
            return Err(unusable(log.table, format!("file {path} has a deletion vector")));
        }
        #[allow(deprecated, reason = "nothing else gives the tags of a file")]
        log.storage.know(log.table, &file.add_action())?;
        let partition = file.partition_values_map().into_iter().collect();
        let file = file_of(log.table, path, file.size(), partition, file.stats().as_deref())?;
        state.files.insert(file.path.clone(), Arc::new(file));
    }
    let checkpoint = listing.checkpoints.range(..=version).next_back();
    for part in checkpoint.map(|(_, parts)| parts.as_slice()).unwrap_or_default() {
        transactions_of_checkpoint(log, part, &mut state).await?;
    }
    let checkpoint = checkpoint.map(|(version, _)| *version);
    let after: BTreeSet<u64> = (checkpoint.map_or(0, |version| version + 1)..=version).collect();
    transactions_of_commits(log, after, &mut state).await?;
    Ok((state, checkpoint.unwrap_or(0)))
}

async fn transactions_of_checkpoint(log: &TableLog, part: &ObjectMeta, state: &mut State) -> Result<(), TableError> {
    let mut batches =
        read::batches(Arc::clone(&log.store), log.table, part.location.clone(), part.size, Some(&["txn"])).await?;
    while let Some(batch) = batches.try_next().await? {
        let found = transactions_of_batch(&batch)
            .ok_or_else(|| unusable(log.table, format!("checkpoint {} has no transactions", part.location)))?;
        state.transactions.extend(found);
    }
    Ok(())
}

fn transactions_of_batch(batch: &RecordBatch) -> Option<Vec<(String, i64)>> {
    let column = batch.column_by_name("txn")?.as_struct_opt()?;
    let names = column.column_by_name("appId")?.as_string_opt::<i32>()?;
    let versions = column.column_by_name("version")?.as_primitive_opt::<Int64Type>()?;
    let rows = (0..column.len()).filter(|row| column.is_valid(*row) && names.is_valid(*row));
    Some(rows.map(|row| (names.value(row).to_owned(), versions.value(row))).collect())
}

async fn transactions_of_commits(log: &TableLog, versions: BTreeSet<u64>, state: &mut State) -> Result<(), TableError> {
    let mut commits = futures::stream::iter(versions)
        .map(|version| async move { Ok::<_, TableError>((version, log.read(version).await?)) })
        .buffered(CONCURRENCY);
    while let Some((version, text)) = commits.try_next().await? {
        let text = text.ok_or_else(|| storage(log.table, format!("version {version} of its log is missing")))?;
        for action in actions::from_bytes(log.table, version, &text)? {
            match action {
                Action::Txn(txn) => {
                    state.transactions.insert(txn.app_id, txn.version);
                }
                Action::CommitInfo(info) => {
                    if let Some(token) = actions::token(&info) {
                        state.remember(token, version);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// What the store did is [`TableError::Storage`]; what the log says is [`TableError::Unusable`].
fn delta_error(table: Table, error: DeltaTableError) -> TableError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(found) = cause {
        if found.is::<object_store::Error>() || found.is::<std::io::Error>() {
            return storage(table, &error);
        }
        cause = found.source();
    }
    unusable(table, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_entries_are_told_by_their_names() {
        for (name, entry) in [
            ("00000000000000000012.json", Some(Entry::Commit(12))),
            ("00000000000000000012.checkpoint.parquet", Some(Entry::Checkpoint { version: 12, parts: 1 })),
            (
                "00000000000000000012.checkpoint.0000000001.0000000003.parquet",
                Some(Entry::Checkpoint { version: 12, parts: 3 }),
            ),
            ("00000000000000000012.00000000000000000020.compacted.json", None),
            ("00000000000000000012.crc", None),
            ("_last_checkpoint", None),
            ("12.json", None),
        ] {
            assert_eq!(parse(name), entry, "{name}");
        }
    }
}
