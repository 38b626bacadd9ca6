//! What the archiver has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// What the archiver has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ArchiveStats {
    /// Rows committed to `events`.
    pub events: u64,
    /// Rows committed to `dead_letters`.
    pub dead_letters: u64,
    /// Bytes of the files committed.
    pub bytes: u64,
    /// Files committed.
    pub files: u64,
    /// Commits, empty ones included.
    pub commits: u64,
    /// Times that a round was given up because storage failed, and read again.
    pub retries: u64,
    /// Records that are durable in the log and not committed yet.
    pub lag_records: u64,
    /// Append time of the newest record committed, microseconds; 0 when none.
    pub append_time: i64,
    /// Seconds spent reading the log, all partitions added up.
    pub read_seconds: f64,
    /// Seconds that threads spent decoding records.
    pub decode_seconds: f64,
    /// Seconds that threads spent encoding files.
    pub encode_seconds: f64,
    /// Seconds spent storing files, all added up.
    pub store_seconds: f64,
    /// Seconds spent in commits.
    pub commit_seconds: f64,
}

impl ArchiveStats {
    /// What two archivers have done, of other partitions each.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            dead_letters: self.dead_letters + other.dead_letters,
            bytes: self.bytes + other.bytes,
            files: self.files + other.files,
            commits: self.commits + other.commits,
            retries: self.retries + other.retries,
            lag_records: self.lag_records + other.lag_records,
            append_time: self.append_time.max(other.append_time),
            read_seconds: self.read_seconds + other.read_seconds,
            decode_seconds: self.decode_seconds + other.decode_seconds,
            encode_seconds: self.encode_seconds + other.encode_seconds,
            store_seconds: self.store_seconds + other.store_seconds,
            commit_seconds: self.commit_seconds + other.commit_seconds,
        }
    }
}

/// A number of nanoseconds that grows.
#[derive(Debug, Default)]
pub(super) struct Spent(AtomicU64);

impl Spent {
    pub(super) fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn seconds(&self) -> f64 {
        Duration::from_nanos(self.0.load(Ordering::Relaxed)).as_secs_f64()
    }
}

/// The numbers as they grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) events: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) files: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) append_time: std::sync::atomic::AtomicI64,
    pub(super) read: Spent,
    pub(super) decode: Spent,
    pub(super) encode: Spent,
    pub(super) store: Spent,
    pub(super) commit: Spent,
}

impl Counters {
    pub(super) fn show(&self, lag_records: u64) -> ArchiveStats {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        ArchiveStats {
            events: load(&self.events),
            dead_letters: load(&self.dead_letters),
            bytes: load(&self.bytes),
            files: load(&self.files),
            commits: load(&self.commits),
            retries: load(&self.retries),
            lag_records,
            append_time: self.append_time.load(Ordering::Relaxed),
            read_seconds: self.read.seconds(),
            decode_seconds: self.decode.seconds(),
            encode_seconds: self.encode.seconds(),
            store_seconds: self.store.seconds(),
            commit_seconds: self.commit.seconds(),
        }
    }
}
