//! Rows of counts as the audit sees them.

use polars::prelude::{Column, DataFrame, NamedFrom as _, Series, StringChunked};
use reckon_data::minute::{MICROS_PER_MINUTE, minute_of};

use super::columns::Columns;
use super::load::Unreadable;
use super::raw::{Counting, MINUTE};
use super::weigh::{Amount, Groups};

/// What is read of a file of counts.
const COLUMNS: [&str; 9] =
    ["entity_id", "event_type", "minute", "count", "fingerprint", "definition", "late", "value_count", "value_sum"];
/// What is read besides where rows are compared one by one.
const EXTREMES: [&str; 2] = ["value_min", "value_max"];

/// A slice of rows of counts.
#[derive(Debug)]
pub struct Counts {
    /// The columns as they were read.
    pub frame: DataFrame,
    /// What each row counts for.
    pub group: Vec<u64>,
    /// Its minute, hour or day, as the minute in which that starts.
    pub minute: Vec<i64>,
    /// What it holds.
    pub amount: Vec<Amount>,
    /// The definitions that rows were counted with, each once.
    pub definitions: Vec<i64>,
    /// Rows whose count is below 1, or whose time is no whole minute.
    pub malformed: Vec<usize>,
}

/// The columns to be read of a file of counts.
#[must_use]
pub fn columns(counting: &Counting) -> Vec<&'static str> {
    let dimensions = counting.dimensions.iter().map(|dimension| dimension.column());
    COLUMNS.into_iter().chain(EXTREMES).chain(dimensions).collect()
}

impl Counts {
    /// Reads a frame that has [`columns`]; rows without an entity (summaries of segments) must not be in it.
    ///
    /// # Errors
    /// When a column is missing, of another type, or null where it must not be.
    pub fn of(frame: DataFrame, counting: &Counting) -> Result<Self, Unreadable> {
        let columns = Columns(&frame);
        let group = groups(&columns, counting)?;
        let times = numbers(&columns, "minute")?;
        let minute: Vec<i64> = times.iter().map(|time| minute_of(*time)).collect();
        let amount = amounts(&columns, counting)?;
        let mut definitions = numbers(&columns, "definition")?;
        definitions.sort_unstable();
        definitions.dedup();
        let is_malformed =
            |row: &usize| amount[*row].count.cast_signed() < 1 || times[*row].rem_euclid(MICROS_PER_MINUTE) != 0;
        let malformed = (0..times.len()).filter(is_malformed).collect();
        Ok(Self { group, minute, amount, definitions, malformed, frame })
    }

    /// How many rows there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.group.len()
    }

    /// The rows of a mask, with their minutes.
    ///
    /// # Errors
    /// Those of Polars.
    pub fn kept(&self, mask: &[bool]) -> Result<DataFrame, polars::error::PolarsError> {
        let mut frame = self.frame.clone();
        frame.with_column(Column::from(Series::new(MINUTE.into(), &self.minute)))?;
        super::rows::kept(&frame, mask)
    }
}

fn groups(columns: &Columns<'_>, counting: &Counting) -> Result<Vec<u64>, Unreadable> {
    let (entities, types) = (columns.text("entity_id")?, columns.text("event_type")?);
    let dimensions: Vec<Option<&StringChunked>> = (counting.dimensions.iter())
        .map(|dimension| columns.maybe_text(dimension.column()))
        .collect::<Result<_, Unreadable>>()?;
    let mut groups = Groups::default();
    let mut numbers = Vec::with_capacity(entities.len());
    for (row, (entity, event_type)) in entities.iter().zip(types.iter()).enumerate() {
        let (Some(entity), Some(event_type)) = (entity, event_type) else {
            return Err(Unreadable::Corrupt("a row has no entity or type".to_owned()));
        };
        let values = dimensions.iter().map(|column| column.and_then(|column| column.get(row)));
        numbers.push(groups.number(entity, event_type, values));
    }
    Ok(numbers)
}

fn amounts(columns: &Columns<'_>, counting: &Counting) -> Result<Vec<Amount>, Unreadable> {
    let counts = numbers(columns, "count")?;
    let fingerprints = numbers(columns, "fingerprint")?;
    let mut amounts: Vec<Amount> = (counts.into_iter().zip(fingerprints))
        .map(|(count, fingerprint)| Amount {
            count: count.cast_unsigned(),
            fingerprint: fingerprint.cast_unsigned(),
            ..Amount::default()
        })
        .collect();
    if counting.lateness.is_some()
        && let Some(late) = columns.maybe_whole("late")?
    {
        let late = late.iter().map(|late| late.unwrap_or(0).cast_unsigned());
        amounts.iter_mut().zip(late).for_each(|(amount, late)| amount.late = late);
    }
    if counting.values {
        if let Some(values) = columns.maybe_whole("value_count")? {
            let values = values.iter().map(|values| values.unwrap_or(0).cast_unsigned());
            amounts.iter_mut().zip(values).for_each(|(amount, values)| amount.values = values);
        }
        if let Some(sums) = columns.maybe_decimal("value_sum")? {
            // Wrapping, as the sum over the events is.
            let sums = sums.into_iter().map(|sum| sum.unwrap_or(0) as u64);
            amounts.iter_mut().zip(sums).for_each(|(amount, sum)| amount.value = sum);
        }
    }
    Ok(amounts)
}

fn numbers(columns: &Columns<'_>, name: &str) -> Result<Vec<i64>, Unreadable> {
    let values: Option<Vec<i64>> = columns.whole(name)?.iter().collect();
    values.ok_or_else(|| Unreadable::Corrupt(format!("column {name} has nulls")))
}
