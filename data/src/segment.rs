//! Segments: ranges of offsets whose ends are a function of the log alone.

use crate::logtime::LogTime;

/// The summary of a finished segment [start, end) of one partition.
///
/// `accepted = counted + duplicate` and `received = accepted + dead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The log partition.
    pub partition: u32,
    /// First offset.
    pub start: u64,
    /// Offset after the last.
    pub end: u64,
    /// Valid events.
    pub accepted: u64,
    /// Events counted.
    pub counted: u64,
    /// Events dropped as duplicates.
    pub duplicate: u64,
    /// Refused events.
    pub dead: u64,
    /// Wrapping sum of the key hashes counted.
    pub fingerprint: u64,
    /// Log time at `end`.
    pub log_time: LogTime,
    /// Highest event time counted or dropped up to `end`, microseconds; `i64::MIN` when none.
    pub event_time_max: i64,
    /// Where reading has to begin for the dedup set at `end` to be complete.
    pub refill_offset: u64,
    /// Log time before the record at `refill_offset`.
    pub refill_log_time: LogTime,
    /// The definition version that it was counted with.
    pub definition: u64,
}

impl Summary {
    /// R-1, conservation.
    #[must_use]
    pub const fn is_balanced(&self) -> bool {
        matches!(self.counted.checked_add(self.duplicate), Some(sum) if sum == self.accepted)
    }
}
