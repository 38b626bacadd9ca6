//! Which segments a file of `stream_counts` holds rows of.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{cast, max, min, partition, sum};
use arrow::datatypes::{DataType, Int64Type};
use reckon_data::minute::minute_of;
use reckon_data::table::{DataFile, Table};
use reckon_tables::schema::{KIND_COUNT, KIND_SUMMARY};

use super::Index;
use super::load::{Columns, Wanted, whole};
use crate::ServingError;

/// A segment: log partition, first offset, offset after the last.
pub(super) type Place = (u32, u64, u64);

/// What a file, or some files, have of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// What its rows count; none without rows.
    pub(super) rows: Option<u64>,
    /// The first and the last minute of its rows, since 1970; none without rows.
    pub(super) minutes: Option<(i64, i64)>,
    /// What its summary says that they count.
    pub(super) counted: u64,
    /// Summaries: one, and more only if the segment was written more than once.
    pub(super) summaries: usize,
}

impl Content {
    /// Adds what another file has.
    pub(super) fn add(&mut self, other: Self) {
        self.rows = match (self.rows, other.rows) {
            (Some(own), Some(more)) => Some(own.saturating_add(more)),
            (own, more) => own.or(more),
        };
        self.minutes = match (self.minutes, other.minutes) {
            (Some(own), Some(more)) => Some((own.0.min(more.0), own.1.max(more.1))),
            (own, more) => own.or(more),
        };
        self.counted = self.counted.saturating_add(other.counted);
        self.summaries += other.summaries;
    }
}

/// The segments a file holds rows of, ascending.
pub(super) async fn read(index: &Index, file: &DataFile) -> Result<Arc<[(Place, Content)]>, ServingError> {
    let (files, start) = (vec![file.clone()], BTreeMap::new());
    let places = index.files.fold(Table::StreamCounts, files, Columns::Places, Wanted::default(), start, add).await?;
    Ok(places.into_iter().collect())
}

fn add(places: &mut BTreeMap<Place, Content>, batch: &RecordBatch) -> Result<(), ServingError> {
    let rows = Rows::of(batch)?;
    // Rows of a segment lie together: there are far fewer of these ranges than rows.
    for range in partition(&rows.by)?.ranges() {
        let mut content = Content::default();
        let total = |column: &ArrayRef| {
            let total = sum(column.slice(range.start, range.len()).as_primitive::<Int64Type>()).unwrap_or(0);
            u64::try_from(total).map_err(|_| unreadable("a negative count"))
        };
        match rows.kind.is_valid(range.start).then(|| rows.kind.value(range.start)) {
            Some(KIND_COUNT) => {
                content.rows = Some(total(&rows.count)?);
                content.minutes = rows.minutes(&range);
            }
            Some(KIND_SUMMARY) => {
                content.summaries = range.len();
                content.counted = total(&rows.counted)?;
            }
            other => return Err(unreadable(format!("a row of kind {other:?}"))),
        }
        places.entry(rows.place(range.start)?).or_default().add(content);
    }
    Ok(())
}

/// The columns of a batch.
struct Rows {
    kind: StringArray,
    /// Microseconds.
    minute: ArrayRef,
    count: ArrayRef,
    counted: ArrayRef,
    /// Kind, and the place: log partition, start and end.
    by: [ArrayRef; 4],
}

impl Rows {
    fn of(batch: &RecordBatch) -> Result<Self, ServingError> {
        let column = |name: &str| {
            let column = batch.column_by_name(name);
            column.cloned().ok_or_else(|| unreadable(format!("a file without column {name}")))
        };
        let number = |name: &str| Ok::<_, ServingError>(whole(&column(name)?)?);
        let kind = cast(&column("kind")?, &DataType::Utf8)?;
        Ok(Self {
            kind: kind.as_string::<i32>().clone(),
            minute: number("minute")?,
            count: number("count")?,
            counted: number("counted")?,
            by: [kind, number("log_partition")?, number("segment_start")?, number("segment_end")?],
        })
    }

    /// The first and the last minute of some rows.
    fn minutes(&self, range: &Range<usize>) -> Option<(i64, i64)> {
        let minutes = self.minute.slice(range.start, range.len());
        let minutes = minutes.as_primitive::<Int64Type>();
        Some((minute_of(min(minutes)?), minute_of(max(minutes)?)))
    }

    fn place(&self, row: usize) -> Result<Place, ServingError> {
        let number = |at: usize| u64::try_from(self.by[at].as_primitive::<Int64Type>().value(row)).ok();
        let place = || Some((u32::try_from(number(1)?).ok()?, number(2)?, number(3)?));
        place().ok_or_else(|| unreadable("a segment with negative offsets"))
    }
}

fn unreadable(what: impl std::fmt::Display) -> ServingError {
    ServingError::internal(format!("stream_counts: {what}"))
}
