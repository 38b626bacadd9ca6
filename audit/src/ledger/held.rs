//! What the audit remembers of every raw event of a date: some thirty bytes each.

use std::ops::Range;

use hashbrown::HashMap;
use polars::prelude::DataFrame;
use reckon_data::definition::Definition;
use reckon_data::minute::{MICROS_PER_SECOND, MINUTES_PER_DAY, minute_of};

use super::load::{Loaded, Unreadable};
use super::place::Place;
use super::raw::{Counting, Events};
use super::weigh::{Amount, bucket, mix};

/// Bytes that an event takes in memory while a date is added up.
pub const EVENT_BYTES: u64 = 48;
/// Records whose events are counted one by one; of more, only their sums are held.
const RECORDS_MAX: usize = 4 << 20;
/// Records of the log whose sum is one, as a power of two.
const LOG_CELL_BITS: u32 = 10;
/// Records of the log whose sum is one.
pub const LOG_CELL_RECORDS: u64 = 1 << LOG_CELL_BITS;

const LATE: u8 = 1;
const VALUE: u8 = 2;
const RESERVED: u8 = 4;

/// Events, a column each.
#[derive(Debug, Default)]
pub struct Held {
    /// Hashes of the keys.
    pub hash: Vec<u64>,
    /// Their second hashes.
    pub check: Vec<u32>,
    /// What they count for.
    pub group: Vec<u64>,
    /// Places in the log.
    pub place: Vec<Place>,
    /// Append times, seconds.
    pub received: Vec<u32>,
    minute: Vec<u16>,
    flags: Vec<u8>,
    /// Empty when no event has a value.
    value: Vec<i64>,
}

impl Held {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.hash.len()
    }

    /// The minute of an event of the date, since 1970.
    #[must_use]
    pub fn minute(&self, row: usize, date: i32) -> i64 {
        i64::from(date) * MINUTES_PER_DAY + i64::from(self.minute[row])
    }

    /// Whether its entity is reserved.
    #[must_use]
    pub fn is_reserved(&self, row: usize) -> bool {
        self.flags[row] & RESERVED != 0
    }

    /// Whether it is late.
    #[must_use]
    pub fn is_late(&self, row: usize) -> bool {
        self.flags[row] & LATE != 0
    }

    /// What it adds to its row.
    #[must_use]
    pub fn amount(&self, row: usize) -> Amount {
        let value = (self.flags[row] & VALUE != 0).then(|| self.value[row]);
        super::raw::amount(self.hash[row], value, self.is_late(row))
    }

    /// Whether two events count alike.
    #[must_use]
    pub fn same_contents(&self, a: usize, b: usize) -> bool {
        let value = |row: usize| (self.flags[row] & VALUE != 0).then(|| self.value[row]);
        self.group[a] == self.group[b] && self.minute[a] == self.minute[b] && value(a) == value(b)
    }

    fn push(&mut self, events: &Events, reserved: &[bool], keep: &Keep) {
        for (row, reserved) in reserved.iter().enumerate() {
            if !keep.holds(events.hash[row], events.place[row]) {
                continue;
            }
            self.hash.push(events.hash[row]);
            self.check.push(events.check[row]);
            self.group.push(events.group[row]);
            self.place.push(events.place[row]);
            // Seconds since 1970 fit until 2106.
            self.received.push(u32::try_from(events.received[row] / MICROS_PER_SECOND).unwrap_or(0));
            self.minute.push(minute_of(events.time[row]).rem_euclid(MINUTES_PER_DAY) as u16);
            let value = if events.value[row].is_some() { VALUE } else { 0 };
            let late = if events.late[row] { LATE } else { 0 };
            self.flags.push(value | late | if *reserved { RESERVED } else { 0 });
            if let Some(value) = events.value[row] {
                self.value.resize(self.hash.len() - 1, 0);
                self.value.push(value);
            }
        }
        if !self.value.is_empty() {
            self.value.resize(self.hash.len(), 0);
        }
    }

    /// Takes what another one holds.
    pub fn append(&mut self, mut other: Self) {
        if !(self.value.is_empty() && other.value.is_empty()) {
            // At once for all that there will be, as for the others.
            self.value.reserve_exact(self.hash.capacity().saturating_sub(self.value.len()));
            self.value.resize(self.len(), 0);
            other.value.resize(other.len(), 0);
            self.value.append(&mut other.value);
        }
        self.hash.append(&mut other.hash);
        self.check.append(&mut other.check);
        self.group.append(&mut other.group);
        self.place.append(&mut other.place);
        self.received.append(&mut other.received);
        self.minute.append(&mut other.minute);
        self.flags.append(&mut other.flags);
    }

    /// Grows at once for so many events.
    pub fn reserve(&mut self, rows: usize) {
        self.hash.reserve_exact(rows);
        self.check.reserve_exact(rows);
        self.group.reserve_exact(rows);
        self.place.reserve_exact(rows);
        self.received.reserve_exact(rows);
        self.minute.reserve_exact(rows);
        self.flags.reserve_exact(rows);
    }
}

/// How many events of a record there are among the raw events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordEvents {
    /// Rows.
    pub rows: u32,
    /// The highest index.
    pub index_max: u32,
}

/// What is known of raw events by their places, over all dates.
#[derive(Debug, Default)]
pub struct ByPlace {
    /// Sums over some records of the log each, by [`log_cell`]: events, and weighed contents.
    pub cells: HashMap<u64, (u64, u64)>,
    /// Events of every record, by [`Place::record`]; none when there are too many records.
    pub records: Option<HashMap<u64, RecordEvents>>,
}

impl ByPlace {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { cells: HashMap::new(), records: Some(HashMap::new()) }
    }

    /// Adds an event whose contents are those.
    pub fn add(&mut self, place: Place, content: u64) {
        add_to_cell(&mut self.cells, place, content);
        if let Some(records) = &mut self.records {
            let record = records.entry(place.record()).or_default();
            record.rows = record.rows.saturating_add(1);
            record.index_max = record.index_max.max(place.index());
        }
        if self.records.as_ref().is_some_and(|records| records.len() > RECORDS_MAX) {
            self.records = None;
        }
    }

    /// Takes what another one holds.
    pub fn merge(&mut self, other: Self) {
        for (cell, (rows, sum)) in other.cells {
            let own = self.cells.entry(cell).or_default();
            *own = (own.0 + rows, own.1.wrapping_add(sum));
        }
        self.records = match (self.records.take(), other.records) {
            (Some(mut own), Some(others)) => {
                for (record, events) in others {
                    let own = own.entry(record).or_default();
                    own.rows = own.rows.saturating_add(events.rows);
                    own.index_max = own.index_max.max(events.index_max);
                }
                (own.len() <= RECORDS_MAX).then_some(own)
            }
            _ => None,
        };
    }
}

/// The sum that a place belongs to.
#[must_use]
pub const fn log_cell(record: u64) -> u64 {
    record >> LOG_CELL_BITS
}

/// The first offset of the sum that an offset belongs to.
#[must_use]
pub const fn cell_start(offset: u64) -> u64 {
    offset >> LOG_CELL_BITS << LOG_CELL_BITS
}

/// First offset of a sum, and the offset after its last; and the partition.
#[must_use]
pub const fn of_log_cell(cell: u64) -> (u32, u64, u64) {
    let (partition, start) = super::place::of_record(cell << LOG_CELL_BITS);
    (partition, start, start + LOG_CELL_RECORDS)
}

/// Adds an event to the sum of its place.
pub fn add_to_cell(cells: &mut HashMap<u64, (u64, u64)>, place: Place, content: u64) {
    let cell = cells.entry(log_cell(place.record())).or_default();
    *cell = (cell.0 + 1, cell.1.wrapping_add(weighed(place, content)));
}

/// What the contents of an event at a place add to a sum.
#[must_use]
pub const fn weighed(place: Place, content: u64) -> u64 {
    content.wrapping_mul(mix(place.bits()) | 1)
}

/// What a file of raw events has become.
#[derive(Debug)]
pub struct FileFacts {
    /// All events of it.
    pub held: Held,
    /// Those of the buckets that are looked at row by row.
    pub kept: Vec<DataFrame>,
    /// Its events by their places.
    pub by_place: ByPlace,
    /// Places of events whose stored hash is not that of their key, some of them, with their ids.
    pub wrong_hash: Vec<(Place, String)>,
}

/// Which events are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// All.
    All,
    /// Those whose hash leaves a remainder: memory for a part of them is enough then, and copies stay together.
    Slice {
        /// The remainder.
        index: u64,
        /// Parts in all.
        of: u64,
    },
    /// Those of a partition in a range of offsets.
    Offsets {
        /// The partition.
        partition: u32,
        /// The offsets.
        range: Range<u64>,
    },
}

impl Keep {
    fn holds(&self, hash: u64, place: Place) -> bool {
        match self {
            Self::All => true,
            Self::Slice { index, of } => hash % of == *index,
            Self::Offsets { partition, range } => place.partition() == *partition && range.contains(&place.offset()),
        }
    }

    /// Whether what is known of every event is noted: once, however often a date is read.
    const fn is_first(&self) -> bool {
        matches!(self, Self::All | Self::Slice { index: 0, .. })
    }
}

/// How raw events are read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Which are held.
    pub keep: Keep,
    /// What is counted.
    pub counting: Counting,
    /// Buckets that are looked at row by row, a bit each.
    pub buckets: u64,
    /// Prefixes of entities that are Reckon's own.
    pub reserved: Vec<String>,
}

impl Reading {
    /// Reading for a definition.
    #[must_use]
    pub fn new(definition: &Definition, coarse: bool, buckets: u64) -> Self {
        let counting = if coarse { Counting::coarse() } else { Counting::of(definition) };
        Self { keep: Keep::All, counting, buckets, reserved: definition.reserved_prefixes.clone() }
    }

    /// Whether rows of a group are looked at one by one.
    #[must_use]
    pub const fn keeps(&self, group: u64) -> bool {
        self.buckets >> bucket(group) & 1 == 1
    }

    fn reserved(&self, events: &Events) -> Result<Vec<bool>, Unreadable> {
        let entities = super::columns::Columns(&events.frame).text("entity_id")?;
        let is_reserved = |entity: &str| self.reserved.iter().any(|prefix| entity.starts_with(prefix.as_str()));
        Ok(entities.iter().map(|entity| entity.is_some_and(is_reserved)).collect())
    }
}

/// Reads a file of raw events. Keeps a processor busy.
///
/// # Errors
/// When the file says nothing, or what cannot be.
pub fn read_file(file: &Loaded, reading: &Reading) -> Result<FileFacts, Unreadable> {
    let mut facts =
        FileFacts { held: Held::default(), kept: Vec::new(), by_place: ByPlace::new(), wrong_hash: Vec::new() };
    for slice in file.slices() {
        take(&mut facts, file.frame(slice)?, reading)?;
    }
    Ok(facts)
}

fn take(facts: &mut FileFacts, frame: DataFrame, reading: &Reading) -> Result<(), Unreadable> {
    let events = Events::of(frame, &reading.counting)?;
    let reserved = reading.reserved(&events)?;
    facts.held.push(&events, &reserved, &reading.keep);
    if !reading.keep.is_first() {
        return Ok(());
    }
    for row in 0..events.len() {
        facts.by_place.add(events.place[row], events.content(row));
        if events.hash[row] != events.stored_hash[row] && facts.wrong_hash.len() < crate::finding::EVENT_IDS_MAX {
            let ids = super::columns::Columns(&events.frame).text("event_id")?;
            facts.wrong_hash.push((events.place[row], ids.get(row).unwrap_or_default().to_owned()));
        }
    }
    facts.kept.extend(kept_of(&events, reading)?);
    Ok(())
}

/// The events of a file of raw events that are looked at row by row, and nothing else of it. Keeps a processor busy.
///
/// # Errors
/// As [`read_file`].
pub fn read_kept(file: &Loaded, reading: &Reading) -> Result<Vec<DataFrame>, Unreadable> {
    let mut kept = Vec::new();
    for slice in file.slices() {
        let events = Events::of(file.frame(slice)?, &reading.counting)?;
        kept.extend(kept_of(&events, reading)?);
    }
    Ok(kept)
}

fn kept_of(events: &Events, reading: &Reading) -> Result<Option<DataFrame>, Unreadable> {
    if reading.buckets == 0 {
        return Ok(None);
    }
    let mask: Vec<bool> = events.group.iter().map(|group| reading.keeps(*group)).collect();
    if !mask.contains(&true) {
        return Ok(None);
    }
    events.kept(&mask).map(Some).map_err(|error| Unreadable::Corrupt(error.to_string()))
}
