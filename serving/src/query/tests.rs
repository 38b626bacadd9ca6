//! Answers held to a naive count, however the log is cut between batch, disk and tail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use bytesize::ByteSize;
use proptest::prelude::*;
use reckon_data::metric::{Answer, Cell, Function};
use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_MINUTE, start_of_minute};
use reckon_data::paths::Transaction;
use reckon_data::table::Table;

use super::*;
use crate::sql::SqlAnswer;
use crate::testing::{Ev, LOG, Log, World};
use crate::view::{MissingWhat, Source, State};

mod many;

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
async fn a_new_batch_version_is_swapped_in_and_told() {
    let world = World::new(small());
    world.batch(&[1, 0]).await;
    let serving = world.serve().await;
    let before = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    assert_eq!((before.batch, before.stream), (1, 2));
    world.batch(&[3, 0]).await;
    serving.refresh().await.unwrap();
    let after = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    assert_eq!(
        (after.batch, after.stream, after.provenance.batch_version),
        (2, 1, before.provenance.batch_version + 1)
    );
    assert_eq!(world.tails.state.lock().covered, BTreeMap::from([(0, 3), (1, 0)]));
}

#[tokio::test]
async fn a_tail_that_is_gone_is_asked_for_again_with_a_newer_view() {
    let world = World::new(small());
    world.batch(&[1, 0]).await;
    let serving = world.serve().await;
    serving.stop();
    world.batch(&[3, 0]).await;
    world.tails.state.lock().gone_below.insert(0, 3);
    let answer = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    assert_eq!((answer.batch, answer.stream, answer.provenance.complete), (2, 1, true));
    let listed =
        serving.top(&TopQuery { event_type: None, n: 5, from: 0, to: MICROS_PER_DAY, filter: None }).await.unwrap();
    assert_eq!(listed.entities[0].count, 3);
}

/// no silent hole.
#[tokio::test]
async fn what_cannot_be_had_is_named() {
    let world = World::new(small());
    world.batch(&[1, 0]).await;
    let serving = world.serve().await;
    world.tails.state.lock().gone_below.insert(0, 3);
    let gone = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    assert_eq!((gone.count, gone.provenance.complete), (1, false));
    world.tails.state.lock().silent.insert(0);
    let silent = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    let missing = &silent.provenance.missing[0];
    assert_eq!((silent.count, silent.provenance.complete), (1, false));
    assert_eq!((missing.what, missing.partition, missing.from), (MissingWhat::Stream, Some(0), Some(1)));
    assert_eq!(silent.provenance.state, State::Provisional);
    assert!(!serving.status().ready);
}

/// of a date that retention has closed there may be late events, and none of those before.
#[tokio::test(flavor = "multi_thread")]
async fn lists_of_raw_events_of_closed_dates_are_not_called_complete() {
    let event = |n: i64| Ev {
        id: format!("e{n}"),
        entity: "v1".to_owned(),
        event_type: "view",
        minute: n,
        country: None,
        ip: Some("10.0.0.1"),
        value: Some(n),
    };
    let world = World::new(Log(vec![vec![event(1), event(2)], vec![event(3)]]));
    world.clock.set(2 * MICROS_PER_DAY);
    world.batch(&[2, 1]).await;
    world.archive(&[2, 1]).await;
    let lists = || async {
        let serving = world.serve().await;
        let filter = Some(serving.filter("ip:10.0.0.1").unwrap());
        let top = TopQuery { n: 5, event_type: None, from: 0, to: MICROS_PER_DAY, filter };
        let listed = serving.top(&top).await.unwrap();
        let ranked = RankedQuery { top, function: Function::Sum, previous: false, as_of: None };
        let ranked = serving.ranked(&ranked).await.unwrap();
        let counts = (listed.entities[0].count, ranked.entities[0].count);
        (counts, [listed.provenance.complete, ranked.provenance.complete])
    };
    assert_eq!(lists().await, ((3, 3), [true, true]));
    // What is left stands for an event that came when the others had gone.
    let files = world.tables.snapshot(Table::Events).await.unwrap().files;
    world.remove(Table::Events, files.iter().filter(|file| file.rows == 2).cloned().collect()).await;
    world.mark(Table::Events, &[(Transaction::Closed, 1)]).await;
    assert_eq!(lists().await, ((1, 1), [false, false]));
}

/// records that a log's own retention removed before they were archived.
#[tokio::test(flavor = "multi_thread")]
async fn what_had_gone_before_it_was_archived_is_named_until_that_is_accepted() {
    let world = World::new(small());
    world.batch(&[3, 0]).await;
    world.archive(&[4, 0]).await;
    let serving = world.serve().await;
    let lost = |records, to| [(Transaction::Lost(LOG, 1), records), (Transaction::LostTo(LOG, 1), to)];
    // Of answers from counts and from raw events, and of SQL over both: up to where something is lost of partition 1.
    let told = || async {
        let counts = question("v1", None, 0, MICROS_PER_DAY);
        let raw = CountQuery { filter: Some(serving.filter("ip:10.0.0.1").unwrap()), ..counts.clone() };
        let provenances = [
            serving.count(&counts).await.unwrap().provenance,
            serving.sql("SELECT sum(count) FROM stats").await.unwrap().provenance,
            serving.count(&raw).await.unwrap().provenance,
            serving.sql("SELECT count(*) FROM events").await.unwrap().provenance,
        ];
        provenances.map(|provenance| {
            assert_eq!(provenance.complete, provenance.missing.is_empty());
            let [missing] = &provenance.missing[..] else {
                assert!(provenance.complete, "named once: {provenance:?}");
                return None;
            };
            assert_eq!((missing.what, missing.partition), (MissingWhat::Events, Some(1)));
            assert!(missing.reason.contains("records had gone"), "{missing:?}");
            missing.to
        })
    };
    assert_eq!(told().await, [None; 4]);
    world.mark(Table::Events, &lost(2, 5)).await;
    assert_eq!(told().await, [None, None, Some(5), Some(5)], "batch has not passed it");
    world.mark(Table::BatchCounts, &lost(2, 5)).await;
    serving.refresh().await.unwrap();
    assert_eq!(told().await, [Some(5); 4]);
    // What says nothing of events lacks none.
    for query in
        ["SELECT count(*) FROM audit_runs", "SELECT * FROM audit_findings", "SELECT * FROM metrics", "SELECT 1"]
    {
        let provenance = serving.sql(query).await.unwrap().provenance;
        assert!(provenance.complete && provenance.missing.is_empty(), "{query}: {provenance:?}");
    }
    let both = serving.sql("SELECT (SELECT count(*) FROM audit_runs), (SELECT sum(count) FROM stats)").await.unwrap();
    assert!(!both.provenance.complete);
    world.mark(Table::Events, &lost(6, 9)).await;
    assert_eq!(told().await, [Some(5), Some(5), Some(9), Some(9)]);
    let missing = |found: Vec<crate::view::Missing>| found.first().and_then(|missing| missing.to);
    assert_eq!(missing(serving.locate("nothing", None, None).await.unwrap().missing), Some(9), "it may be among it");
    let letters = DeadLettersQuery { reason: None, after: None, limit: 10 };
    assert_eq!(missing(serving.dead_letters(&letters).await.unwrap().missing), Some(9));
    world.mark(Table::BatchCounts, &[(Transaction::Accepted(LOG, 1), 2)]).await;
    serving.refresh().await.unwrap();
    assert_eq!(told().await, [None, None, Some(9), Some(9)]);
    world.mark(Table::BatchCounts, &[(Transaction::Accepted(LOG, 1), 6)]).await;
    serving.refresh().await.unwrap();
    assert_eq!(told().await, [None; 4]);
}

#[tokio::test]
async fn a_hole_on_disk_is_named() {
    let world = World::new(small());
    world.seal(&[2, 0], 2, false).await;
    world.tails.state.lock().on_disk_below.insert(0, 3);
    let serving = world.serve().await;
    let answer = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    let missing = &answer.provenance.missing[0];
    assert_eq!(
        (missing.what, missing.partition, missing.from, missing.to),
        (MissingWhat::StreamCounts, Some(0), Some(2), Some(3))
    );
}

/// Seals partition 0 of the small log in torn files, and takes those away that `is_lost` names by number.
async fn torn(is_lost: impl Fn(usize) -> bool) -> (CountAnswer, SqlAnswer) {
    let world = World::new(small());
    world.seal(&[3, 0], 3, true).await;
    world.tails.state.lock().on_disk_below.insert(0, 3);
    let files = world.tables.snapshot(Table::StreamCounts).await.unwrap().files.to_vec();
    assert_eq!(files.len(), 3, "two of rows and one of the summary");
    let lost = files.iter().enumerate().filter(|(at, _)| is_lost(*at)).map(|(_, file)| file.clone()).collect();
    world.remove(Table::StreamCounts, lost).await;
    let serving = world.serve().await;
    let count = serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap();
    (count, serving.sql("SELECT sum(count) FROM stats").await.unwrap())
}

#[tokio::test]
async fn a_segment_in_many_files_is_whole_or_named() {
    let (count, sql) = torn(|_| false).await;
    assert!(count.provenance.complete && sql.provenance.complete, "{count:?}");
    assert_eq!((count.count, sql.json_rows().unwrap()), (3, vec![vec![serde_json::json!(3)]]));
    for lost in [0, 1, 2] {
        let (count, sql) = torn(|file| file == lost).await;
        for provenance in [count.provenance, sql.provenance] {
            assert!(!provenance.complete);
            let missing = &provenance.missing[0];
            assert_eq!((missing.partition, missing.from, missing.to), (Some(0), Some(0), Some(3)));
            let reason = if lost == 2 { "it has no summary" } else { "its rows count 1 events, its summary says 2" };
            assert_eq!((missing.what, &*missing.reason), (MissingWhat::StreamCounts, reason));
        }
    }
}

#[tokio::test]
async fn minutes_before_the_watermark_are_settled() {
    let world = World::new(Log(vec![vec![one("a", 10)], vec![]]));
    // Ten seconds later: until then records may be on their way.
    let now = start_of_minute(10) + 10_000_000;
    world.clock.set(now);
    world.tails.state.lock().log_time = now;
    let serving = world.serve().await;
    let settled = serving.count(&question("v1", None, 0, start_of_minute(9))).await.unwrap();
    assert_eq!((settled.provenance.state, settled.provenance.watermark), (State::Settled, Some(start_of_minute(9))));
    let corrected = World::new(Log(vec![vec![one("a", 5), one("b", 6)], vec![]]));
    corrected.clock.set(now);
    let corrected = corrected.serve().await.count(&question("v1", None, 0, start_of_minute(9))).await.unwrap();
    assert_eq!((corrected.provenance.state, corrected.provenance.late), (State::Corrected, Some(1)));
    let provisional = serving.count(&question("v1", None, 0, start_of_minute(9) + 1)).await.unwrap();
    assert_eq!((provisional.provenance.state, provisional.window.to), (State::Provisional, start_of_minute(10)));
}

#[tokio::test]
async fn a_definition_that_has_changed_is_told() {
    let mut world = World::new(small());
    world.batch(&[1, 0]).await;
    world.definition.metrics = vec![Function::Count];
    let serving = world.serve().await;
    assert!(serving.count(&question("v1", None, 0, MICROS_PER_DAY)).await.unwrap().provenance.definitions_mixed);
    assert!(
        !serving
            .count(&question("v1", None, 2 * MICROS_PER_DAY, 3 * MICROS_PER_DAY))
            .await
            .unwrap()
            .provenance
            .definitions_mixed
    );
    let query = StatsQuery {
        entity: "v1".to_owned(),
        event_type: None,
        function: Function::Sum,
        from: 0,
        to: 1,
        step: Step::HOUR,
        filter: None,
    };
    assert!(matches!(serving.stats(&query).await, Err(ServingError::BadRequest { field: "function", .. })));
}

#[tokio::test]
async fn raw_events_that_are_gone_are_named() {
    let world = World::new(small());
    world.batch(&[4, 0]).await;
    let serving = world.serve().await;
    let filter = Some(serving.filter("ip:10.0.0.1").unwrap());
    let answer = serving.count(&CountQuery { filter, ..question("v1", None, 0, MICROS_PER_DAY) }).await.unwrap();
    assert!(!answer.provenance.complete);
    assert!(answer.provenance.missing.iter().any(|missing| missing.date.as_deref() == Some("1970-01-01")));
}

#[tokio::test]
async fn filters_are_named_or_written_out() {
    let mut world = World::new(small());
    world.definition.filters = BTreeMap::from([("0012".to_owned(), "country = 'US'".parse().unwrap())]);
    let serving = world.serve().await;
    assert_eq!(serving.filter("0012").unwrap().to_string(), "country = 'US'");
    assert_eq!(serving.filter("ip:::1").unwrap().to_string(), "ip = '::1'");
    for text in ["0013", "", "colour:red"] {
        assert!(matches!(serving.filter(text), Err(ServingError::BadRequest { field: "filter", .. })), "{text}");
    }
}

#[tokio::test]
async fn an_event_is_found_wherever_it_lies() {
    let world = World::new(small());
    world.batch(&[2, 0]).await;
    world.archive(&[4, 0]).await;
    world.bury(&[(7, "too_long", "{\"event_id\":\"b\"}"), (8, "malformed", "{")]).await;
    let serving = world.serve().await;
    let found = serving.locate("a", None, None).await.unwrap();
    let places: Vec<(u64, Verdict, bool)> =
        found.copies.iter().map(|copy| (copy.offset, copy.verdict, copy.covered)).collect();
    assert_eq!(places, [(0, Verdict::Counted, true), (2, Verdict::Duplicate, false)]);
    assert!(!found.truncated && !found.may_be_in_log);
    let dead = serving.locate("b", Some("v1"), Some(0)).await.unwrap();
    assert_eq!((dead.copies.len(), dead.dead.len(), dead.dead[0].place.offset), (1, 1, 7));
    assert_eq!(serving.locate("a", None, Some(1)).await.unwrap().copies, []);
    assert_eq!(serving.locate("' OR 1=1 --", None, None).await.unwrap().copies, []);
    assert!(matches!(serving.locate("", None, None).await, Err(ServingError::BadRequest { field: "event_id", .. })));
}

#[tokio::test]
async fn dead_letters_are_listed_page_by_page() {
    let world = World::new(small());
    world.bury(&[(9, "empty", "c"), (7, "too_long", "a"), (8, "empty", "b")]).await;
    let serving = world.serve().await;
    let mut query = DeadLettersQuery { limit: 2, after: None, reason: None };
    let first = serving.dead_letters(&query).await.unwrap();
    assert_eq!(first.letters.iter().map(|letter| letter.place.offset).collect::<Vec<_>>(), [7, 8]);
    query.after = first.next;
    let second = serving.dead_letters(&query).await.unwrap();
    assert_eq!((second.letters[0].place.offset, second.letters.len(), second.next), (9, 1, None));
    let empty = DeadLettersQuery { reason: Some("empty".to_owned()), after: None, ..query };
    assert_eq!(serving.dead_letters(&empty).await.unwrap().letters.len(), 2);
    let none = DeadLettersQuery { limit: 0, ..DeadLettersQuery::default() };
    assert!(matches!(serving.dead_letters(&none).await, Err(ServingError::BadRequest { field: "limit", .. })));
}

#[tokio::test]
async fn a_window_that_ends_before_it_begins_is_refused() {
    let serving = World::new(small()).serve().await;
    let wrong = serving.count(&question("v1", None, MICROS_PER_MINUTE, 0)).await;
    assert!(matches!(wrong, Err(ServingError::BadRequest { field: "from", .. })));
}

/// Windows that end now must not wait for files, even when not everything fits memory.
#[tokio::test]
async fn what_windows_up_to_now_are_made_of_is_held_in_memory() {
    use futures::TryStreamExt as _;
    use object_store::ObjectStoreExt as _;
    let event = |n: i64| Ev {
        id: format!("e{n}"),
        entity: format!("v{}", n % 5),
        event_type: "view",
        minute: n * 7 % 2_880,
        country: None,
        ip: None,
        value: None,
    };
    let log = Log(vec![(0..500).map(event).collect()]);
    let mut world = World::new(log.clone());
    // Room for the roll-ups and some hours of minutes, not for a date's minutes.
    world.settings.index_memory = ByteSize::b(24_000);
    let now = 36 * 60 + 30;
    world.clock.set(start_of_minute(now));
    world.batch(&[500]).await;
    let serving = world.serve().await;
    serving.stop();
    serving.index.warm(&serving.current.get(), None, start_of_minute(now)).await;
    for file in world.store.list(None).try_collect::<Vec<_>>().await.unwrap() {
        world.store.delete(&file.location).await.unwrap();
    }
    for length in [60, 1_440] {
        let minutes = now - length..now + 1;
        let query = question("v1", None, start_of_minute(minutes.start), start_of_minute(minutes.end));
        let counted = log.all().into_iter().filter(|event| event.entity == "v1" && minutes.contains(&event.minute));
        assert_eq!(serving.count(&query).await.unwrap().batch, counted.count() as u64, "{length} minutes");
    }
}
