//! A model of [`Tables`] in memory, for tests and simulation. There are no files, only their names.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use reckon_data::clock::Clock;
use reckon_data::table::{Commit, Snapshot, Table, TableError, Tables};

use crate::check::{self, Verdict, judge};
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
    /// When files were removed that have not been vacuumed yet (microseconds).
    removed: Vec<i64>,
}

impl MemoryTables {
    /// Empty tables; `clock` says when a file was removed.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let held = |table| Mutex::new(Held { state: State::new(table, String::new(), 0), removed: Vec::new() });
        Self { clock, tables: Table::ALL.map(held) }
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
                held.removed.extend(commit.remove.iter().map(|_| now));
                Ok(held.state.version)
            }
        }
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
        let cutoff = self.clock.now().saturating_sub(retention_micros);
        let mut held = self.held(table).lock();
        let before = held.removed.len();
        held.removed.retain(|removed| *removed >= cutoff);
        Ok((before - held.removed.len()) as u64)
    }
}
