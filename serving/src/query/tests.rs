//! Answers held to a naive count, however the log is cut between batch, disk and tail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use bytesize::ByteSize;
use proptest::prelude::*;
use reckon_data::metric::{Answer, Cell, Function};
use reckon_data::minute::{MICROS_PER_MINUTE, start_of_minute};

use super::*;
use crate::testing::{Ev, Log, World};
use crate::view::Source;

mod definitions;
mod found;
mod many;
mod missing;
mod views;

fn event() -> impl Strategy<Value = Ev> {
    let country = prop_oneof![Just(None), Just(Some("US")), Just(Some("GB"))];
    let ip = prop_oneof![Just(None), Just(Some("10.0.0.1")), Just(Some("10.0.0.2"))];
    let minute = prop_oneof![0..120_i64, 1_380..1_500_i64, 2_870..4_400_i64];
    let value = prop::option::of(-5_000_000..5_000_000_i64);
    (0..60_u32, 0..6_u8, any::<bool>(), minute, country, ip, value).prop_map(
        |(id, entity, view, minute, country, ip, value)| Ev {
            id: format!("e{id}"),
            entity: if entity == 5 { "_reckon/canary".to_owned() } else { format!("v{entity}") },
            event_type: if view { "view" } else { "like" },
            minute,
            country,
            ip,
            value,
        },
    )
}

/// A log of three partitions, and for each the cuts of batch and of what is on disk, as fractions.
fn world() -> impl Strategy<Value = (Log, Vec<u64>, Vec<u64>)> {
    let partitions = prop::collection::vec(prop::collection::vec(event(), 0..40), 3);
    (partitions, prop::collection::vec((0..=100_u64, 0..=100_u64), 3)).prop_map(|(partitions, cuts)| {
        // Copies of an event meet, as the gateway sees to.
        let mut log = Log(vec![Vec::new(); 3]);
        for event in partitions.into_iter().flatten() {
            let partition = event.entity.len() + usize::from(event.entity.as_bytes()[event.entity.len() - 1]);
            log.0[partition % 3].push(event);
        }
        let at = |part: u64, of: usize| of as u64 * part / 100;
        let batch: Vec<u64> = log.0.iter().zip(&cuts).map(|(events, cut)| at(cut.0, events.len())).collect();
        let disk = log
            .0
            .iter()
            .zip(&cuts)
            .map(|(events, cut)| at(cut.1, events.len()))
            .zip(&batch)
            .map(|(a, b)| a.max(*b))
            .collect();
        (log, batch, disk)
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// A world whose log is cut; segments end at coverage, as cuts see to.
async fn cut(log: &Log, batch: &[u64], disk: &[u64], torn: bool) -> World {
    let world = World::new(log.clone());
    world.batch(batch).await;
    // Segments of length 1 end everywhere.
    world.seal(disk, 1, torn).await;
    world.tails.state.lock().on_disk_below = (0_u32..).zip(disk.iter().copied()).collect();
    world
}

fn matching<'a>(
    log: &'a Log,
    entity: &str,
    event_type: Option<&str>,
    window: &Window,
    country: Option<&str>,
) -> Vec<&'a Ev> {
    let minutes = window.minutes();
    let all = log.all().into_iter().filter(|event| event.entity == entity && minutes.contains(&event.minute));
    all.filter(|event| {
        event_type.is_none_or(|name| name == event.event_type) && country.is_none_or(|name| event.country == Some(name))
    })
    .collect()
}

fn question(entity: &str, event_type: Option<&str>, from: i64, to: i64) -> CountQuery {
    CountQuery { entity: entity.to_owned(), event_type: event_type.map(str::to_owned), from, to, filter: None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// wherever the log is cut, count, stats and top are what a naive count says, and the parts add up.
    #[test]
    fn any_cut_gives_the_same_answer(
        (log, batch, disk) in world(),
        from in -10..4_500_i64,
        length in 0..4_500_i64,
        seconds in 0..60_i64,
        us in any::<bool>(),
        step in prop_oneof![Just(1), Just(7), Just(60), Just(120), Just(1_440)],
        small in any::<bool>(),
        torn in any::<bool>(),
    ) {
        run(async {
            let mut world = cut(&log, &batch, &disk, torn).await;
            if small {
                // Nothing fits: everything is read from the files.
                world.settings.index_memory = ByteSize::b(1);
            }
            let serving = world.serve().await;
            let (from, to) = (start_of_minute(from) + seconds * 1_000_000, start_of_minute(from + length) + seconds * 1_000_000);
            let window = Window::around(from, to).unwrap();
            let filter = us.then(|| serving.filter("country:US").unwrap());
            let country = us.then_some("US");
            for entity in ["v0", "v1", "_reckon/canary", "nobody"] {
                for event_type in [None, Some("view"), Some("dislike")] {
                    let query = CountQuery { filter: filter.clone(), ..question(entity, event_type, from, to) };
                    let answer = serving.count(&query).await.unwrap();
                    assert_eq!(answer.count, matching(&log, entity, event_type, &window, country).len() as u64, "{query:?}");
                    assert_eq!(answer.count, answer.batch + answer.stream);
                    let late = matching(&log, entity, event_type, &window, country).iter().filter(|event| event.is_late()).count();
                    assert_eq!(answer.provenance.late, Some(late as u64));
                    assert!(answer.provenance.complete, "{:?}", answer.provenance);
                }
                let (function, event_type) = (Function::Avg, None);
                let step = Step::of_minutes(step).unwrap();
                let query = StatsQuery { entity: entity.to_owned(), event_type, function, from, to, step, filter: filter.clone() };
                let answer = serving.stats(&query).await.unwrap();
                let mut expected: BTreeMap<i64, Cell> = BTreeMap::new();
                for event in matching(&log, entity, None, &window, country) {
                    let start = start_of_minute(event.minute.div_euclid(step.minutes()) * step.minutes());
                    let cell = Cell::one(0, event.value, None);
                    expected.entry(start).or_default().merge(&if event.is_late() { cell.as_late() } else { cell });
                }
                let found: Vec<(i64, Answer, u64)> = answer.points.iter().map(|point| (point.start, point.value, point.late)).collect();
                let expected: Vec<(i64, Answer, u64)> = expected.iter().map(|(at, cell)| (*at, cell.evaluate(function), cell.late)).collect();
                assert_eq!(found, expected);
            }
            let query = TopQuery { event_type: Some("view".to_owned()), n: 3, from, to, filter };
            let answer = serving.top(&query).await.unwrap();
            let mut expected: Vec<(String, u64)> = ["v0", "v1", "v2", "v3", "v4"]
                .map(|entity| (entity.to_owned(), matching(&log, entity, Some("view"), &window, country).len() as u64))
                .into_iter().filter(|(_, count)| *count > 0).collect();
            expected.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            expected.truncate(3);
            let found: Vec<(String, u64)> = answer.entities.into_iter().map(|entity| (entity.entity_id, entity.count)).collect();
            let total: u64 = expected.iter().map(|(_, count)| count).sum();
            assert_eq!(found, expected);
            assert_eq!(answer.provenance.batch.unwrap() + answer.provenance.stream.unwrap(), total);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Filters on columns that are no dimension: the first copy of a key decides.
    #[test]
    fn raw_events_are_counted_once((log, batch, _) in world(), from in 0..1_500_i64, length in 0..4_500_i64) {
        run(async {
            let world = cut(&log, &batch, &batch, false).await;
            let all: Vec<u64> = log.0.iter().map(|events| events.len() as u64).collect();
            world.archive(&all).await;
            let serving = world.serve().await;
            let (from, to) = (start_of_minute(from), start_of_minute(from + length));
            let window = Window::around(from, to).unwrap();
            let filter = Some(serving.filter("ip:10.0.0.1").unwrap());
            let with_ip = |entity: &str| matching(&log, entity, None, &window, None).iter().filter(|event| event.ip == Some("10.0.0.1")).count() as u64;
            let answer = serving.count(&CountQuery { filter: filter.clone(), ..question("v1", None, from, to) }).await.unwrap();
            assert_eq!(answer.count, with_ip("v1"));
            let late = matching(&log, "v1", None, &window, None).iter().filter(|event| event.ip == Some("10.0.0.1") && event.is_late()).count();
            assert_eq!(answer.provenance.late, Some(late as u64));
            assert_eq!(answer.provenance.source, Source::Events);
            assert!(answer.provenance.complete, "{:?}", answer.provenance);
            let answer = serving.top(&TopQuery { event_type: None, n: 9, from, to, filter }).await.unwrap();
            let found: BTreeMap<String, u64> = answer.entities.into_iter().map(|entity| (entity.entity_id, entity.count)).collect();
            let expected = ["v0", "v1", "v2", "v3", "v4"].map(|entity| (entity.to_owned(), with_ip(entity)));
            assert_eq!(found, expected.into_iter().filter(|(_, count)| *count > 0).collect());
        });
    }
}

fn one(id: &str, minute: i64) -> Ev {
    Ev {
        id: id.to_owned(),
        entity: "v1".to_owned(),
        event_type: "view",
        minute,
        country: None,
        ip: Some("10.0.0.1"),
        value: None,
    }
}

fn small() -> Log {
    Log(vec![vec![one("a", 1), one("b", 2), one("a", 1), one("c", 3)], vec![]])
}

#[tokio::test]
async fn a_window_that_ends_before_it_begins_is_refused() {
    let serving = World::new(small()).serve().await;
    let wrong = serving.count(&question("v1", None, MICROS_PER_MINUTE, 0)).await;
    assert!(matches!(wrong, Err(ServingError::BadRequest { field: "from", .. })));
}
