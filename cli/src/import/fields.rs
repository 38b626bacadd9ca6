//! Turns a line's fields into an event's JSON.

use std::collections::HashMap;

use reckon_data::event::{Reason, Refusal, time};
use reckon_data::minute::MICROS_PER_SECOND;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::mapping::{Mapping, TimeUnit, TypeFrom};

/// The fields of a line, by name.
pub trait Fields {
    /// The text of a field: a number's digits, a text's characters; none when it is absent or null.
    fn text(&self, name: &str) -> Option<String>;
    /// Whether the field is there at all.
    fn has(&self, name: &str) -> bool;
}

/// A JSON object whose values stay as they are written: a number keeps every digit.
pub type Object = HashMap<String, Box<RawValue>>;

impl Fields for Object {
    fn text(&self, name: &str) -> Option<String> {
        match find(self, name)?.get() {
            "null" => None,
            text if text.starts_with('"') => serde_json::from_str(text).ok(),
            other => Some(other.to_owned()),
        }
    }

    fn has(&self, name: &str) -> bool {
        find(self, name).is_some()
    }
}

/// A field by its name, or by a path of names set apart by dots.
fn find<'a>(object: &'a Object, name: &str) -> Option<&'a RawValue> {
    if let Some(value) = object.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    let outer: &'a RawValue = object.get(first)?;
    rest.split('.').try_fold(outer, |value, part| {
        serde_json::from_str::<HashMap<String, &'a RawValue>>(value.get()).ok()?.remove(part)
    })
}

/// The JSON of the event that the fields mean; `id` makes one when no field holds it.
///
/// # Errors
/// A field that is missing, or a time that is not written as it should be.
pub fn event(fields: &impl Fields, mapping: &Mapping, id: impl FnOnce() -> String) -> Result<Vec<u8>, Refusal> {
    let need = |name: &str, what: &str| {
        fields.text(name).filter(|text| !text.is_empty()).ok_or_else(|| {
            Refusal::new(Reason::Missing, what, format!("field {name}, which holds the {what}, is missing or empty"))
        })
    };
    let mut event = Map::new();
    let mut put = |key: &str, text: String| event.insert(key.to_owned(), Value::String(text));
    put("entity_id", need(&mapping.entity, "entity_id")?);
    put("event_time", when(&need(&mapping.time, "event_time")?, &mapping.time_unit)?);
    put(
        "event_id",
        match &mapping.id {
            Some(field) => need(field, "event_id")?,
            None => id(),
        },
    );
    put(
        "event_type",
        match &mapping.event_type {
            TypeFrom::Name(name) => name.clone(),
            TypeFrom::Field(field) => need(field, "event_type")?,
        },
    );
    let optional =
        [("user_id", &mapping.user), ("ip", &mapping.ip), ("country", &mapping.country), ("value", &mapping.value)];
    for (key, field) in optional {
        if let Some(text) = field.as_ref().and_then(|field| fields.text(field)).filter(|text| !text.is_empty()) {
            put(key, text);
        }
    }
    serde_json::to_vec(&event).map_err(|e| Refusal::whole(Reason::Malformed, e.to_string()))
}

/// A time as RFC 3339.
fn when(text: &str, unit: &TimeUnit) -> Result<String, Refusal> {
    let micros = match unit {
        TimeUnit::Auto => time::parse_rfc3339(text).or_else(|| text.parse().ok().and_then(time::from_millis)),
        TimeUnit::Rfc3339 => time::parse_rfc3339(text),
        TimeUnit::Seconds => seconds(text),
        TimeUnit::Millis => text.parse().ok().and_then(time::from_millis),
        TimeUnit::Micros => text.parse().ok(),
        TimeUnit::Pattern(pattern) => pattern_time(text, pattern),
    };
    micros.map(reckon_data::minute::format_time).ok_or_else(|| {
        let short: String = text.chars().take(40).collect();
        Refusal::new(Reason::BadTime, "event_time", format!("the time {short:?} is not written as {unit:?} is"))
    })
}

/// Whole or decimal seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(whole) => whole.checked_mul(MICROS_PER_SECOND),
        // Six decimal places are microseconds, exactly.
        Err(_) => reckon_data::decimal::parse_micro(text).ok(),
    }
}

/// A time in a pattern; without an offset in it, UTC.
fn pattern_time(text: &str, pattern: &str) -> Option<i64> {
    let with_offset = chrono::DateTime::parse_from_str(text, pattern).map(|t| t.timestamp_micros());
    let in_utc = || chrono::NaiveDateTime::parse_from_str(text, pattern).map(|t| t.and_utc().timestamp_micros());
    with_offset.or_else(|_| in_utc()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_every_unit() {
        let minute = "2013-02-08T21:29:00Z";
        for (text, unit) in [
            ("1360358940", TimeUnit::Seconds),
            ("1360358940.0", TimeUnit::Seconds),
            ("1360358940000", TimeUnit::Millis),
            ("1360358940000000", TimeUnit::Micros),
            ("1360358940000", TimeUnit::Auto),
            ("2013-02-08T22:29:00+01:00", TimeUnit::Rfc3339),
            ("08/Feb/2013:21:29:00 +0000", TimeUnit::Pattern("%d/%b/%Y:%H:%M:%S %z".to_owned())),
            ("2013-02-08 21:29:00", TimeUnit::Pattern("%Y-%m-%d %H:%M:%S".to_owned())),
        ] {
            assert_eq!(when(text, &unit).unwrap(), minute, "{text}");
        }
        assert!(when("noon", &TimeUnit::Seconds).is_err());
    }

    #[test]
    fn nested_fields_are_found() {
        let line: Object = serde_json::from_str(r#"{"repo":{"name":"a/b","id":7},"a.b":1,"n":null}"#).unwrap();
        assert_eq!(line.text("repo.name").as_deref(), Some("a/b"));
        assert_eq!(line.text("repo.id").as_deref(), Some("7"));
        assert_eq!(line.text("a.b").as_deref(), Some("1"));
        assert_eq!((line.text("n"), line.has("n"), line.has("m")), (None, true, false));
    }

    #[test]
    fn numbers_keep_their_digits() {
        let text =
            r#"{"id":123456789012345678901,"v":0.1234567890123456789,"e":1e3,"in":{"id":123456789012345678902}}"#;
        let line: Object = serde_json::from_str(text).unwrap();
        assert_eq!(line.text("id").as_deref(), Some("123456789012345678901"));
        assert_eq!(line.text("v").as_deref(), Some("0.1234567890123456789"));
        assert_eq!(line.text("e").as_deref(), Some("1e3"));
        assert_eq!(line.text("in.id").as_deref(), Some("123456789012345678902"));
    }
}
