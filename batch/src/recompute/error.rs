//! What can go wrong with a batch run.

use std::path::PathBuf;

use reckon_data::files::FileError;
use reckon_data::log::LogError;
use reckon_data::table::TableError;

/// Why a batch run has failed. Nothing of it is visible then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The request cannot be carried out.
    #[error("{0}")]
    Invalid(String),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A table failed, or somebody else has committed in between.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The counter or the archiver has stopped.
    #[error("waiting for everything below the cut to be committed: {0}")]
    Follower(String),
    /// The events below a cut are not all in the table.
    #[error("partition {partition} is archived up to offset {archived}, the cut lies at {cut}")]
    NotArchived {
        /// The partition.
        partition: u32,
        /// Up to where its events are in the table.
        archived: i64,
        /// Where the cut lies.
        cut: u64,
    },
    /// Counting failed.
    #[error("counting")]
    Query(#[from] datafusion::error::DataFusionError),
    /// A file of counts cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Columns do not fit.
    #[error("columns of counts")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Temporary files cannot be written or read.
    #[error("temporary file {path}")]
    Spill {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
    /// What was found cannot be, so nothing is committed.
    #[error("{0}")]
    Broken(String),
    /// A part of the run has panicked or was stopped.
    #[error("a part of the run has stopped: {0}")]
    Stopped(String),
}

impl BatchError {
    /// The error with all its causes in one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
