//! Events as Arrow columns: how a record holds them, and how stream and batch read them.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Decimal128Builder, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray, TimestampMicrosecondBuilder, UInt64Array, UInt64Builder,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use arrow::error::ArrowError;

use crate::event::Event;

/// Decimal places of `value`.
pub const VALUE_SCALE: i8 = 6;
/// Digits of `value`.
pub const VALUE_PRECISION: u8 = 18;
/// The type of `value`, and of its least and greatest.
pub const VALUE_TYPE: DataType = DataType::Decimal128(VALUE_PRECISION, VALUE_SCALE);
/// The type of a sum of values.
pub const SUM_TYPE: DataType = DataType::Decimal128(38, VALUE_SCALE);
/// What an event takes in a record beside its texts: fixed columns, text offsets and validity.
const FIXED_BYTES: usize = 8 + 8 + 16 + 7 * 4 + 2;

/// The type of a time column: microseconds, UTC.
#[must_use]
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The columns of a record of events (schema id 1).
pub static EVENT_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("key_hash", DataType::UInt64, false),
        Field::new("event_id", DataType::Utf8, false),
        Field::new("event_type", DataType::Utf8, false),
        Field::new("entity_id", DataType::Utf8, false),
        Field::new("event_time", time_type(), false),
        Field::new("user_id", DataType::Utf8, true),
        Field::new("ip", DataType::Utf8, true),
        Field::new("country", DataType::Utf8, true),
        Field::new("value", VALUE_TYPE, true),
        Field::new("properties", DataType::Utf8, true),
    ]))
});

/// Gathers valid events into columns.
#[derive(Debug)]
pub struct EventBuilder {
    key_hash: UInt64Builder,
    event_id: StringBuilder,
    event_type: StringBuilder,
    entity_id: StringBuilder,
    event_time: TimestampMicrosecondBuilder,
    user_id: StringBuilder,
    ip: StringBuilder,
    country: StringBuilder,
    value: Decimal128Builder,
    properties: StringBuilder,
    rows: u32,
    bytes: usize,
}

impl Default for EventBuilder {
    fn default() -> Self {
        Self {
            key_hash: UInt64Builder::new(),
            event_id: StringBuilder::new(),
            event_type: StringBuilder::new(),
            entity_id: StringBuilder::new(),
            event_time: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            user_id: StringBuilder::new(),
            ip: StringBuilder::new(),
            country: StringBuilder::new(),
            value: Decimal128Builder::new().with_data_type(VALUE_TYPE),
            properties: StringBuilder::new(),
            rows: 0,
            bytes: 0,
        }
    }
}

impl EventBuilder {
    /// Appends an event and its key hash.
    pub fn push(&mut self, event: &Event<'_>, key_hash: u64) {
        self.bytes += size_of(event);
        self.rows += 1;
        self.key_hash.append_value(key_hash);
        self.event_id.append_value(event.event_id);
        self.event_type.append_value(event.event_type);
        self.entity_id.append_value(event.entity_id);
        self.event_time.append_value(event.event_time);
        self.user_id.append_option(event.user_id);
        self.ip.append_option(event.ip);
        self.country.append_option(event.country);
        self.value.append_option(event.value.map(i128::from));
        self.properties.append_option(event.properties);
    }

    /// How many events were appended.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    /// About how many bytes they take in a record.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The columns; the builder is empty again afterwards.
    ///
    /// # Errors
    /// Never, unless the schema above and the builders disagree.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        self.bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.key_hash.finish()),
            Arc::new(self.event_id.finish()),
            Arc::new(self.event_type.finish()),
            Arc::new(self.entity_id.finish()),
            Arc::new(self.event_time.finish()),
            Arc::new(self.user_id.finish()),
            Arc::new(self.ip.finish()),
            Arc::new(self.country.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.properties.finish()),
        ];
        RecordBatch::try_new(Arc::clone(&EVENT_SCHEMA), columns)
    }
}

/// About how many bytes an event takes in a record.
#[must_use]
pub fn size_of(event: &Event<'_>) -> usize {
    let optional = [event.user_id, event.ip, event.country, event.properties];
    FIXED_BYTES
        + event.event_id.len()
        + event.event_type.len()
        + event.entity_id.len()
        + optional.iter().flatten().map(|text| text.len()).sum::<usize>()
}

/// The columns of a record of events, each of its type.
#[derive(Debug, Clone)]
pub struct EventColumns {
    /// The hash of each event's key.
    pub key_hash: UInt64Array,
    /// See [`Event`], as the others.
    pub event_id: StringArray,
    /// What happened.
    pub event_type: StringArray,
    /// What is counted.
    pub entity_id: StringArray,
    /// When, microseconds.
    pub event_time: TimestampMicrosecondArray,
    /// Who.
    pub user_id: StringArray,
    /// From which address.
    pub ip: StringArray,
    /// From which country.
    pub country: StringArray,
    /// Millionths.
    pub value: Decimal128Array,
    /// A JSON object.
    pub properties: StringArray,
}

impl EventColumns {
    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.key_hash.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.key_hash.is_empty()
    }

    /// The event at `row`; `None` past the end.
    #[must_use]
    pub fn event(&self, row: usize) -> Option<Event<'_>> {
        (row < self.len()).then(|| Event {
            event_id: self.event_id.value(row),
            event_type: self.event_type.value(row),
            entity_id: self.entity_id.value(row),
            event_time: self.event_time.value(row),
            user_id: text_at(&self.user_id, row),
            ip: text_at(&self.ip, row),
            country: text_at(&self.country, row),
            value: self.value_at(row),
            properties: text_at(&self.properties, row),
        })
    }

    /// The value at `row` in millionths.
    #[must_use]
    pub fn value_at(&self, row: usize) -> Option<i64> {
        // Decimal(18,6) fits an i64.
        self.value.is_valid(row).then(|| self.value.value(row)).and_then(|value| i64::try_from(value).ok())
    }
}

/// The text at `row`, if there is one.
#[must_use]
pub fn text_at(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

impl TryFrom<&RecordBatch> for EventColumns {
    type Error = ArrowError;

    fn try_from(batch: &RecordBatch) -> Result<Self, ArrowError> {
        if batch.schema_ref().fields() != EVENT_SCHEMA.fields() {
            return Err(ArrowError::SchemaError("these are not the columns of events".to_owned()));
        }
        let text = |index: usize| batch.column(index).as_string::<i32>().clone();
        Ok(Self {
            key_hash: batch.column(0).as_primitive::<UInt64Type>().clone(),
            event_id: text(1),
            event_type: text(2),
            entity_id: text(3),
            event_time: batch.column(4).as_primitive::<TimestampMicrosecondType>().clone(),
            user_id: text(5),
            ip: text(6),
            country: text(7),
            value: batch.column(8).as_primitive::<Decimal128Type>().clone(),
            properties: text(9),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_columns() {
        let event = Event {
            event_id: "e1",
            event_type: "view",
            entity_id: "v1",
            event_time: 1_360_358_940_000_000,
            user_id: Some("u"),
            ip: None,
            country: Some("US"),
            value: Some(-1_500_000),
            properties: Some("{}"),
        };
        let bare = Event { user_id: None, country: None, value: None, properties: None, ..event };
        let mut builder = EventBuilder::default();
        builder.push(&event, event.key().hash());
        builder.push(&bare, bare.key().hash());
        let columns = EventColumns::try_from(&builder.finish().unwrap()).unwrap();
        assert_eq!(columns.event(0), Some(event));
        assert_eq!(columns.event(1), Some(bare));
        assert_eq!(columns.event(2), None);
        assert_eq!(builder.rows(), 0);
    }
}
