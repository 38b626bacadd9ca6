//! Rows of counts, one by one: what the events make of them against what a table holds.

use polars::prelude::{
    Column, DataFrame, Expr, IntoLazy as _, JoinArgs, JoinCoalesce, JoinType, LazyFrame, NamedFrom as _, Series,
    SortMultipleOptions, UniqueKeepStrategy, col, len, lit,
};
use reckon_data::offload::is_single_threaded;
use reckon_data::run::Granularity;

use super::columns::Columns;
use super::load::Unreadable;
use super::place::Place;
use super::raw::{Counting, HASH, LATE, MINUTE, PLACE};
use crate::error::AuditError;

/// The step of a row: the minute in which its minute, hour or day starts.
const STEP: &str = "_step";

/// The numbers of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Events.
    pub count: i64,
    /// Wrapping sum of their key hashes.
    pub fingerprint: u64,
    /// Late ones.
    pub late: i64,
    /// Those with a value.
    pub values: i64,
    /// Sum of the values, millionths.
    pub sum: i128,
    /// Smallest value.
    pub min: Option<i128>,
    /// Largest value.
    pub max: Option<i128>,
}

/// What a row counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    /// The entity.
    pub entity: String,
    /// The event type.
    pub event_type: String,
    /// The other dimensions, `country=US`.
    pub dimensions: String,
    /// The minute in which its minute, hour or day starts.
    pub minute: i64,
}

/// A row that is not what the events make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDiff {
    /// Its granularity.
    pub granularity: Granularity,
    /// What it counts.
    pub key: RowKey,
    /// What the events make of it; none when there is no such event.
    pub expected: Option<Numbers>,
    /// What the table holds; none when there is no such row.
    pub found: Option<Numbers>,
    /// How many rows of the table are about it.
    pub rows: i64,
}

/// An event of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowEvent {
    /// Its key's hash.
    pub hash: u64,
    /// Its id.
    pub event_id: String,
    /// Its place in the log.
    pub place: Place,
}

/// The first event of each key, in the order of the log; `raw` is of [`super::raw::Events::kept`].
///
/// # Errors
/// Those of Polars.
pub fn firsts(raw: &DataFrame) -> Result<DataFrame, AuditError> {
    let ordered = raw.sort([PLACE], SortMultipleOptions::default())?;
    let key = [HASH, "event_id", "entity_id", "event_type"].map(str::to_owned);
    Ok(ordered.unique_stable(Some(&key), UniqueKeepStrategy::First, None)?)
}

/// The rows in which `firsts`, counted, and `counts` differ, by key.
///
/// # Errors
/// Those of Polars.
pub fn differences(
    firsts: &DataFrame,
    counts: &DataFrame,
    granularity: Granularity,
    counting: &Counting,
) -> Result<Vec<RowDiff>, AuditError> {
    let keys = keys(counting);
    let expected = count_events(firsts, granularity, &keys, counting)?;
    let found = add_rows(counts, &keys, counting);
    let mut how = JoinArgs::new(JoinType::Full).with_coalesce(JoinCoalesce::CoalesceColumns);
    how.nulls_equal = true;
    let joined = collect(expected.join(found, &keys, &keys, how))?;
    read(&joined, granularity, counting).map_err(|error| AuditError::Stopped(format!("a join of counts: {error:?}")))
}

/// The rows that there should be, where there is none.
///
/// # Errors
/// Those of Polars.
pub fn all_missing(
    firsts: &DataFrame,
    granularity: Granularity,
    counting: &Counting,
) -> Result<Vec<RowDiff>, AuditError> {
    let rows = collect(count_events(firsts, granularity, &keys(counting), counting)?)?;
    one_sided(&rows, granularity, counting, "e_")
}

/// The rows that there should not be: no event counts in any of them.
///
/// # Errors
/// Those of Polars.
pub fn all_extra(
    counts: &DataFrame,
    granularity: Granularity,
    counting: &Counting,
) -> Result<Vec<RowDiff>, AuditError> {
    let rows = collect(add_rows(counts, &keys(counting), counting))?;
    one_sided(&rows, granularity, counting, "f_")
}

fn one_sided(
    rows: &DataFrame,
    granularity: Granularity,
    counting: &Counting,
    side: &str,
) -> Result<Vec<RowDiff>, AuditError> {
    let failed = |error: Unreadable| AuditError::Stopped(format!("counts: {error:?}"));
    let columns = Columns(rows);
    let numbers = Side::of(&columns, side, counting).map_err(failed)?;
    let keys = KeyReader::of(&columns, counting).map_err(failed)?;
    let is_expected = side == "e_";
    let one = |row: usize| {
        let numbers = numbers.at(row, counting);
        let (expected, found) = if is_expected { (numbers, None) } else { (None, numbers) };
        RowDiff { granularity, key: keys.at(row), expected, found, rows: i64::from(!is_expected) }
    };
    let mut diffs: Vec<RowDiff> = (0..rows.height()).map(one).collect();
    diffs.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(diffs)
}

fn keys(counting: &Counting) -> Vec<Expr> {
    let fixed = ["entity_id", "event_type", STEP];
    fixed.into_iter().chain(counting.dimensions.iter().map(|dimension| dimension.column())).map(col).collect()
}

/// Computes, and keeps the thread busy meanwhile. Polars waits for its own threads in a way that a runtime of one thread
/// forbids: there it is called from a thread that knows of no runtime.
fn collect(frame: LazyFrame) -> Result<DataFrame, AuditError> {
    if !is_single_threaded() {
        return Ok(tokio::task::block_in_place(|| frame.collect())?);
    }
    let collected = std::thread::scope(|scope| scope.spawn(|| frame.collect()).join());
    Ok(collected.map_err(|_| AuditError::Stopped("Polars has panicked".to_owned()))??)
}

/// Counts events.
fn count_events(
    firsts: &DataFrame,
    granularity: Granularity,
    keys: &[Expr],
    counting: &Counting,
) -> Result<LazyFrame, AuditError> {
    let minutes = firsts.column(MINUTE)?.i64()?;
    let steps: Vec<i64> = minutes.iter().map(|minute| granularity.start_of(minute.unwrap_or(0))).collect();
    let mut firsts = firsts.clone();
    firsts.with_column(Column::from(Series::new(STEP.into(), steps)))?;
    let mut sums = vec![
        len().cast(polars::prelude::DataType::Int64).alias("e_count"),
        col(HASH).sum().alias("e_fingerprint"),
        col(LATE).cast(polars::prelude::DataType::Int64).sum().alias("e_late"),
    ];
    if counting.values {
        sums.push(col("value").count().cast(polars::prelude::DataType::Int64).alias("e_values"));
        sums.push(col("value").sum().alias("e_sum"));
        sums.push(col("value").min().alias("e_min"));
        sums.push(col("value").max().alias("e_max"));
    }
    Ok(firsts.lazy().group_by(keys).agg(sums))
}

/// Adds up rows of counts, of which there should be one a key.
fn add_rows(counts: &DataFrame, keys: &[Expr], counting: &Counting) -> LazyFrame {
    let late = if counts.column("late").is_ok() { col("late").sum() } else { lit(0_i64) };
    let mut sums = vec![
        len().cast(polars::prelude::DataType::Int64).alias("f_rows"),
        col("count").sum().alias("f_count"),
        col("fingerprint").cast(polars::prelude::DataType::Int64).sum().alias("f_fingerprint"),
        late.alias("f_late"),
    ];
    if counting.values {
        sums.push(col("value_count").sum().alias("f_values"));
        sums.push(col("value_sum").sum().alias("f_sum"));
        sums.push(col("value_min").min().alias("f_min"));
        sums.push(col("value_max").max().alias("f_max"));
    }
    counts.clone().lazy().with_column(col(MINUTE).alias(STEP)).group_by(keys).agg(sums)
}

fn read(joined: &DataFrame, granularity: Granularity, counting: &Counting) -> Result<Vec<RowDiff>, Unreadable> {
    let columns = Columns(joined);
    let expected = Side::of(&columns, "e_", counting)?;
    let found = Side::of(&columns, "f_", counting)?;
    let rows = columns.whole("f_rows")?;
    let keys = KeyReader::of(&columns, counting)?;
    let mut diffs = Vec::new();
    for row in 0..joined.height() {
        let (expected, found) = (expected.at(row, counting), found.at(row, counting));
        let rows = rows.get(row).unwrap_or(0);
        // Several rows that differ in what is left out here are as they should be.
        if expected != found || (rows > 1 && counting.lateness.is_some()) {
            diffs.push(RowDiff { granularity, key: keys.at(row), expected, found, rows });
        }
    }
    diffs.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(diffs)
}

/// One side of a join.
struct Side {
    count: polars::prelude::Int64Chunked,
    fingerprint: polars::prelude::Int64Chunked,
    late: polars::prelude::Int64Chunked,
    values: Option<polars::prelude::Int64Chunked>,
    sums: [Option<Vec<Option<i128>>>; 3],
}

impl Side {
    fn of(columns: &Columns<'_>, side: &str, counting: &Counting) -> Result<Self, Unreadable> {
        let name = |what: &str| format!("{side}{what}");
        let (mut values, mut sums) = (None, [None, None, None]);
        if counting.values {
            values = Some(columns.whole(&name("values"))?);
            sums = [
                columns.maybe_decimal(&name("sum"))?,
                columns.maybe_decimal(&name("min"))?,
                columns.maybe_decimal(&name("max"))?,
            ];
        }
        Ok(Self {
            count: columns.whole(&name("count"))?,
            fingerprint: columns.whole(&name("fingerprint"))?,
            late: columns.whole(&name("late"))?,
            values,
            sums,
        })
    }

    fn at(&self, row: usize, counting: &Counting) -> Option<Numbers> {
        let count = self.count.get(row)?;
        let decimal = |at: usize| self.sums[at].as_ref().and_then(|column| column[row]);
        let late = if counting.lateness.is_some() { self.late.get(row).unwrap_or(0) } else { 0 };
        Some(Numbers {
            count,
            fingerprint: self.fingerprint.get(row).unwrap_or(0).cast_unsigned(),
            late,
            values: self.values.as_ref().and_then(|values| values.get(row)).unwrap_or(0),
            // Without any value the sum is 0 on one side and null on the other.
            sum: decimal(0).unwrap_or(0),
            min: decimal(1),
            max: decimal(2),
        })
    }
}

/// Reads keys of rows.
#[derive(Debug)]
pub struct KeyReader<'a> {
    entity: &'a polars::prelude::StringChunked,
    event_type: &'a polars::prelude::StringChunked,
    dimensions: Vec<(&'static str, Option<&'a polars::prelude::StringChunked>)>,
    minute: polars::prelude::Int64Chunked,
}

impl<'a> KeyReader<'a> {
    fn of(columns: &Columns<'a>, counting: &Counting) -> Result<Self, Unreadable> {
        Self::with_minute(columns, counting, STEP)
    }

    fn with_minute(columns: &Columns<'a>, counting: &Counting, minute: &str) -> Result<Self, Unreadable> {
        let dimensions = counting.dimensions.iter().map(|dimension| {
            let name = dimension.column();
            Ok((name, columns.maybe_text(name)?))
        });
        Ok(Self {
            entity: columns.text("entity_id")?,
            event_type: columns.text("event_type")?,
            dimensions: dimensions.collect::<Result<_, Unreadable>>()?,
            minute: columns.whole(minute)?,
        })
    }

    fn at(&self, row: usize) -> RowKey {
        let dimensions = self.dimensions.iter().filter_map(|(name, column)| {
            let value = column.as_ref()?.get(row)?;
            Some(format!("{name}={value}"))
        });
        RowKey {
            entity: self.entity.get(row).unwrap_or_default().to_owned(),
            event_type: self.event_type.get(row).unwrap_or_default().to_owned(),
            dimensions: dimensions.collect::<Vec<_>>().join(","),
            minute: self.minute.get(row).unwrap_or_default(),
        }
    }
}

/// Every event of a frame of [`super::raw::Events::kept`], one after the other, with the row of a granularity that it
/// counts in.
///
/// # Errors
/// When a column is missing.
pub fn events(
    frame: &DataFrame,
    granularity: Granularity,
    counting: &Counting,
) -> Result<impl Iterator<Item = (RowKey, RowEvent)>, AuditError> {
    let failed = |error: Unreadable| AuditError::Stopped(format!("a frame of events: {error:?}"));
    let columns = Columns(frame);
    let keys = KeyReader::with_minute(&columns, counting, MINUTE).map_err(failed)?;
    let ids = columns.text("event_id").map_err(failed)?;
    let hashes = columns.whole(HASH).map_err(failed)?;
    let places = frame.column(PLACE)?.u64()?;
    let one = move |row: usize| {
        let key = keys.at(row);
        let event = RowEvent {
            hash: hashes.get(row).unwrap_or_default().cast_unsigned(),
            event_id: ids.get(row).unwrap_or_default().to_owned(),
            place: Place::from_bits(places.get(row).unwrap_or_default()),
        };
        (RowKey { minute: granularity.start_of(key.minute), ..key }, event)
    };
    Ok((0..frame.height()).map(one))
}
