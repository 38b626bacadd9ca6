//! Turns a line's fields into an event's JSON.

use reckon_data::event::{Reason, Refusal, time};
use reckon_data::minute::MICROS_PER_SECOND;
use serde_json::{Map, Value};

use super::mapping::{Mapping, TimeUnit, TypeFrom};

/// The fields of a line, by name.
pub trait Fields {
    /// The text of a field: a number's digits, a text's characters; none when it is absent or null.
    fn text(&self, name: &str) -> Option<String>;
    /// Whether the field is there at all.
    fn has(&self, name: &str) -> bool;
}

impl Fields for Value {
    fn text(&self, name: &str) -> Option<String> {
        match find(self, name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    fn has(&self, name: &str) -> bool {
        find(self, name).is_some()
    }
}

/// A field by its name, or by a path of names set apart by dots.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).or_else(|| name.split('.').try_fold(value, |value, part| value.get(part)))
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
        let line: Value = serde_json::from_str(r#"{"repo":{"name":"a/b","id":7},"a.b":1,"n":null}"#).unwrap();
        assert_eq!(line.text("repo.name").as_deref(), Some("a/b"));
        assert_eq!(line.text("repo.id").as_deref(), Some("7"));
        assert_eq!(line.text("a.b").as_deref(), Some("1"));
        assert_eq!((line.text("n"), line.has("n"), line.has("m")), (None, true, false));
    }
}
