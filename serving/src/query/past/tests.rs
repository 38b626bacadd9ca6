//! Answers as of older versions: what batch had counted then, whatever has come since.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use reckon_data::metric::Answer;
use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::table::Tables as _;
use serde_json::json;

use super::*;
use crate::query::Step;
use crate::sql::SqlAnswer;
use crate::testing::{Ev, Log, World};
use crate::view::PartitionProvenance;

const SECOND: i64 = 1_000_000;

fn event(id: String, entity: &str, minute: i64) -> Ev {
    Ev {
        id,
        entity: entity.to_owned(),
        event_type: "view",
        minute,
        country: None,
        ip: Some("10.0.0.1"),
        value: Some(1),
    }
}

fn one(id: &str, minute: i64) -> Ev {
    event(id.to_owned(), "v1", minute)
}

/// Batch ran at 10 s up to offset 1 and at 20 s up to offset 3; the stream has counted all.
async fn world() -> World {
    let world = World::new(Log(vec![vec![one("a", 1), one("b", 2), one("a", 1), one("c", 3)], vec![]]));
    for (seconds, coverage) in [(10, [1, 0]), (20, [3, 0])] {
        world.clock.set(seconds * SECOND);
        world.batch(&coverage).await;
    }
    world
}

fn question(entity: &str) -> CountQuery {
    CountQuery { entity: entity.to_owned(), event_type: None, from: 0, to: 10 * MICROS_PER_DAY, filter: None }
}

fn list() -> TopQuery {
    TopQuery { event_type: None, n: 3, from: 0, to: MICROS_PER_DAY, filter: None }
}

fn is_refused<T: std::fmt::Debug>(answer: Result<T, ServingError>, part: &str) {
    match answer {
        Err(ServingError::BadRequest { field: "as_of", message }) => assert!(message.contains(part), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_means_the_newest_version_that_was_committed_by_then() {
    let serving = world().await.serve().await;
    for (as_of, version, count) in [
        (AsOf::Version(1), 1, 1),
        (AsOf::Version(2), 2, 2),
        (AsOf::Version(0), 0, 0),
        (AsOf::Time(0), 0, 0),
        (AsOf::Time(10 * SECOND - 1), 0, 0),
        (AsOf::Time(10 * SECOND), 1, 1),
        (AsOf::Time(20 * SECOND - 1), 1, 1),
        (AsOf::Time(i64::MAX), 2, 2),
    ] {
        let answer = serving.count_as_of(&question("v1"), as_of).await.unwrap();
        assert_eq!((answer.count, answer.batch, answer.stream), (count, count, 0), "{as_of:?}");
        assert_eq!(answer.provenance.as_of.map(|at| at.version), Some(version), "{as_of:?}");
    }
    let live = serving.count(&question("v1")).await.unwrap();
    assert_eq!((live.count, live.stream, live.provenance.as_of), (3, 1, None));
}

/// The version that a time means, and what it counts of v1.
async fn counted_by(serving: &Serving, seconds: i64) -> (Option<u64>, u64) {
    let answer = serving.count_as_of(&question("v1"), AsOf::Time(seconds * SECOND)).await.unwrap();
    (answer.provenance.as_of.map(|at| at.version), answer.count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_committed_after_the_first_question_is_known_to_the_next() {
    let world = world().await;
    let serving = world.serve().await;
    assert_eq!(counted_by(&serving, 30).await, (Some(2), 2));
    world.clock.set(30 * SECOND);
    world.batch(&[4, 0]).await;
    assert_eq!(counted_by(&serving, 29).await, (Some(2), 2));
    assert_eq!(counted_by(&serving, 30).await, (Some(3), 3));
}

/// it is whole as far as its version goes, and says that it is not live.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_which_version_it_is_of() {
    let serving = world().await.serve().await;
    let provenance = serving.count_as_of(&question("v1"), AsOf::Version(1)).await.unwrap().provenance;
    assert!(provenance.complete, "{provenance:?}");
    assert_eq!((provenance.batch_version, provenance.batch, provenance.stream), (1, Some(1), Some(0)));
    assert_eq!((provenance.state, provenance.watermark), (State::Provisional, None));
    assert_eq!(provenance.as_of, Some(AsOfVersion { version: 1, committed_at: Some(10 * SECOND) }));
    assert_eq!(provenance.partitions[0], PartitionProvenance { partition: 0, coverage: 1, position: Some(1) });
    let json = serde_json::to_value(&provenance).unwrap();
    assert_eq!(json["as_of"], json!({"version": 1, "committed_at": "1970-01-01T00:00:10Z"}));
    let live = serde_json::to_value(serving.count(&question("v1")).await.unwrap().provenance).unwrap();
    assert!(live.get("as_of").is_none(), "{live}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_question_is_answered_from_that_version() {
    let serving = world().await.serve().await;
    let stats = StatsQuery {
        entity: "v1".to_owned(),
        event_type: None,
        function: Function::Sum,
        from: 0,
        to: MICROS_PER_DAY,
        step: Step::HOUR,
        filter: None,
    };
    for (version, count) in [(0, 0), (1, 1), (2, 2)] {
        let as_of = AsOf::Version(version);
        let listed = serving.top_as_of(&list(), as_of).await.unwrap();
        assert_eq!(listed.entities.iter().map(|entity| entity.count).sum::<u64>(), count);
        assert_eq!((listed.provenance.batch, listed.provenance.stream), (Some(count), Some(0)));
        let steps = serving.stats_as_of(&stats, as_of).await.unwrap();
        let counted = StatsQuery { function: Function::Count, ..stats.clone() };
        assert_eq!(serving.stats_as_of(&counted, as_of).await.unwrap().total, Answer::Count(count));
        assert_eq!((steps.points.len(), steps.provenance.batch), (usize::from(count > 0), Some(count)));
        let sum = |answer: SqlAnswer| {
            assert!(answer.provenance.complete && answer.provenance.watermark.is_none(), "{:?}", answer.provenance);
            assert_eq!(answer.provenance.as_of.map(|at| at.version), Some(version));
            answer.json_rows().unwrap()
        };
        for table in ["stats", "stats_hour", "stats_day", "stats_batch"] {
            let query = format!("SELECT coalesce(sum(count), 0) FROM {table}");
            assert_eq!(sum(serving.sql_as_of(&query, as_of).await.unwrap()), [[json!(count)]], "{table}");
        }
        let query = "SELECT count(*) FROM stats_stream";
        assert_eq!(sum(serving.sql_as_of(query, as_of).await.unwrap()), [[json!(0)]]);
    }
    // The live view is what it was.
    let live = serving.sql("SELECT sum(count) FROM stats").await.unwrap().json_rows().unwrap();
    assert_eq!(live, [[json!(3)]]);
    assert_eq!(serving.top(&list()).await.unwrap().entities[0].count, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_version_cannot_answer_is_refused() {
    let world = world().await;
    world.archive(&[4, 0]).await;
    let serving = world.serve().await;
    for table in ["events", "dead_letters", "audit_runs", "audit_findings", "metrics"] {
        let query = format!("SELECT (SELECT sum(count) FROM stats), (SELECT count(*) FROM {table})");
        is_refused(serving.sql_as_of(&query, AsOf::Version(1)).await, table);
    }
    let filter = Some(serving.filter("ip:10.0.0.1").unwrap());
    let raw = CountQuery { filter, ..question("v1") };
    is_refused(serving.count_as_of(&raw, AsOf::Version(1)).await, "raw events");
    is_refused(serving.count_as_of(&question("v1"), AsOf::Version(3)).await, "newest is 2");
    is_refused(serving.top_as_of(&list(), AsOf::Version(u64::MAX)).await, "newest is 2");
    is_refused(serving.count_as_of(&question("v1"), AsOf::Time(-1)).await, "version");
    let short = TopQuery { n: TopQuery::N_MAX + 1, ..list() };
    let refused = serving.top_as_of(&short, AsOf::Version(1)).await;
    assert!(matches!(refused, Err(ServingError::BadRequest { field: "n", .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_vacuumed_is_refused_although_it_was_held() {
    let world = world().await;
    let serving = world.serve().await;
    serving.count_as_of(&question("v1"), AsOf::Version(1)).await.unwrap();
    world.clock.advance(2 * HELD_MICROS);
    assert!(world.tables.vacuum(Table::BatchCounts, 0).await.unwrap() > 0);
    for as_of in [AsOf::Version(1), AsOf::Time(15 * SECOND)] {
        is_refused(serving.count_as_of(&question("v1"), as_of).await, "the oldest one still there is 2");
    }
    assert_eq!(serving.count_as_of(&question("v1"), AsOf::Version(2)).await.unwrap().count, 2);
}

/// R-2, of every version: exactly the distinct events below its coverage.
#[tokio::test(flavor = "multi_thread")]
async fn every_version_counts_what_lies_below_its_coverage() {
    let events = |partition: i64| {
        let event = move |n: i64| event(format!("e{}", n % 31), &format!("v{partition}{}", n % 3), n * 37 % 3_000);
        (0..40).map(event).collect()
    };
    let world = World::new(Log(vec![events(0), events(1)]));
    let coverages = [[7_u64, 0], [7, 21], [40, 21], [40, 40]];
    for coverage in &coverages {
        world.batch(coverage).await;
    }
    let serving = world.serve().await;
    for (version, coverage) in (1_u64..5).zip(&coverages) {
        for entity in ["v00", "v01", "v10", "v12"] {
            let below = (0..2).flat_map(|partition| world.log.counted(partition, 0..coverage[partition]));
            let expected = below.filter(|event| event.entity == entity).count() as u64;
            let answer = serving.count_as_of(&question(entity), AsOf::Version(version)).await.unwrap();
            assert_eq!(answer.count, expected, "{entity} as of {version}");
        }
    }
}
