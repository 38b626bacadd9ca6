//! Which of the events that no answer held are gone. It is asked when a round has ended and is noted: to be sure of it
//! takes longer than anybody should wait to hear that events are missing.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::door::Door;
use super::judge::{Difference, Judged};
use super::plan::Plan;
use super::record::Record;
use super::tell::{self, Asked, FINDINGS_MAX, Trace};
use crate::finding::Finding;

/// How long one question may take.
const TRACE_TIME: Duration = Duration::from_secs(20);

/// Counts that an answer had too low when patience ran out, those that lack most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    counts: Vec<Difference>,
    asked: Asked,
    /// Whether the answer says of itself that it is whole.
    is_complete: bool,
}

impl Short {
    /// Those of an answer; none when no count of it is too low.
    #[must_use]
    pub fn of(judged: &Judged, asked: Asked) -> Option<Self> {
        let counts: Vec<Difference> = judged.short.iter().take(FINDINGS_MAX).cloned().collect();
        (!counts.is_empty()).then_some(Self { counts, asked, is_complete: judged.complete })
    }

    /// A finding for each of them, as long as it is not known where their events are.
    #[must_use]
    pub fn untraced(&self, plan: &Plan) -> Vec<Finding> {
        self.findings(plan, |_| Trace::Open)
    }

    /// The same findings, one by one, when it is. What is not among the raw events may be on its way: it is asked for
    /// once more after `archive`.
    pub async fn traced(&self, door: &dyn Door, plan: &Plan, archive: Duration, record: &Record) -> Vec<Finding> {
        let mut raw = raw_ids(door, plan).await;
        if raw.as_ref().is_some_and(|raw| self.counts.iter().any(|of| !not_raw(plan, of, raw).is_empty())) {
            tokio::time::sleep(archive).await;
            raw = raw_ids(door, plan).await;
        }
        if raw.is_none() {
            record.failed();
        }
        self.findings(plan, |of| match &raw {
            Some(raw) => Trace::NotRaw(not_raw(plan, of, raw)),
            None => Trace::Unknown,
        })
    }

    fn findings(&self, plan: &Plan, trace: impl Fn(&Difference) -> Trace) -> Vec<Finding> {
        let finding = |of: &Difference| tell::short(plan, of, self.asked, self.is_complete, &trace(of));
        self.counts.iter().map(finding).collect()
    }
}

/// The ids of a round's events that are among the raw events; none when nobody says.
async fn raw_ids(door: &dyn Door, plan: &Plan) -> Option<BTreeSet<String>> {
    timeout_at(Instant::now() + TRACE_TIME, door.archived(plan)).await.ok()?.ok()
}

/// The events of a count that are not among the raw events.
fn not_raw(plan: &Plan, of: &Difference, raw: &BTreeSet<String>) -> Vec<String> {
    let mut ids = plan.ids_of(&of.entity, &of.event_type, &of.minutes);
    ids.retain(|id| !raw.contains(id));
    ids
}
