//! One version of a table in memory, and how a commit changes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use deltalake_core::kernel::{Action, Add, Metadata};
use reckon_data::table::{Commit, DataFile, Snapshot, Table, TableError};
use uuid::Uuid;

use crate::stats::{self, Stats};
use crate::{actions, format};

/// Tokens of the newest commits that are remembered. Older ones are looked up in the log.
const RECENT_MAX: usize = 256;

/// One version of a table, whole.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub table: Table,
    /// The table's own id, which changes when it is made anew.
    pub id: String,
    pub version: u64,
    /// Live files by path.
    pub files: BTreeMap<String, Arc<DataFile>>,
    pub transactions: BTreeMap<String, i64>,
    /// What the next commit has to bring, because an older program has made the table.
    pub upgrade: Option<Arc<Metadata>>,
    /// Tokens of the newest commits and the versions they made, oldest first.
    recent: VecDeque<(Uuid, u64)>,
    /// What [`Tables::snapshot`](reckon_data::table::Tables::snapshot) shows, made once a version.
    shown: OnceLock<Arc<Vec<DataFile>>>,
}

impl State {
    /// A table just created.
    pub fn new(table: Table, id: String, version: u64) -> Self {
        Self {
            table,
            id,
            version,
            files: BTreeMap::new(),
            transactions: BTreeMap::new(),
            upgrade: None,
            recent: VecDeque::new(),
            shown: OnceLock::new(),
        }
    }

    /// The version that the commit with this token made, if it is one of the newest.
    pub fn made_by(&self, token: Uuid) -> Option<u64> {
        self.recent.iter().rev().find(|(known, _)| *known == token).map(|(_, version)| *version)
    }

    /// Remembers who made a version.
    pub fn remember(&mut self, token: Uuid, version: u64) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((token, version));
    }

    /// Where a transaction stands; 0 before its first commit.
    pub fn transaction(&self, name: &str) -> i64 {
        self.transactions.get(name).copied().unwrap_or(0)
    }

    /// The next version, after a commit of our own.
    pub fn after(&self, commit: &Commit) -> Self {
        let mut next = self.following();
        for file in &commit.remove {
            next.files.remove(&file.path);
        }
        for file in &commit.add {
            next.files.insert(file.path.clone(), Arc::new(stats::normalised(self.table, file)));
        }
        for step in &commit.steps {
            next.transactions.insert(step.name.clone(), step.to);
        }
        next.upgrade = None;
        next.remember(commit.token, next.version);
        next
    }

    /// The next version, after a commit as the log holds it.
    pub fn apply(&self, found: Vec<Action>) -> Result<Self, TableError> {
        let mut next = self.following();
        let mut added = Vec::new();
        for action in found {
            match action {
                Action::Add(add) => added.push(data_file(self.table, add)?),
                Action::Remove(remove) => {
                    next.files.remove(&remove.path);
                }
                Action::Txn(txn) => {
                    next.transactions.insert(txn.app_id, txn.version);
                }
                Action::Metadata(metadata) => {
                    next.upgrade = format::verify_metadata(self.table, &metadata)?.map(Arc::new);
                }
                Action::Protocol(protocol) => format::verify_protocol(self.table, &protocol)?,
                Action::CommitInfo(info) => {
                    if let Some(token) = actions::token(&info) {
                        next.remember(token, next.version);
                    }
                }
                Action::Cdc(_) | Action::DomainMetadata(_) => {}
            }
        }
        next.files.extend(added.into_iter().map(|file| (file.path.clone(), Arc::new(file))));
        Ok(next)
    }

    fn following(&self) -> Self {
        Self { version: self.version + 1, shown: OnceLock::new(), ..self.clone() }
    }

    /// This version as callers see it.
    pub fn snapshot(&self) -> Snapshot {
        let files = self.shown.get_or_init(|| Arc::new(self.files.values().map(|file| (**file).clone()).collect()));
        Snapshot {
            table: self.table,
            version: self.version,
            files: Arc::clone(files),
            transactions: self.transactions.clone(),
        }
    }
}

fn data_file(table: Table, add: Add) -> Result<DataFile, TableError> {
    if add.deletion_vector.is_some() {
        return Err(format::unusable(table, format!("file {} has a deletion vector", add.path)));
    }
    let partition = add.partition_values.into_iter().collect();
    file_of(table, add.path, add.size, partition, add.stats.as_deref())
}

/// A data file of the log. A file that does not say how many rows it has is refused: nothing here could be counted by it.
pub(crate) fn file_of(
    table: Table,
    path: String,
    size: i64,
    partition: BTreeMap<String, Option<String>>,
    stats: Option<&str>,
) -> Result<DataFile, TableError> {
    let stats: Stats = match stats {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| format::unusable(table, format!("statistics of file {path}: {error}")))?,
        None => Stats::default(),
    };
    let (Some(rows), Ok(bytes)) = (stats.num_records, u64::try_from(size)) else {
        return Err(format::unusable(table, format!("file {path} does not say how many rows or bytes it has")));
    };
    Ok(DataFile { path, bytes, rows, partition, min: stats.min_values, max: stats.max_values })
}
