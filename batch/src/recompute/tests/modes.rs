//! How dates are recounted: whole, by entity, closed.

use std::sync::Arc;

use reckon_data::definition::Definition;
use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::run::Dimension;
use reckon_data::table::{Commit, Step, Table, TableError, Tables};

use super::oracle::{Kept, Placed, Row, add};
use super::world::{DAY, MINUTE, World};
use crate::recompute::{BatchError, Mode, RunReport};

pub const KEPT: Kept = Kept::COUNTRY_AND_VALUES;
/// A date that is neither today nor yesterday.
pub const OLD: i64 = DAY - 20 * MICROS_PER_DAY;

pub fn rows(count: usize, entities: usize, tag: &str) -> Vec<Row> {
    let row = |n: usize| Row {
        country: [Some("US"), Some("DE"), None][n % 3],
        value: n.is_multiple_of(4).then_some(n as i64 - 50),
        ..Row::view(&format!("{tag}{n}"), &format!("v{}", n % entities), OLD + (n % 700) as i64 * MINUTE)
    };
    (0..count).map(row).collect()
}

pub fn date() -> i32 {
    (OLD / MICROS_PER_DAY) as i32
}

pub fn modes(report: &RunReport) -> Vec<Mode> {
    report.dates.iter().map(|date| date.mode).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn few_new_events_of_an_old_date_touch_their_entities_only() {
    let world = World::new(2);
    let mut all = world.add(0, rows(2_000, 40, "a")).await;
    all.extend(world.add(1, rows(2_000, 40, "b")).await);
    assert_eq!(modes(&world.run().await), [Mode::Full]);
    // New ones, a repeat of an old one, and a new entity.
    let mut few = vec![Row::view("new", "v7", OLD + 5 * MINUTE), all[7].row.clone(), Row::view("new", "x'y", OLD)];
    few.push(Row { country: Some("FR"), ..all[8].row.clone() });
    all.extend(world.add(1, few).await);
    let report = world.run().await;
    assert_eq!(modes(&report), [Mode::Entities]);
    assert!(report.events < 4_000 / 10, "{report:?}");
    assert_eq!(world.counts().await, KEPT.count(&all));
    // Many are recounted whole, and so is a date that is not old.
    all.extend(world.add(1, rows(200, 40, "c")).await);
    assert_eq!(modes(&world.run().await), [Mode::Full]);
    assert_eq!(world.counts().await, KEPT.count(&all));
    world.clock.set(OLD + MINUTE);
    all.extend(world.add(0, vec![Row::view("newer", "v7", OLD + 5 * MINUTE)]).await);
    assert_eq!(modes(&world.run().await), [Mode::Full]);
    assert_eq!(world.counts().await, KEPT.count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_touched_entities_than_can_be_named() {
    let world = World::with(1, Definition::default(), 500);
    let mut all = world.add(0, rows(5_000, 100, "a")).await;
    world.run().await;
    let few = (0..50).map(|n| Row::view(&format!("n{n}"), &format!("v{}", n * 2), OLD + MINUTE)).collect();
    all.extend(world.add(0, few).await);
    assert_eq!(modes(&world.run().await), [Mode::Entities]);
    assert_eq!(world.counts().await, KEPT.count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_date_is_added_to_and_never_replaced() {
    let world = World::new(2);
    let old = world.add(0, rows(500, 10, "a")).await;
    world.run().await;
    let mut expected = KEPT.count(&old);
    world.forget(date()).await;
    // Nothing new: nothing changes, whatever is asked for.
    assert!(world.run_full().await.dates.is_empty());
    assert_eq!(world.counts().await, expected);
    // What comes is told apart among itself.
    let mut late = vec![Row::view("late", "v1", OLD), Row::view("late", "v1", OLD), Row::view("late", "new", OLD)];
    late.extend(rows(3, 10, "b"));
    add(&mut expected, &KEPT.count(&world.add(1, late).await));
    let report = world.run().await;
    assert_eq!((modes(&report), report.duplicates), (vec![Mode::Closed], 1));
    assert_eq!(world.counts().await, expected);
    // And again: the late events are below the coverage now.
    let later = vec![Row { value: Some(9), ..Row::view("later", "v1", OLD) }];
    add(&mut expected, &KEPT.count(&world.add(0, later).await));
    assert_eq!(modes(&world.run_full().await), [Mode::Closed]);
    assert_eq!(world.counts().await, expected);
    assert!(world.run_full().await.dates.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_lost_some_of_its_events_is_closed_too() {
    let world = World::with(1, Definition::default(), 400);
    let old = world.add(0, rows(1_000, 10, "a")).await;
    world.run().await;
    let files = world.snapshot(Table::Events).await.files;
    let steps = vec![Step { name: "maintain/events".to_owned(), from: 0, to: 1 }];
    let commit = Commit {
        table: Table::Events,
        steps,
        add: Vec::new(),
        remove: vec![files[0].clone()],
        data_change: true,
        token: uuid::Uuid::from_u128(1),
        operation: "loss".to_owned(),
    };
    world.archive.tables.commit(commit).await.unwrap();
    let new = world.add(0, rows(5, 10, "b")).await;
    assert_eq!(modes(&world.run_full().await), [Mode::Closed]);
    let mut expected = KEPT.count(&old);
    add(&mut expected, &KEPT.count(&new));
    assert_eq!(world.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_events_that_repeats_hid_close_the_date_after_the_fact() {
    let world = World::with(1, Definition::default(), 100);
    // Below the coverage 200 rows stand for 100 keys, so half the rows can go without being missed by number.
    let mut old = world.add(0, rows(100, 10, "a")).await;
    old.extend(world.add(0, rows(50, 10, "a").into_iter().chain(rows(50, 10, "a")).collect()).await);
    world.run().await;
    let files = world.snapshot(Table::Events).await.files;
    let gone = files.iter().find(|file| file.min_i64("log_offset") == Some(0)).unwrap().clone();
    let commit = Commit {
        table: Table::Events,
        steps: vec![Step { name: "maintain/events".to_owned(), from: 0, to: 1 }],
        add: Vec::new(),
        remove: vec![gone],
        data_change: true,
        token: uuid::Uuid::from_u128(1),
        operation: "loss".to_owned(),
    };
    world.archive.tables.commit(commit).await.unwrap();
    let new = world.add(0, rows(10, 10, "b")).await;
    let report = world.run().await;
    assert_eq!(modes(&report), [Mode::Closed]);
    assert!(report.dates[0].raw_missing);
    let mut expected = KEPT.count(&old);
    add(&mut expected, &KEPT.count(&new));
    assert_eq!(world.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_events_of_a_date_that_retention_closed_are_found_behind_any_number_of_new_ones() {
    let world = World::with(1, Definition::default(), 100);
    let mut old = world.add(0, rows(100, 10, "a")).await;
    old.extend(world.add(0, rows(50, 10, "a").into_iter().chain(rows(50, 10, "a")).collect()).await);
    world.run().await;
    let files = world.snapshot(Table::Events).await.files;
    let gone = files.iter().filter(|file| file.min_i64("log_offset") == Some(0)).cloned().collect();
    world.expire(date(), gone).await;
    // More than were lost: 100 + 60 events are left, though only 50 + 60 keys.
    let new = world.add(0, rows(60, 10, "b")).await;
    assert_eq!(modes(&world.run().await), [Mode::Closed]);
    let mut expected = KEPT.count(&old);
    add(&mut expected, &KEPT.count(&new));
    assert_eq!(world.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_repeats_do_not_make_an_expired_date_whole_again() {
    let world = World::new(1);
    let old = world.add(0, rows(100, 10, "a")).await;
    world.run().await;
    let mut expected = KEPT.count(&old);
    let files = world.snapshot(Table::Events).await.files;
    world.expire(date(), files.to_vec()).await;
    // 300 late events with 200 keys: as many events as the date counts then.
    let late: Vec<Row> = rows(200, 10, "b").into_iter().chain(rows(100, 10, "b")).collect();
    add(&mut expected, &KEPT.count(&world.add(0, late).await));
    assert_eq!(modes(&world.run().await), [Mode::Closed]);
    assert_eq!(world.counts().await, expected);
    add(&mut expected, &KEPT.count(&world.add(0, rows(150, 10, "c")).await));
    assert_eq!(modes(&world.run().await), [Mode::Closed]);
    assert_eq!(world.counts().await, expected);
    assert!(world.run_full().await.dates.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_before_the_closed_ones_that_lost_nothing_is_recounted_whole() {
    let world = World::new(1);
    let mut all = world.add(0, rows(100, 10, "a").into_iter().chain(rows(40, 10, "a")).collect()).await;
    world.run().await;
    world.expire(date(), Vec::new()).await;
    all.extend(world.add(0, rows(60, 10, "b")).await);
    assert_eq!(modes(&world.run().await), [Mode::Full]);
    assert_eq!(world.counts().await, KEPT.count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_swept_while_a_run_went_on_are_not_committed() {
    let world = World::new(1);
    let all = world.add(0, rows(300, 10, "a")).await;
    let store = Arc::clone(&world.archive.store);
    let sweep = |at: crate::recompute::Progress| {
        if at.step == "committing" {
            futures::executor::block_on(async {
                let files = store.list(Some(&Table::BatchCounts.name().into()));
                let files: Vec<_> = futures::TryStreamExt::try_collect(files).await.unwrap();
                object_store::ObjectStoreExt::delete(&store, &files[0].location).await.unwrap();
            });
        }
    };
    let error = world.recompute(1).run(&Default::default(), uuid::Uuid::nil(), &sweep).await.unwrap_err();
    assert!(matches!(&error, BatchError::Broken(text) if text.contains("deleted")), "{error}");
    assert!(world.snapshot(Table::BatchCounts).await.files.is_empty());
    world.run().await;
    assert_eq!(world.counts().await, KEPT.count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_definition_is_carried_through() {
    let mut world = World::new(1);
    let mut all = world.add(0, rows(300, 10, "a")).await;
    world.run().await;
    let definition = Definition { dimensions: vec![], ..Definition::default() };
    world.definition = Arc::new(definition);
    // One new event of 300 would be few, but rows of two definitions are not mixed when they need not be.
    all.extend(world.add(0, vec![Row::view("new", "v1", OLD)]).await);
    assert_eq!(modes(&world.run().await), [Mode::Full]);
    let bare: Vec<Placed> =
        all.into_iter().map(|placed| Placed { row: Row { country: None, ..placed.row }, ..placed }).collect();
    assert_eq!(world.counts().await, KEPT.count(&bare));
    // And back, with a full run.
    world.definition = Arc::new(Definition { dimensions: vec![Dimension::Country], ..Definition::default() });
    assert_eq!(modes(&world.run().await), []);
    assert_eq!(modes(&world.run_full().await), [Mode::Full]);
    let version = Definition::default().version().cast_signed();
    let files = world.snapshot(Table::BatchCounts).await.files;
    assert!(files.iter().all(|file| file.min_i64("definition") == Some(version)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runs_at_once_one_fails_and_nothing_of_it_is_seen() {
    let world = World::new(1);
    let all = world.add(0, rows(300, 10, "a")).await;
    let recompute = world.recompute(1);
    let tables = world.archive.tables.clone();
    let log = reckon_data::log::Log::identity(&world.archive.log);
    let overtaken = std::sync::atomic::AtomicBool::new(false);
    // Somebody else moves the coverage while this run counts.
    let interfere = |at: crate::recompute::Progress| {
        if at.step.starts_with("counting") && !overtaken.swap(true, std::sync::atomic::Ordering::SeqCst) {
            let commit = Commit {
                table: Table::BatchCounts,
                steps: vec![Step { name: format!("batch/{log}/0"), from: 0, to: 1 }],
                add: Vec::new(),
                remove: Vec::new(),
                data_change: true,
                token: uuid::Uuid::from_u128(9),
                operation: "other".to_owned(),
            };
            futures::executor::block_on(tables.commit(commit)).unwrap();
        }
    };
    let error = recompute.run(&Default::default(), uuid::Uuid::nil(), &interfere).await.unwrap_err();
    assert!(matches!(error, BatchError::Table(TableError::Fenced { found: 1, .. })), "{error}");
    assert!(world.counts().await.is_empty());
    world.run_full().await;
    assert_eq!(world.counts().await, KEPT.count(&all));
}
