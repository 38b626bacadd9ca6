//! Why an audit cannot be stored or read.

use reckon_data::files::FileError;
use reckon_data::table::TableError;
use uuid::Uuid;

/// Why an audit cannot be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file cannot be read now.
    #[error("reading file {path}")]
    Read {
        /// The file.
        path: String,
        /// What failed.
        source: object_store::Error,
    },
    /// A file is not what was written.
    #[error("file {path} is not what the audit has written: {reason}")]
    Changed {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A report that could not be read again.
    #[error("the report of audit {run_id} cannot be stored: {reason}")]
    Unfit {
        /// The audit.
        run_id: Uuid,
        /// What is wrong with it.
        reason: String,
    },
    /// Others were quicker, again and again.
    #[error("the report of audit {run_id} is not stored: {attempts} times another audit's came first")]
    Raced {
        /// The audit.
        run_id: Uuid,
        /// How often it was tried.
        attempts: u32,
    },
    /// The thread that did it ended early.
    #[error("a thread that read audits ended: {0}")]
    Thread(String),
}
