//! Recounts where files are damaged: what can be had from elsewhere is, and nothing else stops for the rest.

use reckon_data::damage::Damaged;
use reckon_data::table::{DataFile, Table};

use super::modes::{KEPT, OLD, date, modes, rows};
use super::oracle::{Counts, Placed, Row, add};
use super::world::{DAY, MINUTE, World};
use crate::recompute::Mode;

fn of(granularity: &'static str) -> impl Fn(&DataFile) -> bool {
    move |file| file.partition["granularity"].as_deref() == Some(granularity)
}

/// A world with a date that was counted.
async fn counted() -> (World, Vec<Placed>) {
    let world = World::new(1);
    let old = world.add(0, rows(1_000, 10, "a")).await;
    world.run().await;
    (world, old)
}

/// The same date after retention has removed its raw events.
async fn closed() -> (World, Counts) {
    let (world, old) = counted().await;
    let files = world.snapshot(Table::Events).await.files;
    world.expire(date(), files.to_vec()).await;
    (world, KEPT.count(&old))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_before_that_are_damaged_are_counted_anew_new_events_or_not() {
    for granularity in ["minute", "hour", "day"] {
        let (world, mut all) = counted().await;
        world.flip(Table::BatchCounts, of(granularity)).await;
        assert_eq!(modes(&world.run().await), [Mode::Full], "{granularity}");
        assert_eq!(world.counts().await, KEPT.count(&all));
        world.flip(Table::BatchCounts, of(granularity)).await;
        // So few that their entities alone would do.
        all.extend(world.add(0, vec![Row::view("new", "v7", OLD + 5 * MINUTE)]).await);
        assert_eq!(modes(&world.run().await), [Mode::Full], "{granularity}");
        assert_eq!(world.counts().await, KEPT.count(&all));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_shows_while_few_entities_are_recounted_makes_it_the_whole_date() {
    let (mut world, mut all) = counted().await;
    world.flip(Table::BatchCounts, of("minute")).await;
    world.restart().await;
    all.extend(world.add(0, vec![Row::view("new", "v7", OLD + 5 * MINUTE)]).await);
    assert_eq!(modes(&world.run().await), [Mode::Full]);
    assert_eq!(world.counts().await, KEPT.count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_says_how_many_there_were_a_date_is_recounted_when_asked_for_only() {
    let (world, mut all) = counted().await;
    world.flip(Table::BatchCounts, |_| true).await;
    // Nothing is new: it is left as it is, and nothing fails.
    assert_eq!(modes(&world.run().await), []);
    all.extend(world.add(0, vec![Row::view("new", "v7", OLD + 5 * MINUTE)]).await);
    let error = world.try_run(&Default::default()).await.unwrap_err();
    assert!(Damaged::cause(&error).is_some(), "{error}");
    assert_eq!(modes(&world.run_full().await), [Mode::Full]);
    assert_eq!(world.counts().await, KEPT.count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_date_has_its_hours_and_days_made_of_its_minutes() {
    for granularity in ["hour", "day"] {
        let (world, mut expected) = closed().await;
        world.flip(Table::BatchCounts, of(granularity)).await;
        add(&mut expected, &KEPT.count(&world.add(0, vec![Row::view("late", "v7", OLD)]).await));
        assert_eq!(modes(&world.run().await), [Mode::Closed], "{granularity}");
        assert_eq!(world.counts().await, expected, "{granularity}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_minutes_of_a_closed_date_stay_and_late_events_come_beside_them() {
    let (world, _) = closed().await;
    world.flip(Table::BatchCounts, of("minute")).await;
    let files = world.snapshot(Table::BatchCounts).await.files;
    let damaged: Vec<&DataFile> = files.iter().filter(|file| of("minute")(file)).collect();
    for late in 1..=2 {
        world.add(0, vec![Row::view(&format!("late{late}"), "v7", OLD)]).await;
        assert_eq!(modes(&world.run().await), [Mode::Closed]);
        assert_eq!((world.counted("hour").await, world.counted("day").await), (1_000 + late, 1_000 + late));
        let files = world.snapshot(Table::BatchCounts).await.files;
        assert!(damaged.iter().all(|file| files.contains(*file)));
    }
    // Nothing new: nothing fails, and nothing is counted once more.
    world.run_full().await;
    assert_eq!(world.counted("day").await, 1_002);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_date_of_which_everything_is_damaged_holds_up_no_other() {
    let (world, _) = closed().await;
    world.flip(Table::BatchCounts, |_| true).await;
    let damaged = world.snapshot(Table::BatchCounts).await.files;
    world.add(0, vec![Row::view("late", "v7", OLD), Row::view("today", "v7", DAY)]).await;
    assert_eq!(modes(&world.run().await), [Mode::Closed, Mode::Full]);
    let files = world.snapshot(Table::BatchCounts).await.files;
    assert!(damaged.iter().all(|file| files.contains(file)));
    let whole = files.iter().filter(|file| !damaged.contains(file) && of("day")(file));
    assert_eq!(whole.map(|file| file.rows).sum::<u64>(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_rows_whose_raw_events_are_damaged_too_stop_nobody() {
    let (world, _) = counted().await;
    world.flip(Table::BatchCounts, of("minute")).await;
    world.flip(Table::Events, |_| true).await;
    assert_eq!(modes(&world.run().await), []);
    assert_eq!(world.counted("day").await, 1_000);
    // A new event of that date needs them.
    world.add(0, vec![Row::view("new", "v7", OLD)]).await;
    assert!(Damaged::cause(&world.try_run(&Default::default()).await.unwrap_err()).is_some());
}
