//! Answers as JSON and as Arrow IPC.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    UInt64Type,
};
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use reckon_data::decimal::format_micro;
use reckon_data::minute::{format_date, format_time};
use serde_json::{Value, json};

use super::SqlAnswer;
use crate::ServingError;

impl SqlAnswer {
    /// `{"columns": [{"name", "type"}], "rows": [[…]], "truncated", "provenance"}`. Whole numbers and floats are
    /// numbers, decimals are strings (a float would not be exact), times are RFC 3339, bytes are hexadecimal.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn to_json(&self) -> Result<Value, ServingError> {
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| json!({"name": field.name(), "type": type_name(field.data_type())}));
        Ok(json!({
            "columns": columns.collect::<Vec<_>>(),
            "rows": self.json_rows()?,
            "truncated": self.truncated,
            "provenance": self.provenance,
        }))
    }

    /// The rows, a value a column.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn json_rows(&self) -> Result<Vec<Vec<Value>>, ServingError> {
        let mut rows = Vec::with_capacity(self.rows());
        for batch in &self.batches {
            let columns = batch.columns().iter().map(json_column).collect::<Result<Vec<_>, _>>()?;
            let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
            for _ in 0..batch.num_rows() {
                rows.push(columns.iter_mut().map(|column| column.next().unwrap_or(Value::Null)).collect());
            }
        }
        Ok(rows)
    }

    /// An Arrow IPC stream.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn to_ipc(&self) -> Result<Vec<u8>, ServingError> {
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &self.schema)?;
        for batch in &self.batches {
            // Plans may be stricter about nulls in their batches than in what they promise.
            let batch = arrow::array::RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())?;
            writer.write(&batch)?;
        }
        writer.finish()?;
        drop(writer);
        Ok(bytes)
    }
}

/// The name of a type as answers write it.
#[must_use]
pub fn type_name(of: &DataType) -> String {
    match of {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "text".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => "binary".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

fn json_column(column: &ArrayRef) -> Result<Vec<Value>, ServingError> {
    let values = |value: &dyn Fn(usize) -> Value| {
        (0..column.len()).map(|row| if column.is_null(row) { Value::Null } else { value(row) }).collect()
    };
    Ok(match column.data_type() {
        DataType::Null => vec![Value::Null; column.len()],
        DataType::Boolean => values(&|row| column.as_boolean().value(row).into()),
        DataType::UInt64 => values(&|row| column.as_primitive::<UInt64Type>().value(row).into()),
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32 => {
            let whole = cast(column, &DataType::Int64)?;
            let whole = whole.as_primitive::<Int64Type>();
            values(&|row| whole.value(row).into())
        }
        DataType::Float32 => values(&|row| f64::from(column.as_primitive::<Float32Type>().value(row)).into()),
        DataType::Float64 => values(&|row| column.as_primitive::<Float64Type>().value(row).into()),
        DataType::Decimal128(_, 6) => {
            values(&|row| format_micro(column.as_primitive::<Decimal128Type>().value(row)).into())
        }
        DataType::Date32 => values(&|row| format_date(column.as_primitive::<Date32Type>().value(row)).into()),
        DataType::Timestamp(_, zone) => {
            let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            let micros = micros.as_primitive::<TimestampMicrosecondType>();
            values(&|row| format_time(micros.value(row)).into())
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = cast(column, &DataType::Utf8View)?;
            let texts = texts.as_string_view();
            values(&|row| texts.value(row).into())
        }
        DataType::Dictionary(_, of) => json_column(&cast(column, of)?)?,
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(column, &options)?;
            values(&|row| formatter.value(row).to_string().into())
        }
    })
}
