//! What can go wrong with a question.

use std::time::Duration;

use datafusion::error::DataFusionError;
use reckon_data::damage::Damaged;
use reckon_data::run::RunError;
use reckon_data::table::TableError;

use crate::rolled::RolledUp;

/// Why a question has no answer; a variant for every status that a caller tells apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServingError {
    /// The question cannot be asked like that.
    #[error("{field}: {message}")]
    BadRequest {
        /// The part of the question that is wrong: `from`, `filter`, `query`.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// It is finer than what is still counted of a date.
    #[error("{0}")]
    RolledUp(RolledUp),
    /// There is no such thing.
    #[error("{what} was not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// It took too long.
    #[error("the query took longer than {} s, which is the limit", limit.as_secs_f64())]
    Timeout {
        /// The longest time a query may take.
        limit: Duration,
    },
    /// It needed too much memory.
    #[error("the query needs more than {limit_bytes} bytes of memory, which is the limit: {message}")]
    MemoryLimit {
        /// The most a query may take, in bytes.
        limit_bytes: u64,
        /// What wanted more.
        message: String,
    },
    /// Not now, but perhaps soon.
    #[error("no answer now: {message}")]
    Unavailable {
        /// What stands in the way.
        message: String,
    },
    /// A data file is not what was written.
    #[error("{damaged}; what else it holds is not answered either, or an answer could be wrong and look right")]
    Damaged {
        /// Which, and where.
        damaged: Damaged,
    },
    /// Something is broken.
    #[error("{message}")]
    Internal {
        /// What is.
        message: String,
    },
}

impl ServingError {
    /// A question that is wrong in `field`.
    #[must_use]
    pub fn bad(field: &'static str, message: impl Into<String>) -> Self {
        Self::BadRequest { field, message: message.into() }
    }

    pub(crate) fn unavailable(message: impl ToString) -> Self {
        Self::Unavailable { message: message.to_string() }
    }

    /// What a failed store says: that it failed, or that a file is damaged.
    pub(crate) fn of_store(cause: &(dyn std::error::Error + 'static)) -> Self {
        match Damaged::cause(cause) {
            Some(damaged) => Self::Damaged { damaged },
            None => Self::unavailable(cause),
        }
    }

    pub(crate) fn internal(message: impl ToString) -> Self {
        Self::Internal { message: message.to_string() }
    }
}

impl From<RolledUp> for ServingError {
    fn from(rolled: RolledUp) -> Self {
        Self::RolledUp(rolled)
    }
}

impl From<TableError> for ServingError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Unusable { .. } => Self::internal(error),
            _ => Self::unavailable(error),
        }
    }
}

impl From<object_store::Error> for ServingError {
    fn from(error: object_store::Error) -> Self {
        Self::of_store(&error)
    }
}

impl From<parquet::errors::ParquetError> for ServingError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        match error {
            // The store failed, or the file is gone: a newer view may do better.
            parquet::errors::ParquetError::External(cause) => Self::of_store(&*cause),
            other => Self::internal(other),
        }
    }
}

impl From<RunError> for ServingError {
    fn from(error: RunError) -> Self {
        Self::internal(error)
    }
}

impl From<arrow::error::ArrowError> for ServingError {
    fn from(error: arrow::error::ArrowError) -> Self {
        match error {
            arrow::error::ArrowError::ExternalError(cause) => Self::of_store(&*cause),
            other => Self::internal(other),
        }
    }
}

/// What DataFusion says of a query that our own code wrote.
impl From<DataFusionError> for ServingError {
    fn from(error: DataFusionError) -> Self {
        if let Some(damaged) = Damaged::cause(&error) {
            return Self::Damaged { damaged };
        }
        match error.find_root() {
            DataFusionError::ObjectStore(cause) => Self::unavailable(cause),
            DataFusionError::ResourcesExhausted(message) => {
                Self::MemoryLimit { limit_bytes: 0, message: message.clone() }
            }
            other => Self::internal(other),
        }
    }
}
