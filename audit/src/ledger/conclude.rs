//! What is wrong with a date, from what was found of it.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use reckon_data::minute::format_date;
use reckon_data::run::Granularity;
use reckon_data::table::Table;

use super::compare::RowDiff;
use super::datecheck::DateChecked;
use super::explain::{Cause, Known, ROWS_MAX, explain};
use super::load::Unreadable;
use super::rows::{Rows, of_row, row_finding};
use super::scan::BadFile;
use crate::finding::{Class, EVENT_IDS_MAX, Finding, Repair};

const TABLE: &str = "batch_counts";

/// What is concluded of a date's counts.
#[derive(Debug)]
pub struct Concluded {
    /// The findings.
    pub findings: Vec<Finding>,
    /// Whether its raw events account for all that is counted.
    pub raw_accounts: bool,
}

/// Concludes what is wrong with a date's counts. `at_cut` says whether coverage lies at a cut, as far as that is known.
#[must_use]
pub fn conclude(checked: &DateChecked, known: &Known, at_cut: bool) -> Concluded {
    let mut findings = Vec::new();
    // Minutes, unless the date is rolled up.
    let granularity = checked.finest();
    let finest = checked.diffs.get(&granularity).map_or(&[][..], Vec::as_slice);
    let looked_at = &finest[..finest.len().min(ROWS_MAX)];
    let causes = explain(looked_at, &checked.events, &HashMap::new(), known);
    let rows = Rows { diffs: looked_at, table: TABLE, granularity };
    match stale(checked, looked_at, &causes, at_cut) {
        Some(finding) => findings.push(finding),
        None => findings.extend(causes.iter().map(|cause| row_finding(&rows, cause))),
    }
    if finest.len() > looked_at.len() || checked.more {
        findings.push(rest(checked, &finest[looked_at.len()..]));
    }
    for coarser in checked.due.iter().copied().filter(|coarser| *coarser > granularity) {
        findings.extend(rollups(checked, finest, coarser));
    }
    findings.extend(malformed(checked));
    findings.extend(checked.closed_rollups.iter().cloned());
    let is_read = checked.raw_whole && !checked.bad.iter().any(|bad| bad.granularity == Some(granularity));
    let all_seen = is_read && !checked.more && finest.len() == looked_at.len() && checked.malformed == 0;
    let explained = all_seen && causes.iter().all(|cause| cause.proven && cause.class != Class::ExtraRows);
    // One granularity that agrees shows that the raw events are those that were counted.
    Concluded { findings, raw_accounts: explained || !checked.agreeing.is_empty() }
}

/// The finding of a date whose sums differ, where no row does.
#[must_use]
pub fn unnamed(checked: &DateChecked) -> Finding {
    let text = "the sums of raw events and counts differ, and no row of those that were compared does".to_owned();
    let mut finding = Finding::new(Class::ExtraRows, TABLE, text);
    finding.date = Some(format_date(checked.date));
    (finding.expected, finding.found) =
        (i64::try_from(checked.totals.expected).ok(), i64::try_from(checked.totals.finest()).ok());
    finding.repair = Repair::Recount;
    "reckon audit --repair recounts the date from its raw events".clone_into(&mut finding.action);
    finding
}

/// Events that are missing although they lie below coverage, all of them behind all that is counted: coverage says more
/// than was counted.
fn stale(checked: &DateChecked, diffs: &[RowDiff], causes: &[Cause], at_cut: bool) -> Option<Finding> {
    let lost: Vec<&Cause> = causes.iter().filter(|cause| cause.class == Class::Lost).collect();
    let named = lost.iter().all(|cause| cause.events.len() as u64 == cause.total);
    let missing: Vec<_> = lost.iter().flat_map(|cause| &cause.events).collect();
    if lost.len() != causes.len() || !named || missing.is_empty() || (missing.len() == 1 && at_cut) || checked.more {
        return None;
    }
    let mut from: BTreeMap<u32, u64> = BTreeMap::new();
    for event in &missing {
        let first = from.entry(event.place.partition()).or_insert(u64::MAX);
        *first = (*first).min(event.place.offset());
    }
    let places: HashSet<_> = missing.iter().map(|event| event.place).collect();
    let counted = diffs.iter().filter_map(|diff| checked.events.get(&diff.key)).flatten();
    let behind = counted
        .filter(|event| !places.contains(&event.place))
        .all(|event| from.get(&event.place.partition()).is_none_or(|first| event.place.offset() < *first));
    let others =
        from.iter().all(|(partition, first)| checked.last_covered.get(partition).is_none_or(|last| last <= first));
    if !(behind && others) {
        return None;
    }
    let text = "coverage says that these events are counted, and none of them is, nor any behind them";
    let mut finding = Finding::new(Class::StaleCoverage, TABLE, text.to_owned());
    finding.date = Some(format_date(checked.date));
    if let Some((partition, first)) = from.first_key_value()
        && from.len() == 1
    {
        finding.partition = Some(*partition);
        finding.offset_start = Some(*first);
        finding.offset_end = missing.iter().map(|event| event.place.offset() + 1).max();
    }
    finding.expected = i64::try_from(checked.totals.expected).ok();
    finding.found = i64::try_from(checked.totals.finest()).ok();
    finding.events = missing.len() as u64;
    finding.event_ids = missing.iter().take(EVENT_IDS_MAX).map(|event| event.event_id.clone()).collect();
    finding.repair = Repair::Recount;
    "reckon audit --repair recounts the date from its raw events".clone_into(&mut finding.action);
    Some(finding)
}

/// What differs and was not looked at one by one.
fn rest(checked: &DateChecked, rows: &[RowDiff]) -> Finding {
    let (expected, found) = (checked.totals.expected, checked.totals.finest());
    let class = if found < expected { Class::Lost } else { Class::ExtraRows };
    let more = if checked.more { "at least " } else { "" };
    let rows = rows.len() as u64 + checked.left_out.get(&checked.finest()).copied().unwrap_or(0);
    let text = format!(
        "{more}{rows} more rows differ than were looked at one by one; the date holds {found} events of {expected}"
    );
    let mut finding = Finding::new(class, TABLE, text);
    finding.date = Some(format_date(checked.date));
    (finding.expected, finding.found) = (i64::try_from(expected).ok(), i64::try_from(found).ok());
    finding.events = expected.abs_diff(found);
    finding.repair = Repair::Recount;
    "reckon audit --repair recounts the date from its raw events".clone_into(&mut finding.action);
    finding
}

/// Hours or days that differ otherwise than the finer rows do that they are made of.
fn rollups(checked: &DateChecked, finest: &[RowDiff], granularity: Granularity) -> Vec<Finding> {
    let Some(diffs) = checked.diffs.get(&granularity) else { return Vec::new() };
    let delta = |diff: &RowDiff| {
        let (expected, found) = (diff.expected.unwrap_or_default(), diff.found.unwrap_or_default());
        (
            found.count.wrapping_sub(expected.count),
            found.fingerprint.wrapping_sub(expected.fingerprint),
            found.late.wrapping_sub(expected.late),
            found.sum.wrapping_sub(expected.sum),
            found.values.wrapping_sub(expected.values),
        )
    };
    // Extremes do not add up: where no minute differs, they are the row's own.
    let extremes = |diff: &RowDiff| {
        let (expected, found) = (diff.expected.unwrap_or_default(), diff.found.unwrap_or_default());
        (expected.min, expected.max) != (found.min, found.max)
    };
    let mut below: HashMap<_, (i64, u64, i64, i128, i64)> = HashMap::new();
    for diff in finest {
        let (count, fingerprint, late, sum, values) = delta(diff);
        let mut key = diff.key.clone();
        key.minute = granularity.start_of(key.minute);
        let all = below.entry(key).or_default();
        *all = (
            all.0.wrapping_add(count),
            all.1.wrapping_add(fingerprint),
            all.2.wrapping_add(late),
            all.3.wrapping_add(sum),
            all.4.wrapping_add(values),
        );
    }
    // Where not all of them were looked at, nobody knows what they make.
    let is_own = |diff: &&RowDiff| {
        let made = below.get(&diff.key);
        checked.has_all_finest()
            && (made.copied().unwrap_or_default() != delta(diff) || (made.is_none() && extremes(diff)))
    };
    let own = diffs.iter().filter(is_own).map(|diff| {
        let mut finding = of_row(Class::RollupMismatch, TABLE, granularity, &diff.key);
        (finding.expected, finding.found) = (
            Some(diff.expected.map_or(0, |numbers| numbers.count)),
            Some(diff.found.map_or(0, |numbers| numbers.count)),
        );
        finding.events = diff.found.unwrap_or_default().count.abs_diff(diff.expected.unwrap_or_default().count);
        let (entity, below) = (&diff.key.entity, checked.finest());
        finding.explanation = format!("a {granularity} of {entity} that is not what its {below}s make of it");
        finding.repair = Repair::Recount;
        "reckon audit --repair recounts the date from its raw events".clone_into(&mut finding.action);
        finding
    });
    // A row that is there twice and adds up is no other number.
    own.chain(diffs.iter().filter(|diff| diff.expected == diff.found && diff.rows > 1).map(|diff| {
        let mut finding = of_row(Class::ExtraRows, TABLE, granularity, &diff.key);
        finding.explanation = format!("there are {} rows for it, which add up", diff.rows);
        finding.repair = Repair::Recount;
        finding
    }))
    .chain(more_rollups(checked, granularity))
    .collect()
}

/// How many more hours or days differ, where that does not only follow from finer rows that are not all known.
fn more_rollups(checked: &DateChecked, granularity: Granularity) -> Option<Finding> {
    let rows = *checked.left_out.get(&granularity)?;
    if !checked.has_all_finest() {
        return None;
    }
    let text = format!("{rows} more rows per {granularity} differ than were looked at one by one");
    let mut finding = Finding::new(Class::RollupMismatch, TABLE, text);
    finding.date = Some(format_date(checked.date));
    finding.granularity = Some(granularity.name().to_owned());
    finding.repair = Repair::Recount;
    "reckon audit --repair recounts the date from its raw events".clone_into(&mut finding.action);
    Some(finding)
}

fn malformed(checked: &DateChecked) -> Option<Finding> {
    if checked.malformed == 0 {
        return None;
    }
    let text = format!("{} rows with a count below 1, or a time that is no whole minute", checked.malformed);
    let mut finding = Finding::new(Class::ExtraRows, TABLE, text);
    finding.date = Some(format_date(checked.date));
    finding.found = i64::try_from(checked.malformed).ok();
    finding.repair = Repair::Recount;
    "reckon audit --repair recounts the date from its raw events".clone_into(&mut finding.action);
    Some(finding)
}

/// The finding of a file that says nothing.
#[must_use]
pub fn bad_file(bad: &BadFile, date: Option<i32>) -> Finding {
    let (class, text) = match &bad.why {
        Unreadable::Missing => (Class::MissingFile, "the table refers to a file that is not there".to_owned()),
        Unreadable::Corrupt(reason) => (Class::CorruptFile, reason.clone()),
    };
    let mut finding = Finding::new(class, bad.table.name(), text);
    finding.file = Some(bad.path.clone());
    finding.date = date.map(format_date);
    finding.granularity = bad.granularity.map(|granularity| granularity.name().to_owned());
    let (repair, action) = match bad.table {
        Table::Events => {
            (Repair::Rebuild, "reckon audit --repair makes the file anew from the log, if it still holds its records")
        }
        Table::BatchCounts => (Repair::Recount, "reckon audit --repair recounts the date from its raw events"),
        _ => (Repair::Recount, "reckon audit --repair lets batch count past it"),
    };
    finding.repair = repair;
    action.clone_into(&mut finding.action);
    finding
}
