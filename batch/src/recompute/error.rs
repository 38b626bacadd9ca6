//! What can go wrong with a batch run.

use std::error::Error as StdError;
use std::path::PathBuf;

use reckon_data::files::FileError;
use reckon_data::log::LogError;
use reckon_data::table::TableError;

/// How the names of data files end.
const DATA_FILE: &str = ".parquet";

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
    /// A table refers to a file that is not there.
    #[error(
        "file {path} is missing: `reckon audit --repair` makes raw events anew from the log, and counts from raw events, \
         as far as those are there"
    )]
    MissingFile {
        /// The file, as the store names it.
        path: String,
    },
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
    /// The same; if it comes from a file of a table that is not there, with its name and what to do about it.
    #[must_use]
    pub(super) fn or_missing_file(self) -> Self {
        let path = match &self {
            Self::Query(error) => missing(error),
            _ => None,
        };
        path.map_or(self, |path| Self::MissingFile { path })
    }

    /// The error with all its causes in one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// The data file that was to be read and is not there, if an error comes from that.
fn missing(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(object_store::Error::NotFound { path, .. }) = error.downcast_ref::<object_store::Error>() {
            return Some(path.clone()).filter(|path| path.ends_with(DATA_FILE));
        }
        // DataFusion makes texts of some causes.
        if error.source().is_none() {
            return named(&error.to_string());
        }
        next = error.source();
    }
    None
}

/// The data file that a text says was not found.
fn named(text: &str) -> Option<String> {
    let (_, after) = text.split_once("Object at location ")?;
    let (path, _) = after.split_once(" not found")?;
    path.ends_with(DATA_FILE).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use datafusion::error::DataFusionError;

    use super::*;

    fn not_found(path: &str) -> object_store::Error {
        object_store::Error::NotFound { path: path.to_owned(), source: "no such key".into() }
    }

    #[test]
    fn a_missing_file_is_named_and_said_what_to_do_about() {
        let path = "events/event_date=2026-01-01/a.parquet";
        let external = DataFusionError::External(Box::new(not_found(path)));
        let told = DataFusionError::Execution(format!("reading: {}", not_found(path)));
        for error in [DataFusionError::from(not_found(path)), external, told] {
            let error = BatchError::from(error).or_missing_file();
            assert!(matches!(&error, BatchError::MissingFile { path: found } if found == path), "{error:?}");
            assert!(error.to_string().contains(path) && error.to_string().contains("reckon audit --repair"));
        }
    }

    #[test]
    fn other_errors_stay_what_they_are() {
        let other = BatchError::from(DataFusionError::from(not_found("events/_delta_log/1.json"))).or_missing_file();
        assert!(matches!(other, BatchError::Query(_)), "{other:?}");
        let broken = BatchError::Broken("Object at location a.parquet not found".to_owned()).or_missing_file();
        assert!(matches!(broken, BatchError::Broken(_)), "{broken:?}");
    }
}
