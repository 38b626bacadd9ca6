//! The canary: known events that go the way of all events, and answers that are held to them.
//!
//! ```text
//! plan ─▶ POST /v1/events ─▶ … the whole system … ─▶ REST, SQL ─▶ judge ─▶ right, or findings
//!  └──────────────── expected counts ──────────────────────────────▲
//! ```
//!
//! [`plan`] is what a round sends, [`judge`] what an answer means, [`tell`] what is said of it: pure functions.
//! [`round`] does one round through a [`door`], which over HTTP is [`http`]; [`trace`] asks which of the events that
//! are missing are gone; [`record`] is what was seen. Rounds do not wait for each other: a round that waits for its
//! answers has entities of its own.

pub mod door;
pub mod http;
pub mod judge;
pub mod plan;
pub mod record;
pub mod round;
pub mod tell;
pub mod trace;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reckon_data::clock::{Clock, Names};
use reckon_data::config::Canary as Settings;
use reckon_data::minute::minute_of;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use door::Door;
use plan::{Planner, Shape};
use round::run_round;

pub use door::DoorError;
pub use http::HttpDoor;
pub use record::{CanaryStats, DELAY_BOUNDS, Record};
pub use round::{Outcome, RoundReport};

/// Rounds that may be open at once; while there are more, none begins.
const OPEN_MAX: usize = 8;

/// What a canary is made of.
#[derive(Debug, Clone)]
pub struct CanaryParts {
    /// The server.
    pub door: Arc<dyn Door>,
    /// How often it sends how much, and how long it waits.
    pub settings: Settings,
    /// How often raw events are committed: what is not among them by then is not on its way.
    pub commit_every: Duration,
    /// The log's partitions: each gets some events.
    pub partitions: u32,
    /// The clock of the events.
    pub clock: Arc<dyn Clock>,
    /// Where a name for its entities comes from that no other canary has.
    pub names: Arc<dyn Names>,
    /// What it has seen.
    pub record: Arc<Record>,
}

/// A canary.
#[derive(Debug)]
pub struct Canary {
    parts: CanaryParts,
    planner: Mutex<Planner>,
}

impl Canary {
    /// A canary that has sent nothing yet.
    #[must_use]
    pub fn new(parts: CanaryParts) -> Self {
        let run = fresh_run(parts.names.as_ref());
        let shape = Shape::new(run, parts.partitions, parts.settings.events, parts.settings.every);
        Self { parts, planner: Mutex::new(Planner::new(shape)) }
    }

    /// Sends a round as often as the settings say, until `stop` turns true. Never when they say 0.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        if self.parts.settings.every.is_zero() {
            // An error means that whoever could say stop is gone.
            let _ = stop.wait_for(|stop| *stop).await;
            return;
        }
        let mut ticks = tokio::time::interval(self.parts.settings.every);
        // Those that were missed are not made up for: several at once would find no more.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (canary, mut open, mut number) = (Arc::new(self), JoinSet::new(), 0_u64);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                Some(ended) = open.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a round of the canary has panicked");
                    }
                }
                _ = ticks.tick() => {
                    if open.len() >= OPEN_MAX {
                        tracing::warn!(open = OPEN_MAX, "no round of the canary begins: too many wait for their answers");
                        continue;
                    }
                    let (canary, round) = (Arc::clone(&canary), number);
                    number += 1;
                    open.spawn(async move {
                        canary.round(round).await;
                    });
                }
            }
        }
        open.shutdown().await;
    }

    /// Does one round, notes it, and logs what is wrong; then, which events are missing. No number may come twice.
    pub async fn round(&self, number: u64) -> RoundReport {
        let CanaryParts { door, settings, commit_every, clock, names, record, .. } = &self.parts;
        let _open = record.open();
        let plan = self.planner.lock().plan(number, minute_of(clock.now()), || fresh_run(names.as_ref()));
        let (mut report, short) = run_round(door.as_ref(), &plan, settings.patience, record).await;
        record.note(&report, clock.now());
        tell_log(&report);
        if let Some(short) = short {
            let traced = short.traced(door.as_ref(), &plan, *commit_every, record).await;
            record.replace(&report.findings, &traced);
            report.findings = traced;
            tell_findings(&report);
        }
        report
    }
}

/// A name that no other canary has.
fn fresh_run(names: &dyn Names) -> u64 {
    names.fresh().as_u64_pair().1
}

fn tell_log(report: &RoundReport) {
    let RoundReport { number, lost, excess, .. } = report;
    if let Outcome::Right { delay } = report.outcome {
        tracing::debug!(round = number, ?delay, "the canary was answered right");
        return;
    }
    let findings = report.findings.len();
    tracing::error!(round = number, lost, excess, findings, "the canary was not answered as it had sent");
    tell_findings(report);
}

fn tell_findings(report: &RoundReport) {
    for finding in &report.findings {
        tracing::error!(
            round = report.number,
            entity = finding.entity_id,
            event_type = finding.event_type,
            minute = finding.minute,
            expected = finding.expected,
            found = finding.found,
            event_ids = ?finding.event_ids,
            action = finding.action,
            "{}",
            finding.explanation
        );
    }
}

#[cfg(test)]
mod tests;
