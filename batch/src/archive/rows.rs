//! From a record's contents to the rows of a table, split by date. Plain functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{max, min, take_record_batch};
use arrow::error::ArrowError;
use reckon_data::columns::EventColumns;
use reckon_data::dead::{self, DeadLetter};
use reckon_data::minute::date_of;
use reckon_data::table::Table;
use reckon_tables::schema::file_schema;

/// Where a record lies, and when it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// The log partition.
    pub(crate) partition: u32,
    /// The record's offset.
    pub(crate) offset: u64,
    /// Its append time, microseconds.
    pub(crate) append_time: i64,
}

/// The rows of `events` that a record holds.
pub(crate) fn event_rows(events: EventColumns, origin: Origin) -> Result<RecordBatch, ArrowError> {
    let place = Place::of(origin, events.len())?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(events.event_id),
        Arc::new(events.event_type),
        Arc::new(events.entity_id),
        Arc::new(events.event_time),
        Arc::new(events.user_id),
        Arc::new(events.ip),
        Arc::new(events.country),
        Arc::new(events.value),
        Arc::new(events.properties),
        // The same 64 bits: tables know no unsigned numbers.
        Arc::new(Int64Array::new(events.key_hash.values().inner().clone().into(), None)),
        place.received_at,
        place.partition,
        place.offset,
        place.index,
    ];
    RecordBatch::try_new(file_schema(Table::Events), columns)
}

/// The rows of `dead_letters` that a record holds.
pub(crate) fn dead_rows(letters: &[DeadLetter], origin: Origin) -> Result<RecordBatch, ArrowError> {
    let batch = dead::to_batch(letters)?;
    let column = |name: &str| {
        let index = batch.schema_ref().index_of(name)?;
        Ok::<_, ArrowError>(Arc::clone(batch.column(index)))
    };
    // A log may hold lengths that no table can: they must not hold up what comes behind them.
    let sizes = letters.iter().map(|letter| i64::try_from(letter.body_bytes).unwrap_or(i64::MAX));
    let place = Place::of(origin, letters.len())?;
    let columns = vec![
        place.received_at,
        place.partition,
        place.offset,
        place.index,
        column("reason")?,
        column("field")?,
        column("message")?,
        column("source")?,
        column("body")?,
        Arc::new(Int64Array::from_iter_values(sizes)),
        column("body_hash")?,
    ];
    RecordBatch::try_new(file_schema(Table::DeadLetters), columns)
}

/// The columns that say where a row came from.
struct Place {
    received_at: ArrayRef,
    partition: ArrayRef,
    offset: ArrayRef,
    index: ArrayRef,
}

impl Place {
    fn of(origin: Origin, rows: usize) -> Result<Self, ArrowError> {
        let too_large = |what: &str| ArrowError::ComputeError(format!("{what} does not fit the table"));
        let partition = i32::try_from(origin.partition).map_err(|_| too_large("the log partition"))?;
        let offset = i64::try_from(origin.offset).map_err(|_| too_large("the offset"))?;
        let end = i32::try_from(rows).map_err(|_| too_large("the index"))?;
        Ok(Self {
            received_at: Arc::new(TimestampMicrosecondArray::from_value(origin.append_time, rows).with_timezone("UTC")),
            partition: Arc::new(Int32Array::from_value(partition, rows)),
            offset: Arc::new(Int64Array::from_value(offset, rows)),
            index: Arc::new(Int32Array::from_iter_values(0..end)),
        })
    }
}

/// Splits rows of `events` by the UTC date of their event time, each part in the order of the rows.
///
/// The usual record lies within one date and is passed on as it is.
pub(crate) fn split_by_date(rows: RecordBatch) -> Result<Vec<(i32, RecordBatch)>, ArrowError> {
    let times = rows
        .column_by_name("event_time")
        .and_then(|column| column.as_primitive_opt::<arrow::datatypes::TimestampMicrosecondType>())
        .ok_or_else(|| ArrowError::SchemaError("rows of events have no event_time".to_owned()))?;
    let (Some(first), Some(last)) = (min(times).map(date_of), max(times).map(date_of)) else {
        return Ok(Vec::new());
    };
    if first == last {
        return Ok(vec![(first, rows)]);
    }
    let mut places: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
    for (place, time) in (0_u32..).zip(times.values()) {
        places.entry(date_of(*time)).or_default().push(place);
    }
    // Copied, not sliced: a slice would keep the whole record in memory for as long as its file is open.
    places.into_iter().map(|(date, places)| Ok((date, take_record_batch(&rows, &UInt32Array::from(places))?))).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::Array as _;
    use arrow::datatypes::Int64Type;

    use super::*;

    /// One such letter, sent by anybody, used to stop the archiver for ever.
    #[test]
    fn a_length_that_no_table_can_hold_becomes_the_largest() {
        let letter = |body_bytes| DeadLetter {
            reason: "too_long".to_owned(),
            field: None,
            message: "too long".to_owned(),
            source: None,
            body: None,
            body_bytes,
            body_hash: "0".repeat(32),
        };
        let origin = Origin { partition: 0, offset: 7, append_time: 0 };
        let rows = dead_rows(&[letter(u64::MAX), letter(3)], origin).unwrap();
        let sizes = rows.column_by_name("body_bytes").unwrap().as_primitive::<Int64Type>();
        assert_eq!((sizes.null_count(), &sizes.values()[..]), (0, &[i64::MAX, 3][..]));
    }
}
