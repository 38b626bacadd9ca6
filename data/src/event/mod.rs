//! The event: one thing that happened, and when one is valid.
//!
//! [`wire`] reads an event's JSON (the usual form of it in one pass), [`json`] checks any JSON, [`time`] reads times; [`Draft::validate`] decides, once for all layers,
//! whether it is taken, and names the field and the limit if it is not.

pub mod json;
pub mod limits;
mod plain;
pub mod time;
pub mod wire;

pub use limits::Limits;

use crate::key::Key;
use crate::minute::{date_of, format_time};

/// A valid event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The id its sender gave it, or the one derived for it.
    pub event_id: &'a str,
    /// What happened: `view`, `click`.
    pub event_type: &'a str,
    /// What is counted: a video, an ad, a page.
    pub entity_id: &'a str,
    /// When it happened, microseconds since 1970.
    pub event_time: i64,
    /// Who did it.
    pub user_id: Option<&'a str>,
    /// From which address.
    pub ip: Option<&'a str>,
    /// From which country.
    pub country: Option<&'a str>,
    /// A number that goes with it, in millionths.
    pub value: Option<i64>,
    /// Anything else: a JSON object.
    pub properties: Option<&'a str>,
}

impl Event<'_> {
    /// What makes it the same event as another.
    #[must_use]
    pub const fn key(&self) -> Key<'_> {
        Key {
            event_id: self.event_id,
            entity_id: self.entity_id,
            event_type: self.event_type,
            date: date_of(self.event_time),
        }
    }
}

/// An event before it was judged: every field may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Draft<'a> {
    /// See [`Event`].
    pub event_id: Option<&'a str>,
    /// See [`Event`].
    pub event_type: Option<&'a str>,
    /// See [`Event`].
    pub entity_id: Option<&'a str>,
    /// See [`Event`].
    pub event_time: Option<i64>,
    /// See [`Event`].
    pub user_id: Option<&'a str>,
    /// See [`Event`].
    pub ip: Option<&'a str>,
    /// See [`Event`].
    pub country: Option<&'a str>,
    /// See [`Event`].
    pub value: Option<i64>,
    /// See [`Event`].
    pub properties: Option<&'a str>,
}

impl<'a> Draft<'a> {
    /// Judges the draft as of `append_time` (microseconds), which is the time that its record will
    /// carry: what is valid never depends on when it is looked at.
    ///
    /// # Errors
    /// The first field that is missing, empty, too long or out of range.
    pub fn validate(&self, limits: &Limits, append_time: i64) -> Result<Event<'a>, Refusal> {
        let event_time = self.event_time.ok_or_else(|| Refusal::missing("event_time"))?;
        check_time(event_time, limits, append_time)?;
        Ok(Event {
            event_id: required("event_id", self.event_id, limits.event_id_bytes)?,
            event_type: required("event_type", self.event_type, limits.event_type_bytes)?,
            entity_id: required("entity_id", self.entity_id, limits.entity_id_bytes)?,
            event_time,
            user_id: optional("user_id", self.user_id, limits.user_id_bytes)?,
            ip: optional("ip", self.ip, limits.ip_bytes)?,
            country: optional("country", self.country, limits.country_bytes)?,
            value: self.value,
            properties: optional("properties", self.properties, limits.properties_bytes)?,
        })
    }
}

fn required<'a>(field: &'static str, text: Option<&'a str>, limit: usize) -> Result<&'a str, Refusal> {
    match text {
        None => Err(Refusal::missing(field)),
        Some("") => Err(Refusal::new(Reason::Empty, field, format!("{field} is empty"))),
        Some(text) => within(field, text, limit),
    }
}

/// An empty optional text is the same as none.
fn optional<'a>(field: &'static str, text: Option<&'a str>, limit: usize) -> Result<Option<&'a str>, Refusal> {
    text.filter(|text| !text.is_empty()).map(|text| within(field, text, limit)).transpose()
}

fn within<'a>(field: &'static str, text: &'a str, limit: usize) -> Result<&'a str, Refusal> {
    if text.len() <= limit {
        return Ok(text);
    }
    let message = format!("{field} has {} bytes, the limit is {limit}", text.len());
    Err(Refusal::new(Reason::TooLong, field, message))
}

fn check_time(event_time: i64, limits: &Limits, append_time: i64) -> Result<(), Refusal> {
    let field = "event_time";
    if event_time < limits.event_time_min {
        let limit = format_time(limits.event_time_min);
        let message = format!("event_time {} is before the limit, {limit}", format_time(event_time));
        return Err(Refusal::new(Reason::TooOld, field, message));
    }
    let latest = append_time.saturating_add(limits.event_time_ahead);
    if event_time > latest {
        let ahead = limits.event_time_ahead / crate::minute::MICROS_PER_SECOND;
        let message = format!(
            "event_time {} is in the future: more than the limit of {ahead} s after its arrival at {}",
            format_time(event_time),
            format_time(append_time)
        );
        return Err(Refusal::new(Reason::InFuture, field, message));
    }
    Ok(())
}

/// Why an event is not taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of thing is wrong.
    pub reason: Reason,
    /// The field it is wrong with, where it is one.
    pub field: Option<String>,
    /// What is wrong, with the limit.
    pub message: String,
}

impl Refusal {
    /// A refusal that concerns one field.
    #[must_use]
    pub fn new(reason: Reason, field: &str, message: String) -> Self {
        Self { reason, field: Some(field.to_owned()), message }
    }

    /// A refusal that concerns the event as a whole.
    #[must_use]
    pub const fn whole(reason: Reason, message: String) -> Self {
        Self { reason, field: None, message }
    }

    fn missing(field: &'static str) -> Self {
        Self::new(Reason::Missing, field, format!("{field} is missing"))
    }
}

/// What kind of thing is wrong with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not the format it should be in.
    Malformed,
    /// A field that an event does not have.
    UnknownField,
    /// A field given twice.
    RepeatedField,
    /// A field of the wrong type.
    WrongType,
    /// A field that must be there is not.
    Missing,
    /// A field that must not be empty is.
    Empty,
    /// A field over its limit.
    TooLong,
    /// A value that is not a decimal with at most 6 places.
    BadValue,
    /// A time that is not written as one.
    BadTime,
    /// An event time before the earliest allowed.
    TooOld,
    /// An event time too far after the append time.
    InFuture,
    /// An entity id that begins with a reserved prefix.
    Reserved,
    /// The event was taken and could not be processed.
    Unprocessable,
    /// A record of the log that was damaged and given up: whatever events it held.
    DamagedRecord,
}

impl Reason {
    /// The code as it is written in answers and in `dead_letters`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownField => "unknown_field",
            Self::RepeatedField => "repeated_field",
            Self::WrongType => "wrong_type",
            Self::Missing => "missing",
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::BadValue => "bad_value",
            Self::BadTime => "bad_time",
            Self::TooOld => "too_old",
            Self::InFuture => "in_future",
            Self::Reserved => "reserved",
            Self::Unprocessable => "unprocessable",
            Self::DamagedRecord => "damaged_record",
        }
    }
}

#[cfg(test)]
mod tests;
