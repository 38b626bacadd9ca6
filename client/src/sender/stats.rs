//! What a sender has done.

use reckon_data::event::Reason;
use reckon_data::receipt::Receipt;
use uuid::Uuid;

/// So many refusals are kept.
const REFUSALS_MAX: usize = 100;

/// What a sender has done since it was started. Events of an earlier one, found in the spill, count from when a server
/// has judged them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events given to it.
    pub sent: u64,
    /// Events that a server took.
    pub acknowledged: u64,
    /// Events that a server refused.
    pub refused: u64,
    /// The first hundred of them.
    pub refusals: Vec<Refusal>,
    /// Requests that were made again.
    pub retried: u64,
    /// Events set down in the spill.
    pub spilled: u64,
    /// Bytes of events in memory that are not acknowledged yet, without those read back from the spill.
    pub waiting_bytes: u64,
    /// Bytes of files in the spill that are not acknowledged yet.
    pub spill_bytes: u64,
    /// Files of the spill that were not what was written. They were not sent, and are called `….damaged` now.
    pub damaged: u64,
    /// Files of the spill that were gone when they should have been sent: their events were not, by this sender.
    pub missing: u64,
    /// Files of the spill whose batch was refused as a whole. They are kept, and called `….refused` now.
    pub refused_files: u64,
    /// What went wrong last, with a server or with the spill.
    pub error: Option<String>,
}

/// An event that a server refused, or a whole batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The batch: the `Idempotency-Key` it was sent with.
    pub batch: Uuid,
    /// The event's index in it, from 0; none when the batch was refused as a whole.
    pub index: Option<u64>,
    /// What kind of thing is wrong with the event.
    pub reason: Option<Reason>,
    /// What is wrong.
    pub message: String,
}

impl Stats {
    /// Notes a server's verdicts on a batch.
    pub(super) fn judged(&mut self, batch: Uuid, events: u64, receipt: Receipt) {
        self.acknowledged += receipt.accepted;
        // Not the receipt's own number: it knows a body that it could not read as one thing.
        self.refused += events.saturating_sub(receipt.accepted);
        for error in receipt.errors {
            let (index, reason, message) = (Some(error.index), Some(error.reason), error.message);
            self.keep(Refusal { batch, index, reason, message });
        }
    }

    /// Notes that a batch was refused as a whole.
    pub(super) fn refused_whole(&mut self, batch: Uuid, events: u64, message: &str) {
        self.refused += events;
        self.keep(Refusal { batch, index: None, reason: None, message: message.to_owned() });
    }

    fn keep(&mut self, refusal: Refusal) {
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push(refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use reckon_data::receipt::RefusedEvent;

    use super::*;

    #[test]
    fn every_event_is_counted_and_the_first_refusals_are_kept() {
        let mut stats = Stats::default();
        let error = |index| RefusedEvent { index, reason: Reason::Missing, field: None, message: "no id".to_owned() };
        let errors = (0..150).map(error).collect();
        let receipt = Receipt { accepted: 50, refused: 150, errors, ..Receipt::default() };
        stats.judged(Uuid::nil(), 200, receipt);
        stats.judged(Uuid::nil(), 10, Receipt { refused: 1, ..Receipt::default() });
        stats.refused_whole(Uuid::nil(), 5, "no");
        assert_eq!((stats.acknowledged, stats.refused, stats.refusals.len()), (50, 165, 100));
        assert_eq!(stats.refusals[99].index, Some(99));
    }
}
