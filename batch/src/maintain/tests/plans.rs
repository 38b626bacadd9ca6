//! What is worth doing.

use reckon_data::run::Granularity;

use super::*;
use crate::maintain::plan::{CoverageHistory, Place, Rules, covered_files, event_pieces, roll_ups};

fn file(path: &str, bytes: u64, numbers: &[(&str, i64, i64)]) -> DataFile {
    let ends = |pick: fn(&(&str, i64, i64)) -> i64| {
        numbers.iter().map(|number| (number.0.to_owned(), pick(number).into())).collect()
    };
    let partition = BTreeMap::from([("event_date".to_owned(), Some(format_date(today())))]);
    DataFile { path: path.to_owned(), bytes, rows: 1, partition, min: ends(|n| n.1), max: ends(|n| n.2) }
}

fn event_file(path: &str, bytes: u64, offset: i64) -> DataFile {
    file(path, bytes, &[("log_partition", 0, 0), ("log_offset", offset, offset)])
}

#[test]
fn few_files_and_large_files_are_left_alone() {
    let rules = Rules { target_bytes: 400, files_min: 3 };
    let mut files: Vec<DataFile> = (0..3).map(|n| event_file(&n.to_string(), 99, n)).collect();
    files.push(event_file("large", 100, 9));
    assert_eq!(event_pieces(&files, None, &[0], rules), []);
    files.push(event_file("small", 1, 10));
    let pieces = event_pieces(&files, None, &[0], rules);
    assert_eq!(pieces.len(), 1);
    assert_eq!(pieces[0].files.len(), 4);
    assert_eq!(pieces[0].place, Place { partitions: (0, 0), start: 0, end: 11 });
}

#[test]
fn a_large_group_is_done_in_pieces() {
    let rules = Rules { target_bytes: 400, files_min: 3 };
    let files: Vec<DataFile> = (0..40).map(|n| event_file(&n.to_string(), 99, n)).collect();
    let pieces = event_pieces(&files, None, &[0], rules);
    assert_eq!(pieces.iter().map(|piece| piece.files.len()).collect::<Vec<_>>(), [16, 16, 8]);
}

#[test]
fn a_file_without_statistics_is_never_touched() {
    let rules = Rules { target_bytes: 400, files_min: 0 };
    let files = vec![file("a", 1, &[]), file("b", 1, &[])];
    assert_eq!(event_pieces(&files, None, &[9], rules), []);
    assert_eq!(covered_files(&files, &[9], &[9]), []);
}

#[test]
fn a_mixed_file_stays_for_any_partition_that_needs_it() {
    let mixed = |end| file("m", 1, &[("log_partition", 0, 1), ("segment_start", 0, 90), ("segment_end", 10, end)]);
    assert_eq!(covered_files(&[mixed(100)], &[100, 100], &[200, 100]), [], "partition 1 was sealed last there");
    assert_eq!(covered_files(&[mixed(100)], &[100, 99], &[200, 200]), [], "partition 1 is not covered so far");
    assert_eq!(covered_files(&[mixed(100)], &[100, 100], &[200, 200]).len(), 1);
}

#[test]
fn coverage_counts_once_it_was_seen_long_enough_ago() {
    let mut history = CoverageHistory::default();
    assert_eq!(history.note(100, &[5], 10), [0]);
    assert_eq!(history.note(105, &[6], 10), [0]);
    assert_eq!(history.note(110, &[7], 10), [5]);
    assert_eq!(history.note(114, &[7], 10), [5]);
    assert_eq!(history.note(200, &[8], 10), [7]);
    assert_eq!(history.note(50, &[8], 10), [0], "a clock set back makes it wait, not hurry");
    assert_eq!(history.note(60, &[8], 10), [8]);
}

#[tokio::test]
async fn what_is_kept_for_longer_than_there_is_time_is_kept() {
    let mut world = World::new();
    world.settings.retention.events_days = Some(u32::MAX);
    world.settings.retention.dead_letters_days = Some(u32::MAX);
    world.add_events(today() - 31, 0, 0, &[(0, 1, 5, 0)]).await;
    world.cover([1, 0]).await;
    assert_eq!(world.maintainer().expire_events().await.unwrap(), Outcome::Done(0));
    assert_eq!(world.maintainer().expire_dead_letters().await.unwrap(), Outcome::Done(0));
}

#[test]
fn a_date_is_rolled_up_only_where_something_coarser_stands_for_it() {
    let count_file = |date: i32, granularity: &str| {
        let named = |name: &str, value: String| (name.to_owned(), Some(value));
        let partition = [named("granularity", granularity.to_owned()), named("event_date", format_date(date))];
        DataFile { partition: BTreeMap::from(partition), ..file(&format!("{date}-{granularity}"), 1, &[]) }
    };
    let all = |date: i32| ["minute", "hour", "day"].map(|granularity| count_file(date, granularity));
    let mut files: Vec<DataFile> = [10, 20, 30].into_iter().flat_map(all).collect();
    // This one lacks its hours, and nothing would be left of an hour of it.
    files.extend([count_file(11, "minute"), count_file(11, "day")]);
    let planned = |minutes: Option<i32>, hours: Option<i32>| -> Vec<(i32, Vec<Granularity>)> {
        let planned = roll_ups(&files, minutes, hours);
        planned.into_iter().map(|roll_up| (roll_up.date, roll_up.gone.into_keys().collect())).collect()
    };
    let minute = || vec![Granularity::Minute];
    assert!(planned(None, None).is_empty());
    assert_eq!(planned(Some(30), None), [(10, minute()), (20, minute())]);
    // Where hours go as well, days stand for both.
    let both = || vec![Granularity::Minute, Granularity::Hour];
    assert_eq!(planned(Some(30), Some(11)), [(10, both()), (20, minute())]);
    assert_eq!(planned(Some(31), Some(12)).first(), Some(&(10, both())));
    assert!(planned(Some(31), Some(12)).contains(&(11, minute())));
}
