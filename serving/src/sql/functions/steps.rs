//! Steps of time: `minute(time)`, `time_bucket(interval, time[, origin])`, and `date_trunc` so that files are pruned by it.
//!
//! All of them say which times have a given step (their preimage), so that `minute(t) = …` and `time_bucket('1 hour', t) >= …`
//! become ranges of `t` before anything is planned, and reach partitions, files and row groups as such.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, FieldRef, IntervalUnit, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use chrono::{DateTime, Datelike as _, NaiveDate, NaiveTime};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use reckon_data::columns::time_type;
use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND};

const MONTHS_PER_YEAR: i64 = 12;
/// The first Monday since 1970.
const MONDAY: i64 = 4 * MICROS_PER_DAY;

/// `minute(time)`: the start of its minute, UTC; the minute that it is counted in.
#[must_use]
pub fn minute() -> ScalarUDF {
    ScalarUDF::from(Minute { signature: Signature::user_defined(Volatility::Immutable) })
}

/// `time_bucket(interval, time[, origin])`: the start of the step that a time lies in. Steps are aligned to 1970-01-01 in UTC,
/// or to `origin`; those of months to the calendar.
#[must_use]
pub fn time_bucket() -> ScalarUDF {
    ScalarUDF::from(TimeBucket { signature: Signature::user_defined(Volatility::Immutable) })
}

/// `date_trunc(unit, time)` of DataFusion, with its preimage.
#[must_use]
pub fn date_trunc() -> ScalarUDF {
    ScalarUDF::from(DateTrunc(datafusion::functions::datetime::date_trunc()))
}

/// A step of time, and where one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// So many microseconds each, from a time.
    Micros { step: i64, origin: i64 },
    /// So many months each, from a month counted since 1970.
    Months { step: i64, origin: i64 },
}

impl Step {
    const MINUTE: Self = Self::Micros { step: MICROS_PER_MINUTE, origin: 0 };

    /// The start of the step that a time lies in; none outside the calendar.
    fn start(self, time: i64) -> Option<i64> {
        match self {
            Self::Micros { step, origin } => {
                let into = time.checked_sub(origin)?.rem_euclid(step);
                time.checked_sub(into)
            }
            Self::Months { step, origin } => {
                let month = month_of(time)?;
                start_of_month(month - (month - origin).rem_euclid(step))
            }
        }
    }

    /// The start of the step behind the one that starts at `start`.
    fn next(self, start: i64) -> Option<i64> {
        match self {
            Self::Micros { step, .. } => start.checked_add(step),
            Self::Months { step, .. } => start_of_month(month_of(start)?.checked_add(step)?),
        }
    }

    /// The times whose step starts at `start`, in UTC; none when no step does.
    fn times_of(self, start: i64) -> Option<(ScalarValue, ScalarValue)> {
        (self.start(start)? == start).then_some(())?;
        Some((scalar(Some(start)), scalar(Some(self.next(start)?))))
    }
}

/// The month of a time, counted since January 1970.
fn month_of(time: i64) -> Option<i64> {
    let date = DateTime::from_timestamp_micros(time)?;
    Some((i64::from(date.year()) - 1970) * MONTHS_PER_YEAR + i64::from(date.month0()))
}

fn start_of_month(month: i64) -> Option<i64> {
    let year = i32::try_from(month.div_euclid(MONTHS_PER_YEAR).checked_add(1970)?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, u32::try_from(month.rem_euclid(MONTHS_PER_YEAR)).ok()? + 1, 1)?;
    Some(date.and_time(NaiveTime::MIN).and_utc().timestamp_micros())
}

fn scalar(micros: Option<i64>) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(micros, Some("UTC".into()))
}

fn outside() -> DataFusionError {
    exec_datafusion_err!("a time lies outside the calendar")
}

/// Times of any unit, in microseconds; rounded towards the past, before 1970 as well.
fn micros(times: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    let scaled = |by: i64| move |time: i64| time.checked_mul(by).ok_or_else(outside);
    match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            times.as_primitive::<TimestampSecondType>().try_unary(scaled(MICROS_PER_SECOND))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            times.as_primitive::<TimestampMillisecondType>().try_unary(scaled(1_000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(times.as_primitive::<TimestampMicrosecondType>().clone()),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Ok(times.as_primitive::<TimestampNanosecondType>().unary(|time: i64| time.div_euclid(1_000)))
        }
        other => exec_err!("a time was expected, not {other}"),
    }
}

/// The starts of the steps that times lie in.
fn starts(times: &ColumnarValue, step: Step) -> Result<ColumnarValue> {
    let starts = |times: &ArrayRef| -> Result<ArrayRef> {
        let starts: TimestampMicrosecondArray =
            micros(times)?.try_unary(|time: i64| step.start(time).ok_or_else(outside))?;
        Ok(Arc::new(starts.with_timezone("UTC")))
    };
    Ok(match times {
        ColumnarValue::Array(times) => ColumnarValue::Array(starts(times)?),
        ColumnarValue::Scalar(time) => {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&starts(&time.to_array()?)?, 0)?)
        }
    })
}

/// What a time is taken as: in UTC, where it has no zone.
fn time_of(of: &DataType) -> Result<DataType> {
    match of {
        DataType::Timestamp(unit, _) => Ok(DataType::Timestamp(*unit, Some("UTC".into()))),
        DataType::Null
        | DataType::Date32
        | DataType::Date64
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View => Ok(time_type()),
        other => plan_err!("a time was expected, not {other}"),
    }
}

/// The preimage of a step that starts at a literal.
fn preimage(step: Option<Step>, time: &Expr, start: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
    let Expr::Literal(ScalarValue::TimestampMicrosecond(Some(start), _), _) = start else {
        return Ok(PreimageResult::None);
    };
    let Some((low, high)) = step.and_then(|step| step.times_of(*start)) else { return Ok(PreimageResult::None) };
    if info.get_data_type(time)? != time_type() {
        return Ok(PreimageResult::None);
    }
    Ok(PreimageResult::Range { expr: time.clone(), interval: Box::new(Interval::try_new(low, high)?) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Minute {
    signature: Signature,
}

impl ScalarUDFImpl for Minute {
    fn name(&self) -> &str {
        "minute"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [time] = types else { return plan_err!("minute takes a time") };
        Ok(vec![time_of(time)?])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(time_type())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time] = arguments.args.as_slice() else { return exec_err!("minute takes a time") };
        starts(time, Step::MINUTE)
    }

    fn preimage(&self, arguments: &[Expr], start: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        let [time] = arguments else { return Ok(PreimageResult::None) };
        preimage(Some(Step::MINUTE), time, start, info)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeBucket {
    signature: Signature,
}

const BUCKET_TAKES: &str = "time_bucket takes an interval, a time, and perhaps a time at which a step begins";

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let ([interval, times @ ..], 2..=3) = (types, types.len()) else { return plan_err!("{BUCKET_TAKES}") };
        match interval {
            DataType::Interval(_) | DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {}
            other => return plan_err!("{BUCKET_TAKES}; {other} is no interval"),
        }
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        std::iter::once(Ok(interval)).chain(times.iter().map(time_of)).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(time_type())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = |value: &ColumnarValue| match value {
            ColumnarValue::Scalar(value) => Ok(value.clone()),
            ColumnarValue::Array(_) => exec_err!("interval and origin of time_bucket must not differ from row to row"),
        };
        let (interval, time, origin) = match arguments.args.as_slice() {
            [interval, time] => (constant(interval)?, time, scalar(Some(0))),
            [interval, time, origin] => (constant(interval)?, time, constant(origin)?),
            _ => return exec_err!("{BUCKET_TAKES}"),
        };
        match bucket(&interval, &origin)? {
            Some(step) => starts(time, step),
            None => Ok(ColumnarValue::Scalar(scalar(None))),
        }
    }

    fn preimage(&self, arguments: &[Expr], start: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        let epoch = scalar(Some(0));
        let (interval, time, origin) = match arguments {
            [Expr::Literal(interval, _), time] => (interval, time, &epoch),
            [Expr::Literal(interval, _), time, Expr::Literal(origin, _)] => (interval, time, origin),
            _ => return Ok(PreimageResult::None),
        };
        preimage(bucket(interval, origin)?, time, start, info)
    }
}

/// The step of an interval and an origin; none when one of them is null.
fn bucket(interval: &ScalarValue, origin: &ScalarValue) -> Result<Option<Step>> {
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = interval else { return Ok(None) };
    let origin = micros(&origin.to_array()?)?;
    if origin.is_null(0) {
        return Ok(None);
    }
    let origin = origin.value(0);
    let (months, days, nanos) = (interval.months, interval.days, interval.nanoseconds);
    if months != 0 {
        if months < 0 || days != 0 || nanos != 0 {
            return exec_err!(
                "an interval of time_bucket is a number of months, or of days, hours, minutes and seconds"
            );
        }
        let month = month_of(origin).ok_or_else(outside)?;
        if start_of_month(month) != Some(origin) {
            return exec_err!("an origin for months must be the start of one, in UTC: they are not all as long");
        }
        return Ok(Some(Step::Months { step: i64::from(months), origin: month }));
    }
    if nanos % 1_000 != 0 {
        return exec_err!("an interval of time_bucket is a whole number of microseconds");
    }
    let step = i64::from(days).checked_mul(MICROS_PER_DAY).and_then(|days| days.checked_add(nanos / 1_000));
    match step {
        Some(step) if step > 0 => Ok(Some(Step::Micros { step, origin })),
        _ => exec_err!("an interval of time_bucket must be longer than nothing, and shorter than the calendar"),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc(Arc<ScalarUDF>);

impl DateTrunc {
    fn step(unit: &ScalarValue) -> Option<Step> {
        let micros = |step: i64| Step::Micros { step, origin: 0 };
        let months = |step: i64| Step::Months { step, origin: 0 };
        Some(match unit.try_as_str()??.to_lowercase().as_str() {
            "second" => micros(MICROS_PER_SECOND),
            "minute" => micros(MICROS_PER_MINUTE),
            "hour" => micros(MICROS_PER_HOUR),
            "day" => micros(MICROS_PER_DAY),
            "week" => Step::Micros { step: 7 * MICROS_PER_DAY, origin: MONDAY },
            "month" => months(1),
            "quarter" => months(3),
            "year" => months(MONTHS_PER_YEAR),
            _ => return None,
        })
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.0.return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.0.invoke_with_args(arguments)
    }

    fn simplify(&self, arguments: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.0.simplify(arguments, info)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.0.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn preimage(&self, arguments: &[Expr], start: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        let [Expr::Literal(unit, _), time] = arguments else { return Ok(PreimageResult::None) };
        preimage(Self::step(unit), time, start, info)
    }
}

#[cfg(test)]
mod tests;
