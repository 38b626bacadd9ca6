//! Stops, kills and restarts: nothing is lost, nothing is counted twice.

use proptest::prelude::*;
use reckon_data::config::Counting;
use reckon_data::jobs::Follower;
use reckon_data::log::Log;
use reckon_data::log::memory::MemoryLog;
use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, Step, Table, Tables};
use reckon_data::tail::{TailError, Tails};

use super::world::{MINUTE, World, settings, view};
use crate::counter::CounterError;
use crate::counter::testing::{Appended, Entry, log};

#[derive(Debug, Clone, Copy)]
enum End {
    Stop,
    Kill,
    SealAndKill,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Stop), Just(End::Kill), Just(End::SealAndKill)]
}

/// A counter lives through each of these logs and comes to such an end.
async fn live(lives: Vec<(Vec<Appended>, End)>, settings: Counting) {
    let world = World::new(2);
    for (log, end) in lives {
        let counter = world.start(settings.clone()).await;
        for (at, Appended { time, entry }) in log.into_iter().enumerate() {
            world.append(at as u32 % 2, time, entry).await;
        }
        if !matches!(end, End::Kill) {
            world.caught_up(&counter).await;
            world.check(&counter, &[0, 0]).await;
        }
        if matches!(end, End::SealAndKill) {
            let mut cuts = Vec::new();
            for partition in 0..2 {
                cuts.push(world.append(partition, 0, Entry::Cut).await);
            }
            counter.reach(&cuts).await.unwrap();
            world.check(&counter, &cuts).await;
        }
        if matches!(end, End::Stop) {
            counter.stop().await;
        }
        drop(counter);
        world.check_sealed().await;
    }
    let counter = world.start(settings).await;
    world.caught_up(&counter).await;
    world.check(&counter, &[0, 0]).await;
    counter.stop().await;
    world.check_sealed().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_life_counts_the_same(
        lives in prop::collection::vec((log(1..40), end()), 1..5),
        segment_events in prop_oneof![Just(1_000_000_u64), 5..80_u64],
        seal_millis in prop_oneof![Just(60_000_u64), 1..20_u64],
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let seal_every = std::time::Duration::from_millis(seal_millis);
        runtime.block_on(live(lives, Counting { segment_events, seal_every, ..settings() }));
    }
}

/// A world with sealed segments in which partition 0 ends at offset 4 and is sealed there.
async fn sealed_world() -> World {
    let world = World::new(1);
    let counter = world.start(settings()).await;
    for minute in 0..4 {
        world.append(0, minute * MINUTE, Entry::Events(vec![view("a", minute as u32)])).await;
    }
    let cut = world.append(0, 4 * MINUTE, Entry::Cut).await;
    counter.reach(&[cut]).await.unwrap();
    counter.stop().await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_may_be_trimmed_below_the_refill_offset_but_not_above() {
    let world = sealed_world().await;
    let counter = world.start(settings()).await;
    let refill = counter.refill_offset(0).unwrap();
    assert_eq!(refill, 0, "minutes 0 to 3 lie within the window of 3 at log minute 3");
    for minute in 10..14 {
        world.append(0, minute * MINUTE, Entry::Events(vec![view("b", minute as u32)])).await;
    }
    let cut = world.append(0, 14 * MINUTE, Entry::Cut).await;
    counter.reach(&[cut]).await.unwrap();
    let refill = counter.refill_offset(0).unwrap();
    assert_eq!(refill, 5);
    counter.stop().await;

    world.log.trim(0, refill).await.unwrap();
    let counter = world.start(settings()).await;
    world.append(0, 14 * MINUTE + 1, Entry::Events(vec![view("b", 13), view("b", 99)])).await;
    world.caught_up(&counter).await;
    world.check(&counter, &[0]).await;
    counter.stop().await;

    world.log.trim(0, refill + 1).await.unwrap();
    let error = world.try_start(settings()).await.unwrap_err();
    assert!(matches!(error, CounterError::Trimmed { partition: 0, needed: 5, start: 6 }), "{error}");
}

/// Starts with a longer window than the world was sealed with, and repeats what came in minute 3.
async fn repeats_after_raising_the_window(trimmed: bool) -> u64 {
    let world = World::new(1);
    let counter = world.start(settings()).await;
    for minute in 0..9 {
        world.append(0, minute * MINUTE, Entry::Events(vec![view("a", minute as u32)])).await;
        if minute == 5 {
            counter.reach(&[5]).await.unwrap();
        }
    }
    let cut = world.append(0, 8 * MINUTE, Entry::Cut).await;
    counter.reach(&[cut]).await.unwrap();
    let refill = counter.refill_offset(0).unwrap();
    assert_eq!(refill, 5, "with a window of 3");
    counter.stop().await;
    world.cover(0, cut).await;
    if trimmed {
        world.log.trim(0, refill).await.unwrap();
    }

    let counter = world.start(Counting { dedup_minutes: 6, ..settings() }).await;
    world.append(0, 8 * MINUTE, Entry::Events(vec![view("a", 1), view("a", 3), view("a", 6)])).await;
    world.caught_up(&counter).await;
    if !trimmed {
        assert_eq!(counter.refill_offset(0), Some(2), "nothing is trimmed that the next restart needs");
    }
    let duplicate = counter.stats().totals().duplicate;
    counter.stop().await;
    duplicate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_was_raised_is_filled_as_far_as_the_log_goes() {
    assert_eq!(repeats_after_raising_the_window(false).await, 2, "minutes 2 to 8 matter");
    assert_eq!(repeats_after_raising_the_window(true).await, 1, "of minutes 5 to 8 the log knows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_log_is_refused() {
    let mut world = sealed_world().await;
    world.log = MemoryLog::new(1, &reckon_data::clock::RandomNames);
    let error = world.try_start(settings()).await.unwrap_err();
    assert!(matches!(error, CounterError::OtherLog { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_below_coverage_are_not_loaded() {
    let world = sealed_world().await;
    world.cover(0, 4).await;
    let counter = world.start(settings()).await;
    world.caught_up(&counter).await;
    world.check(&counter, &[4]).await;
    assert!(matches!(counter.tail(0, 0).await, Err(TailError::Gone { .. })));
    counter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_in_stream_counts_is_left_to_be_found() {
    let world = sealed_world().await;
    let snapshot = world.tables.snapshot(Table::StreamCounts).await.unwrap();
    let step = Step { name: Transaction::Maintain(Table::StreamCounts).to_string(), from: 0, to: 1 };
    let commit = Commit {
        table: Table::StreamCounts,
        steps: vec![step],
        add: Vec::new(),
        remove: snapshot.files.to_vec(),
        data_change: true,
        token: uuid::Uuid::from_u128(8),
        operation: "test".to_owned(),
    };
    world.tables.commit(commit).await.unwrap();
    let counter = world.start(settings()).await;
    world.caught_up(&counter).await;
    let tail = counter.tail(0, 0).await.unwrap();
    assert_eq!(tail.on_disk, [0..4], "serving will not find it, and say so");
    // The dedup set is the same nevertheless: the log still has everything.
    world.append(0, 4 * MINUTE, Entry::Events(vec![view("a", 3)])).await;
    world.caught_up(&counter).await;
    assert_eq!(counter.stats().totals().duplicate, 1);
    counter.stop().await;
}

/// what a log's own retention removed before it was counted is no reason to stop, and no silent hole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_goes_on_behind_a_gap_and_the_range_is_named() {
    let mut world = sealed_world().await;
    for minute in 5..8 {
        world.append(0, minute * MINUTE, Entry::Events(vec![view("b", minute as u32)])).await;
    }
    world.cover(0, 4).await;
    world.log.trim(0, 6).await.unwrap();
    let error = world.try_start(settings()).await.unwrap_err();
    assert!(matches!(error, CounterError::Trimmed { partition: 0, needed: 0, start: 6 }), "{error}");

    world.log = world.log.with_own_retention();
    for life in 0..2 {
        let counter = world.start(settings()).await;
        world.caught_up(&counter).await;
        let tail = counter.tail(0, 4).await.unwrap();
        assert_eq!(tail.on_disk.first().map(|range| range.start), Some(4), "serving will not find 4..6, and say so");
        if life == 0 {
            assert_eq!(tail.on_disk, [4..6]);
            assert_eq!(counter.position(0).unwrap().sealed, 6, "committed before anything is counted");
            assert!(
                counter.tail(0, 6).await.unwrap().on_disk.is_empty(),
                "once coverage has passed it, nothing is missing"
            );
        }
        world.check(&counter, &[6]).await;
        counter.stop().await;
        let stream = world.tables.snapshot(Table::StreamCounts).await.unwrap();
        let name = Transaction::Stream(world.log.identity(), 0).to_string();
        assert_eq!(stream.transaction(&name), 7, "one minute has ended since");
    }
}

/// What lies below the seal is counted: only repeats of it are not known any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_is_gone_from_the_log_is_left_to_batch() {
    for (start, duplicate) in [(2, 1), (4, 0)] {
        let mut world = sealed_world().await;
        world.log = world.log.with_own_retention();
        world.log.trim(0, start).await.unwrap();
        let counter = world.start(settings()).await;
        assert_eq!(counter.refill_offset(0), Some(start));
        world.append(0, 4 * MINUTE, Entry::Events(vec![view("a", 1), view("a", 3)])).await;
        world.caught_up(&counter).await;
        assert_eq!(counter.stats().totals().duplicate, duplicate, "from {start}");
        let position = counter.position(0).unwrap();
        assert_eq!((position.sealed, position.log_time.minute()), (4, Some(4)));
        counter.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_time_is_as_it_was_sealed_though_the_record_that_set_it_is_gone() {
    let mut world = World::new(1);
    world.log = world.log.with_own_retention();
    let counter = world.start(settings()).await;
    for (id, minute) in [10, 9, 9].into_iter().enumerate() {
        world.append(0, minute * MINUTE, Entry::Events(vec![view("a", id as u32)])).await;
    }
    let cut = world.append(0, 9 * MINUTE, Entry::Cut).await;
    counter.reach(&[cut]).await.unwrap();
    counter.stop().await;
    world.log.trim(0, 1).await.unwrap();
    // The second one goes by what the first has sealed.
    for _ in 0..2 {
        let counter = world.start(settings()).await;
        let cut = world.append(0, 9 * MINUTE, Entry::Cut).await;
        counter.reach(&[cut]).await.unwrap();
        assert_eq!(counter.position(0).unwrap().log_time.minute(), Some(10));
        counter.stop().await;
    }
}
