//! Damage of `batch_counts`.

use arrow::array::RecordBatch;
use reckon_audit::finding::Class;
use reckon_audit::report::model::Report;
use reckon_data::log::Log as _;
use reckon_data::minute::{date_of_minute, format_date, minute_of, parse_date};
use reckon_data::paths::Transaction;
use reckon_data::table::{DataFile, Step, Table, Tables as _};

use super::super::damage::{counted, moved, once_more, only, plus, plus_decimal, with_text, without};
use super::super::look::{Counted, Group, Seen};
use super::super::world::{World, in_time};
use super::{Expected, has_values, hold, hold_all, minute, pick};

const TABLE: &str = "batch_counts";
/// A hash that no event has.
const NOBODY: i64 = 0x0123_4567_89ab_cdef;

fn many(group: &Group) -> bool {
    (2..=3).contains(&group.row.count)
}

fn of_batch(class: Class, group: &Group, events: usize) -> Expected {
    Expected::of(class, TABLE, group, &group.events[..events])
}

/// Whether no row of batch is about the same as a row, in another minute.
fn is_free(seen: &Seen, group: &Group, minute: i64) -> bool {
    let (entity, kind, country, at) = &group.row.key;
    let key = (entity.clone(), kind.clone(), country.clone(), minute);
    date_of_minute(*at) == date_of_minute(minute)
        && !seen.batch.iter().any(|row| row.key == key)
        && !seen.raw.iter().any(|event| event.key == key)
}

#[test]
fn an_event_that_is_dropped_from_a_minute_is_lost() {
    in_time(async {
        let (mut world, group) = minute(many).await;
        let (row, count, hash) = (group.row.at.row, group.row.count, group.events[0].hash);
        let file = group.row.at.file.clone();
        world.change(Table::BatchCounts, &file, Box::new(|rows| counted(rows, row, -1, hash))).await;
        let expected = of_batch(Class::Lost, &group, 1).numbers(count, count - 1);
        hold(&world.audit(true).await, std::slice::from_ref(&expected));
        hold(&world.audit(false).await, &[expected]);
    });
}

/// Drops an event of a hash from a row's minute, hour and day.
async fn drop_everywhere(world: &mut World, group: &Group, hash: i64) {
    for granularity in ["minute", "hour", "day"] {
        let row = of(&world.seen, group, granularity).clone();
        let change = |rows: &RecordBatch| counted(rows, row.at.row, -1, hash);
        world.change(Table::BatchCounts, &row.at.file, Box::new(change)).await;
    }
}

/// The dates whose counts may be the only record of events.
fn doubtful(report: &Report) -> Vec<&str> {
    report.dates.iter().filter(|line| line.doubtful).map(|line| line.date.as_str()).collect()
}

#[test]
fn an_event_that_is_dropped_from_minute_hour_and_day_is_lost_once() {
    in_time(async {
        let (mut world, group) = minute(many).await;
        drop_everywhere(&mut world, &group, group.events[0].hash).await;
        let count = group.row.count;
        let expected = of_batch(Class::Lost, &group, 1).numbers(count, count - 1);
        for reads_log in [true, false] {
            let report = world.audit(reads_log).await;
            hold(&report, std::slice::from_ref(&expected));
            assert_eq!(doubtful(&report), Vec::<&str>::new(), "the fingerprints show that it is this event");
        }
    });
}

#[test]
fn a_loss_that_no_fingerprint_proves_makes_a_date_doubtful_unless_the_log_is_whole() {
    in_time(async {
        let (mut world, group) = minute(many).await;
        drop_everywhere(&mut world, &group, NOBODY).await;
        let count = group.row.count;
        // It may be any of them.
        let expected = Expected::of(Class::Lost, TABLE, &group, &group.events).numbers(count, count - 1);
        let report = world.audit(true).await;
        hold(&report, std::slice::from_ref(&expected));
        assert_eq!(doubtful(&report), Vec::<&str>::new(), "the log has all raw events that there should be");
        let report = world.audit(false).await;
        hold(&report, &[expected]);
        assert_eq!(doubtful(&report), [format_date(date_of_minute(group.row.key.3)).as_str()]);
    });
}

/// The row of a granularity in which a group's events are counted.
fn of<'a>(seen: &'a Seen, group: &Group, granularity: &str) -> &'a Counted {
    let (entity, kind, country, at) = &group.row.key;
    let step = match granularity {
        "minute" => 1,
        "hour" => 60,
        _ => 1_440,
    };
    let key = (entity.clone(), kind.clone(), country.clone(), at.div_euclid(step) * step);
    seen.batch.iter().find(|row| row.key == key && row.granularity.as_deref() == Some(granularity)).unwrap()
}

#[test]
fn an_event_that_counts_twice_is_named() {
    in_time(async {
        let (mut world, group) = minute(|_| true).await;
        let (row, count, hash) = (group.row.at.row, group.row.count, group.events[0].hash);
        let file = group.row.at.file.clone();
        world.change(Table::BatchCounts, &file, Box::new(|rows| counted(rows, row, 1, hash))).await;
        let expected = of_batch(Class::CountedTwice, &group, 1).numbers(count, count + 1);
        hold(&world.audit(true).await, &[expected]);
    });
}

#[test]
fn one_lost_and_one_doubled_in_the_same_minute_are_both_named() {
    in_time(async {
        let (mut world, group) = minute(many).await;
        let (row, lost, doubled) = (group.row.at.row, group.events[0].hash, group.events[1].hash);
        let file = group.row.at.file.clone();
        let change = |rows: &RecordBatch| counted(&counted(rows, row, -1, lost), row, 1, doubled);
        world.change(Table::BatchCounts, &file, Box::new(change)).await;
        let count = group.row.count;
        let expected = [
            of_batch(Class::Lost, &group, 1).numbers(count, count),
            Expected::of(Class::CountedTwice, TABLE, &group, &group.events[1..2]).numbers(count, count),
        ];
        hold(&world.audit(true).await, &expected);
    });
}

#[test]
fn an_event_that_counts_in_the_next_minute_is_in_a_wrong_minute() {
    in_time(async {
        let next = |seen: &Seen| {
            let groups = seen.minutes();
            let is_next = |group: &&Group| many(group) && is_free(seen, group, group.row.key.3 + 1);
            groups.iter().find(is_next).cloned()
        };
        let (mut world, group) = pick(next).await;
        let (row, count, hash) = (group.row.at.row, group.row.count, group.events[0].hash);
        let file = group.row.at.file.clone();
        let change = |rows: &RecordBatch| {
            let rows = once_more(rows, row);
            let last = rows.num_rows() - 1;
            let rows = counted(&moved(&rows, "minute", last, 1), row, -1, hash);
            // What is left of the copied row is this one event.
            group.events[1..].iter().fold(rows, |rows, event| counted(&rows, last, -1, event.hash))
        };
        world.change(Table::BatchCounts, &file, Box::new(change)).await;
        let expected = of_batch(Class::WrongMinute, &group, 1).numbers(count, count - 1);
        hold(&world.audit(true).await, &[expected]);
    });
}

#[test]
fn a_row_that_is_moved_to_another_minute_is_in_a_wrong_minute() {
    in_time(async {
        let next = |seen: &Seen| seen.minutes().into_iter().find(|group| is_free(seen, group, group.row.key.3 + 1));
        let (mut world, group) = pick(next).await;
        let (row, file) = (group.row.at.row, group.row.at.file.clone());
        world.change(Table::BatchCounts, &file, Box::new(|rows| moved(rows, "minute", row, 1))).await;
        let expected = Expected::of(Class::WrongMinute, TABLE, &group, &group.events).numbers(group.row.count, 0);
        hold(&world.audit(true).await, &[expected]);
    });
}

#[test]
fn rows_whose_entities_are_exchanged_have_wrong_keys() {
    in_time(async {
        let two = |seen: &Seen| {
            let groups = seen.minutes();
            let pair = |a: &Group| {
                let is_other = |b: &&Group| {
                    let same_row = a.row.key.1 == b.row.key.1 && a.row.key.2 == b.row.key.2;
                    let same_file = a.row.at.file == b.row.at.file && a.row.key.3 == b.row.key.3;
                    same_row && same_file && a.row.key.0 < b.row.key.0
                };
                groups.iter().find(is_other).map(|b| (a.clone(), b.clone()))
            };
            groups.iter().find_map(pair)
        };
        let (mut world, (a, b)) = pick(two).await;
        let change = |rows: &RecordBatch| {
            let rows = with_text(rows, "entity_id", a.row.at.row, Some(&b.row.key.0));
            with_text(&rows, "entity_id", b.row.at.row, Some(&a.row.key.0))
        };
        world.change(Table::BatchCounts, &a.row.at.file, Box::new(change)).await;
        let report = world.audit(true).await;
        // Either row says it for both.
        let [found] = super::errors(&report)[..] else { panic!("{:#?}", super::errors(&report)) };
        let group = if found.entity_id.as_ref() == Some(&a.row.key.0) { &a } else { &b };
        hold(&report, &[Expected::of(Class::WrongKey, TABLE, group, &group.events)]);
    });
}

async fn changed_key(column: &'static str, value: &'static str) {
    let (mut world, group) = minute(|_| true).await;
    let (row, file) = (group.row.at.row, group.row.at.file.clone());
    world.change(Table::BatchCounts, &file, Box::new(|rows| with_text(rows, column, row, Some(value)))).await;
    let expected = Expected::of(Class::WrongKey, TABLE, &group, &group.events).numbers(group.row.count, 0);
    hold(&world.audit(true).await, &[expected]);
}

#[test]
fn a_row_with_another_type_has_a_wrong_key() {
    in_time(changed_key("event_type", "shown"));
}

#[test]
fn a_row_with_another_country_has_a_wrong_key() {
    in_time(changed_key("country", "AQ"));
}

#[test]
fn a_row_that_no_event_accounts_for_is_extra() {
    in_time(async {
        let (mut world, group) = minute(|_| true).await;
        let (row, file) = (group.row.at.row, group.row.at.file.clone());
        let change = |rows: &RecordBatch| {
            let rows = once_more(rows, row);
            let last = rows.num_rows() - 1;
            counted(&with_text(&rows, "entity_id", last, Some("v-of-nobody")), last, 1, NOBODY)
        };
        world.change(Table::BatchCounts, &file, Box::new(change)).await;
        let mut expected = Expected::new(Class::ExtraRows, TABLE).numbers(0, group.row.count + 1);
        expected.entity = Some("v-of-nobody".to_owned());
        hold(&world.audit(true).await, &[expected]);
    });
}

#[test]
fn rows_that_are_deleted_are_lost() {
    in_time(async {
        let three = |seen: &Seen| {
            let groups = seen.minutes();
            let file = &groups.first()?.row.at.file;
            let own: Vec<Group> = groups.iter().filter(|group| group.row.at.file == *file).take(3).cloned().collect();
            (own.len() == 3).then_some(own)
        };
        let (mut world, groups) = pick(three).await;
        let rows: Vec<usize> = groups.iter().map(|group| group.row.at.row).collect();
        let file = groups[0].row.at.file.clone();
        world.change(Table::BatchCounts, &file, Box::new(|batch| without(batch, &rows))).await;
        let lost = |group: &Group| Expected::of(Class::Lost, TABLE, group, &group.events).numbers(group.row.count, 0);
        hold(&world.audit(true).await, &groups.iter().map(lost).collect::<Vec<Expected>>());
    });
}

async fn wrong_step(granularity: &'static str) {
    let (mut world, group) = minute(|_| true).await;
    let row = of(&world.seen, &group, granularity).clone();
    let (at, hash) = (row.at.row, group.events[0].hash);
    world.change(Table::BatchCounts, &row.at.file, Box::new(|rows| counted(rows, at, 1, hash))).await;
    let mut expected = Expected::new(Class::RollupMismatch, TABLE).numbers(row.count, row.count + 1);
    expected.entity = Some(row.key.0);
    hold(&world.audit(true).await, &[expected]);
}

#[test]
fn a_wrong_hour_is_not_what_its_minutes_make() {
    in_time(wrong_step("hour"));
}

#[test]
fn a_wrong_day_is_not_what_its_minutes_make() {
    in_time(wrong_step("day"));
}

#[test]
fn a_count_that_its_fingerprint_belies_is_a_wrong_value() {
    in_time(async {
        let (mut world, group) = minute(|_| true).await;
        let (row, file, count) = (group.row.at.row, group.row.at.file.clone(), group.row.count);
        world.change(Table::BatchCounts, &file, Box::new(|rows| plus(rows, "count", row, 1))).await;
        let expected = Expected::of(Class::WrongValue, TABLE, &group, &[]).numbers(count, count + 1);
        hold(&world.audit(true).await, &[expected]);
    });
}

async fn changed_value(column: &'static str, by: i128) {
    let (mut world, group) = minute(has_values).await;
    let (row, file, count) = (group.row.at.row, group.row.at.file.clone(), group.row.count);
    world.change(Table::BatchCounts, &file, Box::new(|rows| plus_decimal(rows, column, row, by))).await;
    let expected = Expected::of(Class::WrongValue, TABLE, &group, &[]).numbers(count, count);
    hold(&world.audit(true).await, &[expected]);
}

#[test]
fn a_sum_that_is_another_is_a_wrong_value() {
    in_time(changed_value("value_sum", 1));
}

#[test]
fn a_smallest_value_that_is_another_is_a_wrong_value() {
    in_time(changed_value("value_min", -1));
}

#[test]
fn a_largest_value_that_is_another_is_a_wrong_value() {
    in_time(changed_value("value_max", 1));
}

#[test]
fn late_events_that_are_more_are_a_wrong_value() {
    in_time(async {
        let (mut world, group) = minute(|_| true).await;
        let (row, file, count) = (group.row.at.row, group.row.at.file.clone(), group.row.count);
        world.change(Table::BatchCounts, &file, Box::new(|rows| plus(rows, "late", row, 1))).await;
        let expected = Expected::of(Class::WrongValue, TABLE, &group, &[]).numbers(count, count);
        hold(&world.audit(true).await, &[expected]);
    });
}

#[test]
fn a_row_that_is_split_in_two_is_extra_although_both_add_up() {
    in_time(async {
        let is_plain = |group: &Group| {
            let on_time = |event: &super::Raw| minute_of(event.received) - group.row.key.3 <= 1;
            many(group) && group.events.iter().all(|event| event.value.is_none() && on_time(event))
        };
        let (mut world, group) = minute(is_plain).await;
        let (row, file, count) = (group.row.at.row, group.row.at.file.clone(), group.row.count);
        let (one, others) = group.events.split_first().unwrap();
        let change = |rows: &RecordBatch| {
            let rows = once_more(rows, row);
            let last = rows.num_rows() - 1;
            let rows = counted(&rows, row, -1, one.hash);
            others.iter().fold(rows, |rows, event| counted(&rows, last, -1, event.hash))
        };
        world.change(Table::BatchCounts, &file, Box::new(change)).await;
        let expected = Expected::of(Class::ExtraRows, TABLE, &group, &[]).numbers(count, count);
        hold(&world.audit(true).await, &[expected]);
    });
}

async fn bad_file(class: Class) {
    let (world, group) = minute(|_| true).await;
    let file = group.row.at.file.clone();
    match class {
        Class::MissingFile => world.lose(Table::BatchCounts, &file).await,
        _ => world.flip(Table::BatchCounts, &file).await,
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

#[test]
fn counts_of_an_older_run_below_newer_coverage_are_stale() {
    in_time(async {
        let mut world = World::plain(3).await;
        let now = world.durable.tables.snapshot(Table::BatchCounts).await.unwrap();
        let is_in = |files: &[DataFile], file: &DataFile| files.iter().any(|other| other.path == file.path);
        let back = world.first.files.iter().filter(|file| !is_in(&now.files, file)).cloned().collect();
        let gone = now.files.iter().filter(|file| !is_in(&world.first.files, file)).cloned().collect();
        world.commit(Table::BatchCounts, Vec::new(), back, gone).await;
        hold_all(&world.audit(true).await, Class::StaleCoverage, TABLE);
        hold_all(&world.audit(false).await, Class::StaleCoverage, TABLE);
    });
}

#[test]
fn coverage_that_is_ahead_of_what_was_counted_is_stale() {
    in_time(async {
        let mut world = World::plain(4).await;
        let (log, covered) = (world.durable.log.identity(), world.seen.coverage.clone());
        // In the middle of a partition's uncovered events, behind some of them.
        let ahead = world.seen.raw.iter().filter(|event| event.offset > covered[event.partition as usize] + 4);
        let (partition, to) = ahead.map(|event| (event.partition, event.offset)).next().unwrap();
        let from = covered[partition as usize] as i64;
        let step = Step { name: Transaction::Batch(log, partition).to_string(), from, to: to as i64 };
        world.commit(Table::BatchCounts, vec![step], Vec::new(), Vec::new()).await;
        hold_all(&world.audit(true).await, Class::StaleCoverage, TABLE);
    });
}

#[test]
fn most_rows_of_a_day_that_are_gone_are_lost_events_or_stale_coverage_and_nothing_else() {
    in_time(async {
        let (mut world, group) = minute(|_| true).await;
        let file = group.row.at.file.clone();
        world.change(Table::BatchCounts, &file, Box::new(|rows| only(rows, &[0]))).await;
        let report = world.audit(true).await;
        let found = super::errors(&report);
        assert!(!found.is_empty());
        for finding in found {
            assert!(matches!(finding.class, Class::Lost | Class::StaleCoverage), "{finding:#?}");
            assert_eq!(finding.table, TABLE);
        }
    });
}

/// There is nothing left to hold them to.
#[test]
fn hours_of_a_date_that_retention_has_closed_do_not_differ() {
    in_time(async {
        let mut world = World::plain(1).await;
        let date_of = |file: &DataFile| parse_date(file.partition["event_date"].as_deref().unwrap()).unwrap();
        let counts = world.durable.tables.snapshot(Table::BatchCounts).await.unwrap();
        let date = counts.files.iter().map(date_of).min().unwrap();
        let events = world.durable.tables.snapshot(Table::Events).await.unwrap();
        let gone = events.files.iter().filter(|file| date_of(file) <= date).cloned().collect();
        let (name, to) = (Transaction::Closed.to_string(), i64::from(date) + 1);
        let step = Step { from: events.transaction(&name), name, to };
        world.commit(Table::Events, vec![step], Vec::new(), gone).await;
        let report = world.audit(true).await;
        let date = format_date(date);
        let line = report.dates.iter().find(|line| line.date == date).unwrap();
        assert!(line.closed && line.expected == 0 && line.minute > 0, "{line:?}");
        assert!(report.hours.iter().all(|hour| !(hour.differs || hour.hour.starts_with(&date))), "{:?}", report.hours);
        assert!(!report.hours.is_empty(), "other dates have theirs");
    });
}
