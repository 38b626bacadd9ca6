//! Records that another producer has appended: the JSON of one event each.
//!
//! A record of ours is made of such a one whenever it is read, the same every time, whatever the settings are then (R-4): its
//! append time is the time that its producer gave it, which the log stores too; it is judged by the default limits, and an
//! event without an id is named for its place. What is refused becomes a dead letter (R-8). The record need not lie in the
//! partition that its entity is routed to, so copies of one event may be told apart only by batch.

use bytes::Bytes;

use crate::columns::EventBuilder;
use crate::dead::DeadLetter;
use crate::definition::Definition;
use crate::event::{Draft, Limits, Reason, Refusal, wire};
use crate::record::{RecordError, decode, encode_dead, encode_events};

/// Times before 1990 and after 9999, microseconds, are no times that a producer's clock can have shown: milliseconds
/// taken for something else, or nothing at all.
const TIMES: std::ops::Range<i64> = 631_152_000_000_000..253_402_300_800_000_000;

/// Stands in the place of the routing version: these were not routed by us.
const UNROUTED: u16 = 0;

/// Reads records of other producers.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// When the log began, microseconds: stands in for the time of records that have none, or none that can be.
    pub began: i64,
}

impl Foreign {
    /// A record of ours of what lies at a place of the log; `time` is when its producer made it, microseconds, as far as it
    /// says so. Without one an event counts as appended when the log began, and is refused when it is younger than that.
    #[must_use]
    pub fn record(&self, partition: u32, offset: u64, bytes: &Bytes, time: Option<i64>) -> Bytes {
        if decode(bytes).is_ok() {
            return bytes.clone();
        }
        let append_time = time.filter(|time| TIMES.contains(time)).unwrap_or(self.began);
        events(bytes, append_time, &format!("log-{partition}-{offset}")).unwrap_or_else(|refusal| {
            let source = format!("log:{partition}/{offset}");
            let letter = DeadLetter::new(&refusal, Some(&source), bytes);
            // A letter without its body always fits.
            let bare = DeadLetter { body: None, ..letter.clone() };
            encode_dead(&[letter], UNROUTED, append_time)
                .or_else(|_| encode_dead(&[bare], UNROUTED, append_time))
                .unwrap_or_else(|_| bytes.clone())
        })
    }
}

fn events(bytes: &[u8], append_time: i64, id: &str) -> Result<Bytes, Refusal> {
    let wire = wire::parse(bytes)?;
    let draft = wire.draft()?;
    let draft = Draft { event_id: draft.event_id.or(Some(id)), ..draft };
    let event = draft.validate(&Limits::default(), append_time)?;
    if let Some(prefix) = Definition::default().reserved_prefix(event.entity_id) {
        let message = format!("entity_id begins with {prefix}, which is reserved");
        return Err(Refusal::new(Reason::Reserved, "entity_id", message));
    }
    let mut builder = EventBuilder::default();
    builder.push(&event, event.key().hash());
    let batch = builder.finish().map_err(RecordError::from);
    let record = batch.and_then(|batch| encode_events(&batch, UNROUTED, append_time));
    record.map_err(|error| Refusal::whole(Reason::TooLong, error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::record::{Body, decode, encode_cut};

    fn read(json: &str, time: Option<i64>) -> Body {
        let foreign = Foreign { began: TIME };
        let bytes = Bytes::copy_from_slice(json.as_bytes());
        let record = foreign.record(3, 17, &bytes, time);
        assert_eq!(record, foreign.record(3, 17, &bytes, time), "the same every time");
        let record = decode(&record).unwrap();
        assert_eq!(record.header.append_time, time.filter(|time| TIMES.contains(time)).unwrap_or(TIME));
        record.body
    }

    const TIME: i64 = 1_360_281_600_000_000;
    const YOUNGER: &str = r#"{"event_id":"a","event_type":"v","entity_id":"e","event_time":"2013-02-09T00:00:00Z"}"#;

    #[test]
    fn one_event_is_read() {
        let body = read(r#"{"event_type":"view","entity_id":"v","event_time":"2013-02-08T00:00:00Z"}"#, Some(TIME));
        let Body::Events(events) = body else { panic!("no events: {body:?}") };
        let event = events.event(0).unwrap();
        assert_eq!((event.event_id, event.entity_id, event.event_time), ("log-3-17", "v", TIME));
    }

    #[test]
    fn what_is_refused_keeps_its_bytes_and_its_place() {
        for (json, time, reason) in [
            ("not json", Some(TIME), "malformed"),
            (r#"{"event_id":"a","event_type":"view","event_time":0}"#, Some(TIME), "too_old"),
            (r#"{"event_id":"a","event_type":"view","event_time":"2013-02-08T00:00:00Z"}"#, Some(TIME), "missing"),
            // Its producer does not say when that was, or says it in microseconds, and it is younger than the log.
            (YOUNGER, None, "in_future"),
            (YOUNGER, Some(TIME * 1_000), "in_future"),
        ] {
            let Body::Dead(letters) = read(json, time) else { panic!("{json} was taken") };
            assert_eq!(
                (letters[0].reason.as_str(), letters[0].source.as_deref()),
                (reason, Some("log:3/17")),
                "{json}"
            );
            assert_eq!(letters[0].body.as_deref(), Some(json.as_bytes()));
        }
    }

    #[test]
    fn records_of_ours_are_left_alone() {
        let foreign = Foreign { began: TIME };
        let cut = encode_cut(uuid::Uuid::from_u128(1), 0, 0);
        assert_eq!(foreign.record(0, 0, &cut, None), cut);
    }
}
