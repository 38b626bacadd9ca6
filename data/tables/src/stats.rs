//! Statistics of files: from and to the JSON text of an `add` action.
//!
//! Other readers skip files by them, so a value of the wrong kind would silently hide rows. What does
//! not fit its column's type is left out, which costs speed only:
//!
//! | column | kept | stored as |
//! | --- | --- | --- |
//! | Int32, Int64 | an integer | the integer |
//! | Utf8 | a string | the string |
//! | Timestamp | microseconds since 1970, or RFC 3339 text | `2013-02-08T21:29:00.000000Z` |
//! | Decimal, Boolean, Binary | nothing | (a JSON number is a float to most readers) |

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use chrono::{DateTime, SecondsFormat};
use reckon_data::table::{DataFile, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema;

/// The statistics of an `add` action, as far as they are used.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    /// Rows in the file.
    pub num_records: Option<u64>,
    /// Smallest value of each column.
    #[serde(default)]
    pub min_values: BTreeMap<String, Value>,
    /// Largest value of each column.
    #[serde(default)]
    pub max_values: BTreeMap<String, Value>,
}

impl Stats {
    /// The statistics of a file of `table`, with what does not fit left out.
    pub(crate) fn of(table: Table, file: &DataFile) -> Self {
        Self {
            num_records: Some(file.rows),
            min_values: fitting(table, &file.min),
            max_values: fitting(table, &file.max),
        }
    }
}

/// The file with its statistics as the table will show them.
pub(crate) fn normalised(table: Table, file: &DataFile) -> DataFile {
    DataFile { min: fitting(table, &file.min), max: fitting(table, &file.max), ..file.clone() }
}

fn fitting(table: Table, values: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let schema = schema::file_schema(table);
    values
        .iter()
        .filter_map(|(name, value)| {
            let field = schema.field_with_name(name).ok()?;
            Some((name.clone(), fit(field.data_type(), value)?))
        })
        .collect()
}

fn fit(of: &DataType, value: &Value) -> Option<Value> {
    match of {
        DataType::Int32 | DataType::Int64 => value.as_i64().map(Value::from),
        DataType::Utf8 => value.as_str().map(Value::from),
        DataType::Timestamp(..) => micros(value).and_then(time_text).map(Value::from),
        _ => None,
    }
}

fn time_text(micros: i64) -> Option<String> {
    Some(DateTime::from_timestamp_micros(micros)?.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// A time of a statistic, in microseconds since 1970: an integer, or RFC 3339 text.
#[must_use]
pub fn micros(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros()),
        other => other.as_i64(),
    }
}

/// The earliest time in a timestamp column of a file, in microseconds, if the file has that statistic.
#[must_use]
pub fn min_micros(file: &DataFile, column: &str) -> Option<i64> {
    file.min.get(column).and_then(micros)
}

/// A time in microseconds that no row of a timestamp column of a file is later than, if the file has
/// that statistic.
///
/// Some writers cut statistics to milliseconds, so a millisecond is added to what has no microseconds.
#[must_use]
pub fn max_micros(file: &DataFile, column: &str) -> Option<i64> {
    let found = file.max.get(column).and_then(micros)?;
    Some(if found % 1_000 == 0 { found.saturating_add(999) } else { found })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(min: Value) -> DataFile {
        let values: BTreeMap<String, Value> = serde_json::from_value(min).expect("an object");
        DataFile { path: "f".into(), bytes: 1, rows: 1, partition: BTreeMap::new(), min: values.clone(), max: values }
    }

    #[test]
    fn times_are_stored_as_text_and_read_back() {
        for given in [json!(1_360_358_940_000_001_i64), json!("2013-02-08T21:29:00.000001Z")] {
            let stored = normalised(Table::Events, &file(json!({ "event_time": given })));
            assert_eq!(stored.min["event_time"], json!("2013-02-08T21:29:00.000001Z"));
            assert_eq!(min_micros(&stored, "event_time"), Some(1_360_358_940_000_001));
            assert_eq!(max_micros(&stored, "event_time"), Some(1_360_358_940_000_001));
        }
    }

    #[test]
    fn a_time_that_may_have_been_cut_is_rounded_up() {
        let cut = file(json!({ "event_time": "2013-02-08T21:29:00.120Z" }));
        assert_eq!(max_micros(&cut, "event_time"), Some(1_360_358_940_120_999));
    }

    #[test]
    fn what_does_not_fit_the_column_is_left_out() {
        let given = file(json!({
            "log_offset": 7, "log_partition": "7", "entity_id": 3, "value": 1.5, "event_date": "2013-02-08", "nothing": 1
        }));
        assert_eq!(normalised(Table::Events, &given).min, file(json!({ "log_offset": 7 })).min);
    }
}
