//! What came in, and what each stage cost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use reckon_data::event::Reason;

/// All reasons, in the order of their numbers.
const REASONS: [Reason; 14] = [
    Reason::Malformed,
    Reason::UnknownField,
    Reason::RepeatedField,
    Reason::WrongType,
    Reason::Missing,
    Reason::Empty,
    Reason::TooLong,
    Reason::BadValue,
    Reason::BadTime,
    Reason::TooOld,
    Reason::InFuture,
    Reason::Reserved,
    Reason::Unprocessable,
    Reason::DamagedRecord,
];

/// Counters since the start; times in nanoseconds, by the clock on the wall: on busy cores they include the
/// time that a thread waited for its turn.
#[derive(Debug, Default)]
pub struct GatewayStats {
    /// Requests, whatever became of them.
    pub requests: AtomicU64,
    /// Requests answered with busy.
    pub busy: AtomicU64,
    /// Events judged valid.
    pub accepted: AtomicU64,
    /// Events judged otherwise, by [`Reason`].
    pub refused: [AtomicU64; REASONS.len()],
    /// Dead letters that were found elsewhere.
    pub buried: AtomicU64,
    /// Bytes of bodies, as received.
    pub received_bytes: AtomicU64,
    /// Bytes of bodies, decompressed.
    pub inflated_bytes: AtomicU64,
    /// Records appended and durable.
    pub records: AtomicU64,
    /// Bytes of them.
    pub record_bytes: AtomicU64,
    /// Rounds of appends.
    pub rounds: AtomicU64,
    /// Rounds of which not all could be appended.
    pub rounds_failed: AtomicU64,
    /// Appends that have failed since the last one that did not.
    pub(super) failing: AtomicU64,
    /// Time spent decompressing.
    pub inflate_nanos: AtomicU64,
    /// Time spent splitting, parsing, validating, hashing and building columns.
    pub judge_nanos: AtomicU64,
    /// Time spent encoding records.
    pub encode_nanos: AtomicU64,
    /// Time that rounds waited for the log; rounds overlap.
    pub append_nanos: AtomicU64,
}

/// The counters at one moment; see [`GatewayStats`].
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "GatewayStats says what each is")]
pub struct Snapshot {
    pub requests: u64,
    pub busy: u64,
    pub accepted: u64,
    /// By [`Reason::code`]; reasons that did not occur are left out.
    pub refused: BTreeMap<&'static str, u64>,
    pub buried: u64,
    pub received_bytes: u64,
    pub inflated_bytes: u64,
    pub records: u64,
    pub record_bytes: u64,
    pub rounds: u64,
    pub rounds_failed: u64,
    pub inflate_nanos: u64,
    pub judge_nanos: u64,
    pub encode_nanos: u64,
    pub append_nanos: u64,
    /// Bytes of the queue that requests take right now.
    pub queue_bytes: u64,
}

impl GatewayStats {
    /// Counts a refused event.
    pub(super) fn refuse(&self, reason: Reason) {
        let slot = REASONS.iter().position(|known| *known == reason);
        if let Some(counter) = slot.and_then(|slot| self.refused.get(slot)) {
            add(counter, 1);
        }
    }

    pub(super) fn snapshot(&self, queue_bytes: u64) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let refused = REASONS.iter().zip(&self.refused).map(|(reason, counter)| (reason.code(), get(counter)));
        Snapshot {
            requests: get(&self.requests),
            busy: get(&self.busy),
            accepted: get(&self.accepted),
            refused: refused.filter(|(_, count)| *count > 0).collect(),
            buried: get(&self.buried),
            received_bytes: get(&self.received_bytes),
            inflated_bytes: get(&self.inflated_bytes),
            records: get(&self.records),
            record_bytes: get(&self.record_bytes),
            rounds: get(&self.rounds),
            rounds_failed: get(&self.rounds_failed),
            inflate_nanos: get(&self.inflate_nanos),
            judge_nanos: get(&self.judge_nanos),
            encode_nanos: get(&self.encode_nanos),
            append_nanos: get(&self.append_nanos),
            queue_bytes,
        }
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Relaxed);
}

/// Adds the time since `start`.
pub(super) fn add_since(counter: &AtomicU64, start: Instant) {
    add(counter, nanos_since(start));
}

/// Nanoseconds since `start`.
pub(super) fn nanos_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
