//! Why the archiver cannot go on.

use arrow::error::ArrowError;
use reckon_data::files::FileError;
use reckon_data::log::LogError;
use reckon_data::table::TableError;
use uuid::Uuid;

/// What can go wrong with the archiver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The tables were archived from another log.
    #[error(
        "the events in the tables come from log {archived}, and the log here is {log}: put the log back that belongs \
         to these tables, or give this one another folder with --data-dir"
    )]
    OtherLog {
        /// The log that was archived.
        archived: String,
        /// The log there is.
        log: Uuid,
    },
    /// The log no longer holds what was not archived yet: those events are lost to the batch layer. Where it drops records by
    /// itself, the next archiver goes on behind them.
    #[error(
        "partition {partition} is archived up to offset {archived}, but its log begins at {start} only: \
         the records between are gone"
    )]
    Trimmed {
        /// The log partition.
        partition: u32,
        /// The offset up to which it is archived.
        archived: u64,
        /// The first offset that the log still has.
        start: u64,
    },
    /// The tables are ahead of the log: it is not the log they were written from, or has lost its end.
    #[error("partition {partition} is archived up to offset {archived}, but its log ends at {end} already")]
    LogBehind {
        /// The log partition.
        partition: u32,
        /// The offset up to which it is archived.
        archived: u64,
        /// The log's durable end.
        end: u64,
    },
    /// A record cannot be read; everything before it is archived, and everything of other partitions.
    #[error("the record at partition {partition}, offset {offset} cannot be read: {reason}")]
    Corrupt {
        /// The log partition.
        partition: u32,
        /// The record's offset.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
    /// Another archiver has committed.
    #[error("the archiver has been fenced off: {0}")]
    Fenced(#[source] TableError),
    /// A table failed otherwise.
    #[error(transparent)]
    Table(TableError),
    /// The log failed otherwise.
    #[error(transparent)]
    Log(LogError),
    /// The object store failed.
    #[error("writing {path} failed: {source}")]
    Store {
        /// The file.
        path: String,
        /// What failed.
        source: object_store::Error,
    },
    /// Columns do not fit the table; a defect.
    #[error("columns cannot be laid out for the table: {0}")]
    Columns(#[from] ArrowError),
    /// A file cannot be encoded; a defect.
    #[error("a file cannot be encoded: {0}")]
    Encode(#[from] FileError),
    /// A thread of the archiver ended by a panic; a defect.
    #[error("a thread of the archiver ended: {0}")]
    Thread(String),
}

impl ArchiveError {
    /// Whether one partition cannot go on for it, for now, and the others can.
    pub(super) const fn is_of_one_partition(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Trimmed { .. } | Self::Log(LogError::Storage(_)))
    }

    /// Whether trying again may help: storage may come back, a defect will not go away.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Store { .. }
                | Self::Log(LogError::Storage(_) | LogError::Full)
                | Self::Table(TableError::Storage { .. } | TableError::Conflict { .. })
        )
    }
}

impl From<TableError> for ArchiveError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Fenced { .. } => Self::Fenced(error),
            other => Self::Table(other),
        }
    }
}

impl From<tokio::task::JoinError> for ArchiveError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Thread(error.to_string())
    }
}
