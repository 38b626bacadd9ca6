//! Who counts for itself: from all that was ever appended, naively, with maps of whole keys.
//!
//! It shares the event model, the minute and log time with the layers, and nothing that counts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use bytes::Bytes;
use reckon_data::event::Event;
use reckon_data::logtime::LogTime;
use reckon_data::minute::{date_of, minute_of};
use reckon_data::record::{Body, decode};

/// What is replayed says so.
const REPLAY: &str = "replay of ";
/// How long after its minute an event may come without being late, microseconds: as the settings have it by default.
const LATENESS: i64 = 60_000_000;

/// What makes two events the same.
pub type Key = (String, String, String, i32);

/// An event of the log.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its key.
    pub key: Key,
    /// Its time, microseconds.
    pub time: i64,
    /// Its minute.
    pub minute: i64,
    /// Where it came from.
    pub country: Option<String>,
    /// What it is worth, in millionths.
    pub value: Option<i64>,
    /// Its record.
    pub offset: u64,
    /// Its place in the record.
    pub index: u32,
    /// Whether its minute had ended more than a minute before it was appended.
    pub late: bool,
    /// Whether the stream counts it: its key did not occur within the window before.
    pub streamed: bool,
}

/// A place in the log: partition, offset, index.
pub type Place = (u32, u64, u32);

/// A dead letter of the log.
#[derive(Debug, Clone)]
pub struct Letter {
    /// What was refused.
    pub body: Option<Vec<u8>>,
    /// Whether it is one of an event that was refused once more when it was replayed.
    pub is_again: bool,
}

/// One partition, as far as it was read.
#[derive(Debug, Default)]
struct Partition {
    events: Vec<Logged>,
    /// How many of them [`Oracle::unheld`] has given out.
    held: usize,
    /// Dead letters by offset and index.
    dead: BTreeMap<(u64, u32), Letter>,
    /// Their bodies.
    bodies: BTreeSet<Vec<u8>>,
    cuts: HashSet<u64>,
    next: u64,
    log_time: LogTime,
    /// When each key occurred last, in minutes of log time.
    last: HashMap<Key, i64>,
}

/// The oracle.
#[derive(Debug)]
pub struct Oracle {
    partitions: Vec<Partition>,
    window: i64,
}

/// Which events a question is about.
#[derive(Debug, Clone)]
pub struct Question {
    /// One entity; all when none.
    pub entity: Option<String>,
    /// One type; all when none.
    pub event_type: Option<String>,
    /// Minutes.
    pub minutes: Range<i64>,
    /// One country.
    pub country: Option<String>,
}

impl Question {
    fn matches(&self, event: &Logged) -> bool {
        self.entity.as_ref().is_none_or(|entity| *entity == event.key.1)
            && self.event_type.as_ref().is_none_or(|of| *of == event.key.2)
            && self.minutes.contains(&event.minute)
            && self.country.as_ref().is_none_or(|country| event.country.as_ref() == Some(country))
    }
}

/// How far an answer goes in one partition.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Batch has counted below.
    pub coverage: u64,
    /// The stream from there to here.
    pub position: u64,
    /// Without these.
    pub holes: Vec<Range<u64>>,
}

impl Oracle {
    /// Of a log with so many partitions and a dedup window of so many minutes.
    #[must_use]
    pub fn new(partitions: u32, window: u32) -> Self {
        Self { partitions: (0..partitions).map(|_| Partition::default()).collect(), window: i64::from(window) }
    }

    /// Reads what was appended since.
    ///
    /// # Panics
    /// When it is no record.
    pub fn follow(&mut self, history: &[Vec<Bytes>]) {
        for (partition, records) in self.partitions.iter_mut().zip(history) {
            for bytes in &records[usize::try_from(partition.next).unwrap()..] {
                partition.read(bytes, self.window);
            }
        }
    }

    /// All events, with their partitions.
    pub fn events(&self) -> impl Iterator<Item = (u32, &Logged)> {
        (0..).zip(&self.partitions).flat_map(|(partition, of)| of.events.iter().map(move |event| (partition, event)))
    }

    /// All dead letters, with their places.
    pub fn dead(&self) -> impl Iterator<Item = (Place, &Letter)> {
        let all = (0..).zip(&self.partitions);
        all.flat_map(|(p, of)| of.dead.iter().map(move |((offset, index), letter)| ((p, *offset, *index), letter)))
    }

    /// The dead letter at a place.
    #[must_use]
    pub fn letter(&self, (partition, offset, index): Place) -> Option<&Letter> {
        self.partitions.get(partition as usize)?.dead.get(&(offset, index))
    }

    /// Whether an event with this key was ever logged.
    #[must_use]
    pub fn is_logged(&self, key: &Key) -> bool {
        self.partitions.iter().any(|partition| partition.last.contains_key(key))
    }

    /// The keys of the events that were read since this was last asked.
    pub fn unheld(&mut self) -> impl Iterator<Item = &Key> {
        self.partitions.iter_mut().flat_map(|partition| {
            let from = std::mem::replace(&mut partition.held, partition.events.len());
            partition.events[from..].iter().map(|event| &event.key)
        })
    }

    /// Whether something refused lies in the dead letters, with its bytes.
    #[must_use]
    pub fn is_buried(&self, body: &[u8]) -> bool {
        self.partitions.iter().any(|partition| partition.bodies.contains(body))
    }

    /// The end of each partition.
    #[must_use]
    pub fn ends(&self) -> Vec<u64> {
        self.partitions.iter().map(|partition| partition.next).collect()
    }

    /// Whether batch may have counted up to there: the start, or a cut.
    #[must_use]
    pub fn is_cut(&self, partition: u32, offset: u64) -> bool {
        offset == 0 || self.partitions[partition as usize].cuts.contains(&offset)
    }

    /// The events that an answer which reaches so far counts, batch and stream.
    #[must_use]
    pub fn counted<'a>(&'a self, question: &Question, reach: &[Reach]) -> (Vec<&'a Logged>, Vec<&'a Logged>) {
        let (mut batch, mut stream, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for ((_, event), reach) in self.events().map(|(p, event)| ((p, event), &reach[p as usize])) {
            if !question.matches(event) {
                continue;
            }
            if event.offset < reach.coverage {
                if seen.insert(&event.key) {
                    batch.push(event);
                }
            } else if event.offset < reach.position
                && event.streamed
                && !reach.holes.iter().any(|hole| hole.contains(&event.offset))
            {
                stream.push(event);
            }
        }
        (batch, stream)
    }

    /// How many each entity has of those.
    #[must_use]
    pub fn top(&self, question: &Question, reach: &[Reach]) -> BTreeMap<String, u64> {
        let (batch, stream) = self.counted(question, reach);
        let mut top = BTreeMap::new();
        for event in batch.into_iter().chain(stream) {
            *top.entry(event.key.1.clone()).or_default() += 1;
        }
        top
    }
}

/// Counted naively.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Events.
    pub count: u64,
    /// Those that had a value.
    pub values: u64,
    /// Sum of the values, in millionths.
    pub sum: i128,
    /// Smallest.
    pub min: Option<i64>,
    /// Largest.
    pub max: Option<i64>,
    /// Late events.
    pub late: u64,
}

impl Sums {
    /// Adds an event.
    pub fn add(&mut self, event: &Logged) {
        self.count += 1;
        self.late += u64::from(event.late);
        if let Some(value) = event.value {
            self.values += 1;
            self.sum += i128::from(value);
            self.min = Some(self.min.map_or(value, |min| min.min(value)));
            self.max = Some(self.max.map_or(value, |max| max.max(value)));
        }
    }

    /// The average value, in millionths: half a millionth goes to the even neighbour.
    #[must_use]
    pub fn average(&self) -> Option<i128> {
        let count = i128::from(self.values);
        let (whole, rest) = (self.sum.checked_div_euclid(count)?, self.sum.checked_rem_euclid(count)?);
        let up = 2 * rest > count || (2 * rest == count && whole % 2 != 0);
        Some(if up { whole + 1 } else { whole })
    }
}

impl Partition {
    fn read(&mut self, bytes: &Bytes, window: i64) {
        let record = decode(bytes).unwrap();
        let offset = self.next;
        self.next += 1;
        let appended = record.header.append_time;
        self.log_time = self.log_time.after(appended);
        let now = self.log_time.minute().unwrap();
        match record.body {
            Body::Cut(_) => {
                self.cuts.insert(offset);
            }
            Body::Dead(letters) => {
                for (letter, index) in letters.into_iter().zip(0..) {
                    self.bodies.extend(letter.body.clone());
                    let is_again = letter.source.is_some_and(|source| source.starts_with(REPLAY));
                    self.dead.insert((offset, index), Letter { body: letter.body, is_again });
                }
            }
            Body::Events(events) => {
                for index in 0..events.len() {
                    let event = events.event(index).unwrap();
                    let key = key_of(&event);
                    let before = self.last.insert(key.clone(), now);
                    self.events.push(Logged {
                        time: event.event_time,
                        minute: minute_of(event.event_time),
                        country: event.country.map(str::to_owned),
                        value: event.value,
                        offset,
                        index: index as u32,
                        late: (minute_of(event.event_time) + 1) * 60_000_000 + LATENESS <= appended,
                        streamed: before.is_none_or(|before| now - before > window),
                        key,
                    });
                }
            }
        }
    }
}

/// The key of an event.
#[must_use]
pub fn key_of(event: &Event<'_>) -> Key {
    (event.event_id.to_owned(), event.entity_id.to_owned(), event.event_type.to_owned(), date_of(event.event_time))
}
