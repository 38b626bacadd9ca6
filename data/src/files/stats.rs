//! Smallest and largest values of columns, in the form that Delta Lake keeps them in its log.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, max, max_string, min, min_string};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use serde_json::Value;

use super::FileError;
use crate::definition::prefix_end;
use crate::minute::format_date;

/// Longer strings are cut short in a minimum; a maximum is the first text after all that begin with what is left of them.
const TEXT_CHARS_MAX: usize = 32;
/// Decimals of more digits do not survive a JSON reader that makes floats of numbers.
const FLOAT_DIGITS: u32 = 15;

/// A value that bounds others of its column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Whole(i64),
    Decimal(i128),
    Text(String),
}

#[derive(Debug)]
struct Column {
    name: String,
    data_type: DataType,
    bounds: Option<(Bound, Bound)>,
}

/// The statistics of a file.
#[derive(Debug)]
pub(super) struct Stats(Vec<Column>);

impl Stats {
    pub(super) fn new(schema: &SchemaRef, columns: &[String]) -> Result<Self, FileError> {
        let columns = columns.iter().map(|name| {
            let data_type = schema.field_with_name(name)?.data_type().clone();
            if !is_supported(&data_type) {
                let reason = format!("column {name} of type {data_type} has no statistics");
                return Err(arrow::error::ArrowError::NotYetImplemented(reason).into());
            }
            Ok(Column { name: name.clone(), data_type, bounds: None })
        });
        columns.collect::<Result<_, FileError>>().map(Self)
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        for column in &mut self.0 {
            let index = batch.schema_ref().index_of(&column.name)?;
            let Some((low, high)) = bounds(batch.column(index))? else { continue };
            column.bounds = Some(match column.bounds.take() {
                None => (low, high),
                Some((min, max)) => (min.min(low), max.max(high)),
            });
        }
        Ok(())
    }

    /// (min, max), each without the columns that have none.
    pub(super) fn finish(self) -> (BTreeMap<String, Value>, BTreeMap<String, Value>) {
        let (mut min, mut max) = (BTreeMap::new(), BTreeMap::new());
        for column in self.0 {
            let Some((low, high)) = column.bounds else { continue };
            if let Some(value) = to_json(&low, &column.data_type, true) {
                min.insert(column.name.clone(), value);
            }
            if let Some(value) = to_json(&high, &column.data_type, false) {
                max.insert(column.name, value);
            }
        }
        (min, max)
    }
}

fn is_supported(data_type: &DataType) -> bool {
    use DataType::{
        Date32, Decimal128, Int8, Int16, Int32, Int64, LargeUtf8, Timestamp, UInt8, UInt16, UInt32, Utf8, Utf8View,
    };
    matches!(data_type, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | Date32 | Utf8 | LargeUtf8 | Utf8View)
        || matches!(data_type, Timestamp(TimeUnit::Microsecond, _))
        || matches!(data_type, Decimal128(_, scale) if *scale >= 0)
}

fn bounds(column: &ArrayRef) -> Result<Option<(Bound, Bound)>, FileError> {
    let both = |low: Option<i64>, high: Option<i64>| low.zip(high).map(|(l, h)| (Bound::Whole(l), Bound::Whole(h)));
    Ok(match column.data_type() {
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>();
            both(min(days).map(i64::from), max(days).map(i64::from))
        }
        DataType::Timestamp(..) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>();
            both(min(micros), max(micros))
        }
        DataType::Decimal128(..) => {
            let decimals = column.as_primitive::<Decimal128Type>();
            min(decimals).zip(max(decimals)).map(|(low, high)| (Bound::Decimal(low), Bound::Decimal(high)))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = cast(column, &DataType::LargeUtf8)?;
            let texts = texts.as_string::<i64>();
            let text = |text: &str| Bound::Text(text.to_owned());
            min_string(texts).zip(max_string(texts)).map(|(low, high)| (text(low), text(high)))
        }
        _ => {
            let whole = cast(column, &DataType::Int64)?;
            let whole = whole.as_primitive::<Int64Type>();
            both(min(whole), max(whole))
        }
    })
}

/// None when the value cannot be written as a true bound.
fn to_json(bound: &Bound, data_type: &DataType, is_min: bool) -> Option<Value> {
    match (bound, data_type) {
        (Bound::Whole(days), DataType::Date32) => i32::try_from(*days).ok().map(|days| format_date(days).into()),
        (Bound::Whole(micros), DataType::Timestamp(..)) => chrono::DateTime::from_timestamp_micros(*micros)
            .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true).into()),
        (Bound::Whole(number), _) => Some((*number).into()),
        (Bound::Decimal(number), DataType::Decimal128(_, scale)) => decimal(*number, u32::try_from(*scale).ok()?),
        (Bound::Decimal(_), _) => None,
        (Bound::Text(text), _) => match text.char_indices().nth(TEXT_CHARS_MAX) {
            None => Some(text.clone().into()),
            Some((end, _)) if is_min => Some(text[..end].into()),
            Some((end, _)) => prefix_end(&text[..end]).map(Value::from),
        },
    }
}

/// A decimal as the number whose shortest text is the decimal itself. Larger ones, rounded, might not bound
/// what they should.
fn decimal(number: i128, scale: u32) -> Option<Value> {
    let one = 10_i128.checked_pow(scale)?;
    if number % one == 0 {
        return i64::try_from(number / one).ok().map(Value::from);
    }
    if number.unsigned_abs() >= 10_u128.pow(FLOAT_DIGITS) {
        return None;
    }
    // At most 15 digits: text to float and back is the same text.
    let sign = if number < 0 { "-" } else { "" };
    let (whole, fraction) = (number.unsigned_abs() / one.unsigned_abs(), number.unsigned_abs() % one.unsigned_abs());
    let text = format!("{sign}{whole}.{fraction:0width$}", width = scale as usize);
    text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number)
}
