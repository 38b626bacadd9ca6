//! The functions that counts need and SQL has not: the exact average here, steps of time in [`steps`], merging of sketches in
//! [`sketches`], and those of DataFusion that are held to a length in [`bounded`].

pub mod bounded;
pub mod sketches;
pub mod steps;

use std::sync::Arc;

use arrow::array::{AsArray, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::{AggregateUDF, ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use reckon_data::columns::{SUM_TYPE, time_type};
use reckon_data::run::Granularity;

use super::stream::rounded_down;

/// The functions that every query finds.
#[derive(Debug)]
pub struct Functions {
    scalars: Vec<ScalarUDF>,
    aggregates: Vec<AggregateUDF>,
}

impl Functions {
    /// All of them; none makes more than so many bytes of text at once.
    #[must_use]
    pub fn new(text_bytes: usize) -> Self {
        let own = vec![average(), steps::minute(), steps::time_bucket(), steps::date_trunc()];
        Self {
            scalars: own.into_iter().chain(bounded::functions(text_bytes)).collect(),
            aggregates: vec![sketches::merge_distinct(), sketches::merge_users(), sketches::approx_distinct()],
        }
    }

    /// Puts them into a context, in the place of others that are called the same.
    pub fn register(&self, context: &SessionContext) {
        self.scalars.iter().for_each(|function| context.register_udf(function.clone()));
        self.aggregates.iter().for_each(|function| context.register_udaf(function.clone()));
    }
}

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
