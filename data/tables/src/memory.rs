//! A model of [`Tables`] in memory, for tests and simulation. There are no files, only their names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use reckon_data::clock::Clock;
use reckon_data::table::{Commit, Snapshot, Table, TableError, Tables, Version};

use crate::check::{self, Verdict, judge};
use crate::format::CREATION;
use crate::state::State;

/// The tables, in memory.
#[derive(Debug)]
pub struct MemoryTables {
    clock: Arc<dyn Clock>,
    tables: [Mutex<Held>; Table::ALL.len()],
}

#[derive(Debug)]
struct Held {
    state: State,
    /// When the table was made, microseconds.
    created: i64,
    /// Every commit, and when it was made: the first one made version 1.
    commits: Vec<(i64, Commit)>,
    /// When files were removed that have not been vacuumed yet (microseconds).
    removed: Vec<(i64, String)>,
    /// Files that have been.
    vacuumed: BTreeSet<String>,
}

impl Held {
    fn new(table: Table, created: i64) -> Self {
        let state = State::new(table, String::new(), 0);
        Self { state, created, commits: Vec::new(), removed: Vec::new(), vacuumed: BTreeSet::new() }
    }

    /// All versions from the first one to `last`.
    fn versions(&self, last: u64) -> impl Iterator<Item = State> {
        let mut state = State::new(self.state.table, String::new(), 0);
        let first = state.clone();
        let commits = self.commits.iter().take(usize::try_from(last).unwrap_or(usize::MAX));
        std::iter::once(first).chain(commits.map(move |(_, commit)| {
            state = state.after(commit);
            state.clone()
        }))
    }

    fn is_whole(&self, state: &State) -> bool {
        state.files.keys().all(|path| !self.vacuumed.contains(path))
    }

    fn at(&self, version: u64) -> Result<Snapshot, TableError> {
        let found = self.versions(version).last().filter(|state| state.version == version && self.is_whole(state));
        found.map(|state| state.snapshot()).ok_or_else(|| {
            let newest = self.state.version;
            let whole: Vec<bool> = self.versions(newest).map(|state| self.is_whole(&state)).collect();
            // From there on all can be read.
            let oldest = newest + 1 - whole.into_iter().rev().take_while(|whole| *whole).count() as u64;
            TableError::NoVersion { table: self.state.table.name(), version, oldest, newest }
        })
    }

    fn history(&self, limit: usize) -> Vec<Version> {
        let created = Version {
            version: 0,
            committed_at: self.created,
            operation: CREATION.to_owned(),
            token: None,
            transactions: BTreeMap::new(),
        };
        let commits = (1_u64..).zip(&self.commits).map(|(version, (committed_at, commit))| Version {
            version,
            committed_at: *committed_at,
            operation: commit.operation.clone(),
            token: Some(commit.token),
            transactions: commit.steps.iter().map(|step| (step.name.clone(), step.to)).collect(),
        });
        let mut versions: Vec<Version> = std::iter::once(created).chain(commits).collect();
        versions.reverse();
        versions.truncate(limit);
        versions
    }
}

impl MemoryTables {
    /// Empty tables; `clock` says when a file was removed.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self { clock, tables: Table::ALL.map(|table| Mutex::new(Held::new(table, now))) }
    }

    fn held(&self, table: Table) -> &Mutex<Held> {
        let [events, stream_counts, batch_counts, dead_letters, imports, audit_runs, audit_findings] = &self.tables;
        match table {
            Table::Events => events,
            Table::StreamCounts => stream_counts,
            Table::BatchCounts => batch_counts,
            Table::DeadLetters => dead_letters,
            Table::Imports => imports,
            Table::AuditRuns => audit_runs,
            Table::AuditFindings => audit_findings,
        }
    }
}

#[async_trait]
impl Tables for MemoryTables {
    async fn snapshot(&self, table: Table) -> Result<Snapshot, TableError> {
        Ok(self.held(table).lock().state.snapshot())
    }

    async fn version(&self, table: Table) -> Result<u64, TableError> {
        Ok(self.held(table).lock().state.version)
    }

    async fn commit(&self, commit: Commit) -> Result<u64, TableError> {
        check::shape(&commit)?;
        let now = self.clock.now();
        let mut held = self.held(commit.table).lock();
        match judge(&held.state, &commit) {
            Verdict::Committed(version) => Ok(version),
            Verdict::Refused { error, .. } => Err(error),
            Verdict::Ready => {
                held.state = held.state.after(&commit);
                held.removed.extend(commit.remove.iter().map(|file| (now, file.path.clone())));
                held.commits.push((now, commit));
                Ok(held.state.version)
            }
        }
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
        let cutoff = self.clock.now().saturating_sub(retention_micros);
        let mut held = self.held(table).lock();
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut held.removed).into_iter().partition(|(removed, _)| *removed >= cutoff);
        held.removed = kept;
        let deleted = gone.len() as u64;
        held.vacuumed.extend(gone.into_iter().map(|(_, path)| path));
        Ok(deleted)
    }

    async fn snapshot_at(&self, table: Table, version: u64) -> Result<Snapshot, TableError> {
        self.held(table).lock().at(version)
    }

    async fn history(&self, table: Table, limit: usize) -> Result<Vec<Version>, TableError> {
        Ok(self.held(table).lock().history(limit))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use reckon_data::clock::{ManualClock, SeededNames};

    use super::*;
    use crate::conformance::{adding, file, step};

    #[tokio::test]
    async fn a_version_whose_files_are_vacuumed_is_refused_and_the_oldest_one_left_is_named() {
        let (clock, names, table) = (Arc::new(ManualClock::at(7)), SeededNames::new(1), Table::BatchCounts);
        let tables = MemoryTables::new(clock.clone());
        let [one, other] = [file(table, &names, 1), file(table, &names, 2)];
        tables.commit(adding(table, &names, vec![step("a", 0, 1)], vec![one.clone()])).await.unwrap();
        clock.set(9);
        let replace = adding(table, &names, vec![step("a", 1, 2)], vec![other]);
        tables.commit(Commit { remove: vec![one.clone()], ..replace }).await.unwrap();
        assert_eq!(*tables.snapshot_at(table, 1).await.unwrap().files, [one]);
        let times: Vec<i64> =
            tables.history(table, 9).await.unwrap().iter().map(|version| version.committed_at).collect();
        assert_eq!(times, [9, 7, 7]);
        clock.set(100);
        assert_eq!(tables.vacuum(table, 1).await.unwrap(), 1);
        let refused = tables.snapshot_at(table, 1).await;
        assert!(matches!(refused, Err(TableError::NoVersion { version: 1, oldest: 2, newest: 2, .. })), "{refused:?}");
        assert_eq!(tables.snapshot_at(table, 2).await.unwrap(), tables.snapshot(table).await.unwrap());
    }
}
