//! All names of transactions and files, in one place.

use std::fmt;

use uuid::Uuid;

use crate::run::Granularity;
use crate::table::Table;

/// An application transaction of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    /// `stream/<log>/<partition>`: the offset up to which segments are sealed.
    Stream(Uuid, u32),
    /// `archive/<log>/<partition>`: the offset up to which events are archived.
    Archive(Uuid, u32),
    /// `dead/<log>/<partition>`: the offset up to which dead letters are archived.
    Dead(Uuid, u32),
    /// `batch/<log>/<partition>`: coverage.
    Batch(Uuid, u32),
    /// `lost/<log>/<partition>`, of `events` and `batch_counts`: how many records in all had gone from the log before they
    /// were archived.
    Lost(Uuid, u32),
    /// `lost_to/<log>/<partition>`, of the same: the offset after the last of those.
    LostTo(Uuid, u32),
    /// `accepted/<log>/<partition>`, of `batch_counts`: how many of those somebody has accepted.
    Accepted(Uuid, u32),
    /// `maintain/<table>`: counts the commits that lay files out anew.
    Maintain(Table),
    /// `closed`, of `events`: dates before this one (days since 1970) may have lost raw events for good.
    Closed,
    /// `rolled/<granularity>`, of `batch_counts`: dates before this one (days since 1970) may have no rows of that
    /// granularity any more ([`crate::rolled::Rolled`]).
    Rolled(Granularity),
    /// `imports`: counts the commits to the table of imports.
    Imports,
    /// `audit/runs`, of `audit_runs`: counts the runs; of `audit_findings`: counts the commits.
    AuditRuns,
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(log, p) => write!(f, "stream/{log}/{p}"),
            Self::Archive(log, p) => write!(f, "archive/{log}/{p}"),
            Self::Dead(log, p) => write!(f, "dead/{log}/{p}"),
            Self::Batch(log, p) => write!(f, "batch/{log}/{p}"),
            Self::Lost(log, p) => write!(f, "lost/{log}/{p}"),
            Self::LostTo(log, p) => write!(f, "lost_to/{log}/{p}"),
            Self::Accepted(log, p) => write!(f, "accepted/{log}/{p}"),
            Self::Maintain(table) => write!(f, "maintain/{}", table.name()),
            Self::Closed => write!(f, "closed"),
            Self::Rolled(granularity) => write!(f, "rolled/{granularity}"),
            Self::Imports => write!(f, "imports"),
            Self::AuditRuns => write!(f, "audit/runs"),
        }
    }
}

/// The name of a data file: the range of one log partition it holds, and a name that no other attempt has.
///
/// `p0003-00000000000000000120-00000000000000000456-<uuid>.parquet`
#[must_use]
pub fn segment_file(partition: u32, start: u64, end: u64, name: Uuid) -> String {
    format!("p{partition:04}-{start:020}-{end:020}-{name}.parquet")
}

/// The name of a data file that is stored while the log is still being read: where its range ends is in its
/// statistics, not known to its name.
///
/// `p0003-00000000000000000120-<uuid>.parquet`
#[must_use]
pub fn growing_file(partition: u32, start: u64, name: Uuid) -> String {
    format!("p{partition:04}-{start:020}-{name}.parquet")
}

/// The name of a data file that holds rows of many partitions.
#[must_use]
pub fn mixed_file(what: &str, name: Uuid) -> String {
    format!("{what}-{name}.parquet")
}

/// `column=value/`, the folder of one value of a partition column.
#[must_use]
pub fn partition_folder(column: &str, value: &str) -> String {
    format!("{column}={value}/")
}
