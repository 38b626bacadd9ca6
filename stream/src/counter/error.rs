//! Why a counter cannot start, and why it stops.

use reckon_data::damage::Damaged;
use reckon_data::files::FileError;
use reckon_data::log::LogError;
use reckon_data::record::RecordError;
use reckon_data::table::TableError;
use uuid::Uuid;

use super::partition::CountError;

/// What can go wrong with a counter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CounterError {
    /// The tables were counted from another log.
    #[error(
        "stream_counts was sealed from log {sealed}, but this is log {log}: put the old log back in its place, or \
         start with an empty data directory and import again"
    )]
    OtherLog {
        /// The log the tables know.
        sealed: String,
        /// The log there is.
        log: Uuid,
    },
    /// Records that are needed are no longer in the log. Where it drops records by itself, the next counter goes on behind
    /// them.
    #[error(
        "partition {partition} begins at offset {start}, but counting has to go on from {needed}: restore the log \
         from a copy, or set it up anew together with the tables"
    )]
    Trimmed {
        /// The partition.
        partition: u32,
        /// The first offset needed.
        needed: u64,
        /// The first offset there is.
        start: u64,
    },
    /// The log ends before what was sealed: it lost records.
    #[error(
        "partition {partition} ends at offset {end}, but was sealed up to {sealed}: the log has lost records, restore \
         it from a copy"
    )]
    Short {
        /// The partition.
        partition: u32,
        /// Where the log ends.
        end: u64,
        /// What was sealed.
        sealed: u64,
    },
    /// A record cannot be read.
    #[error("partition {partition}, offset {offset}: the record cannot be read: {source}")]
    Record {
        /// The partition.
        partition: u32,
        /// The record.
        offset: u64,
        /// Why not.
        source: RecordError,
    },
    /// A file of `stream_counts` cannot be read.
    #[error("file {path} of stream_counts: {reason}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A file of `stream_counts` is not what was written.
    #[error("{0}")]
    Damaged(Damaged),
    /// A task of the runtime was lost.
    #[error("a task of the counter ended: {0}")]
    Task(String),
    /// See [`CountError`].
    #[error(transparent)]
    Count(#[from] CountError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// See [`TableError`].
    #[error(transparent)]
    Table(#[from] TableError),
    /// See [`LogError`].
    #[error(transparent)]
    Log(#[from] LogError),
}

impl CounterError {
    /// Whether it says that a record cannot be read, of which nothing was counted: it may be readable another time, when
    /// somebody has mended it.
    pub(super) const fn is_of_record(&self) -> bool {
        matches!(self, Self::Record { .. } | Self::Log(LogError::Corrupt { .. }))
    }
}

impl From<tokio::task::JoinError> for CounterError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Task(error.to_string())
    }
}
