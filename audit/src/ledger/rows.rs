//! From rows that differ to findings.

use polars::prelude::{
    Column, DataFrame, DataType, IntoSeries as _, NamedFrom as _, PlSmallStr, PolarsError, Series, StringChunked,
};
use reckon_data::minute::{date_of_minute, format_date, format_time, start_of_minute};
use reckon_data::run::Granularity;

use super::compare::{RowDiff, RowKey};
use super::explain::Cause;
use crate::error::AuditError;
use crate::finding::{Class, EVENT_IDS_MAX, Finding, Repair};

/// Rows that differ, and where they are.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The rows.
    pub diffs: &'a [RowDiff],
    /// Their table.
    pub table: &'a str,
    /// Their granularity.
    pub granularity: Granularity,
}

/// One frame of many; none of none.
///
/// # Errors
/// Those of Polars: frames of other columns.
pub fn stack(frames: Vec<DataFrame>) -> Result<Option<DataFrame>, AuditError> {
    let mut frames = frames.into_iter();
    let Some(mut all) = frames.next() else { return Ok(None) };
    for frame in frames {
        all.vstack_mut(&frame)?;
    }
    Ok(Some(all))
}

/// The rows of a mask, with texts of their own: a filtered column of Polars keeps the texts of all rows alive.
///
/// # Errors
/// Those of Polars.
pub fn kept(frame: &DataFrame, mask: &[bool]) -> Result<DataFrame, PolarsError> {
    let mut kept = frame.filter(Series::new("".into(), mask).bool()?)?;
    let texts: Vec<PlSmallStr> = (kept.columns().iter())
        .filter(|column| column.dtype() == &DataType::String)
        .map(|column| column.name().clone())
        .collect();
    for name in texts {
        let own: StringChunked = kept.column(&name)?.str()?.iter().collect();
        kept.with_column(Column::from(own.with_name(name).into_series()))?;
    }
    Ok(kept)
}

/// The finding of a cause.
#[must_use]
pub fn row_finding(rows: &Rows<'_>, cause: &Cause) -> Finding {
    let diff = &rows.diffs[cause.row];
    let mut finding = of_row(cause.class, rows.table, rows.granularity, &diff.key);
    finding.expected = Some(diff.expected.map_or(0, |numbers| numbers.count));
    finding.found = Some(diff.found.map_or(0, |numbers| numbers.count));
    finding.event_ids = cause.events.iter().take(EVENT_IDS_MAX).map(|event| event.event_id.clone()).collect();
    finding.events = cause.total;
    let places = cause.events.iter().map(|event| event.place);
    let one_partition = |first: Option<u32>| places.clone().all(|place| Some(place.partition()) == first);
    let first = places.clone().next().map(|place| place.partition());
    if first.is_some() && one_partition(first) {
        finding.partition = first;
        finding.offset_start = places.clone().map(|place| place.offset()).min();
        finding.offset_end = places.map(|place| place.offset() + 1).max();
    }
    finding.explanation = sentence(cause, &diff.key);
    finding.repair = Repair::Recount;
    "reckon audit --repair recounts the date from its raw events".clone_into(&mut finding.action);
    finding
}

/// A finding about a row.
#[must_use]
pub fn of_row(class: Class, table: &str, granularity: Granularity, key: &RowKey) -> Finding {
    let mut finding = Finding::new(class, table, String::new());
    finding.date = Some(format_date(date_of_minute(key.minute)));
    finding.granularity = Some(granularity.name().to_owned());
    finding.minute = Some(format_time(start_of_minute(key.minute)));
    finding.entity_id = Some(key.entity.clone());
    finding.event_type = Some(key.event_type.clone());
    finding.dimensions = (!key.dimensions.is_empty()).then(|| key.dimensions.clone());
    finding
}

fn sentence(cause: &Cause, key: &RowKey) -> String {
    let (total, entity, note) = (cause.total, &key.entity, &cause.note);
    let events = if total == 1 { "an event".to_owned() } else { format!("{total} events") };
    let what = match cause.class {
        Class::Lost => format!("{events} of {entity} not counted"),
        Class::CountedTwice => format!("{events} of {entity} counted more than once"),
        Class::WrongMinute => format!("{events} of {entity} in a wrong minute"),
        Class::WrongKey => format!("{events} of {entity} under another entity, type or dimension"),
        Class::ExtraRows => format!("a row of {entity} that its events do not account for"),
        Class::WrongValue => format!("a number of {entity} that is not what its events make of it"),
        Class::StaleCoverage => format!("{events} of {entity} below coverage that batch has not counted"),
        Class::RollupMismatch => format!("a row of {entity} that is not the sum of its minutes"),
        _ => format!("{events} of {entity}"),
    };
    if note.is_empty() { what } else { format!("{what}: {note}") }
}
