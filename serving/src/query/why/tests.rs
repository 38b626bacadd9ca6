//! How counts came about, in a world where batch, segments and the tail each have their part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use reckon_data::table::Tables as _;

use super::*;
use crate::query::{CountQuery, Verdict};
use crate::testing::{Ev, LOG, Log, World};

fn event(id: &str, entity: &str, event_type: &'static str, minute: i64, country: Option<&'static str>) -> Ev {
    Ev { id: id.to_owned(), entity: entity.to_owned(), event_type, minute, country, ip: None, value: None }
}

fn view(id: &str, minute: i64) -> Ev {
    event(id, "v1", "view", minute, None)
}

/// Batch has counted a and b, a segment holds c, the tail d; a came twice, and others are of another minute or entity.
async fn world() -> World {
    let mut events: Vec<Ev> = ["a", "b", "a", "c", "d"].map(|id| view(id, 1)).into();
    events.extend([view("e", 2), event("f", "v2", "view", 1, None)]);
    let world = World::new(Log(vec![events, vec![]]));
    world.clock.set(10_000_000);
    world.batch(&[2, 0]).await;
    world.seal(&[4, 0], 1, false).await;
    world
}

fn question() -> WhyQuery {
    WhyQuery { entity: "v1".to_owned(), minute: 1, event_type: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_is_taken_apart() {
    let world = world().await;
    world.archive(&[7, 0]).await;
    let serving = world.serve().await;
    let answer = serving.why(&question()).await.unwrap();
    let [count] = &answer.counts[..] else { panic!("{:?}", answer.counts) };
    assert_eq!((count.event_type.as_str(), count.count, count.raw_distinct), ("view", 4, 4));
    assert_eq!(count.dimensions, BTreeMap::from([("country", None)]));
    let [row] = &count.batch[..] else { panic!("{:?}", count.batch) };
    // All of the minute are late in this world.
    assert_eq!((row.count, row.late, row.fingerprint.len()), (2, 2, 16));
    assert_eq!(row.definition, answer.provenance.definition);
    assert!(row.file.contains("granularity=minute/event_date=1970-01-01/"), "{}", row.file);
    let pieces: Vec<_> =
        count.stream.iter().map(|piece| (piece.partition, piece.start, piece.end, piece.sealed, piece.count)).collect();
    assert_eq!(pieces, [(0, 3, 4, true, 1), (0, 4, 7, false, 1)]);
    let provenance = &answer.provenance;
    assert!(provenance.complete, "{provenance:?}");
    assert_eq!((provenance.batch_version, provenance.batch, provenance.stream), (1, Some(2), Some(2)));
    assert_eq!((provenance.late, provenance.partitions[0].coverage), (Some(4), 2));
    let asked = CountQuery {
        entity: "v1".to_owned(),
        event_type: None,
        from: start_of_minute(1),
        to: start_of_minute(2),
        filter: None,
    };
    assert_eq!(serving.count(&asked).await.unwrap().count, count.count);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_events_are_listed_and_held_against_the_count() {
    use Verdict::{Counted, Duplicate};
    let world = world().await;
    world.archive(&[7, 0]).await;
    let answer = world.serve().await.why(&question()).await.unwrap();
    let [events] = &answer.events[..] else { panic!("{:?}", answer.events) };
    assert_eq!((events.total, events.distinct, events.listed.len()), (5, 4, 5));
    let listed: Vec<_> = events.listed.iter().map(|event| (event.offset, event.verdict, event.covered)).collect();
    let expected =
        [(0, Counted, true), (1, Counted, true), (2, Duplicate, false), (3, Counted, false), (4, Counted, false)];
    assert_eq!(listed, expected);
    let check = &answer.check;
    assert_eq!(check.verdict, CheckVerdict::Agrees, "{check:?}");
    assert_eq!((check.answer, check.raw, check.raw_distinct), (4, 5, 4));
    assert_eq!((check.batch, check.raw_covered, check.stream, check.raw_uncovered), (2, 2, 2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_why_it_cannot_agree() {
    let verdict = |archived: u64, closed: bool| async move {
        let world = world().await;
        world.archive(&[archived, 0]).await;
        if closed {
            world.mark(Table::Events, &[(Transaction::Closed, 1)]).await;
        }
        world.serve().await.why(&question()).await.unwrap().check.verdict
    };
    assert_eq!(verdict(7, true).await, CheckVerdict::Agrees);
    assert_eq!(verdict(4, false).await, CheckVerdict::RawBehind);
    assert_eq!(verdict(1, false).await, CheckVerdict::Differs);
    assert_eq!(verdict(1, true).await, CheckVerdict::RawGone);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_and_dimensions_are_told_apart() {
    let events = vec![
        event("a", "v1", "view", 1, Some("US")),
        event("b", "v1", "view", 1, Some("GB")),
        event("c", "v1", "like", 1, Some("US")),
        event("d", "v1", "view", 1, Some("US")),
    ];
    let world = World::new(Log(vec![events]));
    world.batch(&[3]).await;
    world.archive(&[4]).await;
    let serving = world.serve().await;
    let told = |answer: &WhyAnswer| -> Vec<(String, Option<String>, u64, u64)> {
        let told = |count: &WhyCount| {
            let country = count.dimensions["country"].clone();
            (count.event_type.clone(), country, count.count, count.raw_distinct)
        };
        answer.counts.iter().map(told).collect()
    };
    let row = |event_type: &str, country: &str, count| (event_type.to_owned(), Some(country.to_owned()), count, count);
    let all = serving.why(&question()).await.unwrap();
    assert_eq!(told(&all), [row("like", "US", 1), row("view", "GB", 1), row("view", "US", 2)]);
    assert_eq!((all.counts_total, all.check.verdict), (3, CheckVerdict::Agrees));
    let views = WhyQuery { event_type: Some("view".to_owned()), ..question() };
    let views = serving.why(&views).await.unwrap();
    assert_eq!(told(&views), [row("view", "GB", 1), row("view", "US", 2)]);
    assert_eq!((views.check.answer, views.check.verdict), (3, CheckVerdict::Agrees));
    assert_eq!(views.history[0].count, 2, "of that type alone");
    let nothing = WhyQuery { entity: "nobody".to_owned(), ..question() };
    let nothing = serving.why(&nothing).await.unwrap();
    assert_eq!((nothing.counts.len(), nothing.events.len(), nothing.check.verdict), (0, 0, CheckVerdict::Agrees));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_has_its_history() {
    let world = world().await;
    world.archive(&[7, 0]).await;
    world.clock.set(20_000_000);
    world.batch(&[4, 0]).await;
    let serving = world.serve().await;
    let told = |answer: WhyAnswer| -> Vec<(u64, i64, u64)> {
        answer.history.into_iter().map(|version| (version.version, version.committed_at, version.count)).collect()
    };
    let history = told(serving.why(&question()).await.unwrap());
    assert_eq!(history, [(2, 20_000_000, 3), (1, 10_000_000, 2), (0, 0, 0)]);
    // What is vacuumed is told of no more.
    world.clock.set(200_000_000);
    world.tables.vacuum(Table::BatchCounts, 0).await.unwrap();
    assert_eq!(told(serving.why(&question()).await.unwrap()), [(2, 20_000_000, 3)]);
}

/// what cannot be had is named here as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_does_not_answer_is_named() {
    let world = world().await;
    world.archive(&[7, 0]).await;
    world.tails.state.lock().silent.insert(0);
    let answer = world.serve().await.why(&question()).await.unwrap();
    assert!(!answer.provenance.complete);
    assert_eq!(answer.provenance.missing[0].partition, Some(0));
    assert_eq!((answer.check.answer, answer.check.batch, answer.check.stream), (2, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_gone_is_named() {
    let world = world().await;
    world.archive(&[7, 0]).await;
    let files = world.tables.snapshot(Table::StreamCounts).await.unwrap().files.to_vec();
    world.remove(Table::StreamCounts, files).await;
    let name = Transaction::Stream(LOG, 0).to_string();
    assert_eq!(world.tables.snapshot(Table::StreamCounts).await.unwrap().transaction(&name), 4);
    let answer = world.serve().await.why(&question()).await.unwrap();
    assert!(!answer.provenance.complete, "{:?}", answer.provenance);
    assert_eq!(answer.check.verdict, CheckVerdict::Incomplete);
}
