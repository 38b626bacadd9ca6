//! The rows of `stream_counts`: segments as batches, and summaries read back.
//!
//! | kind | rows | columns |
//! | --- | --- | --- |
//! | `summary` | one a segment, before its counts | the place, `fingerprint`, `definition` and the summary's |
//! | `count` | one per entity, type, minute and dimensions | the place and the count columns |
//!
//! So the rows of a file are sorted by (`log_partition`, `segment_start`, `entity_id`), nulls first.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use reckon_data::columns::time_type;
use reckon_data::definition::Dimension;
use reckon_data::files::WriteOptions;
use reckon_data::logtime::LogTime;
use reckon_data::run::{RunError, count_fields};
use reckon_data::segment::Summary;

use super::error::CounterError;
use super::partition::FinishedSegment;

/// `kind` of a row that counts.
pub(super) const KIND_COUNT: &str = "count";
/// `kind` of the one row a segment that sums it up.
pub(super) const KIND_SUMMARY: &str = "summary";
/// Rows made into a batch at once.
const BATCH_ROWS: usize = 64 * 1024;

/// The columns a [`Summary`] is read from.
pub(super) const SUMMARY_COLUMNS: [&str; 14] = [
    "kind",
    "log_partition",
    "segment_start",
    "segment_end",
    "fingerprint",
    "definition",
    "accepted",
    "counted",
    "duplicate",
    "dead",
    "log_time",
    "event_time_max",
    "refill_offset",
    "refill_log_time",
];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let place = [
        Field::new("kind", DataType::Utf8, false),
        Field::new("log_partition", DataType::Int32, false),
        Field::new("segment_start", DataType::Int64, false),
        Field::new("segment_end", DataType::Int64, false),
    ];
    let summary = [
        Field::new("accepted", DataType::Int64, true),
        Field::new("counted", DataType::Int64, true),
        Field::new("duplicate", DataType::Int64, true),
        Field::new("dead", DataType::Int64, true),
        Field::new("log_time", time_type(), true),
        Field::new("event_time_max", time_type(), true),
        Field::new("refill_offset", DataType::Int64, true),
        Field::new("refill_log_time", time_type(), true),
        Field::new("owner", DataType::Utf8, true),
    ];
    let counts = count_fields().into_iter().map(|field| field.with_nullable(true));
    Arc::new(Schema::new(place.into_iter().chain(counts).chain(summary).collect::<Vec<_>>()))
});

/// The columns of a file of `stream_counts`.
#[must_use]
pub fn stream_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// How a file of `stream_counts` is laid out.
#[must_use]
pub fn write_options() -> WriteOptions {
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    WriteOptions {
        dictionary: named(&[
            "kind",
            "log_partition",
            "segment_start",
            "segment_end",
            "event_type",
            "minute",
            "country",
            "count",
            "definition",
            "owner",
        ]),
        sorted_by: named(&["log_partition", "segment_start", "entity_id"]),
        stats: named(&["log_partition", "segment_start", "segment_end", "minute", "definition"]),
        ..WriteOptions::default()
    }
}

/// A segment's rows: its summary, then its counts. Heavy on CPU.
///
/// # Errors
/// As [`FinishedSegment::freeze`]; when a number does not fit its column.
pub(super) fn batches(
    segment: &FinishedSegment,
    dimensions: &[Dimension],
    owner: &str,
) -> Result<Vec<RecordBatch>, CounterError> {
    let run = segment.freeze()?;
    let mut batches = vec![summary_batch(&segment.summary, owner).map_err(run_error)?];
    let counts = run.batches(dimensions, segment.summary.definition, BATCH_ROWS).map_err(run_error)?;
    for counts in counts {
        let counts = counts.map_err(run_error)?;
        let rows = counts.num_rows();
        let mut columns = place(&segment.summary, KIND_COUNT, rows).map_err(run_error)?;
        columns.extend(counts.columns().iter().cloned());
        columns.extend(SCHEMA.fields().iter().skip(columns.len()).map(|field| new_null_array(field.data_type(), rows)));
        batches.push(RecordBatch::try_new(stream_schema(), columns).map_err(|error| run_error(error.into()))?);
    }
    Ok(batches)
}

fn run_error(error: RunError) -> CounterError {
    CounterError::Count(error.into())
}

fn signed(number: u64, column: &'static str) -> Result<i64, RunError> {
    i64::try_from(number).map_err(|_| RunError::Overflow { column })
}

/// The first four columns.
fn place(summary: &Summary, kind: &str, rows: usize) -> Result<Vec<ArrayRef>, RunError> {
    let partition = i32::try_from(summary.partition).map_err(|_| RunError::Overflow { column: "log_partition" })?;
    Ok(vec![
        Arc::new(StringArray::from(vec![kind; rows])),
        Arc::new(Int32Array::from(vec![partition; rows])),
        Arc::new(Int64Array::from(vec![signed(summary.start, "segment_start")?; rows])),
        Arc::new(Int64Array::from(vec![signed(summary.end, "segment_end")?; rows])),
    ])
}

fn summary_batch(summary: &Summary, owner: &str) -> Result<RecordBatch, RunError> {
    let whole =
        |number: u64, column| Ok::<ArrayRef, RunError>(Arc::new(Int64Array::from(vec![signed(number, column)?])));
    let time = |micros: Option<i64>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_data_type(time_type()))
    };
    let mut columns = place(summary, KIND_SUMMARY, 1)?;
    for field in count_fields() {
        columns.push(match field.name().as_str() {
            "fingerprint" => Arc::new(Int64Array::from(vec![summary.fingerprint.cast_signed()])),
            "definition" => Arc::new(Int64Array::from(vec![summary.definition.cast_signed()])),
            _ => new_null_array(field.data_type(), 1),
        });
    }
    columns.extend([
        whole(summary.accepted, "accepted")?,
        whole(summary.counted, "counted")?,
        whole(summary.duplicate, "duplicate")?,
        whole(summary.dead, "dead")?,
        time(summary.log_time.micros()),
        time((summary.event_time_max != i64::MIN).then_some(summary.event_time_max)),
        whole(summary.refill_offset, "refill_offset")?,
        time(summary.refill_log_time.micros()),
        Arc::new(StringArray::from(vec![owner])),
    ]);
    Ok(RecordBatch::try_new(stream_schema(), columns)?)
}

/// The summaries in a batch that has the [`SUMMARY_COLUMNS`].
///
/// # Errors
/// When a column is missing, of another type, or holds what was never written there.
pub(super) fn summaries(batch: &RecordBatch) -> Result<Vec<Summary>, ArrowError> {
    let columns = SummaryColumns { batch };
    let kinds = columns.texts("kind")?;
    (0..batch.num_rows()).filter(|row| kinds.value(*row) == KIND_SUMMARY).map(|row| columns.summary(row)).collect()
}

/// The places of the rows of a batch: partition, start and end of their segments, and whether they count.
///
/// # Errors
/// As [`summaries`].
pub(super) fn places(batch: &RecordBatch) -> Result<Vec<(u32, u64, u64, bool)>, ArrowError> {
    let columns = SummaryColumns { batch };
    let kinds = columns.texts("kind")?;
    (0..batch.num_rows())
        .map(|row| {
            let (partition, start, end) = columns.place(row)?;
            Ok((partition, start, end, kinds.value(row) == KIND_COUNT))
        })
        .collect()
}

struct SummaryColumns<'a> {
    batch: &'a RecordBatch,
}

impl SummaryColumns<'_> {
    fn column(&self, name: &str, data_type: &DataType) -> Result<&ArrayRef, ArrowError> {
        let column = self.batch.column_by_name(name).filter(|column| column.data_type() == data_type);
        column.ok_or_else(|| ArrowError::SchemaError(format!("column {name} is missing, or no {data_type}")))
    }

    fn texts(&self, name: &str) -> Result<&StringArray, ArrowError> {
        Ok(self.column(name, &DataType::Utf8)?.as_string::<i32>())
    }

    fn signed(&self, name: &str, row: usize) -> Result<i64, ArrowError> {
        let column = self.column(name, &DataType::Int64)?.as_primitive::<Int64Type>();
        if column.is_null(row) {
            return Err(ArrowError::ParseError(format!("{name} is null")));
        }
        Ok(column.value(row))
    }

    fn whole(&self, name: &str, row: usize) -> Result<u64, ArrowError> {
        let value = self.signed(name, row)?;
        u64::try_from(value).map_err(|_| ArrowError::ParseError(format!("{name} is {value}")))
    }

    fn time(&self, name: &str, row: usize) -> Result<Option<i64>, ArrowError> {
        let column = self.column(name, &time_type())?.as_primitive::<TimestampMicrosecondType>();
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn log_time(&self, name: &str, row: usize) -> Result<LogTime, ArrowError> {
        Ok(self.time(name, row)?.map_or(LogTime::UNSET, LogTime::at))
    }

    fn place(&self, row: usize) -> Result<(u32, u64, u64), ArrowError> {
        let partition = self.column("log_partition", &DataType::Int32)?.as_primitive::<Int32Type>().value(row);
        let partition =
            u32::try_from(partition).map_err(|_| ArrowError::ParseError(format!("log_partition is {partition}")))?;
        Ok((partition, self.whole("segment_start", row)?, self.whole("segment_end", row)?))
    }

    fn summary(&self, row: usize) -> Result<Summary, ArrowError> {
        let (partition, start, end) = self.place(row)?;
        let summary = Summary {
            partition,
            start,
            end,
            accepted: self.whole("accepted", row)?,
            counted: self.whole("counted", row)?,
            duplicate: self.whole("duplicate", row)?,
            dead: self.whole("dead", row)?,
            fingerprint: self.signed("fingerprint", row)?.cast_unsigned(),
            log_time: self.log_time("log_time", row)?,
            event_time_max: self.time("event_time_max", row)?.unwrap_or(i64::MIN),
            refill_offset: self.whole("refill_offset", row)?,
            refill_log_time: self.log_time("refill_log_time", row)?,
            definition: self.signed("definition", row)?.cast_unsigned(),
        };
        if summary.is_balanced() {
            return Ok(summary);
        }
        let Summary { accepted, counted, duplicate, .. } = summary;
        Err(ArrowError::ParseError(format!(
            "partition {partition}, segment {start} to {end}: {accepted} accepted, {counted} counted, {duplicate} \
             duplicate do not add up (R-1)"
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reckon_data::table::Table;

    use super::*;

    #[test]
    fn the_schema_is_the_tables() {
        assert_eq!(stream_schema(), reckon_tables::schema::file_schema(Table::StreamCounts));
        assert_eq!(KIND_COUNT, reckon_tables::schema::KIND_COUNT);
        assert_eq!(KIND_SUMMARY, reckon_tables::schema::KIND_SUMMARY);
    }

    fn log_time() -> impl Strategy<Value = LogTime> {
        prop::option::of(any::<i64>()).prop_map(|time| time.map_or(LogTime::UNSET, LogTime::at))
    }

    prop_compose! {
        fn summary()(
            partition in 0..1_024_u32,
            numbers in prop::array::uniform6(0..i64::MAX as u64 / 2),
            fingerprint in any::<u64>(),
            definition in any::<u64>(),
            times in (log_time(), any::<i64>(), log_time()),
        ) -> Summary {
            let [start, end, counted, duplicate, dead, refill_offset] = numbers;
            let accepted = counted + duplicate;
            let (log_time, event_time_max, refill_log_time) = times;
            Summary {
                partition, start, end, accepted, counted, duplicate, dead, fingerprint, log_time, event_time_max,
                refill_offset, refill_log_time, definition,
            }
        }
    }

    proptest! {
        #[test]
        fn summaries_are_read_back(summary in summary()) {
            let batch = summary_batch(&summary, "me").unwrap();
            prop_assert_eq!(summaries(&batch).unwrap(), vec![summary]);
            prop_assert_eq!(places(&batch).unwrap(), vec![(summary.partition, summary.start, summary.end, false)]);
        }

        #[test]
        fn what_does_not_add_up_is_refused(summary in summary(), more in 1..1_000_u64) {
            let wrong = Summary { counted: summary.counted + more, ..summary };
            let error = summaries(&summary_batch(&wrong, "me").unwrap()).unwrap_err().to_string();
            let place = format!("partition {}, segment {} to {}", summary.partition, summary.start, summary.end);
            prop_assert!(error.contains(&place) && error.contains("R-1"), "{}", error);
        }
    }
}
