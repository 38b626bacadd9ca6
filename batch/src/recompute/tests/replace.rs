//! Dates that somebody asks to be replaced, who knows their raw events to be whole.

use reckon_data::jobs::RunRequest;
use reckon_data::minute::format_date;
use reckon_data::table::{DataFile, Table};

use super::modes::{KEPT, OLD, date, modes, rows};
use super::oracle::{Counts, Placed, Row};
use super::world::{DAY, MINUTE, World};
use crate::recompute::{BatchError, Mode, RunReport};

fn replacing() -> RunRequest {
    RunRequest { replace: vec![format_date(date())], ..RunRequest::default() }
}

fn full() -> RunRequest {
    RunRequest { full: true, ..RunRequest::default() }
}

async fn replace(world: &World) -> RunReport {
    world.try_run(&replacing()).await.unwrap()
}

/// Files of raw events that begin at an offset.
async fn beginning_at(world: &World, offset: i64) -> Vec<DataFile> {
    let files = world.snapshot(Table::Events).await.files;
    files.iter().filter(|file| file.min_i64("log_offset") == Some(offset)).cloned().collect()
}

/// A date whose rows count more than there are raw events, and those.
async fn too_many() -> (World, Vec<Placed>) {
    let world = World::new(1);
    let all = world.add(0, rows(300, 10, "a")).await;
    world.run().await;
    world.add(0, rows(200, 10, "b")).await;
    world.run().await;
    // These never were events: somebody has put them there, and has taken them away again.
    let false_ones = beginning_at(&world, 2).await;
    assert!(!false_ones.is_empty());
    world.remove(false_ones).await;
    (world, all)
}

async fn is_too_many(world: &World) -> bool {
    world.counted("minute").await == 500 && world.counted("day").await == 500
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_count_too_many_are_replaced_when_asked_for_only() {
    let (world, all) = too_many().await;
    for request in [RunRequest::default(), full(), RunRequest { dates: vec![format_date(date())], ..full() }] {
        assert_eq!(modes(&world.try_run(&request).await.unwrap()), []);
        assert!(is_too_many(&world).await);
    }
    let report = replace(&world).await;
    assert_eq!((modes(&report), report.dates[0].raw_missing), (vec![Mode::Full], false));
    assert_eq!(world.counts().await, KEPT.count(&all));
    // Nothing is left to do, and it may be asked for again.
    assert_eq!(modes(&world.run().await), []);
    assert_eq!(modes(&replace(&world).await), [Mode::Full]);
    assert_eq!(world.counts().await, KEPT.count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_events_are_counted_with_a_date_that_is_replaced_and_others_are_recounted_as_ever() {
    let (world, mut all) = too_many().await;
    all.extend(world.add(0, vec![Row::view("new", "v7", OLD + 5 * MINUTE), Row::view("today", "v7", DAY)]).await);
    assert_eq!(modes(&replace(&world).await), [Mode::Full, Mode::Full]);
    assert_eq!(world.counts().await, KEPT.count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_before_are_not_read_for_it_damaged_or_missing() {
    for granularity in ["minute", "hour", "day", ""] {
        let is_meant =
            |file: &DataFile| granularity.is_empty() || file.partition["granularity"].as_deref() == Some(granularity);
        let (world, all) = too_many().await;
        world.flip(Table::BatchCounts, is_meant).await;
        assert_eq!(modes(&replace(&world).await), [Mode::Full], "{granularity}");
        assert_eq!(world.counts().await, KEPT.count(&all));
        let (world, all) = too_many().await;
        world.lose(Table::BatchCounts, is_meant).await;
        assert_eq!(modes(&replace(&world).await), [Mode::Full], "{granularity}");
        assert_eq!(world.counts().await, KEPT.count(&all));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_retention_has_closed_is_refused() {
    let (world, _) = too_many().await;
    world.expire(date(), Vec::new()).await;
    let before = world.snapshot(Table::BatchCounts).await.files;
    let error = world.try_run(&replacing()).await.unwrap_err();
    assert!(matches!(&error, BatchError::Invalid(text) if text.contains(&format_date(date()))), "{error}");
    assert_eq!(world.snapshot(Table::BatchCounts).await.files, before);
    // The date after it is not closed.
    let next = RunRequest { replace: vec![format_date(date() + 1)], ..RunRequest::default() };
    assert_eq!(modes(&world.try_run(&next).await.unwrap()), []);
    let never = RunRequest { replace: vec!["2024-02-30".to_owned()], ..RunRequest::default() };
    assert!(matches!(world.try_run(&never).await, Err(BatchError::Invalid(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_any_event_are_removed() {
    let world = World::new(1);
    world.add(0, rows(300, 10, "a")).await;
    let today = world.add(0, vec![Row::view("today", "v7", DAY)]).await;
    world.run().await;
    world.forget(date()).await;
    assert_eq!(modes(&world.try_run(&full()).await.unwrap()), [Mode::Full], "today alone");
    assert_eq!(world.counted("day").await, 301);
    let report = replace(&world).await;
    assert_eq!((modes(&report), report.events, report.rows), (vec![Mode::Full], 0, 0));
    assert_eq!(world.counts().await, KEPT.count(&today));
    // There is nothing of it any more.
    assert_eq!(modes(&replace(&world).await), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_removed_too_when_all_events_lie_above_the_cut() {
    let world = World::new(1);
    world.add(0, rows(300, 10, "a")).await;
    world.run().await;
    world.forget(date()).await;
    world.archive.late.lock().push((0, vec![Row::view("late", "v7", OLD)]));
    assert_eq!(modes(&replace(&world).await), [Mode::Full]);
    assert_eq!(world.counts().await, Counts::new());
    world.run().await;
    assert_eq!(world.counted("day").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_named_with_what_to_do_about_it() {
    for table in [Table::Events, Table::BatchCounts] {
        let (world, _) = too_many().await;
        world.lose(table, |_| true).await;
        world.add(0, vec![Row::view("new", "v7", OLD + 5 * MINUTE)]).await;
        let error = world.try_run(&RunRequest { full: true, ..replacing_if(table) }).await.unwrap_err();
        let BatchError::MissingFile { path } = &error else { panic!("{error:?}") };
        assert!(path.starts_with(table.name()), "{error}");
        assert!(error.to_string().contains("reckon audit --repair"), "{error}");
    }
}

/// Raw events are read by a run that replaces, rows of before by one that does not.
fn replacing_if(table: Table) -> RunRequest {
    if table == Table::Events { replacing() } else { RunRequest::default() }
}
