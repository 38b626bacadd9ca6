//! What is wrong with the raw events: against the log, and against their own places.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use reckon_data::minute::{date_of, format_date, format_time, minute_of, start_of_minute};
use reckon_data::table::{DataFile, Table};

use super::columns::Columns;
use super::explain::{Known, Whose};
use super::held::RecordEvents;
use super::load::{Loaded, Unreadable};
use super::logcheck::{Records, Seen, add_to_record};
use super::place::{Place, of_record};
use super::raw::{Counting, Events};
use super::scan::Scanner;
use crate::error::AuditError;
use crate::finding::{Class, EVENT_IDS_MAX, Finding, Repair};

const TABLE: &str = "events";

/// The files of raw events that may hold offsets of a partition.
pub fn overlapping<'a>(
    files: impl Iterator<Item = &'a DataFile>,
    partition: u32,
    offsets: &Range<u64>,
) -> Vec<DataFile> {
    let (partition, start, end) = (i64::from(partition), offsets.start.cast_signed(), offsets.end.cast_signed());
    let within = |file: &DataFile, column: &str, low: i64, high: i64| {
        file.min_i64(column).is_none_or(|min| min < high) && file.max_i64(column).is_none_or(|max| max >= low)
    };
    files
        .filter(|file| {
            within(file, "log_partition", partition, partition + 1) && within(file, "log_offset", start, end)
        })
        .cloned()
        .collect()
}

impl Scanner {
    /// The raw events of the `wanted` records of a partition, of those files that can be read.
    ///
    /// # Errors
    /// When the store fails, or there is no room for a place.
    pub async fn raw_events(
        &self,
        files: Vec<DataFile>,
        partition: u32,
        wanted: &Arc<BTreeSet<u64>>,
        counting: &Arc<Counting>,
    ) -> Result<Vec<Seen>, AuditError> {
        let wanted = Arc::clone(wanted);
        let is_wanted = move |place: Place| place.partition() == partition && wanted.contains(&place.offset());
        let take = move |events: &Events, seen: &mut Vec<Seen>| seen_in(events, &is_wanted, seen);
        Ok(self.read_files(files, counting, take).await?.into_iter().flatten().collect())
    }

    /// Sums of the records of a partition in a range of offsets, of those files that can be read.
    ///
    /// # Errors
    /// As [`Scanner::raw_events`].
    pub async fn raw_records(
        &self,
        files: Vec<DataFile>,
        partition: u32,
        offsets: Range<u64>,
        counting: &Arc<Counting>,
    ) -> Result<Records, AuditError> {
        let take = move |events: &Events, records: &mut Records| {
            for (row, place) in events.place.iter().enumerate() {
                if place.partition() == partition && offsets.contains(&place.offset()) {
                    add_to_record(records, *place, events.content(row));
                }
            }
            Ok(())
        };
        let mut all = Records::new();
        for (offset, (rows, sum)) in self.read_files(files, counting, take).await?.into_iter().flatten() {
            let own = all.entry(offset).or_default();
            *own = (own.0 + rows, own.1.wrapping_add(sum));
        }
        Ok(all)
    }

    /// What is taken of each of those files that can be read.
    async fn read_files<T: Default + Send + 'static>(
        &self,
        files: Vec<DataFile>,
        counting: &Arc<Counting>,
        take: impl Fn(&Events, &mut T) -> Result<(), Unreadable> + Clone + Send + 'static,
    ) -> Result<Vec<T>, AuditError> {
        let wanted = counting.columns();
        let counting = Arc::clone(counting);
        let read = move |file: &Loaded| {
            let mut of_file = T::default();
            for slice in file.slices() {
                take(&Events::of(file.frame(slice)?, &counting)?, &mut of_file)?;
            }
            Ok::<_, Unreadable>(of_file)
        };
        let mut all = Vec::new();
        self.walk(Table::Events, files, &wanted, read, |_, _, of_file| all.push(of_file)).await?;
        Ok(all)
    }

    /// The ids of events by their places, of those that are found.
    ///
    /// # Errors
    /// As [`Scanner::raw_events`].
    pub async fn ids(
        &self,
        files: &[DataFile],
        places: &[Place],
        counting: &Arc<Counting>,
    ) -> Result<Vec<String>, AuditError> {
        let mut ids = Vec::new();
        for place in places.iter().take(EVENT_IDS_MAX) {
            let offset = place.offset();
            let files = overlapping(files.iter(), place.partition(), &(offset..offset + 1));
            let wanted = Arc::new(BTreeSet::from([offset]));
            let seen = self.raw_events(files, place.partition(), &wanted, counting).await?;
            ids.extend(seen.into_iter().find(|seen| seen.place == *place).map(|seen| seen.event_id));
        }
        Ok(ids)
    }
}

fn seen_in(events: &Events, is_wanted: &impl Fn(Place) -> bool, seen: &mut Vec<Seen>) -> Result<(), Unreadable> {
    let columns = Columns(&events.frame);
    let [ids, entities, types] = [columns.text("event_id")?, columns.text("entity_id")?, columns.text("event_type")?];
    for row in 0..events.len() {
        let place = events.place[row];
        if !is_wanted(place) {
            continue;
        }
        let text = |column: &polars::prelude::StringChunked| column.get(row).unwrap_or_default().to_owned();
        seen.push(Seen {
            place,
            hash: events.hash[row],
            group: events.group[row],
            content: events.content(row),
            time: events.time[row],
            event_id: text(ids),
            entity_id: text(entities),
            event_type: text(types),
        });
    }
    Ok(())
}

/// What a partition's raw events differ in from its log, in a range of offsets; what is wrong with them is added to `known`.
#[must_use]
pub fn against_log(partition: u32, log: &[Seen], raw: &[Seen], known: &mut Known) -> Vec<Finding> {
    let mut by_place: HashMap<Place, Vec<&Seen>> = HashMap::new();
    for seen in raw {
        by_place.entry(seen.place).or_default().push(seen);
    }
    let mut missing: BTreeMap<u64, Vec<&Seen>> = BTreeMap::new();
    let mut records: BTreeMap<u64, usize> = BTreeMap::new();
    let mut findings = Vec::new();
    for seen in log {
        *records.entry(seen.place.offset()).or_default() += 1;
        match by_place.remove(&seen.place) {
            None => {
                known.gone.insert(seen.hash, whose(seen));
                missing.entry(seen.place.offset()).or_default().push(seen);
            }
            Some(rows) => {
                if let Some(changed) = rows.iter().find(|row| row.content != seen.content) {
                    findings.push(changed_event(seen, changed, known));
                }
                if rows.len() > 1 {
                    findings.push(doubled(seen, rows.len()));
                }
            }
        }
    }
    for extra in by_place.into_values().flatten() {
        known.new.insert(extra.hash, whose(extra));
        let text = "the raw events have an event where the log has none".to_owned();
        let mut finding = of_event(Class::ExtraRows, extra, text);
        (finding.expected, finding.found) = (Some(0), Some(1));
        findings.push(finding);
    }
    findings.extend(holes(partition, &missing, &records));
    findings
}

/// Events that are missing, records of which nothing is left together.
fn holes(partition: u32, missing: &BTreeMap<u64, Vec<&Seen>>, records: &BTreeMap<u64, usize>) -> Vec<Finding> {
    let (mut findings, mut hole): (Vec<Finding>, Vec<&Seen>) = (Vec::new(), Vec::new());
    let mut before = None;
    for (offset, events) in missing {
        let is_whole = records.get(offset) == Some(&events.len());
        // Records without events, cuts and dead letters, may lie between two of one hole.
        let meets = before.is_some_and(|before: u64| records.range(before + 1..*offset).next().is_none());
        if !(hole.is_empty() || is_whole && meets) {
            findings.push(whole_records(partition, &std::mem::take(&mut hole)));
        }
        if is_whole {
            hole.extend(events);
            before = Some(*offset);
        } else {
            for event in events {
                let text = "the log has this event, the raw events have not".to_owned();
                let mut finding = of_event(Class::Lost, event, text);
                (finding.expected, finding.found) = (Some(1), Some(0));
                findings.push(finding);
            }
        }
    }
    if !hole.is_empty() {
        findings.push(whole_records(partition, &hole));
    }
    findings
}

fn whole_records(partition: u32, events: &[&Seen]) -> Finding {
    let text = "records of the log whose events are not among the raw events".to_owned();
    let mut finding = Finding::new(Class::OffsetHole, TABLE, text);
    finding.partition = Some(partition);
    finding.offset_start = events.iter().map(|seen| seen.place.offset()).min();
    finding.offset_end = events.iter().map(|seen| seen.place.offset() + 1).max();
    let mut dates: Vec<String> = events.iter().map(|seen| format_date(date_of(seen.time))).collect();
    dates.sort_unstable();
    dates.dedup();
    finding.date = Some(dates.join(" "));
    (finding.expected, finding.found) = (Some(events.len() as i64), Some(0));
    finding.event_ids = events.iter().take(EVENT_IDS_MAX).map(|seen| seen.event_id.clone()).collect();
    finding.events = events.len() as u64;
    rebuilt(finding)
}

fn changed_event(log: &Seen, raw: &Seen, known: &mut Known) -> Finding {
    let same_key = log.entity_id == raw.entity_id && log.event_type == raw.event_type && log.group == raw.group;
    let (class, what) = if !same_key || log.event_id != raw.event_id {
        (Class::WrongKey, "another event, entity, type or dimension")
    } else if minute_of(log.time) != minute_of(raw.time) {
        (Class::WrongMinute, "another minute")
    } else {
        (Class::WrongValue, "another value or time")
    };
    known.gone.insert(log.hash, whose(log));
    known.new.insert(raw.hash, whose(raw));
    let text = format!(
        "the raw events have {what} than the log: {} of {} at {}, not {} of {} at {}",
        raw.event_type,
        raw.entity_id,
        format_time(raw.time),
        log.event_type,
        log.entity_id,
        format_time(log.time)
    );
    of_event(class, log, text)
}

fn whose(seen: &Seen) -> Whose {
    Whose { entity: seen.entity_id.clone(), event_type: seen.event_type.clone(), minute: minute_of(seen.time) }
}

fn doubled(seen: &Seen, rows: usize) -> Finding {
    let text = format!("the raw events have one event of the log {rows} times");
    let mut finding = of_event(Class::CountedTwice, seen, text);
    (finding.expected, finding.found) = (Some(1), Some(rows as i64));
    finding
}

fn of_event(class: Class, seen: &Seen, text: String) -> Finding {
    let mut finding = Finding::new(class, TABLE, text);
    finding.partition = Some(seen.place.partition());
    finding.offset_start = Some(seen.place.offset());
    finding.offset_end = Some(seen.place.offset() + 1);
    finding.date = Some(format_date(date_of(seen.time)));
    finding.minute = Some(format_time(start_of_minute(minute_of(seen.time))));
    finding.entity_id = Some(seen.entity_id.clone());
    finding.event_type = Some(seen.event_type.clone());
    finding.event_ids = vec![seen.event_id.clone()];
    finding.events = 1;
    rebuilt(finding)
}

fn rebuilt(mut finding: Finding) -> Finding {
    finding.repair = Repair::Rebuild;
    "reckon audit --repair makes the raw events of the date anew from the log, and recounts it"
        .clone_into(&mut finding.action);
    finding
}

/// Records whose events are not all there, or there more than once, by their indexes alone: for what the log no longer
/// holds. `is_held` says which records it does.
#[must_use]
pub fn by_index(records: &HashMap<u64, RecordEvents>, is_held: impl Fn(u32, u64) -> bool) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for (record, events) in records {
        let (partition, offset) = of_record(*record);
        let due = u64::from(events.index_max) + 1;
        if u64::from(events.rows) == due || is_held(partition, offset) {
            continue;
        }
        let fewer = u64::from(events.rows) < due;
        let (class, text) = if fewer {
            (Class::Lost, "events of a record are not among the raw events: indexes are left out")
        } else {
            (Class::CountedTwice, "the raw events have more events of a record than it has indexes")
        };
        let mut finding = Finding::new(class, TABLE, text.to_owned());
        finding.partition = Some(partition);
        (finding.offset_start, finding.offset_end) = (Some(offset), Some(offset + 1));
        (finding.expected, finding.found) = (i64::try_from(due).ok(), Some(i64::from(events.rows)));
        finding.events = due.abs_diff(u64::from(events.rows));
        finding.repair = Repair::Impossible;
        "the log no longer holds the record: restore the table from a copy".clone_into(&mut finding.action);
        findings.push(finding);
    }
    findings.sort_by_key(|finding| (finding.partition, finding.offset_start));
    findings
}

/// Events whose stored hash is not that of their key.
#[must_use]
pub fn wrong_hashes(wrong: &[(Place, String)], date: i32) -> Vec<Finding> {
    let mut partitions: BTreeMap<u32, Vec<&(Place, String)>> = BTreeMap::new();
    for one in wrong {
        partitions.entry(one.0.partition()).or_default().push(one);
    }
    let finding = |(partition, events): (u32, Vec<&(Place, String)>)| {
        let text = "the hash that is stored beside raw events, some of which are named, is not that of their keys";
        let mut finding = Finding::new(Class::WrongKey, TABLE, text.to_owned());
        finding.partition = Some(partition);
        finding.offset_start = events.iter().map(|(place, _)| place.offset()).min();
        finding.date = Some(format_date(date));
        finding.event_ids = events.iter().take(EVENT_IDS_MAX).map(|(_, id)| id.clone()).collect();
        finding.events = events.len() as u64;
        rebuilt(finding)
    };
    partitions.into_iter().map(finding).collect()
}
