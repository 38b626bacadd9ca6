//! Damage of the raw events.

use arrow::array::RecordBatch;
use reckon_audit::finding::Class;
use reckon_data::key::Key;
use reckon_data::minute::{date_of, date_of_minute};
use reckon_data::table::Table;

use super::super::damage::{moved, once_more, plus, with_text, without};
use super::super::look::{Group, Raw, Seen};
use super::super::world::in_time;
use super::{Expected, errors, hold, minute, pick};

const TABLE: &str = "events";

fn of_raw(class: Class, group: &Group) -> Expected {
    let event = &group.events[0];
    let segment = Some((event.partition, event.offset, event.offset + 1));
    Expected { segment, ..Expected::of(class, TABLE, group, &group.events[..1]) }
}

#[test]
fn an_event_that_is_dropped_is_lost_by_the_log_and_by_its_place() {
    in_time(async {
        let (mut world, group) = minute(|_| true).await;
        let event = &group.events[0];
        let row = event.at.row;
        world.change(Table::Events, &event.at.file, Box::new(|rows| without(rows, &[row]))).await;
        hold(&world.audit(true).await, &[of_raw(Class::Lost, &group).numbers(1, 0)]);
        // Without the log it has no name.
        let report = world.audit(false).await;
        let [found] = errors(&report)[..] else { panic!("{:#?}", errors(&report)) };
        assert!(matches!(found.class, Class::Lost | Class::OffsetHole), "{found:#?}");
        assert_eq!((found.table.as_str(), found.events, found.partition), (TABLE, 1, Some(event.partition)));
        let range = found.offset_start.unwrap()..found.offset_end.unwrap();
        assert!(range.contains(&event.offset), "{found:#?}");
    });
}

#[test]
fn an_event_that_is_there_twice_is_named() {
    in_time(async {
        let (mut world, group) = minute(|_| true).await;
        let event = &group.events[0];
        let row = event.at.row;
        world.change(Table::Events, &event.at.file, Box::new(|rows| once_more(rows, row))).await;
        hold(&world.audit(true).await, &[of_raw(Class::CountedTwice, &group).numbers(1, 2)]);
        let mut expected = Expected::new(Class::CountedTwice, TABLE);
        expected.segment = Some((event.partition, event.offset, event.offset + 1));
        hold(&world.audit(false).await, &[expected]);
    });
}

#[test]
fn an_event_that_is_moved_is_in_a_wrong_minute() {
    in_time(async {
        let within = |group: &Group| date_of_minute(group.row.key.3) == date_of_minute(group.row.key.3 + 1);
        let (mut world, group) = minute(within).await;
        let event = &group.events[0];
        let row = event.at.row;
        world.change(Table::Events, &event.at.file, Box::new(|rows| moved(rows, "event_time", row, 1))).await;
        hold(&world.audit(true).await, &[of_raw(Class::WrongMinute, &group)]);
    });
}

#[test]
fn an_event_with_another_entity_has_a_wrong_key() {
    in_time(async {
        let (mut world, group) = minute(|group| group.row.key.0 != "v5").await;
        let event = &group.events[0];
        let key = Key { event_id: &event.id, entity_id: "v5", event_type: &event.key.1, date: date_of(event.time) };
        let (row, by) = (event.at.row, key.hash().cast_signed().wrapping_sub(event.hash));
        let change = |rows: &RecordBatch| plus(&with_text(rows, "entity_id", row, Some("v5")), "key_hash", row, by);
        world.change(Table::Events, &event.at.file, Box::new(change)).await;
        hold(&world.audit(true).await, &[of_raw(Class::WrongKey, &group)]);
    });
}

#[test]
fn an_event_with_another_value_is_a_wrong_value() {
    in_time(async {
        let (mut world, group) = minute(|group| group.events[0].value.is_some()).await;
        let event = &group.events[0];
        let row = event.at.row;
        let change = |rows: &RecordBatch| super::super::damage::plus_decimal(rows, "value", row, 1);
        world.change(Table::Events, &event.at.file, Box::new(change)).await;
        hold(&world.audit(true).await, &[of_raw(Class::WrongValue, &group)]);
    });
}

/// The events of a record, all of them covered, alone, and in one file.
fn record(seen: &Seen) -> Option<Vec<Raw>> {
    let of = |first: &Raw| -> Vec<Raw> {
        let own = seen.raw.iter().filter(|event| (event.partition, event.offset) == (first.partition, first.offset));
        own.cloned().collect()
    };
    let is_meant = |events: &Vec<Raw>| {
        let fits = |event: &Raw| seen.is_covered(event) && seen.is_alone(event) && event.at.file == events[0].at.file;
        events.len() >= 2 && events.iter().all(fits)
    };
    seen.raw.iter().filter(|event| event.index == 0).map(of).find(is_meant)
}

#[test]
fn a_record_that_is_not_there_is_a_hole() {
    in_time(async {
        let (mut world, events) = pick(record).await;
        let rows: Vec<usize> = events.iter().map(|event| event.at.row).collect();
        let file = events[0].at.file.clone();
        world.change(Table::Events, &file, Box::new(|batch| without(batch, &rows))).await;
        let mut ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        ids.sort_unstable();
        let segment = Some((events[0].partition, events[0].offset, events[0].offset + 1));
        let expected = Expected { ids, segment, ..Expected::new(Class::OffsetHole, TABLE) };
        hold(&world.audit(true).await, &[expected.numbers(events.len() as i64, 0)]);
    });
}

async fn bad_file(class: Class) {
    let (world, group) = minute(|_| true).await;
    let file = group.events[0].at.file.clone();
    match class {
        Class::MissingFile => world.lose(Table::Events, &file).await,
        _ => world.flip(Table::Events, &file).await,
    }
    let expected = Expected { file: Some(file.path), ..Expected::new(class, TABLE) };
    hold(&world.audit(true).await, std::slice::from_ref(&expected));
    hold(&world.audit(false).await, &[expected]);
}

#[test]
fn a_file_that_is_gone_is_missing() {
    in_time(bad_file(Class::MissingFile));
}

#[test]
fn a_file_in_which_a_bit_has_flipped_is_corrupt() {
    in_time(bad_file(Class::CorruptFile));
}
