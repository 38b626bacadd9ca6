//! The functions that counts need and SQL has not: the exact average, and merging of sketches.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, ColumnarValue, ScalarUDF, Volatility, create_udaf, create_udf,
};
use reckon_data::columns::{SUM_TYPE, time_type};
use reckon_data::metric::Distinct;
use reckon_data::run::Granularity;

use super::stream::rounded_down;

/// `step_start(time)`: rounded down to a granularity.
#[must_use]
pub fn step_start(granularity: Granularity) -> ScalarUDF {
    let rounded = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let times = arrays.first().ok_or_else(|| exec_datafusion_err!("step_start takes a time"))?;
        Ok(ColumnarValue::Array(rounded_down(times, granularity)))
    };
    let name = format!("{}_start", granularity.name());
    create_udf(&name, vec![time_type()], time_type(), Volatility::Immutable, Arc::new(rounded))
}

/// `exact_avg(sum, count)`: rounded half to even at six places; null of nothing.
#[must_use]
pub fn average() -> ScalarUDF {
    create_udf("exact_avg", vec![SUM_TYPE, DataType::Int64], SUM_TYPE, Volatility::Immutable, Arc::new(averages))
}

fn averages(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let [sums, counts] = arrays.as_slice() else {
        return Err(exec_datafusion_err!("exact_avg takes a sum and a count"));
    };
    let sums: &Decimal128Array = sums.as_primitive::<Decimal128Type>();
    let counts: &Int64Array = counts.as_primitive::<Int64Type>();
    let average = |(sum, count): (Option<i128>, Option<i64>)| {
        let count = u64::try_from(count?).ok().filter(|count| *count > 0)?;
        Some(reckon_data::decimal::average(sum?, count))
    };
    let averages: Decimal128Array = sums.iter().zip(counts.iter()).map(average).collect();
    let averages = averages.with_precision_and_scale(38, 6)?;
    Ok(ColumnarValue::Array(Arc::new(averages)))
}

/// `merge_distinct(sketch)`: about how many distinct users all sketches of a group have seen; null of none.
#[must_use]
pub fn distinct() -> AggregateUDF {
    create_udaf(
        "merge_distinct",
        vec![DataType::Binary],
        Arc::new(DataType::Int64),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(Sketches::default()))),
        Arc::new(vec![DataType::Binary]),
    )
}

#[derive(Debug, Default)]
struct Sketches(Option<Distinct>);

impl Sketches {
    fn add(&mut self, column: &ArrayRef) -> Result<()> {
        let column = cast(column, &DataType::Binary)?;
        for bytes in column.as_binary::<i32>().iter().flatten() {
            let sketch = Distinct::from_bytes(bytes).map_err(|error| exec_datafusion_err!("{error}"))?;
            match &mut self.0 {
                Some(all) => all.merge(&sketch),
                none @ None => *none = Some(sketch),
            }
        }
        Ok(())
    }
}

impl Accumulator for Sketches {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values.iter().try_for_each(|column| self.add(column))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(self.0.as_ref().map(Distinct::to_bytes))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let estimate = self.0.as_ref().map(|sketch| i64::try_from(sketch.estimate()).unwrap_or(i64::MAX));
        Ok(ScalarValue::Int64(estimate))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.as_ref().map_or(0, Distinct::memory_bytes)
    }
}
