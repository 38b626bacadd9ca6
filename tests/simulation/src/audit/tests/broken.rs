//! Stream counts as a broken counter makes them: rows and summaries that agree with each other, and with nothing else.

use std::collections::{BTreeMap, HashSet};

use arrow::array::RecordBatch;
use reckon_audit::finding::Class;
use reckon_data::minute::{format_time, start_of_minute};
use reckon_data::table::Table;

use super::super::damage::{counted, moved, once_more, plus, with_text};
use super::super::look::{Group, Key, Raw, Seen, Segment};
use super::super::world::in_time;
use super::stream::{TABLE, is_free};
use super::{Expected, hold, pick};

/// A segment, the repeats that it does not count, and a row of it whose events have no values.
#[derive(Debug, Clone)]
struct Repeats {
    segment: Segment,
    events: Vec<Raw>,
    plain: Group,
}

/// The repeats of a segment, where all copies of a key came within the window.
fn repeats(seen: &Seen) -> Option<Repeats> {
    seen.uncovered().filter(|segment| (1..=4).contains(&segment.duplicate)).find_map(|segment| {
        let before = |event: &Raw, other: &Raw| {
            other.partition == event.partition
                && other.hash == event.hash
                && (other.offset, other.index) < (event.offset, event.index)
        };
        let is_own =
            |event: &&Raw| event.partition == segment.partition && (segment.start..segment.end).contains(&event.offset);
        let is_repeat = |event: &&Raw| seen.raw.iter().any(|other| before(event, other));
        let events: Vec<Raw> = seen.raw.iter().filter(is_own).filter(is_repeat).cloned().collect();
        let different: HashSet<i64> = events.iter().map(|event| event.hash).collect();
        let simple = events.len() as i64 == segment.duplicate
            && different.len() == events.len()
            && events.iter().all(|event| event.value.is_none());
        let place = Some((segment.partition, segment.start, segment.end));
        let is_plain = |group: &Group| {
            group.row.segment == place
                && group.row.at.file == segment.at.file
                && group.events.iter().all(|event| event.value.is_none())
        };
        let plain = seen.streamed().into_iter().find(is_plain)?;
        simple.then(|| Repeats { segment: segment.clone(), events, plain })
    })
}

/// Counts an event in its row, which is made from another one if there is none.
fn count(rows: &RecordBatch, event: &Raw, row: Option<usize>, like: &Group) -> RecordBatch {
    if let Some(row) = row {
        return counted(rows, row, 1, event.hash);
    }
    let rows = once_more(rows, like.row.at.row);
    let last = rows.num_rows() - 1;
    let rows = with_text(&rows, "entity_id", last, Some(&event.key.0));
    let rows = with_text(&rows, "event_type", last, Some(&event.key.1));
    let rows = with_text(&rows, "country", last, event.key.2.as_deref());
    let rows = moved(&rows, "minute", last, event.key.3 - like.row.key.3);
    let rows = like.events.iter().fold(rows, |rows, old| counted(&rows, last, -1, old.hash));
    counted(&rows, last, 1, event.hash)
}

#[test]
fn a_counter_that_forgets_repeats_is_named_with_what_it_counted_twice() {
    in_time(async {
        let one_a_row = |seen: &Seen| {
            repeats(seen).filter(|found| {
                // Rows that are made anew hold one event each.
                let keys: HashSet<&Key> = found.events.iter().map(|event| &event.key).collect();
                keys.len() == found.events.len()
            })
        };
        let (mut world, Repeats { segment, events, plain }) = pick(one_a_row).await;
        let place = Some((segment.partition, segment.start, segment.end));
        let own: BTreeMap<Key, usize> = (world.seen.stream.iter())
            .filter(|row| row.segment == place && row.at.file == segment.at.file)
            .map(|row| (row.key.clone(), row.at.row))
            .collect();
        let change = |rows: &RecordBatch| {
            let summary = segment.at.row;
            let rows = plus(rows, "counted", summary, events.len() as i64);
            let rows = plus(&rows, "duplicate", summary, -(events.len() as i64));
            let sum = events.iter().fold(0_i64, |sum, event| sum.wrapping_add(event.hash));
            let rows = plus(&rows, "fingerprint", summary, sum);
            events.iter().fold(rows, |rows, event| count(&rows, event, own.get(&event.key).copied(), &plain))
        };
        world.change(Table::StreamCounts, &segment.at.file, Box::new(change)).await;
        let expected = |event: &Raw| Expected {
            ids: vec![event.id.clone()],
            entity: Some(event.key.0.clone()),
            minute: Some(format_time(start_of_minute(event.key.3))),
            segment: place,
            ..Expected::new(Class::CountedTwice, TABLE)
        };
        let expected: Vec<Expected> = events.iter().map(expected).collect();
        hold(&world.audit(true).await, &expected);
        hold(&world.audit(false).await, &expected);
    });
}

/// Rows of one segment, of an entity each, that can all be moved by a minute.
fn movable(seen: &Seen) -> Option<Vec<Group>> {
    let groups = seen.streamed();
    let first = groups.iter().find(|group| is_free(seen, group))?;
    let mut entities = HashSet::new();
    let same = |group: &&Group| group.row.segment == first.row.segment && group.row.at.file == first.row.at.file;
    let own: Vec<Group> = (groups.iter().filter(same))
        .filter(|group| is_free(seen, group) && entities.insert(group.row.key.0.clone()))
        .cloned()
        .collect();
    (own.len() >= 3).then_some(own)
}

#[test]
fn a_counter_that_counts_in_the_next_minute_is_named_with_all_that_it_moved() {
    in_time(async {
        let (mut world, groups) = pick(movable).await;
        let change = |rows: &RecordBatch| {
            groups.iter().fold(rows.clone(), |rows, group| moved(&rows, "minute", group.row.at.row, 1))
        };
        let file = groups[0].row.at.file.clone();
        world.change(Table::StreamCounts, &file, Box::new(change)).await;
        let expected =
            |group: &Group| Expected::of(Class::WrongMinute, TABLE, group, &group.events).numbers(group.row.count, 0);
        hold(&world.audit(true).await, &groups.iter().map(expected).collect::<Vec<Expected>>());
    });
}
