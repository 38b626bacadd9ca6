//! What an answer lacks is named.

use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::paths::Transaction;
use reckon_data::table::Table;

use super::*;
use crate::sql::SqlAnswer;
use crate::testing::LOG;
use crate::view::{MissingWhat, State};

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

/// a segment has counts of several minutes, and a window that holds any one of them finds it.
#[tokio::test]
async fn a_segment_on_disk_is_found_by_each_of_its_minutes() {
    for is_torn in [false, true] {
        let world = World::new(small());
        world.seal(&[4, 0], 4, is_torn).await;
        world.tails.state.lock().on_disk_below.insert(0, 4);
        let serving = world.serve().await;
        for minute in 0..5 {
            let query = question("v1", None, start_of_minute(minute), start_of_minute(minute + 1));
            let answer = serving.count(&query).await.unwrap();
            let expected = (u64::from((1..=3).contains(&minute)), true);
            assert_eq!((answer.count, answer.provenance.complete), expected, "minute {minute}, torn: {is_torn}");
        }
    }
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
async fn raw_events_that_are_gone_are_named() {
    let world = World::new(small());
    world.batch(&[4, 0]).await;
    let serving = world.serve().await;
    let filter = Some(serving.filter("ip:10.0.0.1").unwrap());
    let answer = serving.count(&CountQuery { filter, ..question("v1", None, 0, MICROS_PER_DAY) }).await.unwrap();
    assert!(!answer.provenance.complete);
    assert!(answer.provenance.missing.iter().any(|missing| missing.date.as_deref() == Some("1970-01-01")));
}
