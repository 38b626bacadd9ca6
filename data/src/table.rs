//! The tables and their commits, as the layers see them.
//!
//! A commit is a compare-and-set: every [`Step`] names an application transaction, the version that it
//! must have in the very snapshot the commit is made from, and the version it gets. Whoever finds
//! another version has been fenced off by a second owner and stops. Delta Lake alone compares only the
//! *names* of transactions, and only with commits newer than the caller's snapshot (docs/adr/0002).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// Raw events.
    Events,
    /// The stream layer's counts, a segment at a time.
    StreamCounts,
    /// Exact counts per minute, hour and day.
    BatchCounts,
    /// What was refused, and why.
    DeadLetters,
    /// Files imported.
    Imports,
    /// Audits, a row each.
    AuditRuns,
    /// What they found.
    AuditFindings,
}

impl Table {
    /// Every table there is.
    pub const ALL: [Self; 7] = [
        Self::Events,
        Self::StreamCounts,
        Self::BatchCounts,
        Self::DeadLetters,
        Self::Imports,
        Self::AuditRuns,
        Self::AuditFindings,
    ];

    /// The table's name, which is its folder too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::StreamCounts => "stream_counts",
            Self::BatchCounts => "batch_counts",
            Self::DeadLetters => "dead_letters",
            Self::Imports => "imports",
            Self::AuditRuns => "audit_runs",
            Self::AuditFindings => "audit_findings",
        }
    }

    /// The columns the table is partitioned by: they stand in the path, not in the files.
    #[must_use]
    pub const fn partition_columns(self) -> &'static [&'static str] {
        match self {
            Self::Events => &["event_date"],
            Self::StreamCounts | Self::Imports => &[],
            Self::BatchCounts => &["granularity", "event_date"],
            Self::DeadLetters => &["received_date"],
            Self::AuditRuns | Self::AuditFindings => &["run_date"],
        }
    }
}

/// A data file of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Path below the table's folder, as Delta Lake stores it.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
    /// Value of each partition column.
    pub partition: BTreeMap<String, Option<String>>,
    /// Smallest and largest value of columns that have statistics, as JSON values.
    pub min: BTreeMap<String, serde_json::Value>,
    /// See `min`.
    pub max: BTreeMap<String, serde_json::Value>,
}

impl DataFile {
    /// Smallest value of an integer column, if the file has that statistic.
    #[must_use]
    pub fn min_i64(&self, column: &str) -> Option<i64> {
        self.min.get(column)?.as_i64()
    }

    /// Largest value of an integer column, if the file has that statistic.
    #[must_use]
    pub fn max_i64(&self, column: &str) -> Option<i64> {
        self.max.get(column)?.as_i64()
    }
}

/// One version of a table, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which table.
    pub table: Table,
    /// Delta version; 0 is the table's creation.
    pub version: u64,
    /// The live files.
    pub files: Arc<Vec<DataFile>>,
    /// Application transactions: name → version.
    pub transactions: BTreeMap<String, i64>,
}

impl Snapshot {
    /// Where a transaction stands; 0 before its first commit.
    #[must_use]
    pub fn transaction(&self, name: &str) -> i64 {
        self.transactions.get(name).copied().unwrap_or(0)
    }

    /// A log that this table's transactions `kind/<log>/…` are of, if they are of some log but none of this one:
    /// to go on with `log` would put its records beside those of the other.
    #[must_use]
    pub fn other_log(&self, kind: &str, log: Uuid) -> Option<&str> {
        let logs: Vec<&str> = (self.transactions.keys())
            .filter_map(|name| name.strip_prefix(kind)?.strip_prefix('/')?.split('/').next())
            .collect();
        let own = log.to_string();
        logs.first().copied().filter(|_| !logs.contains(&own.as_str()))
    }
}

/// A compare-and-set on one application transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The transaction's name, as [`crate::paths::Transaction`] writes it.
    pub name: String,
    /// The version it must have now; 0 if it never was committed.
    pub from: i64,
    /// The version it gets.
    pub to: i64,
}

/// What a commit does to a table.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Which table.
    pub table: Table,
    /// Compare-and-sets, at least one.
    pub steps: Vec<Step>,
    /// Files to add; they are durable already.
    pub add: Vec<DataFile>,
    /// Files to remove. One that is not live makes the commit fail.
    pub remove: Vec<DataFile>,
    /// Whether rows come or go, or are only laid out anew (compaction).
    pub data_change: bool,
    /// Marks this attempt, so that an unknown outcome can be told.
    pub token: Uuid,
    /// What did it, for the table's history.
    pub operation: String,
}

/// A version of a table as the table's log tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub version: u64,
    /// When it was committed, microseconds, by the clock of whoever did.
    pub committed_at: i64,
    /// What did it.
    pub operation: String,
    /// The token of the commit; none when it was not one of ours, or made the table.
    pub token: Option<Uuid>,
    /// The transactions that the commit set, and to what.
    pub transactions: BTreeMap<String, i64>,
}

/// What can go wrong with a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// Another owner has committed: stop, and do not try again.
    #[error(
        "fenced: transaction {name} of table {table} stands at {found}, not at {expected}: another owner has committed"
    )]
    Fenced {
        /// The table.
        table: &'static str,
        /// The transaction.
        name: String,
        /// Where it stands.
        found: i64,
        /// Where the committer thought it stood.
        expected: i64,
    },
    /// A file to be removed is no longer live, or another change is in the way: plan anew.
    #[error("conflict on table {table}: {reason}")]
    Conflict {
        /// The table.
        table: &'static str,
        /// What is in the way.
        reason: String,
    },
    /// The table was written by something newer, or is not ours.
    #[error("table {table} cannot be used: {reason}")]
    Unusable {
        /// The table.
        table: &'static str,
        /// Why.
        reason: String,
    },
    /// An older version was asked for that is not there.
    #[error(
        "table {table} has no version {version} to read: the oldest one still there is {oldest}, the newest {newest}"
    )]
    NoVersion {
        /// The table.
        table: &'static str,
        /// The version that was asked for.
        version: u64,
        /// The oldest one that can still be read.
        oldest: u64,
        /// The newest one.
        newest: u64,
    },
    /// The store failed; nothing is known to have been committed.
    #[error("table {table}: {reason}")]
    Storage {
        /// The table.
        table: &'static str,
        /// What failed.
        reason: String,
    },
}

/// Versions of tables and their commits.
///
/// - `commit` is atomic and linearisable for one table; after [`Ok`] it is durable.
/// - A commit whose steps do not stand at `from` in the newest version is [`TableError::Fenced`] and has no effect.
/// - An error of the store during `commit` is settled inside: the table is read again, and if the steps
///   stand at `to` under the commit's token it succeeded, if they stand at `from` it is tried again a
///   bounded number of times, otherwise it is fenced.
#[async_trait]
pub trait Tables: std::fmt::Debug + Send + Sync {
    /// The newest version of a table; the table is created if it does not exist.
    ///
    /// # Errors
    /// [`TableError::Unusable`], [`TableError::Storage`].
    async fn snapshot(&self, table: Table) -> Result<Snapshot, TableError>;

    /// The newest version's number, cheaply.
    ///
    /// # Errors
    /// As [`Tables::snapshot`].
    async fn version(&self, table: Table) -> Result<u64, TableError>;

    /// Commits, and returns the version that it made.
    ///
    /// # Errors
    /// See the trait.
    async fn commit(&self, commit: Commit) -> Result<u64, TableError>;

    /// Deletes files that no version of the last `retention_micros` refers to, and old log entries.
    /// Returns how many were deleted.
    ///
    /// # Errors
    /// As [`Tables::snapshot`].
    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError>;

    /// An older version of a table, whole: all its files are there when it is answered. What does not keep older
    /// versions says so.
    ///
    /// # Errors
    /// [`TableError::NoVersion`] when it was never made, or some of its files are vacuumed; as [`Tables::snapshot`].
    async fn snapshot_at(&self, table: Table, version: u64) -> Result<Snapshot, TableError> {
        Err(no_older(table, &format!("version {version}")))
    }

    /// The newest versions, at most `limit` of them and as far back as the table's log is kept, the newest first. Files
    /// of the oldest of them may be vacuumed: [`Tables::snapshot_at`] says so.
    ///
    /// # Errors
    /// As [`Tables::snapshot`].
    async fn history(&self, table: Table, limit: usize) -> Result<Vec<Version>, TableError> {
        Err(no_older(table, &format!("a history of {limit} versions")))
    }

    /// What the table's log tells of one version; none when it does not, or no longer.
    ///
    /// # Errors
    /// As [`Tables::snapshot`].
    async fn entry(&self, table: Table, version: u64) -> Result<Option<Version>, TableError> {
        Ok(self.history(table, usize::MAX).await?.into_iter().find(|told| told.version == version))
    }
}

/// What implementations say that keep the newest version alone: wrappers in tests, say.
fn no_older(table: Table, what: &str) -> TableError {
    TableError::Unusable {
        table: table.name(),
        reason: format!("{what} is asked for, and older versions are not kept here"),
    }
}
