//! A commit as the log holds it: one JSON action a line.

use std::collections::HashMap;

use bytes::Bytes;
use deltalake_core::kernel::{Action, Add, CommitInfo, Remove, Transaction};
use deltalake_core::logstore::get_actions;
use reckon_data::table::{Commit, DataFile, Table, TableError};
use serde_json::Value;
use uuid::Uuid;

use crate::format;
use crate::stats::Stats;

/// Where a commit's token stands in its `commitInfo`.
const TOKEN: &str = "reckonToken";

/// The token of a commit, if it is one of ours.
pub(crate) fn token(info: &CommitInfo) -> Option<Uuid> {
    Uuid::parse_str(info.info.get(TOKEN)?.as_str()?).ok()
}

/// The actions of a commit that is made at `now` (microseconds) from version `read`.
pub(crate) fn encode(commit: &Commit, read: u64, now: i64) -> Result<Vec<Action>, TableError> {
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
        actions.push(Action::Add(add(commit, file, millis)?));
    }
    Ok(actions)
}

fn add(commit: &Commit, file: &DataFile, millis: i64) -> Result<Add, TableError> {
    let stats = serde_json::to_string(&Stats::of(commit.table, file))
        .map_err(|error| format::storage(commit.table, format!("statistics of file {}: {error}", file.path)))?;
    Ok(Add {
        path: file.path.clone(),
        partition_values: partition(file),
        size: size(commit.table, file)?,
        modification_time: millis,
        data_change: commit.data_change,
        stats: Some(stats),
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

/// The text of a commit.
pub(crate) fn to_bytes(table: Table, actions: &[Action]) -> Result<Bytes, TableError> {
    let mut text = Vec::with_capacity(512 * actions.len());
    for action in actions {
        serde_json::to_writer(&mut text, action)
            .map_err(|error| format::storage(table, format!("a commit cannot be written as json: {error}")))?;
        text.push(b'\n');
    }
    Ok(text.into())
}

/// The actions of a commit's text.
pub(crate) fn from_bytes(table: Table, version: u64, text: &Bytes) -> Result<Vec<Action>, TableError> {
    if text.is_empty() {
        return Err(format::unusable(table, format!("version {version} of its log is empty")));
    }
    get_actions(version, text)
        .map_err(|error| format::unusable(table, format!("version {version} of its log: {error}")))
}
