//! What can be set about an embedded log, and the limits of it.

use super::super::{LogError, PARTITIONS_MAX};

const MIB: u64 = 1024 * 1024;

/// How large an embedded log may grow in memory, and in which steps it works.
///
/// `partitions` and `memtable_bytes` count when the log is made; the rest may change at every opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Partitions, 1 to [`PARTITIONS_MAX`]. An existing log must have this number.
    pub partitions: u32,
    /// Bytes of one partition that are gathered in memory before they become a file. Trim frees whole
    /// files, so this is also its step. Set when the log is made.
    pub memtable_bytes: u64,
    /// Most bytes of all partitions together that wait in memory to be written to files; appends wait above it.
    pub write_buffer_bytes: u64,
    /// Most bytes kept of what was read from files.
    pub cache_bytes: u64,
    /// Journal bytes from which idle partitions are written out too, so that old journals can go. At least 64 MiB.
    pub journal_bytes: u64,
    /// Most bytes that one commit gathers; one larger append is committed alone.
    pub commit_bytes_max: usize,
    /// Most appends that one commit gathers.
    pub commit_appends_max: usize,
    /// Most bytes of appends that wait for a commit; `append` waits above it.
    pub queue_bytes_max: usize,
    /// Most appends that wait for a commit; `append` waits above it.
    pub queue_appends_max: usize,
    /// Free bytes the disk must keep: below them appends are refused, so that what is in memory can still
    /// be written out and a trim can still be recorded.
    pub disk_reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 4,
            memtable_bytes: 16 * MIB,
            write_buffer_bytes: 128 * MIB,
            cache_bytes: 32 * MIB,
            journal_bytes: 128 * MIB,
            commit_bytes_max: 8 << 20,
            commit_appends_max: 1024,
            queue_bytes_max: 32 << 20,
            queue_appends_max: 1024,
            disk_reserve_bytes: 512 * MIB,
        }
    }
}

impl Options {
    /// Refuses values that the log cannot work with.
    pub(super) fn check(&self) -> Result<(), LogError> {
        let refuse = |what: String| Err(LogError::Mismatch(what));
        if self.partitions == 0 || self.partitions > PARTITIONS_MAX {
            return refuse(format!("a log has 1 to {PARTITIONS_MAX} partitions, not {}", self.partitions));
        }
        if self.journal_bytes < 64 * MIB {
            return refuse(format!("the log's journal needs at least 64 MiB, not {} bytes", self.journal_bytes));
        }
        if self.memtable_bytes == 0 || self.write_buffer_bytes < 2 * self.memtable_bytes {
            return refuse(format!(
                "the log's write buffer ({} bytes) must hold two memtables ({} bytes each)",
                self.write_buffer_bytes, self.memtable_bytes
            ));
        }
        let counts = [self.commit_bytes_max, self.commit_appends_max, self.queue_bytes_max, self.queue_appends_max];
        if counts.contains(&0) || u32::try_from(self.queue_bytes_max).is_err() {
            return refuse("the log's commit and queue limits must lie between 1 and 4 GiB".to_owned());
        }
        Ok(())
    }
}
