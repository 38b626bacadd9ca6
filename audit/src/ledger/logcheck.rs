//! The raw events against the log, record by record, as far as it still holds them.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};
use reckon_data::event::{Event, Reason};
use reckon_data::key::Key;
use reckon_data::log::{Log, LogError};
use reckon_data::minute::date_of;
use reckon_data::record::{Body, decode};
use reckon_data::run::Dimension;

use super::held::{add_to_cell, of_log_cell, weighed};
use super::place::Place;
use super::raw::{Counting, content};
use super::weigh::Groups;
use crate::error::AuditError;

/// Bytes of log that are read at once.
const READ_BYTES: usize = 4 << 20;

/// An event as the log or the raw events have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its place.
    pub place: Place,
    /// Hash of its key.
    pub hash: u64,
    /// What it counts for.
    pub group: u64,
    /// Its contents, as [`content`] makes a number of them.
    pub content: u64,
    /// Its time, microseconds.
    pub time: i64,
    /// Its id.
    pub event_id: String,
    /// Its entity.
    pub entity_id: String,
    /// Its type.
    pub event_type: String,
}

/// Sums of the log by [`super::held::log_cell`]: events, and weighed contents.
pub type LogCells = HashMap<u64, (u64, u64)>;

/// Which events of the log are looked at.
#[derive(Debug, Clone)]
pub struct LogScope {
    /// What is counted.
    pub counting: Counting,
    /// Dates before this one may have lost raw events to retention: they are left out.
    pub closed: i64,
    /// Dates that are left out, too: their raw events were read without dimensions, or not all could be.
    pub left_out: HashSet<i32>,
}

impl LogScope {
    /// Whether events of a date are looked at.
    #[must_use]
    pub fn holds(&self, date: i32) -> bool {
        i64::from(date) >= self.closed && !self.left_out.contains(&date)
    }
}

/// Sums of records by their offsets: events, and weighed contents.
pub type Records = BTreeMap<u64, (u64, u64)>;

/// Adds an event to the sum of its record.
pub fn add_to_record(records: &mut Records, place: Place, content: u64) {
    let record = records.entry(place.offset()).or_default();
    *record = (record.0 + 1, record.1.wrapping_add(weighed(place, content)));
}

/// What of a range of the log could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extent {
    /// From where on: later than was asked for when the log was trimmed meanwhile.
    pub start: u64,
    /// Records that cannot be read, with the reason: what they held cannot be compared.
    pub unreadable: Vec<(u64, String)>,
    /// Records that were given up: what the raw events have of them stays.
    pub given_up: Vec<u64>,
    /// Up to where: below what was asked for when the log ends there.
    pub end: u64,
}

impl Extent {
    /// Whether nobody knows from the log what a record held.
    #[must_use]
    pub fn is_unknown(&self, offset: u64) -> bool {
        self.given_up.contains(&offset) || self.unreadable.iter().any(|(unreadable, _)| *unreadable == offset)
    }
}

/// Adds up the events of a partition in a range of offsets.
///
/// # Errors
/// When the log fails.
pub async fn add_up(
    log: &dyn Log,
    partition: u32,
    offsets: std::ops::Range<u64>,
    scope: &LogScope,
    cells: &mut LogCells,
) -> Result<Extent, AuditError> {
    read(log, partition, offsets, scope, &mut |seen| add_to_cell(cells, seen.place, seen.content)).await
}

/// Whether the record at an offset is a cut; none when nobody can say.
///
/// # Errors
/// When the log fails.
pub async fn is_cut(log: &dyn Log, partition: u32, offset: u64) -> Result<Option<bool>, AuditError> {
    let records = match log.read(partition, offset, 1).await {
        Ok(records) => records,
        Err(LogError::Trimmed { .. } | LogError::Corrupt { .. } | LogError::PastEnd { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let record = records.first().and_then(|stored| decode(&stored.bytes).ok());
    Ok(record.map(|record| matches!(record.body, Body::Cut(_))))
}

/// The sums of the records of a partition in a range of offsets, and what of it could be read.
///
/// # Errors
/// When the log fails.
pub async fn records(
    log: &dyn Log,
    partition: u32,
    offsets: std::ops::Range<u64>,
    scope: &LogScope,
) -> Result<(Records, Extent), AuditError> {
    let mut records = Records::new();
    let mut add = |seen: &Borrowed<'_>| add_to_record(&mut records, seen.place, seen.content);
    let extent = read(log, partition, offsets, scope, &mut add).await?;
    Ok((records, extent))
}

/// The events of the `wanted` records of a partition in a range of offsets, and what of it could be read.
///
/// # Errors
/// When the log fails.
pub async fn events(
    log: &dyn Log,
    partition: u32,
    offsets: std::ops::Range<u64>,
    scope: &LogScope,
    wanted: &BTreeSet<u64>,
) -> Result<(Vec<Seen>, Extent), AuditError> {
    let mut seen = Vec::new();
    let mut take = |event: &Borrowed<'_>| {
        if wanted.contains(&event.place.offset()) {
            seen.push(event.to_seen());
        }
    };
    let extent = read(log, partition, offsets, scope, &mut take).await?;
    Ok((seen, extent))
}

/// An event of the log, borrowed.
struct Borrowed<'a> {
    place: Place,
    content: u64,
    hash: u64,
    group: u64,
    event: Event<'a>,
}

impl Borrowed<'_> {
    fn to_seen(&self) -> Seen {
        Seen {
            place: self.place,
            hash: self.hash,
            group: self.group,
            content: self.content,
            time: self.event.event_time,
            event_id: self.event.event_id.to_owned(),
            entity_id: self.event.entity_id.to_owned(),
            event_type: self.event.event_type.to_owned(),
        }
    }
}

async fn read(
    log: &dyn Log,
    partition: u32,
    offsets: std::ops::Range<u64>,
    scope: &LogScope,
    take: &mut (dyn for<'a> FnMut(&Borrowed<'a>) + Send),
) -> Result<Extent, AuditError> {
    let mut at = offsets.start;
    let mut extent = Extent { start: at, end: at, ..Extent::default() };
    let mut groups = Groups::default();
    while at < offsets.end {
        let records = match log.read(partition, at, READ_BYTES).await {
            Ok(records) => records,
            Err(LogError::Corrupt { offset, reason, .. }) if offset >= at => {
                extent.unreadable.push((offset, reason));
                at = offset + 1;
                extent.end = at.min(offsets.end);
                continue;
            }
            Err(LogError::Trimmed { start, .. }) if start > at => {
                (at, extent.start) = (start, start);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(last) = records.last().map(|record| record.offset) else { break };
        extent.end = (last + 1).min(offsets.end);
        for stored in records.iter().filter(|stored| stored.offset < offsets.end) {
            let events = match decode(&stored.bytes).map(|record| record.body) {
                Ok(Body::Events(events)) => events,
                Ok(Body::Dead(letters)) => {
                    if letters.iter().any(|letter| letter.reason == Reason::DamagedRecord.code()) {
                        extent.given_up.push(stored.offset);
                    }
                    continue;
                }
                Ok(Body::Cut(_)) => continue,
                Err(error) => {
                    extent.unreadable.push((stored.offset, error.to_string()));
                    continue;
                }
            };
            for row in 0..events.len() {
                let Some(event) = events.event(row) else { continue };
                let date = date_of(event.event_time);
                if !scope.holds(date) {
                    continue;
                }
                let place = Place::new(partition.into(), stored.offset.cast_signed(), row as i64)?;
                let key =
                    Key { event_id: event.event_id, entity_id: event.entity_id, event_type: event.event_type, date };
                let dimensions = scope.counting.dimensions.iter().map(|dimension| value_of(*dimension, &event));
                let group = groups.number(event.entity_id, event.event_type, dimensions);
                let value = if scope.counting.values { event.value } else { None };
                let content = content(key.hash(), group, event.event_time, value);
                take(&Borrowed { place, content, hash: key.hash(), group, event });
            }
        }
        at = last + 1;
    }
    Ok(extent)
}

/// The value of a dimension.
const fn value_of<'a>(dimension: Dimension, event: &Event<'a>) -> Option<&'a str> {
    match dimension {
        Dimension::Country => event.country,
        Dimension::UserId => event.user_id,
        Dimension::Ip => event.ip,
    }
}

/// The ranges of offsets in which log and raw events differ, of partitions whose log begins at `starts`. A range that begins
/// before the log does is left out: the raw events have more of it.
#[must_use]
pub fn differing(log: &LogCells, raw: &LogCells, starts: &BTreeMap<u32, u64>) -> Vec<(u32, u64, u64)> {
    let is_held = |cell: u64| {
        let (partition, start, _) = of_log_cell(cell);
        starts.get(&partition).is_some_and(|begins| start >= *begins)
    };
    let mut cells: Vec<u64> = log.keys().chain(raw.keys()).copied().filter(|cell| is_held(*cell)).collect();
    cells.sort_unstable();
    cells.dedup();
    cells.into_iter().filter(|cell| log.get(cell) != raw.get(cell)).map(of_log_cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(places: &[(i64, i64)]) -> LogCells {
        let mut cells = LogCells::new();
        for (partition, offset) in places {
            add_to_cell(&mut cells, Place::new(*partition, *offset, 0).unwrap(), 7);
        }
        cells
    }

    #[test]
    fn ranges_in_which_only_the_log_or_only_the_raw_events_have_some_differ() {
        let (log, raw) = (cells(&[(0, 5), (1, 1_030)]), cells(&[(0, 5), (0, 3_000), (2, 70)]));
        let starts = BTreeMap::from([(0, 0), (1, 0), (2, 0)]);
        assert_eq!(differing(&log, &raw, &starts), [(0, 2_048, 3_072), (1, 1_024, 2_048), (2, 0, 1_024)]);
        // The log begins behind the first of these, and has no partition 2.
        let starts = BTreeMap::from([(0, 2_049), (1, 1_024)]);
        assert_eq!(differing(&log, &raw, &starts), [(1, 1_024, 2_048)]);
    }
}
