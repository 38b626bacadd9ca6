//! What maintenance did.

use serde::{Deserialize, Serialize};

/// Files that were put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewritten {
    /// Commits made.
    pub commits: u64,
    /// Files read.
    pub files_before: u64,
    /// Files written in their place.
    pub files_after: u64,
    /// Bytes read.
    pub bytes_before: u64,
    /// Bytes written.
    pub bytes_after: u64,
    /// Rows in them.
    pub rows: u64,
}

impl std::ops::AddAssign for Rewritten {
    fn add_assign(&mut self, other: Self) {
        self.commits += other.commits;
        self.files_before += other.files_before;
        self.files_after += other.files_after;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
        self.rows += other.rows;
    }
}

/// Counts that coarser ones stand for now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledUp {
    /// Dates of which some went.
    pub dates: u64,
    /// Files of counts by the minute that went.
    pub minute_files: u64,
    /// Files of counts by the hour that went.
    pub hour_files: u64,
}

/// Files that were moved to the colder store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What one round of maintenance did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintainReport {
    /// Files of raw events that were put together and sorted.
    pub events: Rewritten,
    /// Files of stream counts that were put together.
    pub stream_counts: Rewritten,
    /// Files of stream counts removed because coverage has passed them.
    pub covered_files: u64,
    /// Files of raw events removed because they are older than they are kept.
    pub expired_event_files: u64,
    /// Files of dead letters removed because they are older than they are kept.
    pub expired_dead_files: u64,
    /// Counts by the minute and the hour that were dropped because they are older than they are kept.
    #[serde(default)]
    pub rolled_up: RolledUp,
    /// Files of raw events that were moved to the colder store.
    #[serde(default)]
    pub moved_to_cold: Moved,
    /// Files and old log entries deleted for good.
    pub deleted: u64,
    /// What somebody else's commit got in the way of: it is left for the next time.
    pub skipped: Vec<String>,
    /// What failed; it is tried again the next time.
    pub failed: Vec<String>,
}
