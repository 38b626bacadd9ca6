//! Damage of `stream_counts`.

use arrow::array::RecordBatch;
use reckon_audit::finding::Class;
use reckon_data::minute::date_of_minute;
use reckon_data::table::Table;

use super::super::damage::{counted, moved, only, plus, plus_decimal, without};
use super::super::look::{Group, Seen, Segment};
use super::super::world::in_time;
use super::{Expected, has_values, hold, pick, streamed};

pub(super) const TABLE: &str = "stream_counts";

fn many(group: &Group) -> bool {
    (2..=3).contains(&group.row.count)
}

/// Whether the next minute has nothing of the row's segment.
pub(super) fn is_free(seen: &Seen, group: &Group) -> bool {
    let mut key = group.row.key.clone();
    key.3 += 1;
    date_of_minute(key.3) == date_of_minute(group.row.key.3)
        && !seen.stream.iter().any(|row| row.segment == group.row.segment && row.key == key)
}

#[test]
fn an_event_that_counts_twice_is_named() {
    in_time(async {
        let (mut world, group) = streamed(|_| true).await;
        let (row, count, hash) = (group.row.at.row, group.row.count, group.events[0].hash);
        let file = group.row.at.file.clone();
        world.change(Table::StreamCounts, &file, Box::new(|rows| counted(rows, row, 1, hash))).await;
        let expected = Expected::of(Class::CountedTwice, TABLE, &group, &group.events[..1]);
        hold(&world.audit(true).await, &[expected.clone().numbers(count, count + 1)]);
        hold(&world.audit(false).await, &[expected]);
    });
}

#[test]
fn an_event_that_is_dropped_is_lost() {
    in_time(async {
        let (mut world, group) = streamed(many).await;
        let (row, count, hash) = (group.row.at.row, group.row.count, group.events[0].hash);
        let file = group.row.at.file.clone();
        world.change(Table::StreamCounts, &file, Box::new(|rows| counted(rows, row, -1, hash))).await;
        let expected = Expected::of(Class::Lost, TABLE, &group, &group.events[..1]);
        hold(&world.audit(true).await, &[expected.numbers(count, count - 1)]);
    });
}

#[test]
fn a_row_that_is_moved_is_in_a_wrong_minute() {
    in_time(async {
        let one = |seen: &Seen| seen.streamed().into_iter().find(|group| is_free(seen, group));
        let (mut world, group) = pick(one).await;
        let (row, file) = (group.row.at.row, group.row.at.file.clone());
        world.change(Table::StreamCounts, &file, Box::new(|rows| moved(rows, "minute", row, 1))).await;
        let expected = Expected::of(Class::WrongMinute, TABLE, &group, &group.events).numbers(group.row.count, 0);
        hold(&world.audit(true).await, &[expected]);
    });
}

#[test]
fn a_sum_that_is_another_is_a_wrong_value() {
    in_time(async {
        let (mut world, group) = streamed(has_values).await;
        let (row, file, count) = (group.row.at.row, group.row.at.file.clone(), group.row.count);
        world.change(Table::StreamCounts, &file, Box::new(|rows| plus_decimal(rows, "value_sum", row, 1))).await;
        let expected = Expected::of(Class::WrongValue, TABLE, &group, &[]).numbers(count, count);
        hold(&world.audit(true).await, &[expected]);
    });
}

fn a_segment(seen: &Seen) -> Option<Segment> {
    seen.uncovered().find(|segment| segment.accepted > 3).cloned()
}

fn of_segment(class: Class, segment: &Segment) -> Expected {
    Expected { segment: Some((segment.partition, segment.start, segment.end)), ..Expected::new(class, TABLE) }
}

#[test]
fn a_summary_that_does_not_add_up_is_unbalanced() {
    in_time(async {
        let (mut world, segment) = pick(a_segment).await;
        let (row, file) = (segment.at.row, segment.at.file.clone());
        world.change(Table::StreamCounts, &file, Box::new(|rows| plus(rows, "accepted", row, 1))).await;
        hold(&world.audit(true).await, &[of_segment(Class::Unbalanced, &segment)]);
    });
}

#[test]
fn a_summary_that_adds_up_and_says_more_than_the_log_has_is_unbalanced() {
    in_time(async {
        let (mut world, segment) = pick(a_segment).await;
        let (row, file) = (segment.at.row, segment.at.file.clone());
        let change = |rows: &RecordBatch| plus(&plus(rows, "accepted", row, 1), "duplicate", row, 1);
        world.change(Table::StreamCounts, &file, Box::new(change)).await;
        let expected = of_segment(Class::Unbalanced, &segment).numbers(segment.accepted, segment.accepted + 1);
        hold(&world.audit(true).await, &[expected]);
    });
}

/// All rows of a segment.
fn rows_of(seen: &Seen, segment: &Segment) -> Vec<usize> {
    let place = Some((segment.partition, segment.start, segment.end));
    let own = seen.stream.iter().filter(|row| row.segment == place && row.at.file == segment.at.file);
    std::iter::once(segment.at.row).chain(own.map(|row| row.at.row)).collect()
}

#[test]
fn a_segment_that_is_gone_is_a_hole() {
    in_time(async {
        let (mut world, segment) = pick(a_segment).await;
        let (rows, file) = (rows_of(&world.seen, &segment), segment.at.file.clone());
        world.change(Table::StreamCounts, &file, Box::new(|batch| without(batch, &rows))).await;
        hold(&world.audit(true).await, &[of_segment(Class::OffsetHole, &segment)]);
    });
}

#[test]
fn a_segment_that_is_there_twice_counts_twice() {
    in_time(async {
        let (mut world, segment) = pick(a_segment).await;
        let (rows, file) = (rows_of(&world.seen, &segment), segment.at.file.clone());
        world.add(Table::StreamCounts, &file, Box::new(|batch| only(batch, &rows))).await;
        hold(&world.audit(true).await, &[of_segment(Class::CountedTwice, &segment)]);
    });
}

async fn bad_file(class: Class) {
    let (world, segment) = pick(a_segment).await;
    let file = segment.at.file.clone();
    match class {
        Class::MissingFile => world.lose(Table::StreamCounts, &file).await,
        _ => world.flip(Table::StreamCounts, &file).await,
    }
    let expected = Expected { file: Some(file.path), ..Expected::new(class, TABLE) };
    hold(&world.audit(true).await, &[expected]);
}

#[test]
fn a_file_that_is_gone_is_missing() {
    in_time(bad_file(Class::MissingFile));
}

#[test]
fn a_file_in_which_a_bit_has_flipped_is_corrupt() {
    in_time(bad_file(Class::CorruptFile));
}
