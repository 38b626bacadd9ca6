//! Judging one event: from its fields to a valid event, or the refusal.

use std::fmt::Write;
use std::sync::Arc;

use reckon_data::clock::Names;
use reckon_data::definition::Definition;
use reckon_data::event::{Draft, Event, Limits, Reason, Refusal};

/// What events are judged by.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) limits: Limits,
    pub(super) definition: Arc<Definition>,
    pub(super) names: Arc<dyn Names>,
}

/// What an event's verdict depends on beside the event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    /// Names events that came without an id.
    pub(super) idempotency_key: Option<&'a str>,
    /// Whether reserved entities may come this way.
    pub(super) internal: bool,
    /// Microseconds.
    pub(super) append_time: i64,
}

impl Judge {
    /// The valid event, or why it is none. `id` holds the event's id where one has to be made.
    ///
    /// # Errors
    /// See [`Draft::validate`]; reserved entities; an idempotency key too long to make an id of.
    pub(super) fn judge<'a>(
        &self,
        draft: Draft<'a>,
        index: u64,
        given: &Circumstances<'_>,
        id: &'a mut String,
    ) -> Result<Event<'a>, Refusal> {
        let draft = match draft.event_id {
            Some(_) => draft,
            None => Draft { event_id: Some(self.name(index, given, id)?), ..draft },
        };
        let event = draft.validate(&self.limits, given.append_time)?;
        if !given.internal
            && let Some(prefix) = self.definition.reserved_prefix(event.entity_id)
        {
            let message = format!("entity_id begins with {prefix}, which is reserved");
            return Err(Refusal::new(Reason::Reserved, "entity_id", message));
        }
        Ok(event)
    }

    /// Names an event that came without an id: so that a retry is harmless if there is an idempotency key,
    /// so that it collides with no other if there is none.
    fn name<'a>(&self, index: u64, given: &Circumstances<'_>, id: &'a mut String) -> Result<&'a str, Refusal> {
        id.clear();
        let written = match given.idempotency_key {
            Some(key) => write!(id, "{key}-{index}"),
            None => write!(id, "{}", self.names.fresh()),
        };
        let limit = self.limits.event_id_bytes;
        if written.is_ok() && id.len() <= limit {
            return Ok(id);
        }
        let made_of =
            if given.idempotency_key.is_some() { "the Idempotency-Key and its index" } else { "a fresh name" };
        let message =
            format!("event_id is missing, and the one made of {made_of} has {} bytes, the limit is {limit}", id.len());
        Err(Refusal::new(Reason::TooLong, "event_id", message))
    }
}
