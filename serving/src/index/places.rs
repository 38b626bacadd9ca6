//! Which segments a file of `stream_counts` holds rows of.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, partition};
use arrow::datatypes::{DataType, Int64Type};
use reckon_data::table::{DataFile, Table};
use reckon_tables::schema::{KIND_COUNT, KIND_SUMMARY};

use super::Index;
use super::load::{Columns, Wanted, whole};
use crate::ServingError;

/// A segment: log partition, first offset, offset after the last.
pub(super) type Place = (u32, u64, u64);

/// What a segment counts, as its summary says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// Events counted.
    pub(super) counted: u64,
    /// Wrapping sum of their key hashes.
    pub(super) fingerprint: u64,
}

/// What a file, or some files, have of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Whether some of its counts are there.
    pub(super) counts: bool,
    /// Its summaries: one, and more only if the segment was written more than once.
    pub(super) summaries: u32,
    /// What the last of them says.
    pub(super) totals: Option<Totals>,
}

impl Held {
    /// Adds what another file has.
    pub(super) fn add(&mut self, other: Self) {
        self.counts |= other.counts;
        self.summaries += other.summaries;
        self.totals = other.totals.or(self.totals);
    }
}

/// The segments a file holds rows of, ascending.
pub(super) async fn read(index: &Index, file: &DataFile) -> Result<Arc<[(Place, Held)]>, ServingError> {
    let (files, start) = (vec![file.clone()], BTreeMap::new());
    let places = index.files.fold(Table::StreamCounts, files, Columns::Places, Wanted::default(), start, add).await?;
    Ok(places.into_iter().collect())
}

fn add(places: &mut BTreeMap<Place, Held>, batch: &RecordBatch) -> Result<(), ServingError> {
    let rows = Rows::of(batch)?;
    // Rows of a segment lie together: there are far fewer of these ranges than rows.
    for range in partition(&rows.by)?.ranges() {
        let mut held = Held::default();
        match rows.kind.is_valid(range.start).then(|| rows.kind.value(range.start)) {
            Some(KIND_COUNT) => held.counts = true,
            Some(KIND_SUMMARY) => {
                held.summaries = u32::try_from(range.len()).unwrap_or(u32::MAX);
                held.totals = Some(rows.totals(range.start)?);
            }
            other => return Err(unreadable(format!("a row of kind {other:?}"))),
        }
        places.entry(rows.place(range.start)?).or_default().add(held);
    }
    Ok(())
}

/// The columns of a batch.
struct Rows {
    kind: StringArray,
    partition: Int64Array,
    start: Int64Array,
    end: Int64Array,
    counted: Int64Array,
    fingerprint: Int64Array,
    /// The first four.
    by: Vec<ArrayRef>,
}

impl Rows {
    fn of(batch: &RecordBatch) -> Result<Self, ServingError> {
        let column = |name: &str| {
            batch.column_by_name(name).cloned().ok_or_else(|| unreadable(format!("a file without column {name}")))
        };
        let number = |name: &str| Ok::<_, ServingError>(whole(&column(name)?)?.as_primitive::<Int64Type>().clone());
        let by = ["kind", "log_partition", "segment_start", "segment_end"].map(column);
        Ok(Self {
            kind: cast(&column("kind")?, &DataType::Utf8)?.as_string::<i32>().clone(),
            partition: number("log_partition")?,
            start: number("segment_start")?,
            end: number("segment_end")?,
            counted: number("counted")?,
            fingerprint: number("fingerprint")?,
            by: by.into_iter().collect::<Result<_, _>>()?,
        })
    }

    fn place(&self, row: usize) -> Result<Place, ServingError> {
        let place = || {
            let partition = u32::try_from(self.partition.value(row)).ok()?;
            Some((partition, u64::try_from(self.start.value(row)).ok()?, u64::try_from(self.end.value(row)).ok()?))
        };
        place().ok_or_else(|| unreadable("a segment with negative offsets"))
    }

    fn totals(&self, row: usize) -> Result<Totals, ServingError> {
        let counted = self.counted.is_valid(row).then(|| self.counted.value(row));
        let fingerprint = self.fingerprint.is_valid(row).then(|| self.fingerprint.value(row));
        match (counted.and_then(|counted| u64::try_from(counted).ok()), fingerprint) {
            (Some(counted), Some(fingerprint)) => Ok(Totals { counted, fingerprint: fingerprint.cast_unsigned() }),
            _ => Err(unreadable("a summary without counted or fingerprint")),
        }
    }
}

fn unreadable(what: impl std::fmt::Display) -> ServingError {
    ServingError::internal(format!("stream_counts: {what}"))
}
