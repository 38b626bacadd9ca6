//! What is said of a round that was not answered as it was sent: functions of what was found.

use reckon_data::minute::{date_of_minute, format_date, format_time, start_of_minute};

use super::judge::Difference;
use super::plan::Plan;
use crate::finding::{Class, EVENT_IDS_MAX, Finding};

/// Most findings of one round.
pub const FINDINGS_MAX: usize = 20;

/// Whom the answer is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `POST /v1/sql`.
    Sql,
    /// `GET /v1/entities/{id}/count`.
    Rest,
}

impl Asked {
    const fn name(self) -> &'static str {
        match self {
            Self::Sql => "SQL",
            Self::Rest => "REST",
        }
    }
}

/// What is known of the events that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// It has not been asked yet.
    Open,
    /// Nobody says.
    Unknown,
    /// These are not among the raw events, and all others are.
    NotRaw(Vec<String>),
}

/// A count that is too low, after all patience.
#[must_use]
pub fn short(plan: &Plan, of: &Difference, asked: Asked, complete: bool, trace: &Trace) -> Finding {
    let (found, expected, name) = (of.found, of.expected, asked.name());
    let whole =
        if complete { "and calls its answer complete" } else { "and says itself that its answer is not complete" };
    let (where_to, action) = whereabouts(trace);
    let explanation = format!(
        "round {} of the canary sent {expected} events of this key, each acknowledged; {name} finds {found} {whole}; {where_to}",
        plan.number()
    );
    let mut finding = about(of, explanation, action);
    finding.events = of.lost();
    if let Trace::NotRaw(ids) = trace {
        finding.event_ids = ids.iter().take(EVENT_IDS_MAX).cloned().collect();
    }
    if finding.event_ids.is_empty() && of.found == 0 {
        finding.event_ids = plan.ids_of(&of.entity, &of.event_type, &of.minutes);
        finding.event_ids.truncate(EVENT_IDS_MAX);
    }
    finding
}

/// Where the events of a count that is too low are, and what to do about it.
fn whereabouts(trace: &Trace) -> (String, &'static str) {
    match trace {
        Trace::Open => (
            "which of them are among the raw events was not known yet when this was said".to_owned(),
            "look at the log of the canary's process, which soon names the events that are not among the raw ones",
        ),
        Trace::Unknown => {
            ("it could not be asked which are among the raw events".to_owned(), "look at the log of the server")
        }
        Trace::NotRaw(ids) if ids.is_empty() => (
            "all of them are among the raw events".to_owned(),
            "look at counters and at /readyz: the events are safe, and are not counted; `reckon batch` counts them",
        ),
        Trace::NotRaw(ids) => (
            format!("{} of them are not among the raw events", ids.len()),
            "look at gateways and archivers: the front door acknowledged these events, and they are not archived",
        ),
    }
}

/// A count that is too high.
#[must_use]
pub fn excess(plan: &Plan, of: &Difference, asked: Asked) -> Finding {
    let explanation = format!(
        "round {} of the canary sent {} events of this key; {} finds {}: some count more than once, or for a key that is not theirs",
        plan.number(),
        of.expected,
        asked.name(),
        of.found
    );
    let mut finding = about(of, explanation, "run `reckon audit`: it says which layer counts too much");
    finding.events = of.excess();
    finding
}

/// A round of which nothing can be said, for it could not be sent or nobody answered.
#[must_use]
pub fn silent(plan: &Plan, is_sent: bool, reason: &str) -> Finding {
    let what = if is_sent { "was sent, and no answer came" } else { "could not be sent" };
    let explanation = format!("round {} of the canary {what} as long as its patience lasted: {reason}", plan.number());
    let mut finding = Finding::new(Class::CanaryDiffers, "served", explanation);
    finding.minute = Some(format_time(start_of_minute(plan.minutes().end - 1)));
    let expected: u64 = plan.expected().values().sum();
    finding.expected = Some(signed(expected));
    finding.events = expected;
    let action = if is_sent {
        "see whether the server answers questions (/readyz)"
    } else {
        "see whether the front door takes events, and whether canary.token is the same on both sides"
    };
    action.clone_into(&mut finding.action);
    finding
}

/// A round whose numbers are right in an answer that says of itself that it is not whole: nothing is known to be lost.
#[must_use]
pub fn incomplete(plan: &Plan, asked: Asked, missing: &str) -> Finding {
    let explanation = format!(
        "round {} of the canary was counted right, and {} said as long as its patience lasted that its answer is not complete: {missing}",
        plan.number(),
        asked.name()
    );
    let mut finding = Finding::new(Class::CanaryDiffers, "served", explanation);
    finding.minute = Some(format_time(start_of_minute(plan.minutes().end - 1)));
    "see /readyz, and what the answer names as missing".clone_into(&mut finding.action);
    finding
}

fn about(of: &Difference, explanation: String, action: &str) -> Finding {
    let mut finding = Finding::new(Class::CanaryDiffers, "served", explanation);
    finding.entity_id = Some(of.entity.clone());
    finding.event_type = Some(of.event_type.clone());
    finding.date = Some(format_date(date_of_minute(of.minutes.start)));
    finding.minute = Some(format_time(start_of_minute(of.minutes.start)));
    if of.minutes.end == of.minutes.start + 1 {
        finding.granularity = Some("minute".to_owned());
    }
    finding.expected = Some(signed(of.expected));
    finding.found = Some(signed(of.found));
    action.clone_into(&mut finding.action);
    finding
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
