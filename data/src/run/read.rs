//! The count columns of the tables, read back into runs.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimestampMicrosecondType};

use super::build::minute_column;
use super::rows::Counted;
use super::write::LATE_COLUMN;
use super::{Dimension, RunBuilder, RunError};
use crate::columns::{SUM_TYPE, VALUE_TYPE, time_type};
use crate::key::entity_hash;
use crate::metric::{Distinct, ValueState};
use crate::minute::{MICROS_PER_MINUTE, minute_of};

/// The columns of a batch that a run is made of.
struct Columns {
    entity_id: StringArray,
    event_type: StringArray,
    minute: TimestampMicrosecondArray,
    dimensions: Vec<Option<StringArray>>,
    count: Int64Array,
    fingerprint: Int64Array,
    late: Option<Int64Array>,
    values: Option<Values>,
    distinct_users: Option<BinaryArray>,
}

struct Values {
    count: Int64Array,
    sum: Decimal128Array,
    min: Decimal128Array,
    max: Decimal128Array,
}

impl Columns {
    fn of(batch: &RecordBatch, dimensions: &[Dimension]) -> Result<Self, RunError> {
        let dimensions = dimensions.iter().map(|dimension| {
            let column = find(batch, dimension.column(), &DataType::Utf8)?;
            Ok(column.map(|column| column.as_string::<i32>().clone()))
        });
        let distinct =
            find(batch, "distinct_users", &DataType::Binary)?.filter(|column| column.null_count() < column.len());
        let late = find(batch, LATE_COLUMN, &DataType::Int64)?.filter(|column| column.null_count() < column.len());
        Ok(Self {
            entity_id: required(batch, "entity_id", &DataType::Utf8)?.as_string::<i32>().clone(),
            event_type: required(batch, "event_type", &DataType::Utf8)?.as_string::<i32>().clone(),
            minute: required(batch, "minute", &time_type())?.as_primitive::<TimestampMicrosecondType>().clone(),
            dimensions: dimensions.collect::<Result<_, RunError>>()?,
            count: required(batch, "count", &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            fingerprint: required(batch, "fingerprint", &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            late: late.map(|column| column.as_primitive::<Int64Type>().clone()),
            values: Values::of(batch)?,
            distinct_users: distinct.map(|column| column.as_binary::<i32>().clone()),
        })
    }

    fn count(&self, row: usize) -> Result<u64, RunError> {
        let count = self.count.value(row);
        u64::try_from(count).map_err(|_| RunError::Batch { column: "count", reason: format!("{count} is negative") })
    }

    /// Late events, of which there are no more than events.
    fn late(&self, row: usize) -> Result<u64, RunError> {
        let Some(column) = self.late.as_ref().filter(|column| column.is_valid(row)) else { return Ok(0) };
        let (late, count) = (column.value(row), self.count.value(row));
        u64::try_from(late)
            .ok()
            .filter(|_| late <= count)
            .ok_or_else(|| RunError::Batch { column: LATE_COLUMN, reason: format!("{late} of {count} events") })
    }

    fn minute(&self, row: usize) -> Result<i32, RunError> {
        let micros = self.minute.value(row);
        if micros.rem_euclid(MICROS_PER_MINUTE) != 0 {
            return Err(RunError::Batch { column: "minute", reason: format!("{micros} is no start of a minute") });
        }
        minute_column(minute_of(micros))
    }

    fn distinct(&self, row: usize) -> Result<Option<Distinct>, RunError> {
        let Some(column) = self.distinct_users.as_ref().filter(|column| column.is_valid(row)) else { return Ok(None) };
        Distinct::from_bytes(column.value(row))
            .map(Some)
            .map_err(|error| RunError::Batch { column: "distinct_users", reason: error.to_string() })
    }
}

impl Values {
    fn of(batch: &RecordBatch) -> Result<Option<Self>, RunError> {
        let Some(count) = find(batch, "value_count", &DataType::Int64)? else { return Ok(None) };
        if count.null_count() == count.len() {
            return Ok(None);
        }
        let decimal = |name, data_type: DataType| {
            let column = required_or_null(batch, name, &data_type)?;
            Ok::<_, RunError>(column.as_primitive::<Decimal128Type>().clone())
        };
        Ok(Some(Self {
            count: count.as_primitive::<Int64Type>().clone(),
            sum: decimal("value_sum", SUM_TYPE)?,
            min: decimal("value_min", VALUE_TYPE)?,
            max: decimal("value_max", VALUE_TYPE)?,
        }))
    }

    fn get(&self, row: usize) -> Result<Option<ValueState>, RunError> {
        if self.count.is_null(row) || self.count.value(row) == 0 {
            return Ok(None);
        }
        let bad = |reason: &str| RunError::Batch { column: "value_sum", reason: reason.to_owned() };
        if self.sum.is_null(row) || self.min.is_null(row) || self.max.is_null(row) {
            return Err(bad("null where value_count is not"));
        }
        let number = |column: &Decimal128Array| i64::try_from(column.value(row));
        let value = ValueState {
            count: u64::try_from(self.count.value(row)).map_err(|_| bad("negative value_count"))?,
            sum: self.sum.value(row),
            min: number(&self.min).map_err(|_| bad("value_min out of range"))?,
            max: number(&self.max).map_err(|_| bad("value_max out of range"))?,
        };
        if value.is_plausible() { Ok(Some(value)) } else { Err(bad("not between count × min and count × max")) }
    }
}

/// A column in the type that it was written with; readers may have made a view or a dictionary of it.
fn find(batch: &RecordBatch, name: &'static str, data_type: &DataType) -> Result<Option<ArrayRef>, RunError> {
    let Some(column) = batch.column_by_name(name) else { return Ok(None) };
    if column.data_type() == data_type {
        return Ok(Some(column.clone()));
    }
    // Not `safe`: that would turn what does not fit into null.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(Some(cast_with_options(column, data_type, &options)?))
}

fn required_or_null(batch: &RecordBatch, name: &'static str, data_type: &DataType) -> Result<ArrayRef, RunError> {
    find(batch, name, data_type)?.ok_or_else(|| RunError::Batch { column: name, reason: "missing".to_owned() })
}

fn required(batch: &RecordBatch, name: &'static str, data_type: &DataType) -> Result<ArrayRef, RunError> {
    let column = required_or_null(batch, name, data_type)?;
    if column.null_count() > 0 {
        return Err(RunError::Batch { column: name, reason: "null".to_owned() });
    }
    Ok(column)
}

impl RunBuilder {
    /// Adds the rows of a batch that has the columns of [`super::count_fields`], found by name, any others left
    /// alone. Columns of dimensions, late events, values and sketches may be missing. `dimensions` are those configured,
    /// in their order. Fast when rows of the same entity lie together.
    ///
    /// # Errors
    /// [`RunError::Batch`] when a column is missing or holds what was never written there; rows before it may
    /// have been added, so the builder is to be dropped.
    pub fn add_batch(&mut self, batch: &RecordBatch, dimensions: &[Dimension]) -> Result<(), RunError> {
        self.make_room()?;
        let columns = Columns::of(batch, dimensions)?;
        let mut dims: Vec<Option<&str>> = vec![None; dimensions.len()];
        let mut entity: Option<(&str, u32)> = None;
        let mut event_type: Option<(&str, u32)> = None;
        let mut dim_id = None;
        for row in 0..batch.num_rows() {
            let id = columns.entity_id.value(row);
            let entity_id = match entity {
                Some((last, number)) if last == id => number,
                _ => entity.insert((id, self.entity_id(entity_hash(id), id)?)).1,
            };
            let name = columns.event_type.value(row);
            let type_id = match event_type {
                Some((last, number)) if last == name => number,
                _ => event_type.insert((name, self.type_id(name))).1,
            };
            for (value, column) in dims.iter_mut().zip(&columns.dimensions) {
                let next = column.as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row));
                if *value != next {
                    *value = next;
                    dim_id = None;
                }
            }
            let dim_id = *dim_id.get_or_insert_with(|| self.dim_id(&dims));
            let distinct = columns.distinct(row)?;
            let counted = Counted {
                count: columns.count(row)?,
                fingerprint: columns.fingerprint.value(row).cast_unsigned(),
                late: columns.late(row)?,
                value: columns.values.as_ref().map_or(Ok(None), |values| values.get(row))?,
                distinct: distinct.as_ref(),
            };
            self.push(entity_id, type_id, columns.minute(row)?, dim_id, counted);
        }
        Ok(())
    }
}
