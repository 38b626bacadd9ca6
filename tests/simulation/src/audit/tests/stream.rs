//! Damage of `stream_counts`.

use arrow::array::RecordBatch;
use reckon_audit::finding::Class;
use reckon_audit::report::model::Report;
use reckon_data::minute::date_of_minute;
use reckon_data::table::{DataFile, Table};

use super::super::damage::{counted, moved, only, plus, plus_decimal, without};
use super::super::look::{Group, Seen, Segment};
use super::super::world::{World, in_time};
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

/// Repeats on which another window has decided.
fn of_another_window(report: &Report) -> u64 {
    let told = report.findings.iter().filter(|found| found.class == Class::DuplicatePastWindow);
    told.filter(|found| found.partition.is_some()).map(|found| found.events).sum()
}

#[test]
fn a_window_that_was_changed_since_makes_no_segment_wrong() {
    let (mut raised, mut lowered) = (0, 0);
    for seed in 1..=8 {
        in_time(async {
            let mut world = World::plain(seed).await;
            for (window, told) in [(14, &mut raised), (1, &mut lowered)] {
                world.durable.settings.stream.dedup_minutes = window;
                for reads_log in [true, false] {
                    let report = world.audit(reads_log).await;
                    hold(&report, &[]);
                    *told += of_another_window(&report);
                }
            }
        });
    }
    assert!(raised > 0, "no repeat came between the two windows");
    assert_eq!(lowered, 0, "a shorter window drops nothing that a longer one has let through");
}

#[test]
fn what_is_lost_or_doubled_is_found_whatever_the_window_has_become() {
    for (by, class) in [(1, Class::CountedTwice), (-1, Class::Lost)] {
        in_time(async {
            let (mut world, group) = streamed(many).await;
            let (row, count, hash) = (group.row.at.row, group.row.count, group.events[0].hash);
            let file = group.row.at.file.clone();
            world.change(Table::StreamCounts, &file, Box::new(|rows| counted(rows, row, by, hash))).await;
            let expected = Expected::of(class, TABLE, &group, &group.events[..1]).numbers(count, count + by);
            for window in [1, 14] {
                world.durable.settings.stream.dedup_minutes = window;
                hold(&world.audit(true).await, std::slice::from_ref(&expected));
            }
        });
    }
}

/// Which window it was nobody knows then; that a repeat was dropped is no loss in any case.
#[test]
fn repeats_are_only_told_where_a_segment_says_to_have_remembered_nothing() {
    in_time(async {
        let mut world = World::plain(1).await;
        let segments = std::mem::take(&mut world.seen.segments);
        let mut files: Vec<DataFile> = Vec::new();
        for segment in &segments {
            if !files.contains(&segment.at.file) {
                files.push(segment.at.file.clone());
            }
        }
        for file in files {
            let own = segments.iter().filter(|segment| segment.at.file == file && segment.duplicate > 0);
            let rows: Vec<usize> = own.map(|segment| segment.at.row).collect();
            let far = 1 << 30;
            let change = |batch: &RecordBatch| {
                rows.iter().fold(batch.clone(), |batch, row| plus(&batch, "refill_offset", *row, far))
            };
            world.change(Table::StreamCounts, &file, Box::new(change)).await;
        }
        let report = world.audit(true).await;
        hold(&report, &[]);
        assert!(of_another_window(&report) > 0);
    });
}
