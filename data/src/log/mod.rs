//! The log: the only order and the only cursor in the system.
//!
//! ```text
//! partition 0:  [0][1][2][3]…      one record an offset, no holes
//! partition 1:  [0][1]…                      ▲
//!                                            durable end: the next offset
//! ```
//!
//! [`Log`] states the contract; [`conformance`] holds an implementation to it; [`embedded`] is the
//! default implementation, [`memory`] the model that tests and simulations use.

pub mod conformance;
pub mod embedded;
pub mod memory;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

/// Most bytes of a record that holds events.
pub const RECORD_BYTES_MAX: usize = 512 * 1024;
/// Most bytes of any record: a dead record may hold one refused body of 1 MiB and its frame.
pub const ANY_RECORD_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;

/// Most bytes of the records of one append, so that it is one batch of a Fluvio topic too.
pub const APPEND_BYTES_MAX: usize = 1_536 * 1024;

/// Most partitions of a log: each costs files, buffers and a dedup set of its own.
pub const PARTITIONS_MAX: u32 = 256;

/// A record as it was read: its offset and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The record's number in its partition.
    pub offset: u64,
    /// The record.
    pub bytes: Bytes,
}

/// A durable, ordered, partitioned log of records.
///
/// The contract, which [`conformance`] tests:
/// - *Offsets* of a partition are 0, 1, 2, … without holes, in the order of the appends.
/// - *Durability*: `append` returns after its records are on stable storage, all of them; if it fails,
///   they may or may not have been stored, but never in part with a hole.
/// - *Reads* return consecutive records from the offset asked for, never past the durable end, never
///   fewer than one if there is one, and fail rather than skip.
/// - *Trim* removes a prefix, and reading below it is [`LogError::Trimmed`]; or it does nothing, where the log removes old
///   records by itself.
/// - *Identity* changes when the log is made anew, and only then.
#[async_trait]
pub trait Log: std::fmt::Debug + Send + Sync {
    /// How many partitions there are; they are numbered from 0 and none is ever removed.
    fn partitions(&self) -> u32;

    /// Which log this is.
    fn identity(&self) -> Uuid;

    /// Appends records to a partition, in order and next to each other, and returns their offsets
    /// once they are durable.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] before anything is stored, see [`check_sizes`]; [`LogError::Full`] when the disk is;
    /// [`LogError::Storage`] when the outcome is unknown.
    async fn append(&self, partition: u32, records: Vec<Bytes>) -> Result<Range<u64>, LogError>;

    /// Reads consecutive records from `from` on: at least one if `from` is below the durable end, then
    /// as many as fit into `max_bytes`. An empty answer means that `from` is the durable end.
    ///
    /// # Errors
    /// [`LogError::Trimmed`], [`LogError::PastEnd`] when `from` lies past the durable end, [`LogError::Corrupt`].
    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Stored>, LogError>;

    /// The offsets that can be read: from the trim point to the durable end.
    ///
    /// # Errors
    /// [`LogError::UnknownPartition`], [`LogError::Storage`].
    async fn extent(&self, partition: u32) -> Result<Range<u64>, LogError>;

    /// The durable end as it moves. The value is never past what `read` can return.
    ///
    /// # Errors
    /// [`LogError::UnknownPartition`].
    fn watch_end(&self, partition: u32) -> Result<watch::Receiver<u64>, LogError>;

    /// Removes the records below `below`; a trim below an earlier one does nothing, one past the
    /// durable end is refused.
    ///
    /// # Errors
    /// [`LogError::PastEnd`], [`LogError::Storage`].
    async fn trim(&self, partition: u32, below: u64) -> Result<(), LogError>;

    /// Whether a trim removes records; where it does not, none has to be planned.
    fn trims(&self) -> bool {
        true
    }

    /// Whether records may go from its beginning without [`Log::trim`], by a retention that is not ours. Then a beginning
    /// above what is sealed or archived is a loss, to be named and got over; of any other log it means that log and
    /// tables do not belong together.
    fn drops_by_itself(&self) -> bool {
        false
    }

    /// What it has counted of its own doings, for `/metrics`.
    fn counters(&self) -> Vec<LogCounter> {
        Vec::new()
    }

    /// Takes no more appends and makes everything durable; reading may stay possible.
    ///
    /// # Errors
    /// [`LogError::Storage`].
    async fn close(&self) -> Result<(), LogError> {
        Ok(())
    }
}

/// A number that only grows, for `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCounter {
    /// The metric's name.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// How many so far.
    pub value: u64,
}

/// Whether records may be appended at once: each at most [`ANY_RECORD_BYTES_MAX`], all together
/// [`APPEND_BYTES_MAX`].
///
/// # Errors
/// [`LogError::TooLarge`].
pub fn check_sizes(records: &[Bytes]) -> Result<(), LogError> {
    let largest = records.iter().map(Bytes::len).max().unwrap_or(0);
    let all = records.iter().map(Bytes::len).sum();
    for (bytes, limit) in [(largest, ANY_RECORD_BYTES_MAX), (all, APPEND_BYTES_MAX)] {
        if bytes > limit {
            return Err(LogError::TooLarge { bytes, limit });
        }
    }
    Ok(())
}

/// What can go wrong with a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// There is no such partition.
    #[error("the log has no partition {partition}")]
    UnknownPartition {
        /// The partition asked for.
        partition: u32,
    },
    /// A record, or all records of an append, are larger than they may be.
    #[error("{bytes} bytes are more than the {limit} that may be appended so")]
    TooLarge {
        /// Their size.
        bytes: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// The offset lies below the trim point.
    #[error("offset {offset} of partition {partition} is gone, the log begins at {start}")]
    Trimmed {
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// The first offset that is left.
        start: u64,
    },
    /// The offset lies past the durable end.
    #[error("offset {offset} of partition {partition} is past the durable end {end}")]
    PastEnd {
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// The durable end.
        end: u64,
    },
    /// What is stored there is not what was written.
    #[error("the log is corrupt at partition {partition}, offset {offset}: {reason}")]
    Corrupt {
        /// The partition.
        partition: u32,
        /// The offset.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
    /// A record was to be set aside that can be read.
    #[error("nothing is wrong with the record at partition {partition}, offset {offset}")]
    Whole {
        /// The partition.
        partition: u32,
        /// The offset.
        offset: u64,
    },
    /// There is no room left.
    #[error("the log's disk is full")]
    Full,
    /// The log has another shape than the configuration asks for.
    #[error("{0}")]
    Mismatch(String),
    /// The storage below failed; an append may or may not have happened.
    #[error("the log's storage failed: {0}")]
    Storage(String),
}
