//! SQL held to the same naive count as the other questions, and to its limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dropped;
mod functions;
mod groups;
mod pruning;
mod split;
mod streamed;

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use reckon_data::clock::{Clock as _, SystemClock};
use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::run::Granularity;
use serde_json::{Value, json};

use super::*;
use crate::query::CountQuery;
use crate::testing::{Ev, Log, World};
use crate::view::Source;

fn log() -> Log {
    let countries = [Some("US"), Some("GB"), None];
    let event = |n: i64| Ev {
        id: format!("e{}", n % 90),
        entity: format!("v{}", n % 7),
        event_type: if n % 3 == 0 { "view" } else { "like" },
        minute: (n * 37) % 3_000,
        country: countries[(n % 3) as usize],
        ip: None,
        value: (n % 4 != 0).then_some(n * 333_333),
    };
    Log(vec![
        (0..150).map(event).filter(|event| event.entity != "v1").collect(),
        (0..120).map(event).filter(|event| event.entity == "v1").collect(),
    ])
}

async fn world() -> World {
    world_on_disk(false).await
}

/// Some of it sealed; the files that hold that may be torn.
async fn world_on_disk(torn: bool) -> World {
    let world = World::new(log());
    world.batch(&[60, 5]).await;
    world.seal(&[80, 5], 5, torn).await;
    world.archive(&[100, 10]).await;
    world.tails.state.lock().on_disk_below.insert(0, 80);
    world
}

async fn rows(serving: &Serving, query: &str) -> Vec<Vec<Value>> {
    let answer = serving.sql(query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    answer.render(Form::Arrow, usize::MAX).unwrap();
    answer.json_rows().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_says_what_the_other_questions_say() {
    says_what_the_other_questions_say(false).await;
    says_what_the_other_questions_say(true).await;
}

async fn says_what_the_other_questions_say(torn: bool) {
    let world = world_on_disk(torn).await;
    let serving = world.serve().await;
    for entity in ["v0", "v1", "v6", "nobody"] {
        let query = CountQuery {
            entity: entity.to_owned(),
            event_type: Some("like".to_owned()),
            from: MICROS_PER_DAY,
            to: 3 * MICROS_PER_DAY,
            filter: None,
        };
        let counted = serving.count(&query).await.unwrap();
        assert!(counted.provenance.complete);
        let from_log = world
            .log
            .all()
            .into_iter()
            .filter(|event| event.entity == entity && event.event_type == "like" && event.minute >= 1_440);
        assert_eq!(counted.count, from_log.count() as u64, "{entity}, torn: {torn}");
        for table in ["stats", "stats_hour", "stats_day"] {
            let text = format!(
                "SELECT coalesce(sum(count), 0) FROM {table} WHERE entity_id = '{entity}' AND event_type = 'like' \
                 AND minute >= '1970-01-02T00:00:00Z'"
            );
            assert_eq!(rows(&serving, &text).await, [[json!(counted.count)]], "{text}");
        }
        let parts = format!(
            "SELECT (SELECT coalesce(sum(count), 0) FROM stats_batch WHERE entity_id = '{entity}' AND event_type = 'like' AND minute >= '1970-01-02T00:00:00Z'), \
             (SELECT coalesce(sum(count), 0) FROM stats_stream WHERE entity_id = '{entity}' AND event_type = 'like' AND minute >= '1970-01-02T00:00:00Z')"
        );
        assert_eq!(rows(&serving, &parts).await, [[json!(counted.batch), json!(counted.stream)]]);
    }
}

const TABLES: [(&str, Granularity); 3] =
    [("stats", Granularity::Minute), ("stats_hour", Granularity::Hour), ("stats_day", Granularity::Day)];

/// All rows of a merged table, in order, as whoever counts slowly has them.
fn counted_slowly(world: &World, granularity: Granularity) -> Vec<Vec<Value>> {
    use reckon_data::metric::Cell;
    use reckon_data::metric::Function::{Avg, Count, Max, Min, Sum};
    let mut expected: BTreeMap<_, Cell> = BTreeMap::new();
    for event in world.log.all() {
        let minute = granularity.start_of(event.minute);
        let key = (event.entity.clone(), event.event_type, minute, event.country);
        let cell = Cell::one(0, event.value, None);
        expected.entry(key).or_default().merge(&if event.is_late() { cell.as_late() } else { cell });
    }
    let row = |((entity, event_type, minute, country), cell): ((_, _, i64, _), Cell)| -> Vec<Value> {
        let time = reckon_data::minute::format_time(reckon_data::minute::start_of_minute(minute));
        let mut row = vec![json!(entity), json!(event_type), json!(time), json!(country)];
        row.extend([Count, Sum, Min, Max, Avg].map(|function| cell.evaluate(function).to_json()));
        row.push(json!(cell.late));
        row
    };
    expected.into_iter().map(row).collect()
}

/// The same as the table has them.
async fn all_rows(serving: &Serving, table: &str) -> Vec<Vec<Value>> {
    let columns = "entity_id, event_type, minute, country, count, sum, min, max, avg, late";
    rows(serving, &format!("SELECT {columns} FROM {table} ORDER BY 1, 2, 3, 4 NULLS FIRST")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_hold_one_row_for_each_key_and_exact_metrics() {
    for torn in [false, true] {
        let world = world_on_disk(torn).await;
        let serving = world.serve().await;
        for (table, granularity) in TABLES {
            let expected = counted_slowly(&world, granularity);
            assert_eq!(all_rows(&serving, table).await, expected, "{table}, torn: {torn}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_tables_and_the_catalogue_can_be_read() {
    let world = world().await;
    world.bury(&[(7, "empty", "x")]).await;
    let serving = world.serve().await;
    assert_eq!(
        rows(&serving, "SELECT count(*), min(event_date) FROM events").await,
        [[json!(110), json!("1970-01-01")]]
    );
    assert_eq!(rows(&serving, "SELECT reason, log_offset FROM dead_letters").await, [[json!("empty"), json!(7)]]);
    let answer = serving.sql("SELECT count(*) FROM events").await.unwrap();
    assert_eq!(answer.provenance.source, Source::Events);
    assert!(answer.provenance.complete);
    assert_eq!(answer.provenance.partitions[0].position, Some(100));
    let names: Vec<Value> = rows(&serving, "SHOW TABLES").await.into_iter().map(|row| row[2].clone()).collect();
    let raw = ["events", "dead_letters", "audit_runs", "audit_findings"];
    for name in ["stats", "stats_hour", "stats_day", "stats_batch", "stats_stream"].into_iter().chain(raw) {
        assert!(names.contains(&json!(name)), "{name} in {names:?}");
    }
    let columns: Vec<Value> = rows(&serving, "DESCRIBE stats").await.into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(
        json!(columns),
        json!(["entity_id", "event_type", "minute", "country", "count", "sum", "min", "max", "avg", "late"])
    );
    rows(&serving, "EXPLAIN SELECT * FROM stats WHERE entity_id = 'v1'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audits_and_their_findings_are_tables() {
    let world = world().await;
    let serving = world.serve().await;
    let joined = "SELECT r.verdict, r.errors, f.class, f.is_error, f.event_date FROM audit_runs r \
                  JOIN audit_findings f ON f.run_id = r.run_id ORDER BY r.number, f.number";
    assert!(rows(&serving, joined).await.is_empty());
    // Nothing is kept of what was asked before the audit.
    world.audit("a", 2).await;
    let row = [json!("findings"), json!(2), json!("lost"), json!(true), json!(null)];
    assert_eq!(rows(&serving, joined).await, [row.clone(), row.clone()]);
    world.audit("b", 1).await;
    assert_eq!(rows(&serving, joined).await.len(), 3);
    let dates = "SELECT DISTINCT run_date FROM audit_findings WHERE run_id = 'b'";
    assert_eq!(rows(&serving, dates).await, [[json!("1970-01-01")]]);
    let answer = serving.sql("SELECT count(*) FROM audit_runs WHERE run_date < '1970-01-02'").await.unwrap();
    assert_eq!((answer.json_rows().unwrap(), answer.provenance.complete), (vec![vec![json!(2)]], true));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_reach_files_and_runs() {
    let world = world().await;
    let serving = world.serve().await;
    let query = "EXPLAIN SELECT count FROM stats WHERE entity_id = 'v1' AND minute >= '1970-01-02T00:00:00Z'";
    let plan = json!(rows(&serving, query).await).to_string();
    let scan = plan.find("DataSourceExec").unwrap_or_else(|| panic!("{plan}"));
    assert!(plan[scan..].contains("predicate=entity_id"), "{plan}");
    // Files of the first date, and of other granularities, are left out.
    assert!(plan[scan..].contains("event_date=1970-01-02"), "{plan}");
    assert!(!plan[scan..].contains("event_date=1970-01-01"), "{plan}");
    assert!(!plan[scan..].contains("granularity=hour"), "{plan}");
    assert!(plan.contains("StreamingTableExec"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_writes_is_refused() {
    let serving = world().await.serve().await;
    for query in [
        "INSERT INTO stats VALUES (1)",
        "DELETE FROM events",
        "UPDATE events SET country = 'US'",
        "DROP TABLE events",
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "EXPLAIN COPY (SELECT 1) TO '/tmp/x.csv'",
        "EXPLAIN INSERT INTO events SELECT * FROM events",
        "SELECT 1 INTO x",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "BEGIN",
        "TRUNCATE TABLE events",
        "SELECT 1; SELECT 2",
        "SELECT * FROM '/etc/passwd'",
        "SELECT",
        "",
        "SELECT nothing FROM stats",
        "SELECT * FROM nowhere",
        "SELECT 1 / 0",
    ] {
        match serving.sql(query).await {
            Err(ServingError::BadRequest { field: "query", message }) => assert!(!message.is_empty(), "{query}"),
            other => panic!("{query}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_has_its_limits() {
    let mut world = world().await;
    world.settings.rows_max = 10;
    world.settings.query_time = Duration::from_millis(500);
    world.settings.query_memory = ByteSize::mib(8);
    let serving = world.serve().await;
    let answer = serving.sql("SELECT * FROM generate_series(1, 25)").await.unwrap();
    assert_eq!((answer.rows(), answer.truncated), (10, true));
    let answer = serving.sql("SELECT * FROM generate_series(1, 10)").await.unwrap();
    assert_eq!((answer.rows(), answer.truncated), (10, false));
    let slow = "SELECT count(*) FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b WHERE a.value + b.value = 7";
    let error = serving.sql(slow).await.unwrap_err();
    assert!(matches!(error, ServingError::Timeout { .. } | ServingError::MemoryLimit { .. }), "{error}");
    let large = "SELECT array_agg(value) FROM generate_series(1, 100000000)";
    let error = serving.sql(large).await.unwrap_err();
    assert!(
        matches!(error, ServingError::MemoryLimit { limit_bytes: 8_388_608, .. } | ServingError::Timeout { .. }),
        "{error}"
    );
    assert!(serving.sql(&" ".repeat(QUERY_BYTES_MAX + 1)).await.is_err());
}

/// What a scalar function makes is counted by no limit of memory.
#[tokio::test(flavor = "multi_thread")]
async fn functions_that_make_much_out_of_nothing_are_not_there() {
    let serving = world().await.serve().await;
    for call in [
        "array_length(range(1, 10))",
        "generate_series(1, 10)",
        "unnest(range(1, 10))",
        "array_repeat(1, 10)",
        "list_repeat(1, 10)",
        "array_resize(make_array(1), 10)",
        "list_resize(make_array(1), 10)",
        "repeat('x', 10)",
        "lpad('x', 10)",
        "rpad('x', 10)",
    ] {
        let error = serving.sql(&format!("SELECT {call}")).await.unwrap_err();
        assert!(matches!(error, ServingError::BadRequest { field: "query", .. }), "{call}: {error}");
    }
    assert_eq!(rows(&serving, "SELECT count(*) FROM range(0, 10)").await, [[json!(10)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_is_cut_where_it_is_written() {
    let serving = world().await.serve().await;
    let long = format!("SELECT '{}' AS text FROM generate_series(1, 100)", "x".repeat(1_000));
    let answer = serving.sql(&long).await.unwrap();
    let json = |most| answer.render(Form::Json, most).map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
    let whole = json(usize::MAX).unwrap();
    assert_eq!((whole["rows"].as_array().unwrap().len(), &whole["truncated"]), (100, &json!(false)));
    assert_eq!((&whole["columns"][0]["name"], &whole["provenance"]["complete"]), (&json!("text"), &json!(true)));
    let cut = json(50_000).unwrap();
    let rows = cut["rows"].as_array().unwrap();
    assert!(rows.len() > 40 && rows.len() < 50 && rows.iter().all(|row| row[0].as_str().unwrap().len() == 1_000));
    assert_eq!(cut["truncated"], true);
    assert!(matches!(json(500), Err(ServingError::MemoryLimit { limit_bytes: 500, .. })));
    assert!(matches!(answer.render(Form::Arrow, 100), Err(ServingError::MemoryLimit { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_can_be_read_as_arrow() {
    let serving = world().await.serve().await;
    let options = SqlOptions::default();
    let bytes = serving.sql_as("SELECT sum(count) AS n FROM stats", options, Form::Arrow).await.unwrap();
    let mut reader = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap();
    let schema = reader.schema();
    assert_eq!(schema.metadata()["reckon.truncated"], "false");
    assert!(schema.metadata()["reckon.provenance"].contains("\"complete\":true"));
    assert_eq!((schema.field(0).name().as_str(), reader.next().unwrap().unwrap().num_rows()), ("n", 1));
}

/// R-7, R-9: raw events end where they are archived, counts where the stream stands.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_counts_and_events_says_how_far_each_goes() {
    let world = world().await;
    let serving = world.serve().await;
    let query = "SELECT (SELECT sum(count) FROM stats), (SELECT count(*) FROM events)";
    let provenance = serving.sql(query).await.unwrap().provenance;
    let ends = |provenance: &Provenance| provenance.archived.iter().map(|at| at.events).collect::<Vec<_>>();
    assert_eq!(ends(&provenance), [100, 10]);
    assert_eq!(provenance.partitions[0].position, Some(world.log.0[0].len() as u64));
    assert_eq!(ends(&serving.sql("SELECT 1 FROM events").await.unwrap().provenance), [100, 10]);
    assert!(ends(&serving.sql("SELECT 1 FROM stats").await.unwrap().provenance).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_partition_is_named() {
    let world = world().await;
    world.tails.state.lock().silent.insert(1);
    let serving = world.serve().await;
    let answer = serving.sql("SELECT sum(count) FROM stats").await.unwrap();
    assert!(!answer.provenance.complete);
    assert_eq!(answer.provenance.missing[0].partition, Some(1));
    assert!(serving.sql("SELECT sum(count) FROM stats_batch").await.unwrap().provenance.complete);
}

/// Groupings that look as if one were enough, and are not.
#[tokio::test(flavor = "multi_thread")]
async fn groupings_that_say_something_of_their_own_stay() {
    let serving = world().await.serve().await;
    let none = "(SELECT 5 AS x, sum(count) AS n FROM stats WHERE entity_id = 'nobody')";
    for (query, expected) in [
        (format!("SELECT count(DISTINCT x), sum(n) FROM {none}"), json!([[1, null]])),
        (format!("SELECT max(x), sum(n) FROM {none}"), json!([[5, null]])),
        (format!("SELECT x, sum(n) FROM {none} GROUP BY x"), json!([[5, null]])),
        (
            "SELECT 1, sum(n) FROM (SELECT sum(count) AS n FROM stats WHERE false) GROUP BY 1".to_owned(),
            json!([[1, null]]),
        ),
        ("SELECT sum(n) FROM (SELECT sum(count) AS n FROM stats WHERE false)".to_owned(), json!([[null]])),
    ] {
        assert_eq!(json!(rows(&serving, &query).await), expected, "{query}");
    }
    let casts = "SELECT d, m, sum(c) FROM (SELECT cast(minute AS date) AS d, minute AS m, count AS c FROM stats_batch) \
                 GROUP BY d, m ORDER BY d, m";
    let minutes: Vec<Value> = rows(&serving, casts).await.into_iter().map(|row| row[1].clone()).collect();
    let expected = rows(&serving, "SELECT DISTINCT minute FROM stats_batch ORDER BY 1").await.concat();
    assert_eq!(minutes, expected);
    assert_eq!(json!(rows(&serving, &format!("{casts} LIMIT 3")).await.len()), json!(3));
    let failing = "SELECT sum(n) FROM (SELECT cast(entity_id AS int) AS k, sum(count) AS n FROM stats GROUP BY 1)";
    assert!(serving.sql(failing).await.is_err());
}

/// Questions that need no more of the rows than to add them up, and others that look alike. A limit between two
/// groupings keeps them apart: that is what the one step is held to.
#[tokio::test(flavor = "multi_thread")]
async fn groups_of_groups_are_made_in_one_step_and_say_the_same() {
    let serving = world().await.serve().await;
    let together = [
        "SELECT sum(count) FROM {}",
        "SELECT entity_id, sum(count), sum(late) FROM {} GROUP BY 1 ORDER BY 1",
        "SELECT sum(count) AS n, sum(sum), min(min), max(max), max(minute), min(entity_id) FROM {}",
        "SELECT country, sum(count) FROM {} GROUP BY 1 ORDER BY 1",
        "SELECT s.country AS c, upper(s.event_type) AS t, sum(s.count) FROM {} AS s GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT date_trunc('hour', minute) AS hour, sum(count) FROM {} WHERE entity_id <> 'v1' GROUP BY 1 ORDER BY 2 DESC, 1",
        "SELECT entity_id, sum(count) AS n FROM {} GROUP BY 1 HAVING sum(count) > 20 ORDER BY 2 DESC, 1 LIMIT 3",
        "SELECT DISTINCT country FROM {} ORDER BY 1",
        "SELECT count(DISTINCT entity_id) FROM {}",
        "SELECT t, sum(n) FROM (SELECT event_type AS t, country, sum(count) AS n FROM {} GROUP BY 1, 2) GROUP BY 1 ORDER BY 1",
        "SELECT sum(count) FROM {} WHERE entity_id = 'nobody'",
        "SELECT entity_id AS a, entity_id AS b, sum(count) FROM {} GROUP BY 1, 2 ORDER BY 1",
    ];
    let apart = [
        "SELECT count(*) FROM {}",
        "SELECT count(country), count(minute) FROM {}",
        "SELECT max(count), min(count) FROM {}",
        "SELECT max(sum), sum(max), avg(count) FROM {}",
        "SELECT sum(count) FROM {} WHERE count > 1",
        "SELECT sum(count) FILTER (WHERE country = 'US') FROM {}",
        "SELECT sum(DISTINCT count) FROM {}",
        "SELECT count, sum(count) FROM {} GROUP BY 1 ORDER BY 1",
        "SELECT sum(count + 1), sum(count * 2) FROM {}",
        "SELECT country, event_type, sum(count) FROM {} GROUP BY ROLLUP (country, event_type) ORDER BY 1, 2, 3",
    ];
    for (queries, steps) in [(together.as_slice(), 1), (apart.as_slice(), 2)] {
        for query in queries {
            let (of_table, held) =
                (query.replace("{}", "stats"), query.replace("{}", "(SELECT * FROM stats LIMIT 1000000)"));
            assert_eq!(rows(&serving, &of_table).await, rows(&serving, &held).await, "{query}");
            let plan = rows(&serving, &format!("EXPLAIN {of_table}")).await[0][1].to_string();
            let groupings = plan.matches("Aggregate:").count();
            let distinct = usize::from(query.contains("count(DISTINCT") || query.contains("sum(DISTINCT"));
            assert_eq!(groupings, steps + distinct, "{query}: {plan}");
        }
    }
}

/// What the process counts can be asked for, too, and only what was said at the time of the query.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_a_table() {
    struct Text;
    impl Samples for Text {
        fn text(&self) -> String {
            "# TYPE lag gauge\nlag{partition=\"0\"} 3\nlag{partition=\"1\"} 61.5\nup 1\n".to_owned()
        }
    }
    let world = world().await;
    let serving = world.serve().await;
    let query = "SELECT labels, value FROM metrics WHERE name = 'lag' AND value > 60";
    let answer =
        serving.sql_as(query, SqlOptions { samples: Some(&Text), ..SqlOptions::default() }, Form::Json).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["rows"], json!([[r#"{"partition":"1"}"#, 61.5]]), "{answer}");
    assert_eq!(answer["provenance"]["complete"], true, "{answer}");
    assert!(rows(&serving, "SELECT * FROM metrics").await.is_empty(), "nobody says anything");
}

/// The query of a rule that the example of alerts shows.
fn example(rule: &str) -> &'static str {
    let rules = include_str!("../../../alerts.example.toml");
    let (_, of_rule) = rules.split_once(&format!("[rules.{rule}]\nsql = \"\"\"\n")).unwrap();
    of_rule.split_once("\"\"\"").unwrap().0
}

/// Whatever a canary finds must make a rule fire that people are shown; and when all is well none.
#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_the_example_hear_of_all_that_a_canary_finds() {
    struct Says(String);
    impl Samples for Says {
        fn text(&self) -> String {
            self.0.clone()
        }
    }
    let world = world().await;
    let serving = world.serve().await;
    let now = SystemClock.now() / 1_000_000;
    let of_canary = |lost: u64, excess: u64, last_right: i64| {
        format!(
            "reckon_canary_lost_total {lost}\nreckon_canary_excess_total {excess}\n\
             reckon_canary_last_right_timestamp_seconds {last_right}\n"
        )
    };
    for (text, firing) in [
        ("up 1\n".to_owned(), None),
        (of_canary(0, 0, now), None),
        (of_canary(0, 0, now - 60), None),
        (of_canary(7, 0, now), Some("canary-differs")),
        (of_canary(0, 7, now), Some("canary-differs")),
        (of_canary(0, 0, now - 180), Some("canary-stale")),
        (of_canary(0, 0, 0), Some("canary-stale")),
    ] {
        let says = Says(text);
        for rule in ["canary-differs", "canary-stale"] {
            let options = SqlOptions { samples: Some(&says), ..SqlOptions::default() };
            let answer = serving.sql_as(example(rule), options, Form::Json).await.unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let fires = !answer["rows"].as_array().unwrap().is_empty();
            assert_eq!(fires, firing == Some(rule), "{rule}: {} {answer}", says.0);
        }
    }
}
