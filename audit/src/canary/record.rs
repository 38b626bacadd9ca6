//! What a canary has seen since it started.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::round::{Outcome, RoundReport};
use crate::finding::{Finding, Untold};

/// Findings that are kept until an audit that holds them is stored: the first and the newest ones, as many of each.
pub const KEPT_MAX: usize = 200;
/// Upper bounds of the buckets of delays, seconds.
pub const DELAY_BOUNDS: [f64; 10] = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0];

/// Numbers of a canary since it started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CanaryStats {
    /// Rounds that are over.
    pub rounds: u64,
    /// Of them, those that were answered right.
    pub rounds_right: u64,
    /// Events acknowledged by the front door, copies too.
    pub events_sent: u64,
    /// Events that no answer held when patience ran out.
    pub lost: u64,
    /// Events that answers held too many.
    pub excess: u64,
    /// Requests without an answer, or with one that cannot be used.
    pub requests_failed: u64,
    /// How long the last round took that was answered right, from its last acknowledgement.
    pub delay: Option<Duration>,
    /// Rounds within each of [`DELAY_BOUNDS`], and not within the one before.
    pub delays: [u64; DELAY_BOUNDS.len()],
    /// All delays together, seconds.
    pub delay_sum: f64,
    /// When the last round was right, microseconds since 1970; 0 is never.
    pub last_right: i64,
    /// Rounds that are not over.
    pub open_rounds: u64,
    /// Findings so far, kept or not.
    pub findings: u64,
}

#[derive(Debug, Default)]
struct Seen {
    stats: CanaryStats,
    /// Findings that no stored audit holds, each with its number, from 1 on.
    untold: VecDeque<(u64, Finding)>,
    /// How many of all findings so far stand in stored audits.
    told: u64,
}

impl Seen {
    fn find(&mut self, finding: &Finding) {
        self.stats.findings += 1;
        self.untold.push_back((self.stats.findings, finding.clone()));
        if self.untold.len() > KEPT_MAX {
            // The first ones say how it began, the newest how it is.
            self.untold.remove(KEPT_MAX / 2);
        }
    }
}

/// What a canary has seen; for who runs it and for who shows it.
#[derive(Debug, Default)]
pub struct Record {
    seen: Mutex<Seen>,
}

impl Record {
    /// The numbers.
    #[must_use]
    pub fn stats(&self) -> CanaryStats {
        self.seen.lock().stats.clone()
    }

    /// The findings that no stored audit holds yet, as far as they are kept; its mark is for [`Record::told`].
    #[must_use]
    pub fn untold(&self) -> Untold {
        let seen = self.seen.lock();
        let findings: Vec<Finding> = seen.untold.iter().map(|(_, finding)| finding.clone()).collect();
        let mark = seen.stats.findings;
        let gone = mark.saturating_sub(seen.told).saturating_sub(findings.len() as u64);
        Untold { findings, gone, mark }
    }

    /// A stored audit holds, or counts, all findings up to `mark`.
    pub fn told(&self, mark: u64) {
        let mut seen = self.seen.lock();
        seen.told = seen.told.max(mark);
        seen.untold.retain(|(number, _)| *number > mark);
    }

    /// Puts findings that say more in the place of those that were noted `before`, one each, as far as these are kept.
    /// A stored audit that holds one already has it as it was, and no later one has it again.
    pub fn replace(&self, before: &[Finding], by: &[Finding]) {
        let mut seen = self.seen.lock();
        for (before, by) in before.iter().zip(by) {
            if let Some((_, kept)) = seen.untold.iter_mut().find(|(_, kept)| kept == before) {
                *kept = by.clone();
            }
        }
    }

    /// Notes events that were acknowledged.
    pub fn sent(&self, events: u64) {
        self.seen.lock().stats.events_sent += events;
    }

    /// Notes a request that failed.
    pub fn failed(&self) {
        self.seen.lock().stats.requests_failed += 1;
    }

    /// Notes a round that begins; it is open until what is returned is dropped.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> OpenRound {
        self.seen.lock().stats.open_rounds += 1;
        OpenRound(Arc::clone(self))
    }

    /// Notes how a round ended, at `now`, microseconds.
    pub fn note(&self, report: &RoundReport, now: i64) {
        let mut seen = self.seen.lock();
        let stats = &mut seen.stats;
        stats.rounds += 1;
        stats.lost += report.lost;
        stats.excess += report.excess;
        if let Outcome::Right { delay } = report.outcome {
            let seconds = delay.as_secs_f64();
            stats.rounds_right += 1;
            stats.delay = Some(delay);
            stats.delay_sum += seconds;
            stats.last_right = now;
            if let Some(bucket) = stats.delays.get_mut(DELAY_BOUNDS.partition_point(|bound| *bound < seconds)) {
                *bucket += 1;
            }
        }
        report.findings.iter().for_each(|finding| seen.find(finding));
    }
}

/// A round that is not over.
#[derive(Debug)]
pub struct OpenRound(Arc<Record>);

impl Drop for OpenRound {
    fn drop(&mut self) {
        let mut seen = self.0.seen.lock();
        seen.stats.open_rounds = seen.stats.open_rounds.saturating_sub(1);
    }
}
