//! An event's JSON: an object with the event's fields and no others.
//!
//! `event_time` is RFC 3339 text or whole epoch milliseconds, `value` a number or decimal text,
//! `properties` an object; the rest are texts. `null` is the same as leaving a field out.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use sonic_rs::{JsonType, JsonValueTrait, LazyValue};

use super::json::{Fault, Scanner};
use super::{Draft, Reason, Refusal, plain, time};
use crate::decimal;

/// Names of the fields, in the order of their values below.
pub const FIELDS: [&str; 9] =
    ["event_id", "event_type", "entity_id", "event_time", "user_id", "ip", "country", "value", "properties"];
const EVENT_TIME: usize = 3;
const VALUE: usize = 7;
const PROPERTIES: usize = 8;

/// An event's fields as they stand in the JSON text.
#[derive(Debug)]
pub struct Wire<'a>(Form<'a>);

#[derive(Debug)]
enum Form<'a> {
    /// The usual form, all of it valid.
    Plain(Draft<'a>),
    /// Any other.
    Any(Box<Fields<'a>>),
}

/// Fields that may be anything.
#[derive(Debug)]
struct Fields<'a> {
    values: [Option<LazyValue<'a>>; 9],
    /// The first field that is unknown or repeated.
    wrong: Option<(Reason, String)>,
}

/// Reads the JSON of one event.
///
/// # Errors
/// [`Reason::Malformed`], with the offset, when it is not one JSON object.
pub fn parse(json: &[u8]) -> Result<Wire<'_>, Refusal> {
    let text = str::from_utf8(json).map_err(|error| malformed(error.valid_up_to(), "not UTF-8"))?;
    match plain::read(text) {
        Some(draft) => Ok(Wire(Form::Plain(draft))),
        None => any(text).map(|fields| Wire(Form::Any(Box::new(fields)))),
    }
}

fn any(text: &str) -> Result<Fields<'_>, Refusal> {
    // The parser below neither bounds the depth nor looks into escapes, so the text is checked first.
    check(text.as_bytes()).map_err(|fault| malformed(fault.at, fault.what))?;
    sonic_rs::from_str(text).map_err(|error| malformed(error.offset(), "not the fields of an object"))
}

/// The long way round, whatever the form.
#[cfg(test)]
pub(super) fn any_form(text: &str) -> Result<Wire<'_>, Refusal> {
    any(text).map(|fields| Wire(Form::Any(Box::new(fields))))
}

fn check(text: &[u8]) -> Result<(), Fault> {
    let mut scanner = Scanner::new(text);
    scanner.space();
    if scanner.peek() != Some(b'{') {
        return Err(Fault { at: scanner.at(), what: "an object should begin here" });
    }
    scanner.value()?;
    scanner.end()
}

fn malformed(offset: usize, what: &str) -> Refusal {
    Refusal::whole(Reason::Malformed, format!("not a JSON object at byte {offset}: {what}"))
}

impl Wire<'_> {
    /// The event's fields, each of the right type.
    ///
    /// # Errors
    /// The first field that is unknown, repeated or of the wrong type.
    pub fn draft(&self) -> Result<Draft<'_>, Refusal> {
        match &self.0 {
            Form::Plain(draft) => Ok(*draft),
            Form::Any(fields) => fields.draft(),
        }
    }
}

impl Fields<'_> {
    fn draft(&self) -> Result<Draft<'_>, Refusal> {
        if let Some((reason, field)) = &self.wrong {
            let message = match reason {
                Reason::RepeatedField => format!("{field} is given twice"),
                _ => format!("unknown field {field}; an event has {}", FIELDS.join(", ")),
            };
            return Err(Refusal::new(*reason, field, message));
        }
        Ok(Draft {
            event_id: self.text(0)?,
            event_type: self.text(1)?,
            entity_id: self.text(2)?,
            event_time: self.time()?,
            user_id: self.text(4)?,
            ip: self.text(5)?,
            country: self.text(6)?,
            value: self.value()?,
            properties: self.properties()?,
        })
    }

    fn field(&self, index: usize) -> Option<&LazyValue<'_>> {
        self.values.get(index)?.as_ref().filter(|value| value.get_type() != JsonType::Null)
    }

    fn text(&self, index: usize) -> Result<Option<&str>, Refusal> {
        let Some(value) = self.field(index) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| wrong_type(index, "a text", value))
    }

    fn time(&self) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.field(EVENT_TIME) else { return Ok(None) };
        let micros = match value.get_type() {
            JsonType::String => value.as_str().and_then(time::parse_rfc3339),
            JsonType::Number => value.as_raw_str().trim().parse().ok().and_then(time::from_millis),
            _ => return Err(wrong_type(EVENT_TIME, "RFC 3339 text or epoch milliseconds", value)),
        };
        micros.map(Some).ok_or_else(|| {
            let message = format!("event_time {} is neither RFC 3339 text nor whole epoch milliseconds", short(value));
            Refusal::new(Reason::BadTime, "event_time", message)
        })
    }

    fn value(&self) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.field(VALUE) else { return Ok(None) };
        let text = match value.get_type() {
            JsonType::String => value.as_str().unwrap_or_default(),
            JsonType::Number => value.as_raw_str().trim(),
            _ => return Err(wrong_type(VALUE, "a number or decimal text", value)),
        };
        decimal::parse_micro(text)
            .map(Some)
            .map_err(|error| Refusal::new(Reason::BadValue, "value", format!("value {}: {error}", short(value))))
    }

    fn properties(&self) -> Result<Option<&str>, Refusal> {
        let Some(value) = self.field(PROPERTIES) else { return Ok(None) };
        match value.get_type() {
            JsonType::Object => Ok(Some(value.as_raw_str())),
            _ => Err(wrong_type(PROPERTIES, "an object", value)),
        }
    }
}

fn wrong_type(index: usize, expected: &str, value: &LazyValue<'_>) -> Refusal {
    let field = FIELDS.get(index).copied().unwrap_or_default();
    let found = match value.get_type() {
        JsonType::Null => "null",
        JsonType::Boolean => "a boolean",
        JsonType::Number => "a number",
        JsonType::String => "a text",
        JsonType::Object => "an object",
        JsonType::Array => "an array",
    };
    Refusal::new(Reason::WrongType, field, format!("{field} must be {expected}, not {found}"))
}

/// A value as it may be shown in a message.
fn short(value: &LazyValue<'_>) -> String {
    value.as_raw_str().trim().chars().take(40).collect()
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields { values: Default::default(), wrong: None };
        while let Some(name) = map.next_key::<Name>()? {
            let value = map.next_value::<LazyValue<'de>>()?;
            match name.index().and_then(|index| fields.values.get_mut(index)) {
                Some(slot @ None) => *slot = Some(value),
                Some(Some(_)) => fields.note(Reason::RepeatedField, name),
                None => fields.note(Reason::UnknownField, name),
            }
        }
        Ok(fields)
    }
}

impl Fields<'_> {
    fn note(&mut self, reason: Reason, name: Name) {
        if self.wrong.is_none() {
            let name = match name {
                Name::Known(index) => FIELDS.get(index).copied().unwrap_or_default().to_owned(),
                Name::Unknown(name) => name.chars().take(64).collect(),
            };
            self.wrong = Some((reason, name));
        }
    }
}

enum Name {
    Known(usize),
    Unknown(String),
}

impl Name {
    const fn index(&self) -> Option<usize> {
        match self {
            Self::Known(index) => Some(*index),
            Self::Unknown(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                let known = FIELDS.iter().position(|&field| field == text);
                Ok(known.map_or_else(|| Name::Unknown(text.to_owned()), Name::Known))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}
