//! Lines for a load test: events of about 200 bytes with distinct ids, as quickly as memory can be written.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::zipf::Zipf;

/// One event in this many is sent once more.
const REPEAT_ONE_IN: u32 = 100;
const COUNTRIES: [&[u8; 2]; 8] = [b"US", b"IN", b"GB", b"BR", b"DE", b"JP", b"FR", b"CA"];
const HEX: &[u8; 16] = b"0123456789abcdef";
/// Entities drawn in advance; a power of two.
const DRAWN: usize = 1 << 21;

/// Makes the lines of a load test.
#[derive(Debug)]
pub struct Lines {
    random: SmallRng,
    /// Entities drawn in advance, so that a line costs no search.
    drawn: std::sync::Arc<Vec<u32>>,
    at: usize,
    stream: u64,
    next: u64,
    /// Event times are this many milliseconds at most before the time given.
    spread_millis: u64,
    last: Vec<u8>,
}

/// A body of lines.
#[derive(Debug)]
pub struct Body {
    /// The lines.
    pub bytes: Vec<u8>,
    /// How many there are.
    pub lines: u64,
    /// How many different events.
    pub distinct: u64,
}

/// Draws the entities that all [`Lines`] of a test share.
#[must_use]
pub fn draw(seed: u64, entities: u32) -> std::sync::Arc<Vec<u32>> {
    let (zipf, mut random) = (Zipf::new(entities, 1.0), SmallRng::seed_from_u64(seed));
    std::sync::Arc::new((0..DRAWN).map(|_| zipf.sample(&mut random)).collect())
}

impl Lines {
    /// Lines of one sender; `stream` sets its ids apart from those of others.
    #[must_use]
    pub fn new(drawn: std::sync::Arc<Vec<u32>>, stream: u64, spread_millis: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(stream);
        let at = random.random_range(0..DRAWN);
        Self { random, drawn, at, stream, next: 0, spread_millis, last: Vec::new() }
    }

    /// A body of `lines` lines, of events at `now` (milliseconds since 1970) or up to the spread before.
    pub fn body(&mut self, lines: u64, now: u64) -> Body {
        let mut bytes = Vec::with_capacity(usize::try_from(lines).unwrap_or(0) * 202);
        let mut distinct = 0;
        for _ in 0..lines {
            let repeat = self.random.random_ratio(1, REPEAT_ONE_IN) && !self.last.is_empty();
            if repeat {
                bytes.extend_from_slice(&self.last);
                continue;
            }
            distinct += 1;
            let start = bytes.len();
            self.line(&mut bytes, now);
            // Now and then remember one to repeat.
            if self.random.random_ratio(1, REPEAT_ONE_IN) {
                self.last.clear();
                self.last.extend_from_slice(bytes.get(start..).unwrap_or_default());
            }
        }
        Body { bytes, lines, distinct }
    }

    fn line(&mut self, into: &mut Vec<u8>, now: u64) {
        let noise: u64 = self.random.random();
        let late = if self.spread_millis == 0 { 0 } else { noise % self.spread_millis };
        into.extend_from_slice(b"{\"event_id\":\"");
        // Sixteen digits of a scrambled number: as hard to compress as a random id, and never the same twice.
        hex(into, scramble(self.next ^ (self.stream << 40)));
        hex(into, self.stream << 40 | self.next);
        self.next += 1;
        into.extend_from_slice(b"\",\"event_type\":\"view\",\"entity_id\":\"video-");
        self.at = (self.at + 1) % DRAWN;
        decimal(into, u64::from(self.drawn.get(self.at).copied().unwrap_or(0)), 7);
        into.extend_from_slice(b"\",\"event_time\":");
        decimal(into, now - late, 13);
        into.extend_from_slice(b",\"user_id\":\"user-");
        decimal(into, noise % 10_000_000, 8);
        into.extend_from_slice(b"\",\"country\":\"");
        into.extend_from_slice(COUNTRIES.get((noise >> 60) as usize % COUNTRIES.len()).copied().unwrap_or(b"US"));
        into.extend_from_slice(b"\",\"properties\":{\"p\":\"autoplay-home\"}}\n");
    }
}

/// A bijection on 64 bits (the finaliser of SplitMix64, by S. Vigna).
const fn scramble(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn hex(into: &mut Vec<u8>, number: u64) {
    let digits: [u8; 16] = std::array::from_fn(|index| HEX[(number >> (60 - 4 * index)) as usize & 15]);
    into.extend_from_slice(&digits);
}

fn decimal(into: &mut Vec<u8>, mut number: u64, digits: usize) {
    let start = into.len();
    into.resize(start + digits, b'0');
    for slot in into.iter_mut().skip(start).rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use reckon_data::event::{Limits, wire};

    use super::*;

    #[test]
    fn lines_are_valid_events_of_about_200_bytes() {
        let now = 1_700_000_000_000;
        let drawn = draw(1, 1_000);
        let mut ids = BTreeSet::new();
        let mut distinct = 0;
        for stream in 0..2 {
            let body = Lines::new(drawn.clone(), stream, 1_000).body(5_000, now);
            distinct += body.distinct;
            assert!((190..=210).contains(&(body.bytes.len() / 5_000)), "{}", body.bytes.len() / 5_000);
            for line in body.bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                let wire = wire::parse(line).unwrap();
                let event = wire.draft().unwrap().validate(&Limits::default(), now as i64 * 1_000).unwrap();
                ids.insert(event.event_id.to_owned());
            }
        }
        assert_eq!(ids.len() as u64, distinct, "repeats are equal, all others differ");
        assert!((9_850..9_950).contains(&distinct), "{distinct}");
    }
}
