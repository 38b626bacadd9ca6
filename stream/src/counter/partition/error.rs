//! Why a partition cannot be counted any further.

use reckon_data::run::RunError;

/// What must not happen, and stops the partition when it does: a wrong count that looks right is worse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CountError {
    /// The record is not the next one.
    #[error("partition {partition}: offset {found} came where {expected} should have")]
    Hole {
        /// The partition.
        partition: u32,
        /// The offset that was due.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// The record holds another number of events than its header says.
    #[error("partition {partition}, offset {offset}: the header says {header} events, there are {found}")]
    Events {
        /// The partition.
        partition: u32,
        /// The record.
        offset: u64,
        /// What its header says.
        header: u32,
        /// How many there are.
        found: usize,
    },
    /// An event's time lies thousands of years away.
    #[error("partition {partition}, offset {offset}: event time {time} is out of range")]
    EventTime {
        /// The partition.
        partition: u32,
        /// The record.
        offset: u64,
        /// Microseconds since 1970.
        time: i64,
    },
    /// R-1 does not hold.
    #[error(
        "partition {partition}, offset {offset}: {accepted} accepted, {counted} counted, {duplicate} duplicate do not add up"
    )]
    Unbalanced {
        /// The partition.
        partition: u32,
        /// The record.
        offset: u64,
        /// Valid events.
        accepted: u64,
        /// Events counted.
        counted: u64,
        /// Duplicates.
        duplicate: u64,
    },
    /// A segment's rows do not add up to its summary.
    #[error(
        "partition {partition}, segment {start} to {end}: {counted} events counted, but its rows hold {found}, or others"
    )]
    Totals {
        /// The partition.
        partition: u32,
        /// First offset.
        start: u64,
        /// Offset after the last.
        end: u64,
        /// Events counted.
        counted: u64,
        /// Events in the rows.
        found: u64,
    },
    /// The log does not lead to where the sealed segment ended.
    #[error(
        "partition {partition}: log time at offset {offset} is not what it was when that was sealed: this is another log"
    )]
    OtherLog {
        /// The partition.
        partition: u32,
        /// Where the sealed segment ended.
        offset: u64,
    },
    /// A record to be counted came before refilling was over.
    #[error("partition {partition}, offset {offset}: the dedup set is not refilled yet")]
    NotRefilled {
        /// The partition.
        partition: u32,
        /// The record.
        offset: u64,
    },
    /// A record to refill from came after refilling was over.
    #[error("partition {partition}, offset {offset}: refilling is over")]
    Refilled {
        /// The partition.
        partition: u32,
        /// The record.
        offset: u64,
    },
    /// The rows cannot be kept.
    #[error(transparent)]
    Run(#[from] RunError),
}
