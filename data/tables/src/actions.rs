//! A commit as the log holds it: one JSON action a line.

use std::collections::HashMap;

use bytes::Bytes;
use deltalake_core::kernel::{Action, Add, CommitInfo, Remove, Transaction};
use deltalake_core::logstore::get_actions;
use reckon_data::table::{Commit, DataFile, Table, TableError};
use serde_json::Value;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::format;
use crate::stats::Stats;
use crate::store::Storage;

/// Where a commit's token stands in its `commitInfo`.
const TOKEN: &str = "reckonToken";
/// And its checksum.
const SUM: &str = "reckonSum";

/// The tag of a file that holds its checksums.
const SUMS: &str = "reckon.sums";

/// What the log says of a file's checksums, if anything.
pub(crate) fn sums(add: &Add) -> Option<&str> {
    add.tags.as_ref()?.get(SUMS)?.as_deref()
}

/// The token of a commit, if it is one of ours.
pub(crate) fn token(info: &CommitInfo) -> Option<Uuid> {
    Uuid::parse_str(info.info.get(TOKEN)?.as_str()?).ok()
}

/// The actions of a commit that is made at `now` (microseconds) from version `read`, of files in `storage`.
pub(crate) fn encode(commit: &Commit, read: u64, now: i64, storage: &Storage) -> Result<Vec<Action>, TableError> {
    let millis = now.div_euclid(1_000);
    let info = CommitInfo {
        timestamp: Some(millis),
        operation: Some(commit.operation.clone()),
        operation_parameters: Some(HashMap::new()),
        read_version: Some(read),
        is_blind_append: Some(false),
        engine_info: Some(format::engine_info()),
        info: HashMap::from([(TOKEN.to_owned(), Value::from(commit.token.to_string()))]),
        ..CommitInfo::default()
    };
    let mut actions = vec![Action::CommitInfo(info)];
    for step in &commit.steps {
        actions.push(Action::Txn(Transaction::new_with_last_update(&step.name, step.to, Some(millis))));
    }
    for file in &commit.remove {
        actions.push(Action::Remove(remove(commit, file, millis)?));
    }
    for file in &commit.add {
        actions.push(Action::Add(add(commit, file, millis, storage)?));
    }
    Ok(actions)
}

fn add(commit: &Commit, file: &DataFile, millis: i64, storage: &Storage) -> Result<Add, TableError> {
    let sums = storage.sums(commit.table, &file.path);
    if sums.is_none() {
        tracing::warn!(table = commit.table.name(), file.path, "a file is committed whose checksums are not known");
    }
    let stats = serde_json::to_string(&Stats::of(commit.table, file))
        .map_err(|error| format::storage(commit.table, format!("statistics of file {}: {error}", file.path)))?;
    Ok(Add {
        path: file.path.clone(),
        partition_values: partition(file),
        size: size(commit.table, file)?,
        modification_time: millis,
        data_change: commit.data_change,
        stats: Some(stats),
        tags: sums.map(|sums| HashMap::from([(SUMS.to_owned(), Some(sums))])),
        ..Add::default()
    })
}

fn remove(commit: &Commit, file: &DataFile, millis: i64) -> Result<Remove, TableError> {
    Ok(Remove {
        path: file.path.clone(),
        data_change: commit.data_change,
        deletion_timestamp: Some(millis),
        extended_file_metadata: Some(true),
        partition_values: Some(partition(file)),
        size: Some(size(commit.table, file)?),
        ..Remove::default()
    })
}

fn partition(file: &DataFile) -> HashMap<String, Option<String>> {
    file.partition.iter().map(|(column, value)| (column.clone(), value.clone())).collect()
}

fn size(table: Table, file: &DataFile) -> Result<i64, TableError> {
    i64::try_from(file.bytes)
        .map_err(|_| format::unusable(table, format!("file {} has {} bytes", file.path, file.bytes)))
}

/// The text of a commit. Its first line has a checksum of the others.
pub(crate) fn to_bytes(table: Table, actions: &[Action]) -> Result<Bytes, TableError> {
    let mut rest = Vec::with_capacity(512 * actions.len());
    let mut first = Vec::new();
    let mut own = None;
    for action in actions {
        match action {
            Action::CommitInfo(info) => own = Some(info.clone()),
            other => write_line(table, &mut rest, other)?,
        }
    }
    if let Some(mut info) = own {
        let sum = sum_of(&rest, token(&info));
        info.info.insert(SUM.to_owned(), Value::from(sum));
        write_line(table, &mut first, &Action::CommitInfo(info))?;
    }
    first.append(&mut rest);
    Ok(first.into())
}

fn write_line(table: Table, text: &mut Vec<u8>, action: &Action) -> Result<(), TableError> {
    serde_json::to_writer(&mut *text, action)
        .map_err(|error| format::storage(table, format!("a commit cannot be written as json: {error}")))?;
    text.push(b'\n');
    Ok(())
}

/// The checksum of a commit's actions and its token.
fn sum_of(actions: &[u8], token: Option<Uuid>) -> String {
    let (_, seed) = token.unwrap_or_default().as_u64_pair();
    format!("{:016x}", xxh3_64_with_seed(actions, seed))
}

/// The actions of a commit's text.
pub(crate) fn from_bytes(table: Table, version: u64, text: &Bytes) -> Result<Vec<Action>, TableError> {
    let damaged = |what: &str| format::unusable(table, format!("version {version} of its log {what}"));
    if text.is_empty() {
        return Err(damaged("is empty"));
    }
    let actions = get_actions(version, text).map_err(|error| damaged(&format!("cannot be read: {error}")))?;
    // Commits of others have no checksum.
    let info = actions.iter().find_map(|action| match action {
        Action::CommitInfo(info) => Some((info.info.get(SUM)?.as_str()?, token(info))),
        _ => None,
    });
    let rest = text.iter().position(|byte| *byte == b'\n').and_then(|end| text.get(end + 1..)).unwrap_or_default();
    match info {
        Some((sum, token)) if sum != sum_of(rest, token) => Err(damaged("is damaged: its checksum does not hold")),
        _ => Ok(actions),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use object_store::memory::InMemory;
    use reckon_data::clock::RandomNames;
    use std::sync::Arc;

    use super::*;
    use crate::conformance::{adding, file, step};

    #[test]
    fn a_commit_of_which_a_byte_has_changed_is_refused() {
        let table = Table::Events;
        let storage = Storage::in_store(Arc::new(InMemory::new()));
        let add = vec![file(table, &RandomNames, 7), file(table, &RandomNames, 8)];
        let commit = adding(table, &RandomNames, vec![step("archive/0", 3, 9)], add);
        let text = to_bytes(table, &encode(&commit, 5, 1_000, &storage).unwrap()).unwrap();
        assert_eq!(from_bytes(table, 6, &text).unwrap().len(), 4);
        let first = text.iter().position(|byte| *byte == b'\n').unwrap();
        for at in first + 1..text.len() {
            let mut changed = text.to_vec();
            changed[at] ^= 1;
            assert!(from_bytes(table, 6, &changed.into()).is_err(), "byte {at}");
        }
        // One that somebody else has written.
        let others = text.slice(first + 1..);
        assert_eq!(from_bytes(table, 6, &others).unwrap().len(), 3);
    }
}
