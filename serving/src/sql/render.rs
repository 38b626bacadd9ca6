//! Answers as JSON and as Arrow IPC, no longer than they may be.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, Schema, TimeUnit,
    TimestampMicrosecondType, UInt64Type,
};
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use reckon_data::decimal::format_micro;
use reckon_data::minute::{format_date, format_time};
use serde_json::{Value, json};

use super::SqlAnswer;
use crate::ServingError;

/// Rows made into JSON at once: the same long text may stand in each of them.
const ROWS: usize = 32;

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"columns": [{"name", "type"}], "rows": [[…]], "truncated", "provenance"}`. Whole numbers and floats are
    /// numbers, decimals are strings (a float would not be exact), times are RFC 3339, bytes are hexadecimal.
    Json,
    /// An Arrow IPC stream; `reckon.truncated` and `reckon.provenance` are in its schema's metadata.
    Arrow,
}

impl SqlAnswer {
    /// The answer in at most about `most` bytes. JSON has as many rows as fit, and says that it is truncated.
    ///
    /// # Errors
    /// [`ServingError::MemoryLimit`] when not even one row fits, or (Arrow) not all do; when a value cannot be
    /// written.
    pub fn render(&self, form: Form, most: usize) -> Result<Vec<u8>, ServingError> {
        match form {
            Form::Json => self.to_json(most),
            Form::Arrow => self.to_ipc(most),
        }
    }

    /// The rows, a value a column.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn json_rows(&self) -> Result<Vec<Vec<Value>>, ServingError> {
        let mut rows = Vec::with_capacity(self.rows());
        for batch in &self.batches {
            rows.extend(json_rows(batch)?);
        }
        Ok(rows)
    }

    fn to_json(&self, most: usize) -> Result<Vec<u8>, ServingError> {
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| json!({"name": field.name(), "type": type_name(field.data_type())}));
        let mut text = b"{\"columns\":".to_vec();
        write(&mut text, &columns.collect::<Vec<_>>())?;
        text.extend_from_slice(b",\"rows\":[");
        let fits = self.write_rows(&mut text, most)?;
        text.extend_from_slice(b"],\"truncated\":");
        write(&mut text, &(self.truncated || !fits))?;
        text.extend_from_slice(b",\"provenance\":");
        write(&mut text, &self.provenance)?;
        text.push(b'}');
        Ok(text)
    }

    /// Writes rows as long as they fit; whether all did.
    fn write_rows(&self, text: &mut Vec<u8>, most: usize) -> Result<bool, ServingError> {
        let mut first = true;
        for batch in &self.batches {
            for at in (0..batch.num_rows()).step_by(ROWS) {
                for row in json_rows(&batch.slice(at, ROWS.min(batch.num_rows() - at)))? {
                    let end = text.len();
                    if !first {
                        text.push(b',');
                    }
                    write(text, &row)?;
                    if text.len() > most {
                        text.truncate(end);
                        return if first { Err(too_long(most)) } else { Ok(false) };
                    }
                    first = false;
                }
            }
        }
        Ok(true)
    }

    fn to_ipc(&self, most: usize) -> Result<Vec<u8>, ServingError> {
        let provenance = serde_json::to_string(&self.provenance).map_err(ServingError::internal)?;
        let about = HashMap::from([
            ("reckon.truncated".to_owned(), self.truncated.to_string()),
            ("reckon.provenance".to_owned(), provenance),
        ]);
        let schema = Arc::new(Schema::clone(&self.schema).with_metadata(about));
        let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
        for batch in &self.batches {
            // Plans may be stricter about nulls in their batches than in what they promise.
            let batch = RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())?;
            writer.write(&batch)?;
            if writer.get_ref().len() > most {
                return Err(too_long(most));
            }
        }
        writer.finish()?;
        Ok(writer.into_inner()?)
    }
}

fn too_long(most: usize) -> ServingError {
    ServingError::MemoryLimit { limit_bytes: most as u64, message: "to write the answer".to_owned() }
}

fn write(text: &mut Vec<u8>, value: &impl serde::Serialize) -> Result<(), ServingError> {
    serde_json::to_writer(text, value).map_err(ServingError::internal)
}

fn json_rows(batch: &RecordBatch) -> Result<Vec<Vec<Value>>, ServingError> {
    let columns = batch.columns().iter().map(json_column).collect::<Result<Vec<_>, _>>()?;
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    let row =
        |_: usize| -> Vec<Value> { columns.iter_mut().map(|column| column.next().unwrap_or(Value::Null)).collect() };
    Ok((0..batch.num_rows()).map(row).collect())
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
