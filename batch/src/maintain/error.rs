//! Why a job of maintenance failed.

use reckon_data::files::FileError;
use reckon_data::log::LogError;
use reckon_data::table::TableError;
use reckon_tables::ColdError;

/// Why a job of maintenance failed. The tables are as they were; it is tried again the next time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaintainError {
    /// A table failed, or somebody else has committed in between.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A record's header cannot be read.
    #[error("the record at partition {partition}, offset {offset} cannot be read: {reason}")]
    Record {
        /// The log partition.
        partition: u32,
        /// The record's offset.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
    /// A file of raw events does not say of which offsets its rows are.
    #[error("a file of table {table} does not say of which offsets its rows are: {file} cannot be written anew")]
    Place {
        /// The table.
        table: &'static str,
        /// The damaged file.
        file: String,
    },
    /// Files cannot be read or sorted.
    #[error("sorting files of table {table}: {source}")]
    Query {
        /// The table.
        table: &'static str,
        /// What failed.
        source: Box<datafusion::error::DataFusionError>,
    },
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was read is not what the table says it holds; nothing is replaced.
    #[error("files of table {table} hold {found} rows and should hold {expected}")]
    Rows {
        /// The table.
        table: &'static str,
        /// Rows read.
        found: u64,
        /// Rows that the table says there are.
        expected: u64,
    },
    /// Counts that should stand for finer ones are not what those make.
    #[error("{date}: {reason}; nothing of it is dropped, an audit says more")]
    RollUp {
        /// The date, `2013-02-08`.
        date: String,
        /// What differs.
        reason: String,
    },
    /// A file cannot be moved to the colder store.
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// The thread that did it ended by a panic; a defect.
    #[error("a thread of maintenance ended: {0}")]
    Thread(String),
}
