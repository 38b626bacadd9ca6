//! The counter as a whole, over a log and tables in memory: against the definition of what it counts, across
//! stops, kills, and a second counter.

mod limits;
mod restart;
mod stalled;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use reckon_data::jobs::Follower;
use reckon_data::tail::{TailError, Tails};

use super::testing::{Entry, Sample};
use super::{Counter, CounterParts};
use world::{MINUTE, World, settings, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_is_counted_at_once_and_sealed_later() {
    let world = World::new(2);
    let counter = world.start(settings()).await;
    world.append(0, 0, Entry::Events(vec![view("a", 1), view("a", 2), view("b", 1), view("a", 1)])).await;
    world.append(1, 0, Entry::Events(vec![view("c", 1)])).await;
    world.append(0, 5, Entry::Dead(2)).await;
    world.caught_up(&counter).await;
    world.check(&counter, &[0, 0]).await;
    assert_eq!(counter.committed(), [0, 0], "no segment has ended");

    world.append(0, MINUTE, Entry::Events(vec![view("a", 1), view("a", 3)])).await;
    world.caught_up(&counter).await;
    world.check(&counter, &[0, 0]).await;
    counter.reach(&[2, 0]).await.unwrap();
    assert_eq!(counter.committed(), [2, 0]);
    assert_eq!(counter.position(0).unwrap().sealed, 2);
    world.check(&counter, &[0, 0]).await;
    assert!(matches!(counter.tail(0, 1).await, Err(TailError::Gone { partition: 0, from: 1 })));

    let stats = counter.stats();
    assert_eq!((stats.totals().counted, stats.totals().duplicate, stats.totals().dead), (5, 2, 2));
    assert_eq!((stats.seals, stats.partitions[0].lag_records), (1, 0));
    counter.stop().await;
    assert!(matches!(counter.position(0), Err(TailError::Unavailable { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_reached_and_coverage_may_begin_there() {
    let world = World::new(2);
    let counter = world.start(settings()).await;
    for partition in 0..2 {
        world.append(partition, 0, Entry::Events(vec![view("a", 1), view("b", partition)])).await;
    }
    let mut cuts = Vec::new();
    for partition in 0..2 {
        cuts.push(world.append(partition, 1, Entry::Cut).await);
        world.append(partition, 2, Entry::Events(vec![view("z", 7)])).await;
    }
    counter.reach(&cuts).await.unwrap();
    assert_eq!(counter.committed(), cuts);
    assert_eq!(counter.stats().seals, 1, "all partitions in one commit");
    world.caught_up(&counter).await;
    world.check(&counter, &cuts).await;
    counter.covered(0, cuts[0]);
    world.check(&counter, &cuts).await;
    counter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seals_come_by_themselves() {
    let world = World::new(1);
    let counter =
        world.start(reckon_data::config::Counting { seal_every: Duration::from_millis(20), ..settings() }).await;
    for minute in 0..5 {
        world.append(0, minute * MINUTE, Entry::Events(vec![view("a", minute as u32)])).await;
    }
    world.until(|| counter.committed() == [4]).await;
    world.check(&counter, &[0]).await;
    counter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_counter_fences_the_first() {
    let world = World::new(1);
    let first = world.start(settings()).await;
    let second = world.start(settings()).await;
    world.append(0, 0, Entry::Events(vec![view("a", 1)])).await;
    let cut = world.append(0, 1, Entry::Cut).await;
    // A cut hurries both, and either may commit first.
    let (one, two) = (first.reach(&[cut]).await, second.reach(&[cut]).await);
    let (owner, fenced, error) = match (one, two) {
        (Ok(()), Err(error)) => (first, second, error),
        (Err(error), Ok(())) => (second, first, error),
        both => panic!("{both:?}"),
    };
    assert!(error.contains("fenced"), "{error}");
    assert!(matches!(fenced.position(0), Err(TailError::Unavailable { .. })));
    world.caught_up(&owner).await;
    world.check(&owner, &[0]).await;
    assert_eq!(world.summaries().await.len(), 1);
    owner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_stops_its_partition_and_no_other() {
    let world = World::new(2);
    let counter = world.start(settings()).await;
    world.append(0, 0, Entry::Events(vec![view("a", 1)])).await;
    world.append_bytes(0, bytes::Bytes::from_static(b"what is this")).await;
    world.until(|| counter.position(0).is_err()).await;
    let error = counter.position(0).unwrap_err().to_string();
    assert!(error.contains("partition 0, offset 1"), "{error}");
    world.append(1, 0, Entry::Events(vec![view("c", 1)])).await;
    let cut = world.append(1, 1, Entry::Cut).await;
    counter.reach(&[0, cut]).await.unwrap();
    assert!(counter.reach(&[2, cut]).await.unwrap_err().contains("partition 0"));
    counter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_of_an_open_segment_grows_in_parts() {
    let world = World::new(1);
    let counter = world.start(settings()).await;
    for round in 0..12_u32 {
        let samples: Vec<Sample> = (0..4_500).map(|n| view(&format!("{round}-{n}"), n)).collect();
        for (at, samples) in samples.chunks(1_500).enumerate() {
            world.append(0, at as i64, Entry::Events(samples.to_vec())).await;
        }
        world.caught_up(&counter).await;
        world.check(&counter, &[0]).await;
    }
    assert!(counter.tail(0, 0).await.unwrap().runs.len() <= 10);
    counter.stop().await;
}

/// Partitions of one log in counters of their own, as processes have them: each does its part, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_counters_share_a_log() {
    let world = World::new(2);
    let start =
        |partition| Counter::start(CounterParts { partitions: BTreeSet::from([partition]), ..world.parts(settings()) });
    let (one, two) = (start(0).await.unwrap(), start(1).await.unwrap());
    let mut cuts = Vec::new();
    for partition in 0..2 {
        world.append(partition, 0, Entry::Events(vec![view("a", 1), view("b", partition)])).await;
        cuts.push(world.append(partition, 1, Entry::Cut).await);
    }
    one.reach(&cuts).await.unwrap();
    two.reach(&cuts).await.unwrap();
    assert_eq!((one.committed(), two.committed()), (vec![cuts[0], 0], vec![0, cuts[1]]));
    assert!(matches!(one.position(1), Err(TailError::Unavailable { partition: 1, .. })));
    assert_eq!(two.tail(1, 0).await.unwrap().position.sealed, cuts[1]);
    one.stop().await;
    two.stop().await;
    world.check_sealed().await;
    // A second owner of a partition is one too many: the one that commits later is fenced.
    let (one, again) = (start(0).await.unwrap(), start(0).await.unwrap());
    world.append(0, 2, Entry::Events(vec![view("c", 3)])).await;
    let end = world.append(0, 3, Entry::Cut).await;
    let ends = [end, 0];
    let (first, second) = tokio::join!(one.reach(&ends), again.reach(&ends));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let fenced = first.err().or(second.err()).unwrap();
    assert!(fenced.contains("fenced"), "{fenced}");
    one.stop().await;
    again.stop().await;
    world.check_sealed().await;
}
