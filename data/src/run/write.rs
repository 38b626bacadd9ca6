//! Runs as the count columns of the tables.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Decimal128Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Dimension, RowRef, Run, RunError};
use crate::columns::{SUM_TYPE, VALUE_TYPE, time_type};
use crate::decimal::{SUM_LIMIT, VALUE_LIMIT};
use crate::metric::Distinct;
use crate::minute::start_of_minute;

/// So many bytes of text and sketches end a batch, far below what 32-bit offsets can say.
const BATCH_BYTES: usize = 256 << 20;

/// The column of late events.
pub const LATE_COLUMN: &str = "late";

/// The count columns of `stream_counts` and `batch_counts`, in their order.
#[must_use]
pub fn count_fields() -> Vec<Field> {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    let null = |name: &str, data_type| Field::new(name, data_type, true);
    vec![
        field("entity_id", DataType::Utf8),
        field("event_type", DataType::Utf8),
        field("minute", time_type()),
        null("country", DataType::Utf8),
        null("user_id", DataType::Utf8),
        null("ip", DataType::Utf8),
        field("count", DataType::Int64),
        field("fingerprint", DataType::Int64),
        null("value_count", DataType::Int64),
        null("value_sum", SUM_TYPE),
        null("value_min", VALUE_TYPE),
        null("value_max", VALUE_TYPE),
        null("distinct_users", DataType::Binary),
        field("definition", DataType::Int64),
        // Since version 2 of the schemas; null in place of 0.
        null(LATE_COLUMN, DataType::Int64),
    ]
}

struct Columns {
    entity_id: StringBuilder,
    event_type: StringBuilder,
    minute: TimestampMicrosecondBuilder,
    dimensions: [StringBuilder; Dimension::ALL.len()],
    count: Int64Builder,
    fingerprint: Int64Builder,
    value_count: Int64Builder,
    value_sum: Decimal128Builder,
    value_min: Decimal128Builder,
    value_max: Decimal128Builder,
    distinct_users: BinaryBuilder,
    definition: Int64Builder,
    late: Int64Builder,
    rows: usize,
    bytes: usize,
}

impl Columns {
    fn new() -> Self {
        Self {
            entity_id: StringBuilder::new(),
            event_type: StringBuilder::new(),
            minute: TimestampMicrosecondBuilder::new().with_data_type(time_type()),
            dimensions: Default::default(),
            count: Int64Builder::new(),
            fingerprint: Int64Builder::new(),
            value_count: Int64Builder::new(),
            value_sum: Decimal128Builder::new().with_data_type(SUM_TYPE),
            value_min: Decimal128Builder::new().with_data_type(VALUE_TYPE),
            value_max: Decimal128Builder::new().with_data_type(VALUE_TYPE),
            distinct_users: BinaryBuilder::new(),
            definition: Int64Builder::new(),
            late: Int64Builder::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// `places` says for each column of dimensions which of the run's it is.
    fn push(&mut self, row: &RowRef<'_>, places: &[Option<usize>; 3], definition: u64) -> Result<(), RunError> {
        self.entity_id.append_value(row.entity);
        self.event_type.append_value(row.event_type);
        self.minute.append_value(start_of_minute(row.minute));
        self.rows += 1;
        self.bytes += row.entity.len() + row.event_type.len();
        for (column, place) in self.dimensions.iter_mut().zip(places) {
            let value = place.and_then(|place| row.dims.get(place)?.as_deref());
            column.append_option(value);
            self.bytes += value.map_or(0, str::len);
        }
        self.count.append_value(whole(row.count, "count")?);
        self.fingerprint.append_value(row.fingerprint.cast_signed());
        self.push_value(row)?;
        let distinct = row.distinct.map(Distinct::to_bytes);
        self.bytes += distinct.as_ref().map_or(0, Vec::len);
        self.distinct_users.append_option(distinct);
        self.definition.append_value(definition.cast_signed());
        let late = (row.late > 0).then(|| whole(row.late, LATE_COLUMN)).transpose()?;
        self.late.append_option(late);
        Ok(())
    }

    fn push_value(&mut self, row: &RowRef<'_>) -> Result<(), RunError> {
        let Some(value) = row.value else {
            self.value_count.append_null();
            self.value_sum.append_null();
            self.value_min.append_null();
            self.value_max.append_null();
            return Ok(());
        };
        let within = |number: i128, limit: i128, column| {
            if -limit < number && number < limit { Ok(number) } else { Err(RunError::Overflow { column }) }
        };
        self.value_count.append_value(whole(value.count, "value_count")?);
        self.value_sum.append_value(within(value.sum, SUM_LIMIT, "value_sum")?);
        self.value_min.append_value(within(value.min.into(), VALUE_LIMIT.into(), "value_min")?);
        self.value_max.append_value(within(value.max.into(), VALUE_LIMIT.into(), "value_max")?);
        Ok(())
    }

    fn finish(mut self, schema: SchemaRef) -> Result<RecordBatch, RunError> {
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(self.entity_id.finish()), Arc::new(self.event_type.finish()), Arc::new(self.minute.finish())];
        columns.extend(self.dimensions.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef));
        columns.extend([
            Arc::new(self.count.finish()) as ArrayRef,
            Arc::new(self.fingerprint.finish()),
            Arc::new(self.value_count.finish()),
            Arc::new(self.value_sum.finish()),
            Arc::new(self.value_min.finish()),
            Arc::new(self.value_max.finish()),
            Arc::new(self.distinct_users.finish()),
            Arc::new(self.definition.finish()),
            Arc::new(self.late.finish()),
        ]);
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

fn whole(number: u64, column: &'static str) -> Result<i64, RunError> {
    i64::try_from(number).map_err(|_| RunError::Overflow { column })
}

/// The batches of a run, made one at a time.
struct Batches<'a> {
    run: &'a Run,
    places: [Option<usize>; 3],
    definition: u64,
    batch_rows: usize,
    schema: SchemaRef,
    /// Entities by id.
    order: std::vec::IntoIter<usize>,
    /// The entity being written, and those of its rows that are left.
    current: Option<(usize, std::ops::Range<usize>)>,
}

impl Batches<'_> {
    fn fill(&mut self, columns: &mut Columns) -> Result<(), RunError> {
        while columns.rows < self.batch_rows && columns.bytes < BATCH_BYTES {
            match &mut self.current {
                Some((entity, rows)) => match rows.next() {
                    Some(row) => columns.push(&self.run.row(*entity, row), &self.places, self.definition)?,
                    None => self.current = None,
                },
                None => match self.order.next() {
                    Some(entity) => self.current = Some((entity, self.run.row_ends.range(entity))),
                    None => break,
                },
            }
        }
        Ok(())
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<RecordBatch, RunError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut columns = Columns::new();
        match self.fill(&mut columns) {
            Ok(()) if columns.rows == 0 => None,
            Ok(()) => Some(columns.finish(self.schema.clone())),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Run {
    /// The run as batches of [`count_fields`] with at most `batch_rows` rows each, sorted by (entity id,
    /// event type, minute, dimensions), made one at a time. `dimensions` are those configured, in their order.
    ///
    /// # Errors
    /// [`RunError::Columns`] when rows have more dimensions than that; [`RunError::Overflow`] in a batch when
    /// a number does not fit.
    pub fn batches(
        &self,
        dimensions: &[Dimension],
        definition: u64,
        batch_rows: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, RunError>>, RunError> {
        if let Some(dims) = self.dims.iter().find(|dims| dims.len() > dimensions.len()) {
            return Err(RunError::Columns {
                reason: format!("a row has {} dimensions, {} are configured", dims.len(), dimensions.len()),
            });
        }
        let mut order: Vec<usize> = (0..self.entities.len()).collect();
        order.sort_unstable_by(|a, b| self.entities.id(*a).cmp(self.entities.id(*b)));
        Ok(Batches {
            run: self,
            places: Dimension::ALL.map(|column| dimensions.iter().position(|dimension| *dimension == column)),
            definition,
            batch_rows: batch_rows.max(1),
            schema: Arc::new(Schema::new(count_fields())),
            order: order.into_iter(),
            current: None,
        })
    }

    /// All of [`Run::batches`].
    ///
    /// # Errors
    /// As there.
    pub fn to_batches(
        &self,
        dimensions: &[Dimension],
        definition: u64,
        batch_rows: usize,
    ) -> Result<Vec<RecordBatch>, RunError> {
        self.batches(dimensions, definition, batch_rows)?.collect()
    }
}
