//! How a value has changed since the period before.

use std::cmp::Ordering;

use reckon_data::decimal::{MICROS_PER_ONE, format_micro};
use reckon_data::metric::Answer;
use serde::{Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

/// How a value has changed. What cannot be said is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// How much more it is: in millionths of a decimal, a whole number of counts.
    pub absolute: Option<Answer>,
    /// Whether it is less, so that `absolute` is by how much it is less.
    pub is_less: bool,
    /// The same for each one that there was before, millionths, rounded half to even; none when there was nothing before.
    pub ratio: Option<i128>,
}

impl Change {
    /// From `before` to `now`.
    #[must_use]
    pub fn between(before: Answer, now: Answer) -> Self {
        let (Some((before, is_decimal)), Some((now, _))) = (number(before), number(now)) else {
            return Self::default();
        };
        let Some(more) = now.checked_sub(before) else { return Self::default() };
        let magnitude = more.unsigned_abs();
        let absolute = if is_decimal {
            i128::try_from(magnitude).ok().map(Answer::Decimal)
        } else {
            u64::try_from(magnitude).ok().map(Answer::Count)
        };
        Self { absolute, is_less: more < 0, ratio: ratio(more, before) }
    }
}

/// A value as a whole number, and whether it counts millionths.
const fn number(value: Answer) -> Option<(i128, bool)> {
    match value {
        Answer::Count(count) | Answer::ApproxDistinct(count) => Some((count as i128, false)),
        Answer::Decimal(micros) => Some((micros, true)),
        Answer::Null | Answer::Overflow => None,
    }
}

/// `more / before` in millionths, rounded half to even; none of nothing, and of what is beyond all values.
fn ratio(more: i128, before: i128) -> Option<i128> {
    if before == 0 {
        return None;
    }
    let (more, is_less) = (more.checked_mul(i128::from(MICROS_PER_ONE))?, (more < 0) != (before < 0));
    let (more, before) = (more.unsigned_abs(), before.unsigned_abs());
    let (whole, rest) = (more / before, more % before);
    let up = match rest.cmp(&(before - rest)) {
        Ordering::Less => 0,
        Ordering::Greater => 1,
        Ordering::Equal => whole & 1,
    };
    let magnitude = i128::try_from(whole + up).ok()?;
    Some(if is_less { -magnitude } else { magnitude })
}

/// A [`Change`] as JSON: `{"absolute": -3, "ratio": "-0.25"}`.
#[derive(Serialize, ToSchema)]
struct Written {
    /// How much more it is than in the period before: a number of counts, exact text of decimals; null when one of them is.
    #[schema(value_type = Answer)]
    absolute: serde_json::Value,
    /// The same for each one that there was before, rounded half to even at six places; null when there was nothing.
    #[schema(value_type = Option<String>)]
    ratio: Option<String>,
}

impl PartialSchema for Change {
    fn schema() -> RefOr<Schema> {
        Written::schema()
    }
}

impl ToSchema for Change {}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let absolute = match self.absolute {
            Some(Answer::Count(count)) if self.is_less => {
                0_i64.checked_sub_unsigned(count).map_or(serde_json::Value::Null, Into::into)
            }
            Some(Answer::Decimal(micros)) if self.is_less => format_micro(-micros).into(),
            Some(other) => other.to_json(),
            None => serde_json::Value::Null,
        };
        Written { absolute, ratio: self.ratio.map(format_micro) }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_written_exactly() {
        let decimal = Answer::Decimal;
        for (before, now, absolute, ratio) in [
            (Answer::Count(4), Answer::Count(3), json!(-1), json!("-0.25")),
            (Answer::Count(3), Answer::Count(4), json!(1), json!("0.333333")),
            (Answer::Count(0), Answer::Count(4), json!(4), json!(null)),
            (Answer::Count(5), Answer::Count(5), json!(0), json!("0")),
            (Answer::Count(2_000_000), Answer::Count(2_000_001), json!(1), json!("0")),
            (Answer::Count(2_000_000), Answer::Count(2_000_003), json!(3), json!("0.000002")),
            (Answer::Count(0), Answer::Count(u64::MAX - 1), json!(u64::MAX - 1), json!(null)),
            (Answer::Count(u64::MAX - 1), Answer::Count(0), json!(null), json!("-1")),
            (decimal(2_500_000), decimal(1_250_000), json!("-1.25"), json!("-0.5")),
            (decimal(-2_000_000), decimal(-1_000_000), json!("1"), json!("-0.5")),
            (decimal(-2_000_000), decimal(-3_000_000), json!("-1"), json!("0.5")),
            (Answer::Null, decimal(1), json!(null), json!(null)),
            (decimal(1), Answer::Null, json!(null), json!(null)),
        ] {
            let change = serde_json::to_value(Change::between(before, now)).unwrap();
            assert_eq!(change, json!({ "absolute": absolute, "ratio": ratio }), "{before:?} to {now:?}");
        }
    }
}
