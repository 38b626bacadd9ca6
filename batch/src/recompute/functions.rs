//! The functions that the batch queries use beside those of DataFusion.
//!
//! [`all`] and [`distinct_users`] know nothing but their arguments, so that a query with them means the same on any machine;
//! [`repeated`] and [`touched`] have sets of this run. The set of [`repeated`] can go with a query to another machine.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    create_udaf, create_udf,
};
use hashbrown::HashSet;
use reckon_data::columns::time_type;
use reckon_data::definition::late_before;
use reckon_data::metric::Distinct;
use reckon_data::minute;

use super::repeats::Repeated;
use super::span::{is_below, read_limits};

/// The functions of a query that may run anywhere, but for [`distinct_users`].
pub fn all() -> [ScalarUDF; 3] {
    [minute_of(), below(), is_late()]
}

/// `minute_of(event_time)`: minutes since 1970, by the one minute function of all layers.
pub fn minute_of() -> ScalarUDF {
    function("minute_of", vec![time_type()], DataType::Int32, |args| {
        let times = args[0].as_primitive::<TimestampMicrosecondType>();
        let minutes: Int32Array = times.try_unary(|micros| {
            i32::try_from(minute::minute_of(micros)).map_err(|_| exec_datafusion_err!("time {micros} is out of range"))
        })?;
        Ok(Arc::new(minutes) as ArrayRef)
    })
}

/// `repeated(key_hash)`: whether the hash occurs more than once in the date, or may.
pub fn repeated(hashes: Arc<Repeated>) -> ScalarUDF {
    ScalarUDF::from(IsRepeated { hashes, signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable) })
}

/// What another machine needs to make `function` again that is not known there by name; nothing for one that is.
pub fn write_function(function: &ScalarUDF, to: &mut Vec<u8>) {
    if let Some(IsRepeated { hashes, .. }) = function.inner().downcast_ref() {
        hashes.write(to);
    }
}

/// The function of that name again, of what [`write_function`] has written.
///
/// # Errors
/// When it has written none of that name, or something else.
pub fn read_function(name: &str, written: &[u8]) -> Result<Arc<ScalarUDF>> {
    let hashes = (name == REPEATED).then(|| Repeated::read(written)).flatten();
    let hashes = hashes.ok_or_else(|| exec_datafusion_err!("the function {name} cannot be made of what was sent"))?;
    Ok(Arc::new(repeated(Arc::new(hashes))))
}

const REPEATED: &str = "repeated";

/// See [`repeated`].
#[derive(Debug)]
struct IsRepeated {
    hashes: Arc<Repeated>,
    signature: Signature,
}

impl PartialEq for IsRepeated {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hashes, &other.hashes)
    }
}

impl Eq for IsRepeated {}

impl Hash for IsRepeated {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.hashes).hash(state);
    }
}

impl ScalarUDFImpl for IsRepeated {
    fn name(&self) -> &str {
        REPEATED
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let is = |hash: i64| self.hashes.contains(hash.cast_unsigned());
        let found = BooleanArray::from_unary(arrays[0].as_primitive::<Int64Type>(), is);
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}

/// `below(log_partition, log_offset, limits)`: whether an event lies below the limit of its partition, of those in the text
/// (see [`super::span::limits`]).
pub fn below() -> ScalarUDF {
    let takes = vec![DataType::Int32, DataType::Int64, DataType::Utf8];
    let of = |args: &[ColumnarValue]| {
        let limits = match args.get(2) {
            Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(text)))) => read_limits(text),
            _ => None,
        };
        let limits = limits.ok_or_else(|| exec_datafusion_err!("limits are a text of offsets: '12,40'"))?;
        let places = ColumnarValue::values_to_arrays(&args[..2])?;
        let (partitions, offsets) = (places[0].as_primitive::<Int32Type>(), places[1].as_primitive::<Int64Type>());
        let rows = partitions.values().iter().zip(offsets.values());
        let found = rows.map(|(partition, offset)| {
            is_below(&limits, *partition, *offset)
                .ok_or_else(|| exec_datafusion_err!("an event lies in partition {partition}, which the log has not"))
        });
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(found.collect::<Result<Vec<bool>>>()?))))
    };
    create_udf("below", takes, DataType::Boolean, Volatility::Immutable, Arc::new(of))
}

/// `is_late(event_time, received_at, lateness)`: whether the event is late, see [`late_before`]; lateness in microseconds.
pub fn is_late() -> ScalarUDF {
    function("is_late", vec![time_type(), time_type(), DataType::Int64], DataType::Boolean, |args| {
        let times = |at: usize| args[at].as_primitive::<TimestampMicrosecondType>().values().iter();
        let rows = times(0).zip(times(1)).zip(args[2].as_primitive::<Int64Type>().values());
        let late =
            rows.map(|((event, received), lateness)| minute::minute_of(*event) < late_before(*lateness, *received));
        Ok(Arc::new(BooleanArray::from(late.collect::<Vec<bool>>())) as ArrayRef)
    })
}

/// `touched(entity_id)`: whether the entity is one of those to be recounted.
pub fn touched(entities: Arc<HashSet<Box<str>>>) -> ScalarUDF {
    function("touched", vec![DataType::Utf8View], DataType::Boolean, move |args| {
        let found = BooleanArray::from_unary(args[0].as_string_view(), |entity| entities.contains(entity));
        Ok(Arc::new(found) as ArrayRef)
    })
}

fn function(
    name: &str,
    takes: Vec<DataType>,
    gives: DataType,
    of: impl Fn(&[ArrayRef]) -> Result<ArrayRef> + Send + Sync + 'static,
) -> ScalarUDF {
    let of = move |args: &[ColumnarValue]| of(&ColumnarValue::values_to_arrays(args)?).map(ColumnarValue::Array);
    create_udf(name, takes, gives, Volatility::Immutable, Arc::new(of))
}

/// `distinct_users(user_id)`: the sketch of the users, null when there is none.
pub fn distinct_users() -> AggregateUDF {
    create_udaf(
        "distinct_users",
        vec![DataType::Utf8View],
        Arc::new(DataType::Binary),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(Users::default()))),
        Arc::new(vec![DataType::Binary]),
    )
}

#[derive(Debug, Default)]
struct Users(Option<Box<Distinct>>);

impl Users {
    fn sketch(&self) -> ScalarValue {
        ScalarValue::Binary(self.0.as_ref().map(|distinct| distinct.to_bytes()))
    }
}

impl Accumulator for Users {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for user in values[0].as_string_view().iter().flatten() {
            self.0.get_or_insert_default().insert(user);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.sketch())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.as_ref().map_or(0, |distinct| distinct.memory_bytes())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.sketch()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            let other = Distinct::from_bytes(bytes).map_err(|error| exec_datafusion_err!("{error}"))?;
            self.0.get_or_insert_default().merge(&other);
        }
        Ok(())
    }
}
