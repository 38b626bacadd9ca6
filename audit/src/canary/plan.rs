//! What a round sends and what has to be answered then: functions of its number and its minute alone.
//!
//! ```text
//! event n ─▶ entity n mod E ─▶ like or view ─▶ the round's minute, or 2 to 5 minutes back
//!        └─▶ now and then once more in the same request, or in the next one
//! ```
//!
//! Rounds take turns on lanes of entities, as many as it takes until no minute of an earlier round of the lane is one
//! of the next: so what is counted of a round's entities in its minutes is that round's, and nobody else's. Where the
//! clock does not do its part, [`Planner`] takes new entities.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use reckon_data::minute::{MICROS_PER_MINUTE, date_of_minute, format_date, start_of_minute};
use reckon_data::partition::Router;

/// What the ids of the canary's entities begin with.
pub const ENTITY_PREFIX: &str = "_reckon/canary/";
/// The types of its events.
pub const EVENT_TYPES: [&str; 2] = ["view", "like"];
/// So many minutes back its latest events lie.
pub const BACK_MINUTES_MAX: i64 = 5;
/// So many the others of those that are late.
const BACK_MINUTES_MIN: i64 = 2;

/// Events of a request.
const REQUEST_EVENTS: u32 = 1_000;
/// So many partitions have two entities each, if there are not more; one is enough to see each of many.
const PAIRS_MAX: u32 = 32;
/// So many names are tried for each partition until it has its entities.
const TRIES: u32 = 64;
/// Counts that a round asks REST for; SQL is asked for all.
const QUESTIONS_MAX: usize = 32;

/// What is counted apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The entity.
    pub entity: String,
    /// The event type.
    pub event_type: String,
    /// Minutes since 1970.
    pub minute: i64,
}

/// How many events of each key.
pub type Counts = BTreeMap<Key, u64>;

/// A body of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Its `Idempotency-Key`.
    pub key: String,
    /// An event a line.
    pub lines: Bytes,
    /// How many, copies too.
    pub events: u64,
}

/// A count to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The entity.
    pub entity: String,
    /// The event type.
    pub event_type: String,
    /// Minutes since 1970.
    pub minutes: Range<i64>,
    /// What has to be answered.
    pub expected: u64,
}

/// Plans the rounds of a canary, whatever its clock does: no two share a minute of an entity.
#[derive(Debug)]
pub struct Planner {
    shape: Shape,
    /// The minute of the last round of each lane.
    lanes: BTreeMap<u64, i64>,
}

impl Planner {
    /// Rounds of a shape, none of which was planned yet.
    #[must_use]
    pub const fn new(shape: Shape) -> Self {
        Self { shape, lanes: BTreeMap::new() }
    }

    /// What a round sends that begins in `minute`. When its lane's minutes are not over, for the clock was set back,
    /// rounds go on under a `fresh` name, with entities that nobody has used. No number may come twice.
    pub fn plan(&mut self, number: u64, minute: i64, fresh: impl FnOnce() -> u64) -> Plan {
        let lane = self.shape.lane(number);
        let first = minute.saturating_sub(BACK_MINUTES_MAX);
        if self.lanes.get(&lane).is_some_and(|last| first <= *last) {
            self.shape.run = run_name(fresh());
            self.lanes.clear();
        }
        self.lanes.insert(lane, minute);
        self.shape.plan(number, minute)
    }
}

/// What the rounds of a canary have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    run: String,
    partitions: u32,
    events: u32,
    lanes: u64,
}

impl Shape {
    /// Rounds of so many different `events` for a log of so many `partitions`, a round `every` so often; 0 says nothing
    /// of how often, and then no two rounds share an entity. No other canary has the same `run`.
    #[must_use]
    pub fn new(run: u64, partitions: u32, events: u32, every: Duration) -> Self {
        Self { run: run_name(run), partitions: partitions.max(1), events, lanes: lanes(every) }
    }

    /// What a round sends; `minute` is the minute that it begins in: [`Planner`] sees to it that it goes with the lane.
    #[must_use]
    pub fn plan(&self, number: u64, minute: i64) -> Plan {
        let lane = self.lane(number);
        Plan {
            number,
            minute,
            name: format!("{}-{number}", self.run),
            entities: entities(&self.run, lane, self.partitions),
            events: self.events,
        }
    }

    const fn lane(&self, number: u64) -> u64 {
        number % self.lanes
    }
}

fn run_name(run: u64) -> String {
    format!("{run:016x}")
}

/// How many lanes it takes until the minutes of a lane's rounds are apart.
fn lanes(every: Duration) -> u64 {
    if every.is_zero() {
        return u64::MAX;
    }
    let apart = u128::from((BACK_MINUTES_MAX + 2).unsigned_abs()) * u128::from(MICROS_PER_MINUTE.unsigned_abs());
    u64::try_from(apart.div_ceil(every.as_micros().max(1))).unwrap_or(u64::MAX).max(1)
}

/// A lane's entities: one or two for every partition.
fn entities(run: &str, lane: u64, partitions: u32) -> Vec<String> {
    let router = Router::new(partitions, BTreeMap::new());
    let each = if partitions <= PAIRS_MAX { 2 } else { 1 };
    let mut lacks = vec![each; partitions as usize];
    let mut entities = Vec::new();
    for n in 0..partitions.saturating_mul(TRIES) {
        let entity = format!("{ENTITY_PREFIX}{run}-{lane}-{n}");
        let lack = lacks.get_mut(router.partition(&entity, "") as usize).filter(|lack| **lack > 0);
        if let Some(lack) = lack {
            *lack -= 1;
            entities.push(entity);
        }
        if lacks.iter().all(|lack| *lack == 0) {
            break;
        }
    }
    entities
}

/// What one round sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    number: u64,
    minute: i64,
    name: String,
    entities: Vec<String>,
    events: u32,
}

impl Plan {
    /// The round's number.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Its entities.
    #[must_use]
    pub fn entities(&self) -> &[String] {
        &self.entities
    }

    /// The minutes of its events.
    #[must_use]
    pub const fn minutes(&self) -> Range<i64> {
        self.minute - BACK_MINUTES_MAX..self.minute + 1
    }

    /// The dates of its events, `2013-02-08`.
    #[must_use]
    pub fn dates(&self) -> Vec<String> {
        let minutes = self.minutes();
        let dates = date_of_minute(minutes.start)..=date_of_minute(minutes.end - 1);
        dates.map(format_date).collect()
    }

    /// What the ids of its events begin with.
    #[must_use]
    pub fn id_prefix(&self) -> String {
        format!("{}-", self.name)
    }

    fn id(&self, n: u32) -> String {
        format!("{}-{n}", self.name)
    }

    /// What event `n` counts for.
    fn place(&self, n: u32) -> (&str, &'static str, i64) {
        let entities = u32::try_from(self.entities.len()).unwrap_or(u32::MAX).max(1);
        let (at, turn) = ((n % entities) as usize, n / entities);
        let event_type = if turn % 5 == 2 { EVENT_TYPES[1] } else { EVENT_TYPES[0] };
        let span = BACK_MINUTES_MAX - BACK_MINUTES_MIN + 1;
        let back = if turn % 7 == 3 { BACK_MINUTES_MIN + i64::from(turn / 7) % span } else { 0 };
        (self.entities.get(at).map_or("", String::as_str), event_type, self.minute - back)
    }

    fn key(&self, n: u32) -> Key {
        let (entity, event_type, minute) = self.place(n);
        Key { entity: entity.to_owned(), event_type: event_type.to_owned(), minute }
    }

    /// What has to be answered: every event once, however often it was sent.
    #[must_use]
    pub fn expected(&self) -> Counts {
        let mut counts = Counts::new();
        for n in 0..self.events {
            *counts.entry(self.key(n)).or_default() += 1;
        }
        counts
    }

    /// The ids of the events that a key counts.
    #[must_use]
    pub fn ids_of(&self, entity: &str, event_type: &str, minutes: &Range<i64>) -> Vec<String> {
        let is_of = |n: &u32| {
            let place = self.place(*n);
            place.0 == entity && place.1 == event_type && minutes.contains(&place.2)
        };
        (0..self.events).filter(is_of).map(|n| self.id(n)).collect()
    }

    /// What is sent, request by request. Each has events that none before it has: one of nothing but copies may not be
    /// counted yet when everything is right.
    #[must_use]
    pub fn requests(&self) -> Vec<Body> {
        let (mut requests, mut again) = (Vec::new(), Vec::new());
        // Two at least, or no copy would come in another one.
        let most = REQUEST_EVENTS.min(self.events.div_ceil(2)).max(1);
        let mut start = 0;
        while start < self.events {
            let end = start.saturating_add(most).min(self.events);
            let mut sent: Vec<u32> = std::mem::take(&mut again);
            for n in start..end {
                sent.push(n);
                match n % 20 {
                    3 => sent.push(n),
                    8 if end < self.events => again.push(n),
                    8 => sent.push(n),
                    _ => {}
                }
            }
            requests.push(self.body(requests.len(), &sent));
            start = end;
        }
        requests
    }

    fn body(&self, index: usize, events: &[u32]) -> Body {
        let mut lines = String::new();
        for n in events {
            let (entity, event_type, minute) = self.place(*n);
            // The beginning of a minute is never ahead of anybody's clock, if the minute is not.
            let millis = start_of_minute(minute) / 1_000;
            // Writing to a string cannot fail; nothing in it has to be escaped.
            let _ = writeln!(
                lines,
                "{{\"event_id\":\"{}\",\"event_type\":\"{event_type}\",\"entity_id\":\"{entity}\",\"event_time\":{millis}}}",
                self.id(*n)
            );
        }
        Body { key: format!("{}/{index}", self.name), lines: Bytes::from(lines), events: events.len() as u64 }
    }

    /// What REST is asked: of some of the entities and types, other ones in another round, all minutes, the newest, or
    /// those before it.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        let expected = self.expected();
        let pairs: Vec<(&String, &str)> = self.entities.iter().flat_map(|e| EVENT_TYPES.map(|t| (e, t))).collect();
        let most = pairs.len().min(QUESTIONS_MAX);
        let turn = usize::try_from(self.number % 1_000_003).unwrap_or(0);
        let first = turn.saturating_mul(QUESTIONS_MAX) % pairs.len().max(1);
        let question = |(index, (entity, event_type)): (usize, &(&String, &str))| {
            let all = self.minutes();
            let minutes = match (index + turn) % 3 {
                0 => all,
                1 => self.minute..all.end,
                _ => all.start..self.minute,
            };
            let own =
                |key: &Key| key.entity == **entity && key.event_type == *event_type && minutes.contains(&key.minute);
            let expected = expected.iter().filter(|(key, _)| own(key)).map(|(_, count)| count).sum();
            Question { entity: (*entity).clone(), event_type: (*event_type).to_owned(), minutes, expected }
        };
        pairs.iter().cycle().skip(first).take(most).enumerate().map(question).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn sent(plan: &Plan) -> Vec<(String, Key)> {
        let requests = plan.requests();
        let lines = requests.iter().flat_map(|body| std::str::from_utf8(&body.lines).unwrap().lines());
        let event = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            let minute = event["event_time"].as_i64().unwrap() / 60_000;
            (text("event_id"), Key { entity: text("entity_id"), event_type: text("event_type"), minute })
        };
        lines.map(event).collect()
    }

    proptest! {
        #[test]
        fn what_is_expected_is_what_is_sent_without_copies(
            run in any::<u64>(), partitions in 1_u32..40, events in 1_u32..3_000, number in any::<u64>(),
            minute in 1_000_i64..40_000_000,
        ) {
            let plan = Shape::new(run, partitions, events, Duration::from_secs(60)).plan(number, minute);
            let all = sent(&plan);
            let distinct: BTreeMap<String, Key> = all.iter().cloned().collect();
            prop_assert_eq!(distinct.len(), events as usize);
            prop_assert!(all.iter().all(|(id, key)| distinct[id] == *key), "copies are the same");
            let mut counts = Counts::new();
            distinct.values().for_each(|key| *counts.entry(key.clone()).or_default() += 1);
            prop_assert_eq!(&counts, &plan.expected());
            prop_assert!(counts.keys().all(|key| plan.minutes().contains(&key.minute)));
            prop_assert!(distinct.keys().all(|id| id.starts_with(&plan.id_prefix())));
            let told: u64 = plan.requests().iter().map(|body| body.events).sum();
            prop_assert_eq!(told, all.len() as u64);
            for (key, count) in &counts {
                let ids = plan.ids_of(&key.entity, &key.event_type, &(key.minute..key.minute + 1));
                prop_assert_eq!(ids.len() as u64, *count);
                prop_assert!(ids.iter().all(|id| distinct[id] == *key));
            }
            prop_assert_eq!(plan.requests(), plan.requests(), "it is a function of the round");
            prop_assert!(events < 2 || plan.requests().len() > 1);
            let mut before = BTreeSet::new();
            for body in plan.requests() {
                let lines = std::str::from_utf8(&body.lines).unwrap().lines().map(str::to_owned);
                let fresh = lines.filter(|line| before.insert(line.clone())).count();
                prop_assert!(fresh > 0, "a request of copies alone");
            }
        }

        #[test]
        fn no_two_rounds_share_a_minute_of_an_entity_whatever_the_clock_does(
            every in 1_u64..600, steps in proptest::collection::vec(-20_i64..20, 1..100),
        ) {
            let mut planner = Planner::new(Shape::new(0, 1, 100, Duration::from_secs(every)));
            let (mut minute, mut runs) = (20_000_000, 0);
            let mut used: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
            for (number, step) in (0_u64..).zip(steps) {
                minute += step;
                let plan = planner.plan(number, minute, || {
                    runs += 1;
                    runs
                });
                prop_assert_eq!(plan.minutes().end, minute + 1, "events have the time that it is");
                for entity in plan.entities() {
                    let minutes = used.entry(entity.clone()).or_default();
                    prop_assert!(plan.minutes().all(|minute| minutes.insert(minute)), "{entity} in {:?}", plan.minutes());
                }
            }
        }

        #[test]
        fn every_partition_has_entities(run in any::<u64>(), partitions in 1_u32..=256, lane in 0_u64..8) {
            let entities = entities(&format!("{run:016x}"), lane, partitions);
            let router = Router::new(partitions, BTreeMap::new());
            let held: BTreeSet<u32> = entities.iter().map(|entity| router.partition(entity, "")).collect();
            prop_assert_eq!(held.len(), partitions as usize);
            prop_assert!(entities.iter().all(|entity| entity.starts_with(ENTITY_PREFIX)));
        }

        #[test]
        fn rounds_of_a_lane_share_no_minute(every in 1_u64..600, first in 0_u64..1_000) {
            let shape = Shape::new(1, 4, 100, Duration::from_secs(every));
            let plan = |number: u64| shape.plan(number, (number * every / 60) as i64);
            let (before, after) = (plan(first), plan(first + shape.lanes));
            prop_assert_eq!(before.entities(), after.entities());
            prop_assert!(before.minutes().end <= after.minutes().start, "{:?} {:?}", before.minutes(), after.minutes());
        }

        #[test]
        fn questions_are_about_what_was_sent(number in any::<u64>(), partitions in 1_u32..100) {
            let plan = Shape::new(7, partitions, 6_000, Duration::ZERO).plan(number, 20_000_000);
            let questions = plan.questions();
            prop_assert!(!questions.is_empty() && questions.len() <= QUESTIONS_MAX);
            for question in questions {
                let ids = plan.ids_of(&question.entity, &question.event_type, &question.minutes);
                prop_assert_eq!(ids.len() as u64, question.expected);
            }
        }
    }

    #[test]
    fn a_round_has_late_events_and_copies_of_both_kinds() {
        let plan = Shape::new(7, 4, 6_000, Duration::from_secs(60)).plan(3, 20_000_000);
        let late: u64 = plan.expected().iter().filter(|(key, _)| key.minute < 20_000_000).map(|(_, count)| count).sum();
        assert!((500..1_500).contains(&late), "{late}");
        let minutes: BTreeSet<i64> = plan.expected().keys().map(|key| 20_000_000 - key.minute).collect();
        assert_eq!(minutes, BTreeSet::from([0, 2, 3, 4, 5]));
        let (mut within, mut across) = (0, 0);
        let mut before = BTreeSet::new();
        for body in plan.requests() {
            let mut own = BTreeSet::new();
            for line in std::str::from_utf8(&body.lines).unwrap().lines() {
                within += u32::from(!own.insert(line.to_owned()));
                across += u32::from(before.contains(line));
            }
            before.extend(own);
        }
        // Of the last request nothing is left to another one.
        assert_eq!((within, across), (350, 250));
    }
}
