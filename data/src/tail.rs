//! What the serving layer asks the stream layer for: the counts of exactly [from, position).
//!
//! In one process this is a function call, across processes it will be a remote one.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::logtime::LogTime;
use crate::metric::Cell;
use crate::run::{Run, Selection};

/// Where a partition's counter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The next offset to be counted.
    pub offset: u64,
    /// Log time there.
    pub log_time: LogTime,
    /// Highest event time seen, microseconds; `i64::MIN` when none.
    pub event_time_max: i64,
    /// The offset up to which segments are sealed.
    pub sealed: u64,
    /// The log's durable end as last seen.
    pub durable_end: u64,
}

/// The counts of [from, position) of one partition.
///
/// `runs` and `on_disk` together cover it exactly: no hole, no overlap.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The partition.
    pub partition: u32,
    /// First offset.
    pub from: u64,
    /// Where the counter stands.
    pub position: Position,
    /// Counts in memory.
    pub runs: Vec<Arc<Run>>,
    /// Ranges of sealed segments that must be read from `stream_counts`.
    pub on_disk: Vec<Range<u64>>,
}

/// The answer to a [`Selection`] over [from, position) of one partition.
#[derive(Debug, Clone)]
pub struct TailSum {
    /// Where the counter stands.
    pub position: Position,
    /// What was counted there.
    pub cells: Vec<(i64, Cell)>,
    /// Ranges that must be read from `stream_counts` and added.
    pub on_disk: Vec<Range<u64>>,
}

/// Why a tail cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// `from` is no segment boundary that is still held apart: take a newer view and ask again.
    #[error("the tail of partition {partition} from offset {from} is gone")]
    Gone {
        /// The partition.
        partition: u32,
        /// The offset asked for.
        from: u64,
    },
    /// The counter is not there yet, or has stopped.
    #[error("the counter of partition {partition} does not run: {reason}")]
    Unavailable {
        /// The partition.
        partition: u32,
        /// Why.
        reason: String,
    },
}

/// The stream layer, as the serving layer sees it.
#[async_trait]
pub trait Tails: std::fmt::Debug + Send + Sync {
    /// How many partitions there are.
    fn partitions(&self) -> u32;

    /// The counts of [from, position), whole.
    ///
    /// # Errors
    /// See [`TailError`].
    async fn tail(&self, partition: u32, from: u64) -> Result<Tail, TailError>;

    /// What `selection` finds in [from, position), added up per step; the position and the counts
    /// belong to the same moment.
    ///
    /// # Errors
    /// See [`TailError`].
    async fn sum(&self, partition: u32, from: u64, selection: &Selection<'_>) -> Result<TailSum, TailError>;

    /// Where a partition's counter stands.
    ///
    /// # Errors
    /// [`TailError::Unavailable`].
    fn position(&self, partition: u32) -> Result<Position, TailError>;

    /// Tells the stream layer that coverage has moved, so that it can let go of what lies below
    /// once the longest query is over.
    fn covered(&self, partition: u32, coverage: u64);
}
