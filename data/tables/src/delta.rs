//! [`Tables`] on Delta Lake.
//!
//! ```text
//! refresh ─▶ judge ─▶ create version + 1 ─▶ done
//!    ▲         │             │
//!    │         └▶ refused    ├▶ taken by another: again, at once
//!    └───────────────────────┴▶ outcome unknown: again, after a while
//! ```
//!
//! The version that is judged is the one that is followed: a commit from version v can become
//! version v + 1 and no other. So a late write of an attempt that timed out can only become the very
//! version that the next attempt asks for too, or nothing (DESIGN 3.4).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deltalake_core::kernel::Action;
use reckon_data::clock::Clock;
use reckon_data::table::{Commit, Snapshot, Table, TableError, Tables, Version};

use crate::check::{self, Verdict, judge};
use crate::format::storage;
use crate::log::{TableLog, Written};
use crate::store::Storage;
use crate::{actions, past, vacuum};

/// Attempts of a commit while the store fails.
const FAILURES_MAX: u32 = 6;
/// Attempts of a commit while others are quicker.
const RACES_MAX: u32 = 256;
/// First wait after a failure of the store, in milliseconds; doubled each time.
const WAIT_MS: u64 = 50;

/// How large a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSize {
    /// The files it refers to. Those it does not refer to any more lie in the store until they are vacuumed.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The tables in a [`Storage`].
#[derive(Debug, Clone)]
pub struct DeltaTables {
    storage: Storage,
    logs: [Arc<TableLog>; Table::ALL.len()],
}

impl DeltaTables {
    /// The tables in `storage`; nothing is read or created yet.
    ///
    /// # Errors
    /// [`TableError::Unusable`] if a table's name cannot be part of a URL; none of ours is such.
    pub fn new(storage: Storage, clock: Arc<dyn Clock>) -> Result<Self, TableError> {
        let log = |table| TableLog::new(table, &storage, Arc::clone(&clock)).map(Arc::new);
        let [events, stream_counts, batch_counts, dead_letters, imports, audit_runs, audit_findings] =
            Table::ALL.map(log);
        let logs = [events?, stream_counts?, batch_counts?, dead_letters?, imports?, audit_runs?, audit_findings?];
        Ok(Self { storage, logs })
    }

    /// Where the tables lie.
    #[must_use]
    pub const fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Writes a checkpoint of a table's newest version, and returns that version. Commits do it by themselves now and then.
    ///
    /// # Errors
    /// [`TableError::Storage`].
    pub async fn checkpoint(&self, table: Table) -> Result<u64, TableError> {
        let log = self.log(table);
        log.refresh().await?;
        Box::pin(log.checkpoint()).await
    }

    /// How large a table is in the newest version that this process has seen; none as long as it has seen none. Asks
    /// nothing of the store.
    #[must_use]
    pub fn size(&self, table: Table) -> Option<TableSize> {
        let newest = self.log(table).newest()?;
        let bytes = newest.files.values().map(|file| file.bytes).sum();
        Some(TableSize { files: newest.files.len(), bytes })
    }

    fn log(&self, table: Table) -> &Arc<TableLog> {
        let [events, stream_counts, batch_counts, dead_letters, imports, audit_runs, audit_findings] = &self.logs;
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
impl Tables for DeltaTables {
    async fn snapshot(&self, table: Table) -> Result<Snapshot, TableError> {
        Ok(Box::pin(self.log(table).refresh()).await?.snapshot())
    }

    async fn version(&self, table: Table) -> Result<u64, TableError> {
        Ok(Box::pin(self.log(table).refresh()).await?.version)
    }

    async fn commit(&self, commit: Commit) -> Result<u64, TableError> {
        check::shape(&commit)?;
        let log = self.log(commit.table);
        let _turn = log.turn.acquire().await.map_err(|error| storage(log.table, error))?;
        let version = Box::pin(settle(log, &commit)).await?;
        log.checkpoint_when_due(version);
        Ok(version)
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
        Box::pin(vacuum::vacuum(self.log(table), retention_micros)).await
    }

    async fn snapshot_at(&self, table: Table, version: u64) -> Result<Snapshot, TableError> {
        Box::pin(past::snapshot_at(self.log(table), version)).await
    }

    async fn history(&self, table: Table, limit: usize) -> Result<Vec<Version>, TableError> {
        Box::pin(past::history(self.log(table), limit)).await
    }

    async fn entry(&self, table: Table, version: u64) -> Result<Option<Version>, TableError> {
        Box::pin(past::entry(self.log(table), version)).await
    }
}

/// Tries until the commit is in, or has no place any more, or the store has failed too often.
async fn settle(log: &TableLog, commit: &Commit) -> Result<u64, TableError> {
    let (mut failures, mut races) = (0, 0);
    loop {
        match attempt(log, commit).await {
            Ok(Some(version)) => return Ok(version),
            Ok(None) if races < RACES_MAX => {
                races += 1;
                tokio::time::sleep(after_race(commit, races)).await;
            }
            Ok(None) => {
                let reason = format!("{RACES_MAX} commits of others came first");
                return Err(TableError::Conflict { table: log.table.name(), reason });
            }
            Err(TableError::Storage { reason, .. }) if failures < FAILURES_MAX => {
                tracing::warn!(table = log.table.name(), token = %commit.token, reason, "commit failed, trying again");
                tokio::time::sleep(Duration::from_millis(WAIT_MS << failures)).await;
                failures += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Some hundred microseconds that differ between committers, so that they don't race in step.
fn after_race(commit: &Commit, races: u32) -> Duration {
    let (_, low) = commit.token.as_u64_pair();
    let spread = low.rotate_left(races * 7) % (64 * u64::from(races.min(16)));
    Duration::from_micros(spread * 10)
}

/// One attempt: the version it made, or nothing if another commit was quicker. A commit that is found in the log is
/// no success before the log is durable: the attempt that wrote it may have failed at just that.
async fn attempt(log: &TableLog, commit: &Commit) -> Result<Option<u64>, TableError> {
    let state = log.refresh().await?;
    match judge(&state, commit) {
        Verdict::Ready => {}
        Verdict::Committed(version) => {
            log.sync().await?;
            return Ok(Some(version));
        }
        Verdict::Refused { error, perhaps_ours } => {
            if perhaps_ours && let Some(version) = log.find(commit.token, state.version).await? {
                log.sync().await?;
                return Ok(Some(version));
            }
            return Err(error);
        }
    }
    let mut encoded = actions::encode(commit, state.version, log.clock.now(), &log.storage)?;
    encoded.extend(state.upgrade.as_deref().cloned().map(Action::Metadata));
    match log.follow(state.version, actions::to_bytes(log.table, &encoded)?).await? {
        Written::Taken => Ok(None),
        Written::Yes => {
            commit.remove.iter().for_each(|file| log.storage.removed(log.table, &file.path));
            Ok(Some(log.advance(Arc::new(state.after(commit))).version.min(state.version + 1)))
        }
    }
}
