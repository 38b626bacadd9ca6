//! What a partition's counter is given, and what it hands out.

use std::sync::Arc;
use std::time::Duration;

use reckon_data::definition::Definition;
use reckon_data::logtime::LogTime;
use reckon_data::run::Run;
use reckon_data::segment::Summary;

use super::CountError;
use crate::counter::counts::{Counts, freeze_all};

/// What decides how a log is counted.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whole minutes of log time within which a repeated event is dropped.
    pub dedup_minutes: u32,
    /// Events after which a segment ends.
    pub segment_events: u64,
    /// What is counted.
    pub definition: Arc<Definition>,
}

/// A segment that has ended, with its counts.
#[derive(Debug, Clone)]
pub struct FinishedSegment {
    /// What it adds up to.
    pub summary: Summary,
    /// Whether a cut is its first record.
    pub at_cut: bool,
    /// Its counts, one run or on their way to it.
    pub counts: Vec<Counts>,
}

impl FinishedSegment {
    /// The counts as one run, held to the summary. Heavy on CPU.
    ///
    /// # Errors
    /// [`CountError::Totals`] when they disagree, [`CountError::Run`].
    pub fn freeze(&self) -> Result<Arc<Run>, CountError> {
        let run = freeze_all(&self.counts)?;
        let Summary { partition, start, end, counted, fingerprint, .. } = self.summary;
        if run.total_count() != counted || run.fingerprint() != fingerprint {
            return Err(CountError::Totals { partition, start, end, counted, found: run.total_count() });
        }
        Ok(run)
    }
}

/// What a counter has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The next offset to be counted.
    pub offset: u64,
    /// Log time there.
    pub log_time: LogTime,
    /// Highest event time seen, microseconds; `i64::MIN` when none.
    pub event_time_max: i64,
}

/// What was counted since the counter was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Events counted.
    pub counted: u64,
    /// Events dropped as duplicates.
    pub duplicate: u64,
    /// Refused events.
    pub dead: u64,
    /// Time spent finding duplicates.
    pub dedup: Duration,
    /// Time spent counting.
    pub group: Duration,
}
