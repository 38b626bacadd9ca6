//! Gathering events and dead letters of many requests into the records of one round.
//!
//! Each partition has one open record of events and one of dead letters. A request's events of one
//! partition lie next to each other in a record, because a worker judges one request after the other.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reckon_data::columns::{EventBuilder, size_of};
use reckon_data::dead::{BODY_BYTES_MAX, DeadLetter};
use reckon_data::event::Event;
use reckon_data::log::RECORD_BYTES_MAX;
use reckon_data::record::{RecordError, encode_dead, encode_events};
use xxhash_rust::xxh3::xxh3_64;

use super::stats::nanos_since;
use super::ticket::{Failure, Ticket};

/// What a record's events may take: the rest is for header, metadata, padding of columns and bitmaps.
const CONTENTS_BYTES_MAX: usize = RECORD_BYTES_MAX - 16 * 1024;
/// Longest text of a dead letter beside its body.
const LETTER_TEXT_BYTES_MAX: usize = 8 * 1024;

/// Events of one request that lie next to each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) partition: u32,
    /// Which of the round's records of events of that partition.
    pub(super) record: usize,
    pub(super) first: u32,
    pub(super) last: u32,
}

/// What a round holds of a request.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) ticket: Arc<Ticket>,
    /// Among [`Load::places`].
    pub(super) places: Range<usize>,
    /// Partitions of its dead letters, among [`Load::dead_places`].
    pub(super) dead: Range<usize>,
}

/// The records of a partition in a round: first those of events, then the dead.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) partition: u32,
    pub(super) events: Vec<Bytes>,
    pub(super) dead: Vec<Bytes>,
}

/// A round that is ready to be appended.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) records: Vec<Records>,
    pub(super) places: Vec<Place>,
    pub(super) dead_places: Vec<u32>,
    pub(super) parts: Vec<Part>,
    /// Set when a record could not be made: nothing of the round may be appended.
    pub(super) broken: Option<Failure>,
}

/// A partition's open records.
#[derive(Debug, Default)]
struct Bin {
    events: EventBuilder,
    closed: Vec<Bytes>,
    letters: Vec<DeadLetter>,
    letters_bytes: usize,
    closed_dead: Vec<Bytes>,
    /// The place of the last event, among all places.
    last_place: usize,
    /// The part that the last dead letter belongs to.
    last_dead_part: Option<usize>,
}

/// The round being gathered.
#[derive(Debug)]
pub(super) struct Gather {
    bins: Vec<Bin>,
    routing: u16,
    append_time: i64,
    places: Vec<Place>,
    dead_places: Vec<u32>,
    parts: Vec<Part>,
    /// Where the request at hand begins among places and dead places.
    part_start: (usize, usize),
    bytes: usize,
    broken: Option<Failure>,
    encode_nanos: u64,
}

impl Gather {
    pub(super) fn new(partitions: u32, routing: u16) -> Self {
        Self {
            bins: (0..partitions).map(|_| Bin::default()).collect(),
            routing,
            append_time: 0,
            places: Vec::new(),
            dead_places: Vec::new(),
            parts: Vec::new(),
            part_start: (0, 0),
            bytes: 0,
            broken: None,
            encode_nanos: 0,
        }
    }

    /// Begins a round, whose events are judged as of `append_time`.
    pub(super) fn begin(&mut self, append_time: i64) {
        self.append_time = append_time;
    }

    /// The append time of the round's records.
    pub(super) const fn append_time(&self) -> i64 {
        self.append_time
    }

    /// About how many bytes the round has.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Time spent encoding since the last call.
    pub(super) fn take_encode_nanos(&mut self) -> u64 {
        std::mem::take(&mut self.encode_nanos)
    }

    /// Adds a valid event of the request at hand.
    pub(super) fn push(&mut self, event: &Event<'_>, partition: u32) {
        let size = size_of(event);
        let Some(bin) = self.bins.get_mut(partition as usize) else { return self.no_partition(partition) };
        if bin.events.rows() > 0 && bin.events.bytes() + size > CONTENTS_BYTES_MAX {
            let start = Instant::now();
            let closed = bin.close_events(self.routing, self.append_time);
            self.encode_nanos += nanos_since(start);
            self.broken = self.broken.take().or(closed.err());
        }
        let (record, row) = (bin.closed.len(), bin.events.rows());
        bin.events.push(event, event.key().hash());
        self.bytes += size;
        match self.places.get_mut(bin.last_place) {
            Some(place)
                if bin.last_place >= self.part_start.0 && place.partition == partition && place.record == record =>
            {
                place.last = row;
            }
            _ => {
                bin.last_place = self.places.len();
                self.places.push(Place { partition, record, first: row, last: row });
            }
        }
    }

    /// Adds a dead letter of the request at hand. Its partition goes by the hash of its body.
    pub(super) fn bury(&mut self, letter: DeadLetter) {
        let letter = fit(letter);
        let size = letter.size();
        let partition = (xxh3_64(letter.body_hash.as_bytes()) % self.bins.len().max(1) as u64) as u32;
        let Some(bin) = self.bins.get_mut(partition as usize) else { return self.no_partition(partition) };
        if !bin.letters.is_empty() && bin.letters_bytes + size > CONTENTS_BYTES_MAX {
            let start = Instant::now();
            let closed = bin.close_letters(self.routing, self.append_time);
            self.encode_nanos += nanos_since(start);
            self.broken = self.broken.take().or(closed.err());
        }
        bin.letters.push(letter);
        bin.letters_bytes += size;
        self.bytes += size;
        let part = Some(self.parts.len());
        if std::mem::replace(&mut bin.last_dead_part, part) != part {
            self.dead_places.push(partition);
        }
    }

    /// Ends the request at hand, or its part in this round; what follows belongs to the next.
    pub(super) fn end_part(&mut self, ticket: Arc<Ticket>) {
        let end = (self.places.len(), self.dead_places.len());
        let (places, dead) = (self.part_start.0..end.0, self.part_start.1..end.1);
        self.parts.push(Part { ticket, places, dead });
        self.part_start = end;
    }

    /// Closes all records and takes the round; the next one begins empty.
    pub(super) fn take(&mut self) -> Load {
        let start = Instant::now();
        let (routing, append_time) = (self.routing, self.append_time);
        let mut records = Vec::new();
        for (partition, bin) in (0..).zip(&mut self.bins) {
            let closed = bin.close_events(routing, append_time).and(bin.close_letters(routing, append_time));
            self.broken = self.broken.take().or(closed.err());
            let (events, dead) = bin.reset();
            if !events.is_empty() || !dead.is_empty() {
                records.push(Records { partition, events, dead });
            }
        }
        self.encode_nanos += nanos_since(start);
        self.part_start = (0, 0);
        self.bytes = 0;
        Load {
            records,
            places: std::mem::take(&mut self.places),
            dead_places: std::mem::take(&mut self.dead_places),
            parts: std::mem::take(&mut self.parts),
            broken: self.broken.take(),
        }
    }

    fn no_partition(&mut self, partition: u32) {
        self.broken = Some(Failure::Unavailable(format!("there is no partition {partition} to route to")));
    }
}

impl Bin {
    fn close_events(&mut self, routing: u16, append_time: i64) -> Result<(), Failure> {
        if self.events.rows() > 0 {
            let batch = self.events.finish().map_err(RecordError::from).map_err(not_made)?;
            self.closed.push(encode_events(&batch, routing, append_time).map_err(not_made)?);
        }
        Ok(())
    }

    fn close_letters(&mut self, routing: u16, append_time: i64) -> Result<(), Failure> {
        if !self.letters.is_empty() {
            self.letters_bytes = 0;
            let letters = std::mem::take(&mut self.letters);
            self.closed_dead.push(encode_dead(&letters, routing, append_time).map_err(not_made)?);
        }
        Ok(())
    }

    /// Takes the closed records, of events and of dead letters.
    fn reset(&mut self) -> (Vec<Bytes>, Vec<Bytes>) {
        self.last_place = 0;
        self.last_dead_part = None;
        (std::mem::take(&mut self.closed), std::mem::take(&mut self.closed_dead))
    }
}

fn not_made(error: RecordError) -> Failure {
    Failure::Unavailable(format!("a record could not be made: {error}"))
}

/// Cuts what is too long for any record; letters found elsewhere may be of any size.
fn fit(mut letter: DeadLetter) -> DeadLetter {
    letter.body = letter.body.filter(|body| body.len() <= BODY_BYTES_MAX);
    let texts = [Some(&mut letter.reason), letter.field.as_mut(), Some(&mut letter.message), letter.source.as_mut()];
    for text in texts.into_iter().flatten().chain([&mut letter.body_hash]) {
        if text.len() > LETTER_TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(LETTER_TEXT_BYTES_MAX));
        }
    }
    letter
}
