//! Dates whose minutes, or hours, have been dropped: they are recounted and added to without.

use std::sync::Arc;

use reckon_data::config::{Archive, Retention};
use reckon_data::definition::Definition;
use reckon_data::jobs::RunRequest;
use reckon_data::log::Log as _;
use reckon_data::minute::format_date;
use reckon_data::paths::Transaction;
use reckon_data::run::Granularity;
use reckon_data::table::Table;

use super::modes::{KEPT, OLD, date, modes, rows};
use super::oracle::{Counts, Placed, Row, add};
use super::world::{DAY, MINUTE, World};
use crate::maintain::{Maintainer, MaintainerParts, Outcome, RolledUp};
use crate::recompute::Mode;

fn maintainer(world: &World, hours_days: Option<u32>) -> Maintainer {
    Maintainer::new(MaintainerParts {
        tables: world.archive.tables.clone(),
        store: Arc::clone(&world.archive.store),
        cold: None,
        clock: world.clock.clone(),
        names: world.archive.names.clone(),
        log: world.archive.log.identity(),
        partitions: world.archive.log.partitions(),
        archive: Archive::default(),
        retention: Retention { minutes_days: Some(10), hours_days, ..Retention::default() },
        compact: false,
        memory: 64 << 20,
        spill_dir: None,
    })
}

async fn roll_up(world: &World, hours_days: Option<u32>) -> RolledUp {
    match maintainer(world, hours_days).roll_up().await.unwrap() {
        Outcome::Done(done) => done,
        Outcome::Skipped(_, why) => panic!("{why}"),
    }
}

/// The counts that are left of those of the old date; others have all.
fn without(counts: Counts, gone: &[&str]) -> Counts {
    let is_old = |time: i64| (OLD..OLD + 1_440 * MINUTE).contains(&(time * MINUTE));
    counts.into_iter().filter(|(key, _)| !(gone.contains(&key.0) && is_old(key.3))).collect()
}

async fn world() -> (World, Vec<Placed>) {
    let world = World::with(2, Definition::default(), 300);
    let mut all = world.add(0, rows(1_000, 20, "a")).await;
    all.extend(world.add(1, vec![Row::view("today", "v1", DAY)]).await);
    world.run().await;
    (world, all)
}

#[tokio::test(flavor = "multi_thread")]
async fn minutes_of_old_dates_go_and_everything_else_stays() {
    let (world, all) = world().await;
    let done = roll_up(&world, None).await;
    assert_eq!((done.dates, done.hour_files), (1, 0));
    assert!(done.minute_files > 0);
    assert_eq!(world.counts().await, without(KEPT.count(&all), &["minute"]));
    let counts = world.snapshot(Table::BatchCounts).await;
    let mark = counts.transaction(&Transaction::Rolled(Granularity::Minute).to_string());
    assert_eq!(mark, i64::from(date()) + 1);
    // Once more there is nothing to do, and nothing is committed.
    assert_eq!(roll_up(&world, None).await, RolledUp::default());
    assert_eq!(world.snapshot(Table::BatchCounts).await.version, counts.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_of_a_date_without_minutes_add_to_its_hours_and_days() {
    let (world, mut all) = world().await;
    roll_up(&world, None).await;
    // Few: of their entities alone. Among them a repeat, and an entity that is new.
    let mut few = vec![Row::view("new", "v7", OLD + 5 * MINUTE), all[7].row.clone(), Row::view("new", "x", OLD)];
    few.push(Row { country: Some("FR"), value: Some(7), ..Row::view("fr", "v7", OLD + 5 * MINUTE) });
    all.extend(world.add(1, few).await);
    assert_eq!(modes(&world.run().await), [Mode::Entities]);
    assert_eq!(world.counts().await, without(KEPT.count(&all), &["minute"]));
    // Many, and on request: whole. What was dropped does not come back.
    all.extend(world.add(1, rows(200, 20, "b")).await);
    assert!(modes(&world.run().await).contains(&Mode::Full));
    assert_eq!(world.counts().await, without(KEPT.count(&all), &["minute"]));
    let replace = RunRequest { replace: vec![format_date(date())], ..RunRequest::default() };
    world.try_run(&replace).await.unwrap();
    assert_eq!(world.counts().await, without(KEPT.count(&all), &["minute"]));
    // Closed: there are no raw events any more.
    let mut expected = KEPT.count(&all);
    world.forget(date()).await;
    add(&mut expected, &KEPT.count(&world.add(0, vec![Row { value: Some(3), ..Row::view("late", "v3", OLD) }]).await));
    assert_eq!(modes(&world.run().await), [Mode::Closed]);
    assert_eq!(world.counts().await, without(expected, &["minute"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn later_hours_go_too_and_days_go_on() {
    let (world, mut all) = world().await;
    roll_up(&world, None).await;
    let done = roll_up(&world, Some(15)).await;
    assert_eq!((done.dates, done.minute_files), (1, 0));
    assert_eq!(world.counts().await, without(KEPT.count(&all), &["minute", "hour"]));
    all.extend(world.add(1, vec![Row::view("new", "v7", OLD + 65 * MINUTE), Row::view("n", "new", OLD)]).await);
    assert_eq!(modes(&world.run().await), [Mode::Entities]);
    assert_eq!(world.counts().await, without(KEPT.count(&all), &["minute", "hour"]));
    world.run_full().await;
    assert_eq!(world.counts().await, without(KEPT.count(&all), &["minute", "hour"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_comes_when_it_is_too_old_already_gets_no_minutes() {
    let (world, mut all) = world().await;
    roll_up(&world, None).await;
    let older = OLD - 1_440 * MINUTE;
    all.extend(world.add(0, vec![Row::view("older", "v1", older + MINUTE)]).await);
    world.run().await;
    let is_older = |minute: i64| minute * MINUTE < OLD;
    let expected = without(KEPT.count(&all), &["minute"]);
    let expected: Counts = expected.into_iter().filter(|(key, _)| key.0 != "minute" || !is_older(key.3)).collect();
    assert_eq!(world.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_whose_coarser_counts_are_damaged_keeps_its_minutes() {
    let (world, all) = world().await;
    let is_hour = |file: &reckon_data::table::DataFile| {
        let of = |column: &str| file.partition[column].clone();
        of("granularity").as_deref() == Some("hour") && of("event_date") == Some(format_date(date()))
    };
    world.flip(Table::BatchCounts, is_hour).await;
    let outcome = maintainer(&world, None).roll_up().await.unwrap();
    assert!(matches!(outcome, Outcome::Skipped(done, _) if done == RolledUp::default()));
    // The next run counts the date anew, and then they can go.
    world.run().await;
    assert_eq!(world.counts().await, KEPT.count(&all));
    assert_eq!(roll_up(&world, None).await.dates, 1);
    assert_eq!(world.counts().await, without(KEPT.count(&all), &["minute"]));
}
