//! Dates in memory whose counts lack some events.
#![allow(clippy::unwrap_used)]

use std::ops::Range;

use reckon_data::table::DataFile;

use super::super::conclude::conclude;
use super::super::explain::Known;
use super::super::testing::{DATE, Set};
use super::*;

fn check(set: &Set) -> DateCheck<'_> {
    let coverage = Arc::new(vec![u64::MAX]);
    DateCheck { scanner: &set.0, coverage, seed: 7, served: 0, closed: 0, rolled: Rolled::default() }
}

async fn run(set: &Set, files: &DateFiles) -> DateChecked {
    let (mut places, mut hashes) = (ByPlace::new(), FileHashes::default());
    check(set).run(DATE, files, &mut places, &mut hashes).await.unwrap()
}

/// A date of 200 events, of which 100 may be compared one by one at once; its counts lack the last five.
async fn large() -> (Set, DateFiles) {
    let set = Set::new(2_134);
    assert_eq!(set.0.rows_max(), 100);
    let events = vec![set.events("a", 0..100).await, set.events("b", 100..200).await];
    let mut counts = Vec::new();
    for granularity in Granularity::ALL {
        counts.push(set.counts(granularity, 0..195).await);
    }
    (set, DateFiles { events, counts })
}

#[tokio::test]
async fn rows_that_differ_are_found_when_a_large_date_is_read_once_more() {
    let (set, files) = large().await;
    let checked = run(&set, &files).await;
    for granularity in Granularity::ALL {
        let diffs = &checked.diffs[&granularity];
        let mut entities: Vec<&str> = diffs.iter().map(|diff| diff.key.entity.as_str()).collect();
        entities.sort_unstable();
        assert_eq!(entities, ["v195", "v196", "v197", "v198", "v199"]);
    }
    assert_eq!(checked.events.values().map(Vec::len).sum::<usize>(), 5);
    assert!((2..=6).contains(&checked.compared.count_ones()) && !checked.more && checked.bad.is_empty());
}

/// Reads half of the buckets once more after a file has gone, as if nothing had been found before.
async fn look_without(lost: impl Fn(&DateFiles) -> (Table, DataFile)) -> DateChecked {
    let (set, files) = large().await;
    let mut checked = run(&set, &files).await;
    checked.diffs.clear();
    let (table, file) = lost(&files);
    set.lose(table, &file).await;
    check(&set).look(&mut checked, &files, u64::from(u16::MAX), 200).await.unwrap();
    assert_eq!(checked.bad.iter().map(|bad| bad.path.as_str()).collect::<Vec<&str>>(), [file.path.as_str()]);
    // What was to be looked at is not; and no row is missing only because its file is.
    assert!(checked.more);
    let findings = conclude(&checked, &Known::default(), true).findings;
    assert!(findings.iter().all(|finding| finding.entity_id.is_none()), "{findings:#?}");
    checked
}

#[tokio::test]
async fn raw_events_that_have_gone_since_are_told_and_make_no_rows_differ() {
    let checked = look_without(|files| (Table::Events, files.events[0].clone())).await;
    assert!(!checked.raw_whole && checked.diffs.is_empty());
}

#[tokio::test]
async fn counts_that_have_gone_since_are_told_and_make_no_rows_differ() {
    let checked = look_without(|files| (Table::BatchCounts, files.counts[0].clone())).await;
    assert!(checked.raw_whole && !checked.diffs.contains_key(&Granularity::Minute));
}

/// How many events there are where more rows differ than are kept.
const MANY: i64 = ROWS_MAX as i64 + 100;

#[tokio::test]
async fn of_many_rows_that_are_gone_those_that_are_explained_are_kept_and_the_others_counted() {
    let set = Set::new(1 << 20);
    let files = DateFiles { events: vec![set.events("a", 0..MANY).await], counts: Vec::new() };
    let checked = run(&set, &files).await;
    for granularity in Granularity::ALL {
        assert_eq!((checked.diffs[&granularity].len(), checked.left_out[&granularity]), (ROWS_MAX + 1, 99));
    }
    assert_eq!(checked.events.len(), ROWS_MAX + 1);
    // Nothing is counted at all. Of hours and days nothing is said: not all minutes are there to add up to them.
    let findings = conclude(&checked, &Known::default(), true).findings;
    let classes: Vec<Class> = findings.iter().map(|finding| finding.class).collect();
    assert_eq!(classes, [Class::StaleCoverage, Class::Lost]);
    assert!(findings[1].explanation.starts_with("100 more rows differ"), "{findings:#?}");
}

#[tokio::test]
async fn hours_that_are_too_many_to_be_told_one_by_one_are_counted() {
    let set = Set::new(1 << 20);
    let counts = vec![set.counts(Granularity::Minute, 0..MANY).await, set.counts(Granularity::Day, 0..MANY).await];
    let files = DateFiles { events: vec![set.events("a", 0..MANY).await], counts };
    let findings = conclude(&run(&set, &files).await, &Known::default(), true).findings;
    assert_eq!(findings.len(), ROWS_MAX + 2);
    assert!(findings.iter().all(|finding| finding.class == Class::RollupMismatch));
    let rest: Vec<&str> = (findings.iter())
        .filter(|finding| finding.entity_id.is_none())
        .map(|finding| finding.explanation.as_str())
        .collect();
    assert_eq!(rest, ["99 more rows per hour differ than were looked at one by one"]);
}

/// The date, of 200 events and with hours and days of some of them alone.
async fn rolled_up(hours: Range<i64>, days: Range<i64>, rolled: Rolled, closed: i64) -> DateChecked {
    let set = Set::new(1 << 20);
    let counts = vec![set.counts(Granularity::Hour, hours).await, set.counts(Granularity::Day, days).await];
    let files = DateFiles { events: vec![set.events("a", 0..200).await], counts };
    let (mut places, mut hashes) = (ByPlace::new(), FileHashes::default());
    let check = DateCheck { rolled, closed, ..check(&set) };
    check.run(DATE, &files, &mut places, &mut hashes).await.unwrap()
}

/// The date has been rolled up to hours.
const HOURS_LEFT: Rolled = Rolled { minute: DATE as i64 + 1, hour: i64::MIN };

#[tokio::test]
async fn a_date_that_is_rolled_up_is_held_against_what_is_left_of_it() {
    let whole = rolled_up(0..200, 0..200, HOURS_LEFT, 0).await;
    assert!(whole.totals.balanced && whole.diffs.is_empty(), "{:?}", whole.totals);
    assert_eq!((whole.totals.rolled_up, whole.totals.finest()), (Some(Granularity::Hour), 200));
    assert_eq!(whole.agreeing, [Granularity::Hour, Granularity::Day]);
    assert_eq!(whole.hours.iter().map(|hour| (hour.expected, hour.found)).collect::<Vec<_>>(), [(200, 200)]);
    assert!(conclude(&whole, &Known::default(), true).findings.is_empty());
}

#[tokio::test]
async fn of_a_date_that_is_rolled_up_damage_is_found_in_its_hours_and_days() {
    let lost = rolled_up(5..200, 5..200, HOURS_LEFT, 0).await;
    assert!(!lost.totals.balanced);
    let findings = conclude(&lost, &Known::default(), true).findings;
    let mut found: Vec<(Class, &str, &str)> = (findings.iter())
        .map(|finding| (finding.class, finding.granularity.as_deref().unwrap(), finding.entity_id.as_deref().unwrap()))
        .collect();
    found.sort_by_key(|(.., entity)| *entity);
    assert_eq!(found, ["v0", "v1", "v2", "v3", "v4"].map(|entity| (Class::Lost, "hour", entity)));
    assert!(findings.iter().all(|finding| !finding.event_ids.is_empty()), "{findings:#?}");
    // Days alone are wrong.
    let days = rolled_up(0..200, 1..200, HOURS_LEFT, 0).await;
    let findings = conclude(&days, &Known::default(), true).findings;
    assert_eq!(findings.iter().map(|finding| finding.class).collect::<Vec<_>>(), [Class::RollupMismatch]);
    assert!(findings[0].explanation.contains("what its hours make of it"), "{}", findings[0].explanation);
}

#[tokio::test]
async fn minutes_that_are_gone_without_having_been_rolled_up_are_missed() {
    let checked = rolled_up(0..200, 0..200, Rolled::default(), 0).await;
    assert!(!checked.totals.balanced && checked.totals.rolled_up.is_none());
    assert_eq!(checked.diffs[&Granularity::Minute].len(), 200);
    let closed = rolled_up(0..200, 0..200, Rolled::default(), i64::MAX).await;
    assert_eq!(closed.closed_rollups.len(), 2);
}

#[tokio::test]
async fn a_closed_date_that_is_rolled_up_is_held_against_itself() {
    let right = rolled_up(0..300, 0..300, HOURS_LEFT, i64::MAX).await;
    assert!(right.totals.balanced && right.closed_rollups.is_empty(), "{:?}", right.closed_rollups);
    let wrong = rolled_up(0..300, 0..299, HOURS_LEFT, i64::MAX).await;
    let found: Vec<Option<&str>> = wrong.closed_rollups.iter().map(|finding| finding.granularity.as_deref()).collect();
    assert_eq!(found, [Some("day")]);
}
