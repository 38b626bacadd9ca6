//! A partition whose next record cannot be read: it rests, and is tried again while the others go on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::ArchiveError;

/// Waits between two tries at a record: doubled from the first to the last.
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_LAST: Duration = Duration::from_secs(15);

/// Why a partition is not archived any further, and when it is tried again.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// The offset of the record that cannot be read.
    pub(super) next: u64,
    /// Why not.
    pub(super) error: Arc<ArchiveError>,
    /// When it is tried again.
    pub(super) until: Instant,
    wait: Duration,
}

impl Fault {
    /// The record at `next` cannot be read, and could not be `before` if it was tried.
    pub(super) fn after(before: Option<&Self>, next: u64, error: ArchiveError) -> Self {
        let wait = before.map_or(WAIT_FIRST, |before| (before.wait * 2).min(WAIT_LAST));
        Self { next, error: Arc::new(error), until: Instant::now() + wait, wait }
    }

    /// Whether somebody has to do something: what one of the next tries may mend by itself is not worth a word.
    pub(super) fn is_lasting(&self) -> bool {
        !self.error.is_transient() || self.wait >= WAIT_LAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_tried_again_at_a_pace_that_slows_down() {
        let error = || ArchiveError::Corrupt { partition: 0, offset: 7, reason: "a bit".to_owned() };
        let mut fault = Fault::after(None, 7, error());
        assert_eq!(fault.wait, WAIT_FIRST);
        for _ in 0..20 {
            fault = Fault::after(Some(&fault), 7, error());
        }
        assert_eq!(fault.wait, WAIT_LAST);
        assert!(fault.is_lasting());
    }
}
