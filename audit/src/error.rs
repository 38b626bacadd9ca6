//! Why an audit could not run. What it finds is no error.

use reckon_data::log::LogError;
use reckon_data::table::TableError;

/// Why an audit could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    /// The store failed, so nothing is known of a file.
    #[error("file {path} cannot be read: {reason}")]
    Store {
        /// The file.
        path: String,
        /// What failed.
        reason: String,
    },
    /// The request cannot be carried out.
    #[error("{0}")]
    Invalid(String),
    /// A place in the log that the audit has no room for.
    #[error(
        "the audit cannot hold partition {partition}, offset {offset}, index {index}: a number is negative or too large"
    )]
    TooLarge {
        /// The partition.
        partition: i64,
        /// The offset.
        offset: i64,
        /// The index.
        index: i64,
    },
    /// Polars could not compute what was asked of it.
    #[error("Polars: {0}")]
    Polars(#[from] polars::error::PolarsError),
    /// A thread could not be had, or has ended.
    #[error("the audit was stopped: {0}")]
    Stopped(String),
}

/// What an error comes from in the end.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
