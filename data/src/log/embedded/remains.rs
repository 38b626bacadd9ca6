//! What is left of a record that cannot be read, and putting another in its place.

use std::sync::Arc;

use bytes::Bytes;

use super::super::{ANY_RECORD_BYTES_MAX, Log as _, LogError};
use super::EmbeddedLog;
use crate::record::{RecordError, decode};

/// What is left of a record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// What does not fit.
    pub reason: String,
    /// Its bytes as they were found; none where not even those can be read.
    pub bytes: Option<Bytes>,
}

impl EmbeddedLog {
    /// What is left of the record at an offset; none when it can be read and nothing is wrong with it. One that a newer
    /// release has written is not damaged either.
    ///
    /// # Errors
    /// [`LogError::Trimmed`], [`LogError::PastEnd`] when there is no record; [`LogError::Storage`] when the disk does not
    /// answer, which may pass.
    pub async fn remains(&self, partition: u32, offset: u64) -> Result<Option<Remains>, LogError> {
        match self.read(partition, offset, 0).await {
            Ok(records) => {
                let Some(record) = records.into_iter().next() else {
                    return Err(LogError::PastEnd { partition, offset, end: offset });
                };
                match decode(&record.bytes) {
                    Ok(_) | Err(RecordError::Newer { .. }) => Ok(None),
                    Err(error) => Ok(Some(Remains { reason: error.to_string(), bytes: Some(record.bytes) })),
                }
            }
            Err(LogError::Corrupt { reason, .. }) => {
                let store = Arc::clone(&self.store);
                let found = tokio::task::spawn_blocking(move || store.raw(partition, offset)).await;
                // The crate may panic over an index that is damaged: then there are no bytes to be had.
                Ok(Some(Remains { reason, bytes: found.ok().flatten() }))
            }
            Err(other) => Err(other),
        }
    }

    /// Puts `instead` in the place of a record that cannot be read, durably and for good: the place holds it from then
    /// on, even should the first record be readable again.
    ///
    /// # Errors
    /// [`LogError::Whole`] when nothing is wrong with the record; [`LogError::TooLarge`]; [`LogError::Full`]; and as for
    /// [`Self::remains`]. After [`LogError::Storage`] it may be done or not.
    pub async fn set_aside(&self, partition: u32, offset: u64, instead: Bytes) -> Result<(), LogError> {
        if instead.len() > ANY_RECORD_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: instead.len(), limit: ANY_RECORD_BYTES_MAX });
        }
        if self.remains(partition, offset).await?.is_none() {
            return Err(LogError::Whole { partition, offset });
        }
        let store = Arc::clone(&self.store);
        let putting = tokio::task::spawn_blocking(move || store.set_aside(partition, offset, &instead));
        putting.await.unwrap_or_else(|stopped| Err(LogError::Storage(format!("setting aside stopped: {stopped}"))))
    }
}
