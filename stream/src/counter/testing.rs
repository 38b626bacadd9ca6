//! Events, records and logs for the tests of the counter.

use arrow::array::RecordBatch;
use bytes::Bytes;
use proptest::prelude::*;
use reckon_data::columns::{EventBuilder, EventColumns};
use reckon_data::dead::DeadLetter;
use reckon_data::event::{Event, Reason, Refusal};
use reckon_data::logtime::LOG_TIME_JUMP_MAX;
use reckon_data::minute::MICROS_PER_MINUTE;
use reckon_data::record;
use uuid::Uuid;

/// An event that owns its texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) id: String,
    pub(crate) event_type: String,
    pub(crate) entity: String,
    pub(crate) time: i64,
    pub(crate) user: Option<String>,
    pub(crate) country: Option<String>,
    pub(crate) value: Option<i64>,
}

impl Sample {
    pub(crate) fn event(&self) -> Event<'_> {
        Event {
            event_id: &self.id,
            event_type: &self.event_type,
            entity_id: &self.entity,
            event_time: self.time,
            user_id: self.user.as_deref(),
            ip: None,
            country: self.country.as_deref(),
            value: self.value,
            properties: None,
        }
    }
}

/// Events of few kinds, so that they meet.
pub(crate) fn sample() -> impl Strategy<Value = Sample> {
    let country = prop_oneof![Just(None), (0..3_u8).prop_map(|n| Some(char::from(b'A' + n).to_string()))];
    let values = prop_oneof![3 => Just(None), 1 => (-9..9_i64).prop_map(Some)];
    let user = prop::option::of((0..3_u32).prop_map(|n| format!("u{n}")));
    (0..400_u32, 0..3_u32, 0..12_u32, 0..8 * MICROS_PER_MINUTE, user, country, values).prop_map(
        |(id, event_type, entity, time, user, country, value)| Sample {
            id: id.to_string(),
            event_type: format!("t{event_type}"),
            entity: format!("e{entity}"),
            time,
            user,
            country,
            value,
        },
    )
}

pub(crate) fn batch_of(samples: &[Sample]) -> RecordBatch {
    let mut builder = EventBuilder::default();
    for sample in samples {
        builder.push(&sample.event(), sample.event().key().hash());
    }
    builder.finish().unwrap()
}

pub(crate) fn columns_of(samples: &[Sample]) -> EventColumns {
    EventColumns::try_from(&batch_of(samples)).unwrap()
}

/// A record to be written.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Events(Vec<Sample>),
    Dead(usize),
    Cut,
}

/// A record and when it is appended.
#[derive(Debug, Clone)]
pub(crate) struct Appended {
    pub(crate) time: i64,
    pub(crate) entry: Entry,
}

impl Appended {
    pub(crate) fn encode(&self) -> Bytes {
        match &self.entry {
            Entry::Events(samples) => record::encode_events(&batch_of(samples), 0, self.time).unwrap(),
            Entry::Cut => record::encode_cut(Uuid::from_u128(1), 0, self.time),
            Entry::Dead(number) => {
                let refusal = Refusal::whole(Reason::Malformed, "bad".to_owned());
                let letters = vec![DeadLetter::new(&refusal, None, b"{"); *number];
                record::encode_dead(&letters, 0, self.time).unwrap()
            }
        }
    }
}

/// Logs whose log time creeps, jumps over the window, jumps too far, and whose gateways' clocks go back.
pub(crate) fn log(records: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Appended>> {
    let step = prop_oneof![
        8 => 0..MICROS_PER_MINUTE / 2,
        3 => MICROS_PER_MINUTE / 2..3 * MICROS_PER_MINUTE,
        1 => 8 * MICROS_PER_MINUTE..40 * MICROS_PER_MINUTE,
        1 => LOG_TIME_JUMP_MAX - MICROS_PER_MINUTE..LOG_TIME_JUMP_MAX + 40 * MICROS_PER_MINUTE,
        1 => -MICROS_PER_MINUTE..0,
    ];
    let entry = prop_oneof![
        8 => prop::collection::vec(sample(), 1..30).prop_map(Entry::Events),
        1 => (1..4_usize).prop_map(Entry::Dead),
        1 => Just(Entry::Cut),
    ];
    (0..MICROS_PER_MINUTE, prop::collection::vec((step, entry), records)).prop_map(|(start, steps)| {
        let mut time = start;
        let append = |(step, entry)| {
            time += step;
            Appended { time, entry }
        };
        steps.into_iter().map(append).collect()
    })
}
