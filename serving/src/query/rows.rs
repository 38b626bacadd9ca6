//! Columns of answers that SQL of our own gave, each in one type.

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Int64Array, RecordBatch, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use crate::ServingError;

fn column(batch: &RecordBatch, name: &str, of: &DataType) -> Result<ArrayRef, ServingError> {
    let column =
        batch.column_by_name(name).ok_or_else(|| ServingError::internal(format!("an answer without column {name}")))?;
    Ok(cast(column, of)?)
}

/// Whole numbers; times are microseconds, dates days.
pub(super) fn whole(batch: &RecordBatch, name: &str) -> Result<Int64Array, ServingError> {
    let days = batch.column_by_name(name).filter(|column| *column.data_type() == DataType::Date32);
    if let Some(days) = days {
        return Ok(cast(&cast(days, &DataType::Int32)?, &DataType::Int64)?.as_primitive::<Int64Type>().clone());
    }
    Ok(column(batch, name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

pub(super) fn texts(batch: &RecordBatch, name: &str) -> Result<StringViewArray, ServingError> {
    Ok(column(batch, name, &DataType::Utf8View)?.as_string_view().clone())
}

pub(super) fn bytes(batch: &RecordBatch, name: &str) -> Result<BinaryViewArray, ServingError> {
    Ok(column(batch, name, &DataType::BinaryView)?.as_binary_view().clone())
}

pub(super) fn truths(batch: &RecordBatch, name: &str) -> Result<BooleanArray, ServingError> {
    Ok(column(batch, name, &DataType::Boolean)?.as_boolean().clone())
}

pub(super) fn text_at(column: &StringViewArray, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.value(row).to_owned())
}

/// A number that cannot be negative.
pub(super) fn natural<T: TryFrom<i64>>(column: &Int64Array, row: usize) -> Result<T, ServingError> {
    T::try_from(column.value(row)).map_err(|_| ServingError::internal(format!("{} is out of range", column.value(row))))
}

/// A text as an SQL literal.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A time as an SQL literal.
pub(super) fn time(micros: i64) -> String {
    format!("arrow_cast({micros}, 'Timestamp(Microsecond, Some(\"UTC\"))')")
}
