//! Parameters of prepared statements: read as what the client says that they are, never rounded or cut to what is
//! expected. DataFusion compares them as the values that they are.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, TimeUnit};
use arrow_pg::datatypes::into_pg_type;
use bytes::Bytes;
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;
use pgwire::api::portal::Portal;
use pgwire::error::PgWireResult;

use crate::errors::{error, state};
use crate::lexer::{Token, tokens};
use crate::numeric;

/// From 1970 to 2000, where PostgreSQL's own times begin.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The type that a client is told of a parameter: what the query expects, or text.
pub fn type_of(expected: Option<&DataType>) -> Type {
    match expected.and_then(|expected| into_pg_type(expected).ok()) {
        None | Some(Type::UNKNOWN) => Type::TEXT,
        Some(known) => known,
    }
}

/// The values of a portal's parameters.
///
/// # Errors
/// Of the one that cannot be read, by its number.
pub fn values<S: Clone>(portal: &Portal<S>, expected: &[Option<DataType>]) -> PgWireResult<Vec<ScalarValue>> {
    let value = |index: usize| {
        let expected = expected.get(index).and_then(Option::as_ref);
        let told = portal.statement.parameter_types.get(index).cloned().flatten();
        let is_told = told.as_ref().is_some_and(|told| *told != Type::UNKNOWN);
        let told = if is_told { told.unwrap_or(Type::TEXT) } else { type_of(expected) };
        let bad = |what: &str| error(state::BAD_TEXT, format!("${}: {what} for a parameter of type {told}", index + 1));
        let Some(bytes) = portal.parameters.get(index).and_then(Option::as_ref) else {
            let null = expected.and_then(|expected| ScalarValue::try_from(expected).ok());
            return Ok(null.unwrap_or(ScalarValue::Null));
        };
        let found =
            if portal.parameter_format.is_binary(index) { from_binary(bytes, &told) } else { from_text(bytes, &told) };
        let value = match found {
            Read::Value(value) => value,
            Read::Bad => return Err(bad("the value makes no sense")),
            Read::Unknown => array(portal, index, &told)?,
        };
        // A text of no type is what the query expects.
        if !is_told && let (Some(expected), ScalarValue::Utf8(Some(_))) = (expected, &value) {
            return value.cast_to(expected).map_err(|_| bad("the text cannot be read"));
        }
        Ok(value)
    };
    (0..portal.parameters.len()).map(value).collect()
}

/// The query with its parameters cast to what the client says that they are; none where it says nothing of use.
pub fn cast(query: &str, told: &[Option<Type>]) -> Option<String> {
    let tokens = tokens(query);
    let (mut cast, mut from) = (String::new(), 0);
    for pair in tokens.windows(2) {
        let [dollar, number] = pair else { continue };
        let number_of = |token: &Token| token.word()?.parse::<usize>().ok();
        let Some(index) = number_of(number).filter(|_| dollar.is('$') && dollar.at.end == number.at.start) else {
            continue;
        };
        let Some(name) = told.get(index.wrapping_sub(1)).and_then(Option::as_ref).and_then(name_of) else { continue };
        cast.push_str(&format!("{}CAST(${index} AS {name})", query.get(from..dollar.at.start)?));
        from = number.at.end;
    }
    (from > 0).then(|| format!("{cast}{}", query.get(from..).unwrap_or_default()))
}

/// Whether a parameter is a list.
pub fn is_list(told: &Type) -> bool {
    name_of(told).is_some_and(|name| name.ends_with("[]"))
}

/// What DataFusion calls a type; numbers of any scale have no such name.
fn name_of(told: &Type) -> Option<&'static str> {
    Some(match *told {
        Type::BOOL => "BOOLEAN",
        Type::INT2 => "SMALLINT",
        Type::INT4 => "INT",
        Type::INT8 => "BIGINT",
        Type::FLOAT4 => "REAL",
        Type::FLOAT8 => "DOUBLE",
        Type::TEXT | Type::VARCHAR => "VARCHAR",
        Type::BYTEA => "BYTEA",
        Type::DATE => "DATE",
        Type::TIMESTAMP => "TIMESTAMP",
        Type::TIMESTAMPTZ => "TIMESTAMP WITH TIME ZONE",
        Type::INT2_ARRAY => "SMALLINT[]",
        Type::INT4_ARRAY => "INT[]",
        Type::INT8_ARRAY => "BIGINT[]",
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY => "VARCHAR[]",
        _ => return None,
    })
}

/// What came of reading a value.
#[derive(Debug, PartialEq)]
enum Read {
    Value(ScalarValue),
    Bad,
    /// Its type is none that is read here.
    Unknown,
}

impl From<Option<ScalarValue>> for Read {
    fn from(value: Option<ScalarValue>) -> Self {
        value.map_or(Self::Bad, Self::Value)
    }
}

fn utc_micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

fn from_text(bytes: &Bytes, told: &Type) -> Read {
    let Ok(text) = std::str::from_utf8(bytes) else { return Read::Bad };
    let as_type = |data_type: &DataType| ScalarValue::Utf8(Some(text.to_owned())).cast_to(data_type).ok();
    let value = match *told {
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::UNKNOWN
        | Type::CHAR
        | Type::JSON
        | Type::JSONB
        | Type::UUID => Some(ScalarValue::Utf8(Some(text.to_owned()))),
        Type::BOOL => match text.to_lowercase().as_str() {
            "t" | "true" | "1" | "on" | "yes" => Some(ScalarValue::Boolean(Some(true))),
            "f" | "false" | "0" | "off" | "no" => Some(ScalarValue::Boolean(Some(false))),
            _ => None,
        },
        Type::INT2 => text.trim().parse().ok().map(|value| ScalarValue::Int16(Some(value))),
        Type::INT4 => text.trim().parse().ok().map(|value| ScalarValue::Int32(Some(value))),
        Type::INT8 | Type::OID => text.trim().parse().ok().map(|value| ScalarValue::Int64(Some(value))),
        Type::FLOAT4 => text.trim().parse().ok().map(|value| ScalarValue::Float32(Some(value))),
        Type::FLOAT8 => text.trim().parse().ok().map(|value| ScalarValue::Float64(Some(value))),
        Type::NUMERIC => numeric::from_text(text),
        Type::DATE => as_type(&DataType::Date32),
        Type::TIMESTAMP => as_type(&DataType::Timestamp(TimeUnit::Microsecond, None)),
        Type::TIMESTAMPTZ => as_type(&utc_micros()),
        Type::BYTEA => text.strip_prefix("\\x").and_then(from_hex).map(|bytes| ScalarValue::Binary(Some(bytes))),
        _ => return Read::Unknown,
    };
    value.into()
}

fn from_binary(bytes: &Bytes, told: &Type) -> Read {
    let value = match *told {
        Type::BOOL => number(bytes).map(|[value]: [u8; 1]| ScalarValue::Boolean(Some(value != 0))),
        Type::INT2 => number(bytes).map(|value| ScalarValue::Int16(Some(i16::from_be_bytes(value)))),
        Type::INT4 => number(bytes).map(|value| ScalarValue::Int32(Some(i32::from_be_bytes(value)))),
        Type::INT8 => number(bytes).map(|value| ScalarValue::Int64(Some(i64::from_be_bytes(value)))),
        Type::OID => number(bytes).map(|value| ScalarValue::Int64(Some(i64::from(u32::from_be_bytes(value))))),
        Type::FLOAT4 => number(bytes).map(|value| ScalarValue::Float32(Some(f32::from_be_bytes(value)))),
        Type::FLOAT8 => number(bytes).map(|value| ScalarValue::Float64(Some(f64::from_be_bytes(value)))),
        Type::NUMERIC => numeric::from_binary(bytes),
        Type::DATE => number(bytes)
            .and_then(|value| i32::from_be_bytes(value).checked_add(EPOCH_DAYS))
            .map(|days| ScalarValue::Date32(Some(days))),
        Type::TIMESTAMP => micros(bytes).map(|micros| ScalarValue::TimestampMicrosecond(Some(micros), None)),
        Type::TIMESTAMPTZ => {
            micros(bytes).map(|micros| ScalarValue::TimestampMicrosecond(Some(micros), Some("+00:00".into())))
        }
        Type::BYTEA => Some(ScalarValue::Binary(Some(bytes.to_vec()))),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
            std::str::from_utf8(bytes).ok().map(|text| ScalarValue::Utf8(Some(text.to_owned())))
        }
        _ => return Read::Unknown,
    };
    value.into()
}

fn number<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn micros(bytes: &[u8]) -> Option<i64> {
    i64::from_be_bytes(number(bytes)?).checked_add(EPOCH_MICROS)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// Lists: `= ANY($1)`.
fn array<S: Clone>(portal: &Portal<S>, index: usize, told: &Type) -> PgWireResult<ScalarValue> {
    let (values, inner): (Vec<ScalarValue>, DataType) = match *told {
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY => {
            let values = portal.parameter::<Vec<Option<String>>>(index, told)?.unwrap_or_default();
            (values.into_iter().map(ScalarValue::Utf8).collect(), DataType::Utf8)
        }
        Type::INT2_ARRAY => {
            let values = portal.parameter::<Vec<Option<i16>>>(index, told)?.unwrap_or_default();
            (values.into_iter().map(ScalarValue::Int16).collect(), DataType::Int16)
        }
        Type::INT4_ARRAY => {
            let values = portal.parameter::<Vec<Option<i32>>>(index, told)?.unwrap_or_default();
            (values.into_iter().map(ScalarValue::Int32).collect(), DataType::Int32)
        }
        Type::INT8_ARRAY => {
            let values = portal.parameter::<Vec<Option<i64>>>(index, told)?.unwrap_or_default();
            (values.into_iter().map(ScalarValue::Int64).collect(), DataType::Int64)
        }
        _ => {
            let message = format!("${}: parameters of type {told} are not supported; cast it to text", index + 1);
            return Err(error(state::NOT_SUPPORTED, message));
        }
    };
    let list: ArrayRef = ScalarValue::new_list(&values, &inner, true);
    ScalarValue::try_from_array(&list, 0).map_err(|cause| error(state::BAD_TEXT, format!("${}: {cause}", index + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let text = |text: &'static str, told: &Type| from_text(&Bytes::from_static(text.as_bytes()), told);
        assert_eq!(text("-7", &Type::INT8), Read::Value(ScalarValue::Int64(Some(-7))));
        assert_eq!(text("2.7", &Type::INT8), Read::Bad, "not rounded");
        assert_eq!(text("2.70", &Type::NUMERIC), Read::Value(ScalarValue::Decimal128(Some(270), 3, 2)));
        assert_eq!(text("\\x00ff", &Type::BYTEA), Read::Value(ScalarValue::Binary(Some(vec![0, 255]))));
        assert_eq!(text("\\x0", &Type::BYTEA), Read::Bad);
        let zero = Bytes::from_static(&[0; 8]);
        let y2k = ScalarValue::TimestampMicrosecond(Some(EPOCH_MICROS), Some("+00:00".into()));
        assert_eq!(from_binary(&zero, &Type::TIMESTAMPTZ), Read::Value(y2k.clone()));
        assert_eq!(text("2000-01-01T00:00:00Z", &Type::TIMESTAMPTZ), Read::Value(y2k));
        assert_eq!(from_binary(&zero, &Type::INT4), Read::Bad, "too long");
        assert_eq!(from_binary(&zero, &Type::POINT), Read::Unknown);
    }

    #[test]
    fn parameters_are_cast_to_what_the_client_says() {
        let told = [Some(Type::INT8), None, Some(Type::NUMERIC)];
        let query = "select $1, '$1', $2, $3 -- $1";
        assert_eq!(cast(query, &told).as_deref(), Some("select CAST($1 AS BIGINT), '$1', $2, $3 -- $1"));
        assert_eq!(cast("select $2, $0, $9", &told), None);
    }

    #[test]
    fn a_type_that_nobody_knows_is_text() {
        assert_eq!(type_of(None), Type::TEXT);
        assert_eq!(type_of(Some(&DataType::Null)), Type::TEXT);
        assert_eq!(type_of(Some(&DataType::Decimal128(38, 6))), Type::NUMERIC);
    }
}
