//! What clients send: plausible events, repeats, late ones, lies, and bodies that are no events.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use reckon_data::event::Event;
use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_MINUTE, format_time};

use crate::oracle::{Key, key_of};

/// Entities there are; the first is hot.
pub const ENTITIES: usize = 12;
/// Types of events.
pub const TYPES: [&str; 3] = ["view", "like", "click"];
/// Countries, and none.
pub const COUNTRIES: [Option<&str>; 4] = [Some("US"), Some("GB"), Some("DE"), None];

/// One line of a body.
#[derive(Debug, Clone)]
pub struct Line {
    /// The JSON.
    pub json: String,
    /// The key of the event, where it is one that must be taken. One whose verdict hangs on the clock has one too.
    pub key: Option<Key>,
    /// The time of the event, microseconds.
    pub time: i64,
    /// Whether it says its id itself.
    pub is_named: bool,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its lines.
    pub lines: Vec<Line>,
    /// Names the events that have no id.
    pub idempotency_key: Option<String>,
}

/// Makes requests.
#[derive(Debug)]
pub struct Traffic {
    rng: StdRng,
    next: u64,
    sent: Vec<Line>,
}

impl Traffic {
    /// Traffic that follows from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed.rotate_left(17)), next: 0, sent: Vec::new() }
    }

    /// A request of so many lines as of `now`, microseconds.
    pub fn request(&mut self, lines: usize, now: i64) -> Request {
        self.next += 1;
        let nameless = self.rng.random_ratio(1, 10);
        let idempotency_key = nameless.then(|| format!("request-{}", self.next));
        let lines = (0..lines).map(|index| self.line(index, now, idempotency_key.as_deref())).collect();
        Request { lines, idempotency_key }
    }

    fn line(&mut self, index: usize, now: i64, request: Option<&str>) -> Line {
        if self.rng.random_ratio(1, 12)
            && let Some(line) = self.sent.choose(&mut self.rng)
        {
            return line.clone();
        }
        if self.rng.random_ratio(1, 40) {
            let json = ["{", "[]", "no json", r#"{"event_type":"view"}"#, r#"{"entity_id":7}"#, "null"];
            let json = (*json.choose(&mut self.rng).unwrap()).to_owned();
            return Line { json, key: None, time: 0, is_named: false };
        }
        let line = self.event(index, now, request);
        // What the request names cannot be sent again by another.
        if request.is_none() {
            self.sent.push(line.clone());
        }
        line
    }

    fn event(&mut self, index: usize, now: i64, request: Option<&str>) -> Line {
        self.next += 1;
        let id = request.map_or_else(|| format!("e{}", self.next), |request| format!("{request}-{index}"));
        // A Zipf law, about.
        let entity = (ENTITIES as f64).powf(self.rng.random::<f64>()) as usize - 1;
        let (entity, event_type) = (format!("v{entity}"), *TYPES.choose(&mut self.rng).unwrap());
        let country = *COUNTRIES.choose(&mut self.rng).unwrap();
        let value = self.rng.random_ratio(1, 3).then(|| self.rng.random_range(-5_000_000_000..5_000_000_000_i64));
        let (event_time, is_event) = self.time(now);
        let event = Event {
            event_id: &id,
            event_type,
            entity_id: &entity,
            event_time,
            user_id: None,
            ip: None,
            country,
            value,
            properties: None,
        };
        let mut json = format!(
            r#"{{"event_type":"{event_type}","entity_id":"{entity}","event_time":"{}""#,
            format_time(event_time)
        );
        if request.is_none() {
            json += &format!(r#","event_id":"{id}""#);
        }
        if let Some(country) = country {
            json += &format!(r#","country":"{country}""#);
        }
        if let Some(value) = value {
            let sign = if value < 0 { "-" } else { "" };
            json += &format!(r#","value":"{sign}{}.{:06}""#, value.abs() / 1_000_000, value.abs() % 1_000_000);
        }
        json += "}";
        Line { json, key: is_event.then(|| key_of(&event)), time: event_time, is_named: request.is_none() }
    }

    /// When an event happened, by its own account, and whether that can be.
    fn time(&mut self, now: i64) -> (i64, bool) {
        let rng = &mut self.rng;
        let late = match rng.random_range(0..100) {
            0..70 => rng.random_range(0..MICROS_PER_MINUTE),
            70..88 => rng.random_range(0..40 * MICROS_PER_MINUTE),
            88..94 => rng.random_range(0..3 * MICROS_PER_DAY),
            // Some lie too far ahead, and are refused, and no longer do so when they are replayed.
            94..97 => -rng.random_range(0..40 * MICROS_PER_MINUTE),
            97..98 => return (-1, false),
            98..99 => return (now + 30 * MICROS_PER_DAY, false),
            // Few dates: each costs every batch run a count of its own.
            _ => rng.random_range(1..=2) * 365 * MICROS_PER_DAY,
        };
        (now - late, true)
    }
}
