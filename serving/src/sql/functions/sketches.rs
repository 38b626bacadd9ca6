//! Distinct users out of sketches ([`reckon_data::metric::Distinct`]), the same ones that REST answers from.
//!
//! | function | takes | gives |
//! | --- | --- | --- |
//! | `approx_distinct(users)` | sketches | about how many users all of them have seen, 0 of none |
//! | `approx_distinct(x)` | anything else | the same of its values as texts: of `events.user_id` what the counts say |
//! | `merge_users(users)` | sketches | one sketch of all; null of none |
//! | `merge_distinct(users)` | sketches | as `approx_distinct`, null of none |
//! | `distinct_of(users)` | one sketch | what `merge_distinct` gives of it; plans call it, queries cannot |
//!
//! A sketch is a function of the set of its users alone, so that no plan, no order and no layer makes a difference.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ScalarUDF, Signature, Volatility, create_udaf,
    create_udf,
};
use reckon_data::metric::Distinct;

/// The name of [`approx_distinct`].
pub const APPROX_DISTINCT: &str = "approx_distinct";
/// The name of [`merge_users`].
pub const MERGE_USERS: &str = "merge_users";
/// The name of [`merge_distinct`].
pub const MERGE_DISTINCT: &str = "merge_distinct";

/// `merge_distinct(sketch)`: about how many distinct users all sketches of a group have seen; null of none.
#[must_use]
pub fn merge_distinct() -> AggregateUDF {
    create_udaf(
        MERGE_DISTINCT,
        vec![DataType::Binary],
        Arc::new(DataType::Int64),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(Sketches::of(Gives::Estimate)))),
        Arc::new(vec![DataType::Binary]),
    )
}

/// `distinct_of(sketch)`: what [`merge_distinct`] gives of that sketch alone.
#[must_use]
pub fn distinct_of() -> ScalarUDF {
    create_udf("distinct_of", vec![DataType::Binary], DataType::Int64, Volatility::Immutable, Arc::new(estimates))
}

fn estimates(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let [sketches] = arrays.as_slice() else { return Err(exec_datafusion_err!("distinct_of takes a sketch")) };
    let sketches = cast(sketches, &DataType::Binary)?;
    let estimate =
        |bytes: Option<&[u8]>| bytes.map(|bytes| sketch(bytes).map(|sketch| estimate_of(&sketch))).transpose();
    let estimates = sketches.as_binary::<i32>().iter().map(estimate).collect::<Result<Int64Array>>()?;
    Ok(ColumnarValue::Array(Arc::new(estimates)))
}

fn sketch(bytes: &[u8]) -> Result<Distinct> {
    Distinct::from_bytes(bytes).map_err(|error| exec_datafusion_err!("{error}"))
}

fn estimate_of(sketch: &Distinct) -> i64 {
    i64::try_from(sketch.estimate()).unwrap_or(i64::MAX)
}

/// `merge_users(sketch)`: the sketch of all users that those of a group have seen; null of none.
#[must_use]
pub fn merge_users() -> AggregateUDF {
    create_udaf(
        MERGE_USERS,
        vec![DataType::Binary],
        Arc::new(DataType::Binary),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(Sketches::of(Gives::Sketch)))),
        Arc::new(vec![DataType::Binary]),
    )
}

/// `approx_distinct(x)`: about how many distinct values there are; of sketches, how many users they have seen.
#[must_use]
pub fn approx_distinct() -> AggregateUDF {
    AggregateUDF::from(ApproxDistinct { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ApproxDistinct {
    signature: Signature,
}

impl AggregateUDFImpl for ApproxDistinct {
    fn name(&self) -> &str {
        APPROX_DISTINCT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [of] = types else { return plan_err!("approx_distinct takes one value") };
        let of = match of {
            DataType::Binary | DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
            _ => DataType::Utf8View,
        };
        Ok(vec![of])
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let sketches = arguments.expr_fields.first().is_some_and(|field| *field.data_type() == DataType::Binary);
        let takes = if sketches { Takes::Sketches } else { Takes::Users };
        Ok(Box::new(Sketches { takes, gives: Gives::Number, all: None }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let name = format_state_name(arguments.name, "users");
        Ok(vec![Arc::new(Field::new(name, DataType::Binary, true))])
    }
}

/// What goes into an accumulator.
#[derive(Debug, Clone, Copy)]
enum Takes {
    Sketches,
    Users,
}

/// What comes out of one.
#[derive(Debug, Clone, Copy)]
enum Gives {
    /// How many, null of none.
    Estimate,
    /// How many, 0 of none.
    Number,
    /// Their sketch, null of none.
    Sketch,
}

#[derive(Debug)]
struct Sketches {
    takes: Takes,
    gives: Gives,
    all: Option<Distinct>,
}

impl Sketches {
    const fn of(gives: Gives) -> Self {
        Self { takes: Takes::Sketches, gives, all: None }
    }

    fn add_sketches(&mut self, column: &ArrayRef) -> Result<()> {
        let column = cast(column, &DataType::Binary)?;
        for bytes in column.as_binary::<i32>().iter().flatten() {
            let sketch = sketch(bytes)?;
            match &mut self.all {
                Some(all) => all.merge(&sketch),
                none @ None => *none = Some(sketch),
            }
        }
        Ok(())
    }

    fn add_users(&mut self, column: &ArrayRef) -> Result<()> {
        let column = cast(column, &DataType::Utf8View)?;
        for user in column.as_string_view().iter().flatten() {
            self.all.get_or_insert_with(Distinct::new).insert(user);
        }
        Ok(())
    }
}

impl Accumulator for Sketches {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values.iter().try_for_each(|column| match self.takes {
            Takes::Sketches => self.add_sketches(column),
            Takes::Users => self.add_users(column),
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states.iter().try_for_each(|column| self.add_sketches(column))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(self.all.as_ref().map(Distinct::to_bytes))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let estimate = self.all.as_ref().map(estimate_of);
        Ok(match self.gives {
            Gives::Estimate => ScalarValue::Int64(estimate),
            Gives::Number => ScalarValue::Int64(Some(estimate.unwrap_or(0))),
            Gives::Sketch => ScalarValue::Binary(self.all.as_ref().map(Distinct::to_bytes)),
        })
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.all.as_ref().map_or(0, Distinct::memory_bytes)
    }
}
