//! From batches of count rows in any order to sorted runs.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringViewArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use reckon_data::run::{Dimension, LATE_COLUMN};
use reckon_tables::schema::{SUM_TYPE, VALUE_TYPE};

use super::error::BatchError;
use super::rank;
use super::spill::{RunWriter, SortedRun, SpillDir};

/// Rows of a batch of a run.
const BATCH_ROWS: usize = 8 * 1024;

/// The columns of a run, in order: name and type. All but the first three, `count`, `fingerprint` and
/// `definition` have the type Null where every row is null.
pub const RUN_COLUMNS: [(&str, DataType); 15] = [
    ("entity_id", DataType::Utf8),
    ("event_type", DataType::Utf8),
    ("minute", DataType::Int32),
    ("country", DataType::Utf8),
    ("user_id", DataType::Utf8),
    ("ip", DataType::Utf8),
    ("count", DataType::Int64),
    ("fingerprint", DataType::Int64),
    ("value_count", DataType::Int64),
    ("value_sum", SUM_TYPE),
    ("value_min", VALUE_TYPE),
    ("value_max", VALUE_TYPE),
    ("distinct_users", DataType::Binary),
    ("definition", DataType::Int64),
    (LATE_COLUMN, DataType::Int64),
];

/// Sorts what a query returns into runs of at most `rows` rows each.
#[derive(Debug, Clone)]
pub struct Sorter {
    /// Rows that are sorted in memory at once.
    pub rows: usize,
    /// Where runs go; memory if none.
    pub dir: Option<Arc<SpillDir>>,
    /// The definition of rows that do not name theirs.
    pub definition: u64,
}

impl Sorter {
    /// Sorts everything in `stream`, whose columns are found by name.
    ///
    /// # Errors
    /// When the query fails, or a run cannot be written.
    pub async fn sort(&self, mut stream: SendableRecordBatchStream) -> Result<Vec<SortedRun>, BatchError> {
        let (mut runs, mut held, mut rows) = (Vec::new(), Vec::new(), 0);
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            if rows > 0 && rows + batch.num_rows() > self.rows {
                runs.push(self.run(std::mem::take(&mut held))?);
                rows = 0;
            }
            rows += batch.num_rows();
            if batch.num_rows() > 0 {
                held.push(batch);
            }
        }
        // What the query holds is free before the last sort.
        drop(stream);
        if rows > 0 {
            runs.push(self.run(held)?);
        }
        Ok(runs)
    }

    fn run(&self, held: Vec<RecordBatch>) -> Result<SortedRun, BatchError> {
        let columns = self.columns(&held)?;
        drop(held);
        let minutes: &Int32Array = columns[2].as_primitive::<Int32Type>();
        let dims: [Option<StringViewArray>; 3] = std::array::from_fn(|at| {
            let column = &columns[3 + at];
            (column.data_type() != &DataType::Null).then(|| column.as_string_view().clone())
        });
        let texts = [columns[0].as_string_view(), columns[1].as_string_view()];
        let order = rank::order(&texts, minutes, &dims)
            .ok_or_else(|| BatchError::Broken("rows are too different to be sorted together".to_owned()))?;
        self.write(&columns, order)
    }

    fn write(&self, columns: &[ArrayRef], order: Vec<u32>) -> Result<SortedRun, BatchError> {
        let schema = run_schema(columns);
        let mut run = RunWriter::create(&schema, self.dir.as_ref())?;
        let order = UInt32Array::from(order);
        for start in (0..order.len()).step_by(BATCH_ROWS) {
            let rows = order.slice(start, BATCH_ROWS.min(order.len() - start));
            let taken = columns.iter().zip(schema.fields()).map(|(column, field)| {
                let taken = take(column, &rows, None)?;
                if taken.data_type() == field.data_type() { Ok(taken) } else { cast(&taken, field.data_type()) }
            });
            let batch = RecordBatch::try_new(Arc::clone(&schema), taken.collect::<Result<_, _>>()?)?;
            let first = batch.column(0).as_string::<i32>().value(0).to_owned();
            let events = events_of(batch.column(6).as_primitive::<Int64Type>())?;
            run.write(batch, &first, events)?;
        }
        run.finish()
    }

    /// The columns of all batches in the order of [`RUN_COLUMNS`], texts as views.
    fn columns(&self, held: &[RecordBatch]) -> Result<Vec<ArrayRef>, BatchError> {
        let rows = held.iter().map(RecordBatch::num_rows).sum();
        RUN_COLUMNS
            .iter()
            .map(|(name, of)| {
                let parts: Option<Vec<&dyn Array>> =
                    held.iter().map(|batch| batch.column_by_name(name).map(AsRef::as_ref)).collect();
                match parts {
                    Some(parts) => column(name, of, &parts),
                    None if *name == "definition" => {
                        Ok(Arc::new(Int64Array::from_value(self.definition.cast_signed(), rows)) as ArrayRef)
                    }
                    None => Ok(new_null_array(&DataType::Null, rows)),
                }
            })
            .collect()
    }
}

fn column(name: &str, of: &DataType, parts: &[&dyn Array]) -> Result<ArrayRef, BatchError> {
    let whole = concat(parts)?;
    let nulls = whole.logical_null_count();
    if is_required(name) && nulls > 0 {
        return Err(BatchError::Broken(format!("column {name} of the counts is null in {nulls} rows")));
    }
    if nulls == whole.len() && nulls > 0 {
        return Ok(new_null_array(&DataType::Null, nulls));
    }
    let target = if of == &DataType::Utf8 { &DataType::Utf8View } else { of };
    Ok(if whole.data_type() == target { whole } else { cast(&whole, target)? })
}

fn is_required(name: &str) -> bool {
    !name.starts_with("value_")
        && name != "distinct_users"
        && name != LATE_COLUMN
        && !Dimension::ALL.iter().any(|dimension| dimension.column() == name)
}

fn run_schema(columns: &[ArrayRef]) -> SchemaRef {
    let fields = RUN_COLUMNS.iter().zip(columns).map(|((name, of), column)| {
        let absent = column.data_type() == &DataType::Null;
        Field::new(*name, if absent { DataType::Null } else { of.clone() }, !is_required(name))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn events_of(counts: &Int64Array) -> Result<u64, BatchError> {
    counts.values().iter().try_fold(0_u64, |sum, count| {
        u64::try_from(*count)
            .ok()
            .and_then(|count| sum.checked_add(count))
            .ok_or_else(|| BatchError::Broken(format!("a row counts {count} events")))
    })
}
