//! Findings that are told once: what only follows from another one, and what the design expects.

use std::ops::Range;

use reckon_data::minute::format_date;

use crate::finding::{Class, Finding, Repair};

/// Whether a wrong count is the reason for a wrong answer.
pub(super) fn explains(cause: &Finding, answer: &Finding) -> bool {
    let same_entity = cause.entity_id.is_none() || cause.entity_id == answer.entity_id;
    // Of several dates, or of none in particular.
    let same_date =
        cause.date.as_deref().is_none_or(|dates| dates.split(' ').any(|date| answer.date.as_deref() == Some(date)));
    // What is about no date and no entity in particular explains nothing, unless it is about what answers are made of.
    let of_all = matches!(cause.class, Class::StaleCoverage) || cause.table == "stream_counts";
    let of_some = cause.date.is_some() || cause.entity_id.is_some() || of_all;
    let of_tables = cause.table != "served" && cause.table != "log" && of_some;
    of_tables && !cause.class.is_expected() && same_entity && same_date
}

/// Whether two findings are about the same raw events, by their places.
pub(super) fn is_same_place(told: &Finding, finding: &Finding) -> bool {
    let range = |finding: &Finding| Some((finding.offset_start?, finding.offset_end?));
    let meet = range(told).zip(range(finding)).is_some_and(|((a, b), (c, d))| a < d && c < b);
    let both = told.table == "events" && finding.table == "events";
    both && !told.class.is_expected() && told.partition == finding.partition && meet
}

/// Where raw events are missing of which nobody knows what they were, counts that were made before hold as many more: that
/// is the same difference.
pub(super) fn leave_out_what_raw_lacks(findings: &mut Vec<Finding>) {
    let is_missing = |finding: &&Finding| {
        let fewer = matches!(finding.class, Class::Lost | Class::OffsetHole);
        fewer && finding.table == "events" && finding.event_ids.is_empty()
    };
    let is_more = |finding: &Finding| {
        let of_a_row = finding.entity_id.is_some() && finding.events > 0;
        finding.class == Class::ExtraRows && finding.table == "batch_counts" && of_a_row
    };
    let add = |sum: u64, finding: &Finding| sum.saturating_add(finding.events);
    let missing = findings.iter().filter(is_missing).fold(0, add);
    let more = findings.iter().filter(|finding| is_more(finding)).fold(0, add);
    // Exactly as many: what is missing for good explains nothing else.
    if more == missing {
        findings.retain(|finding| !is_more(finding));
    }
}

/// That log and raw events differ where nobody has looked at their events; none when that is nowhere.
pub(super) fn differing_more(partition: u32, ranges: &[Range<u64>]) -> Option<Finding> {
    let text = "log and raw events differ here; there is more of that than was looked at".to_owned();
    let mut finding = Finding::new(Class::OffsetHole, "events", text);
    finding.partition = Some(partition);
    finding.offset_start = Some(ranges.iter().map(|range| range.start).min()?);
    finding.offset_end = ranges.iter().map(|range| range.end).max();
    finding.repair = Repair::Rebuild;
    Some(finding)
}

pub(super) fn unreadable_record(partition: u32, (offset, reason): &(u64, String)) -> Finding {
    let mut finding = Finding::new(Class::CorruptFile, "log", format!("a record of the log cannot be read: {reason}"));
    (finding.partition, finding.offset_start, finding.offset_end) = (Some(partition), Some(*offset), Some(offset + 1));
    finding.repair = Repair::NotNeeded;
    "it is made anew from the raw events when it is needed; reckon log set-aside gives it up"
        .clone_into(&mut finding.action);
    finding
}

/// A difference that the design expects.
pub(super) fn expected(class: Class, date: i32, total: u64, ids: Vec<String>) -> Finding {
    let (table, text, action) = match class {
        Class::LateNotRecounted => (
            "batch_counts",
            "late events that the stream has counted and batch has not yet",
            "the next batch run counts them",
        ),
        Class::DuplicatePastWindow => (
            "stream_counts",
            "repeats that came after the dedup window, and count in the stream",
            "the next batch run drops them; the horizon says which window would have",
        ),
        _ => (
            "events",
            "repeats of an event with another minute, dimension or value: the first copy counts",
            "ask who sends one event id with different contents",
        ),
    };
    let mut finding = Finding::new(class, table, text.to_owned());
    finding.date = Some(format_date(date));
    finding.events = total;
    finding.event_ids = ids;
    action.clone_into(&mut finding.action);
    finding
}
