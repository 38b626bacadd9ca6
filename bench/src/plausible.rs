//! Plausible traffic for people to look at: popular and unpopular entities, a daily curve, countries,
//! retries and stragglers.

use std::f64::consts::TAU;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::zipf::Zipf;

/// Countries and their share of a thousand.
const COUNTRIES: [(&str, u32); 10] = [
    ("US", 380),
    ("IN", 140),
    ("GB", 90),
    ("BR", 85),
    ("DE", 75),
    ("JP", 65),
    ("FR", 60),
    ("CA", 45),
    ("MX", 35),
    ("AU", 25),
];
/// Types, what they happen to, and their share of a thousand.
const TYPES: [(&str, &str, u32); 3] = [("view", "video", 880), ("like", "video", 60), ("click", "ad", 60)];
/// Share of events that are sent once more.
const RETRIES: f64 = 0.02;
/// Share of events that come late, by seconds to an hour.
const STRAGGLERS: f64 = 0.01;

/// Makes events.
#[derive(Debug)]
pub struct Traffic {
    random: SmallRng,
    entities: Zipf,
    run: u64,
    next: u64,
}

impl Traffic {
    /// Traffic over so many entities; the same seed makes the same events at the same times.
    #[must_use]
    pub fn new(seed: u64, entities: u32) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let run = random.random();
        Self { random, entities: Zipf::new(entities, 1.05), run, next: 0 }
    }

    /// How many events a second are usual at `now` (milliseconds since 1970), around `mean`: twice as many
    /// in the evening, UTC, as at night.
    #[must_use]
    pub fn rate(mean: f64, now: i64) -> f64 {
        let hour = (now.rem_euclid(86_400_000)) as f64 / 3_600_000.0;
        mean * (1.0 - 0.35 * (TAU * (hour - 1.0) / 24.0).cos())
    }

    /// The lines of about `events` events that happen at `now` (milliseconds since 1970).
    pub fn lines(&mut self, events: u64, now: i64) -> Vec<Value> {
        let mut lines = Vec::new();
        for _ in 0..events {
            let event = self.event(now);
            if self.random.random_bool(RETRIES) {
                lines.push(event.clone());
            }
            lines.push(event);
        }
        lines
    }

    fn event(&mut self, now: i64) -> Value {
        let (event_type, kind) = self.kind();
        let late = if self.random.random_bool(STRAGGLERS) { self.random.random_range(1_000..3_600_000) } else { 0 };
        let id = format!("{:016x}-{}", self.run, self.next);
        self.next += 1;
        let mut event = json!({
            "event_id": id,
            "event_type": event_type,
            "entity_id": format!("{kind}-{}", self.entities.sample(&mut self.random) + 1),
            "event_time": now - late - self.random.random_range(0..400),
            "user_id": format!("user-{}", self.random.random_range(0..200_000)),
            "country": self.country(),
        });
        if event_type == "click" {
            event["value"] = json!(format!("0.{:02}", self.random.random_range(1..100)));
        }
        event
    }

    fn kind(&mut self) -> (&'static str, &'static str) {
        let mut point = self.random.random_range(0..1_000);
        for (event_type, kind, share) in TYPES {
            if point < share {
                return (event_type, kind);
            }
            point -= share;
        }
        (TYPES[0].0, TYPES[0].1)
    }

    fn country(&mut self) -> &'static str {
        let mut point = self.random.random_range(0..1_000);
        for (country, share) in COUNTRIES {
            if point < share {
                return country;
            }
            point -= share;
        }
        COUNTRIES[0].0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use reckon_data::event::{Limits, wire};

    use super::*;

    const NOON: i64 = 1_700_049_600_000;

    #[test]
    fn every_line_is_a_valid_event_and_some_come_twice() {
        let lines = Traffic::new(1, 1_000).lines(5_000, NOON);
        let mut ids = BTreeSet::new();
        for line in &lines {
            let json = line.to_string();
            let wire = wire::parse(json.as_bytes()).unwrap();
            let event = wire.draft().unwrap().validate(&Limits::default(), NOON * 1_000).unwrap();
            ids.insert(event.event_id.to_owned());
        }
        assert_eq!(ids.len(), 5_000);
        assert!((5_050..5_160).contains(&lines.len()), "{}", lines.len());
    }

    #[test]
    fn evenings_are_busier_than_nights() {
        let day = NOON - NOON.rem_euclid(86_400_000);
        let at = |hour: i64| Traffic::rate(100.0, day + hour * 3_600_000);
        assert!(at(13) > 1.9 * at(1), "{} {}", at(13), at(1));
    }
}
