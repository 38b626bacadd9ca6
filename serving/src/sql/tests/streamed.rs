//! Rows as they come, and queries that are planned and not run.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use reckon_data::columns::time_type;

use super::*;

/// All rows of a query, and the error that ended them.
async fn read(serving: &Serving, query: &str, parameters: Vec<ScalarValue>) -> (Vec<Vec<Value>>, Option<ServingError>) {
    let mut stream = serving.sql_stream(query, parameters, SqlOptions::default()).await.unwrap();
    let (mut batches, mut failed) = (Vec::new(), None);
    while let Some(next) = stream.next().await {
        match next {
            Ok(batch) => {
                assert!(failed.is_none() && batch.num_rows() > 0, "{query}");
                assert_eq!(batch.schema(), stream.schema, "{query}");
                batches.push(batch);
            }
            Err(error) => failed = Some(error),
        }
    }
    assert!(stream.next().await.is_none(), "nothing comes after the end of {query}");
    let provenance = stream.provenance.clone();
    let answer = SqlAnswer { schema: stream.schema.clone(), batches, truncated: false, provenance };
    (answer.json_rows().unwrap(), failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_all_rows_however_many() {
    let mut world = world().await;
    world.settings.rows_max = 10;
    let serving = world.serve().await;
    let (found, failed) = read(&serving, "SELECT * FROM generate_series(1, 100000)", vec![]).await;
    assert!(failed.is_none(), "{failed:?}");
    assert_eq!(found.len(), 100_000);
    assert_eq!(found.iter().map(|row| row[0].as_u64().unwrap()).sum::<u64>(), 100_000 * 100_001 / 2);
    let (none, failed) = read(&serving, "SELECT * FROM stats WHERE entity_id = 'nobody'", vec![]).await;
    assert!(none.is_empty() && failed.is_none(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_stand_for_values() {
    let serving = world().await.serve().await;
    let query = "SELECT entity_id, event_type, sum(count) AS n FROM stats \
                 WHERE entity_id = $2 AND minute >= $1 GROUP BY 1, 2 ORDER BY 2 LIMIT $3";
    let prepared = serving.sql_prepare(query, None).await.unwrap();
    let names: Vec<&str> = prepared.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["entity_id", "event_type", "n"]);
    assert_eq!(prepared.parameters, [Some(time_type()), Some(DataType::Utf8View), Some(DataType::Int64)]);
    let day = ScalarValue::TimestampMicrosecond(Some(MICROS_PER_DAY), Some("UTC".into()));
    let values = vec![day, ScalarValue::from("v2"), ScalarValue::from(10_i64)];
    let (found, failed) = read(&serving, query, values).await;
    assert!(failed.is_none(), "{failed:?}");
    let written = "SELECT entity_id, event_type, sum(count) AS n FROM stats \
                   WHERE entity_id = 'v2' AND minute >= '1970-01-02T00:00:00Z' GROUP BY 1, 2 ORDER BY 2";
    assert!(!found.is_empty());
    assert_eq!(found, rows(&serving, written).await);
    // A client may send all of them as texts.
    let texts = ["1970-01-02T00:00:00Z", "v2"].map(ScalarValue::from);
    let (found, _) = read(&serving, &query.replace("LIMIT $3", ""), texts.to_vec()).await;
    assert_eq!(found, rows(&serving, written).await);
    for wrong in [vec![], vec![ScalarValue::from("v2")]] {
        let refused = serving.sql_stream(query, wrong, SqlOptions::default()).await.unwrap_err();
        assert!(matches!(refused, ServingError::BadRequest { field: "parameters", .. }), "{refused}");
    }
    let unbound = serving.sql("SELECT 1 FROM stats WHERE entity_id = $1").await.unwrap_err();
    assert!(matches!(unbound, ServingError::BadRequest { field: "parameters", .. }), "{unbound}");
    let named = serving.sql_prepare("SELECT 1 FROM stats WHERE entity_id = $who", None).await.unwrap_err();
    assert!(matches!(named, ServingError::BadRequest { field: "query", .. }), "{named}");
}

#[tokio::test(flavor = "multi_thread")]
async fn planning_says_what_running_says() {
    let world = world().await;
    let serving = world.serve().await;
    for query in [
        "SELECT * FROM stats",
        "SELECT * FROM events",
        "SELECT * FROM audit_findings",
        "SELECT minute(event_time), approx_distinct(user_id) FROM events GROUP BY 1",
        "SELECT count(*), min(value) FROM metrics",
        "EXPLAIN SELECT 1",
        "SHOW TABLES",
    ] {
        let prepared = serving.sql_prepare(query, None).await.unwrap();
        let ran = serving.sql_stream(query, vec![], SqlOptions::default()).await.unwrap();
        let types = |schema: &SchemaRef| {
            let of = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone()));
            of.collect::<Vec<_>>()
        };
        assert_eq!(types(&prepared.schema), types(&ran.schema), "{query}");
        assert!(prepared.parameters.is_empty(), "{query}");
    }
    for (query, as_of, field) in [
        ("INSERT INTO stats VALUES (1)", None, "query"),
        ("SELECT * FROM nowhere", None, "query"),
        ("SELECT * FROM events", Some(AsOf::Version(1)), "as_of"),
    ] {
        let refused = serving.sql_prepare(query, as_of).await.unwrap_err();
        assert!(
            matches!(refused, ServingError::BadRequest { field: found, .. } if found == field),
            "{query}: {refused}"
        );
        let options = SqlOptions { as_of, ..SqlOptions::default() };
        let refused = serving.sql_stream(query, vec![], options).await.unwrap_err();
        assert!(
            matches!(refused, ServingError::BadRequest { field: found, .. } if found == field),
            "{query}: {refused}"
        );
    }
}

/// what breaks off says so, whatever came before.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_on_the_way_ends_a_stream_with_that_error() {
    let serving = world().await.serve().await;
    let (found, failed) = read(&serving, "SELECT 10 / (90000 - value) FROM generate_series(1, 100000)", vec![]).await;
    assert!(matches!(failed, Some(ServingError::BadRequest { field: "query", .. })), "{failed:?}");
    // Other batches may be made before that one, but not all of them come.
    assert!(found.len() < 100_000, "{}", found.len());
}

/// Whoever goes away holds no turn: there is only one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_dropped_ends_its_query() {
    let mut world = world().await;
    world.settings.queries = 1;
    let serving = world.serve().await;
    for _ in 0..3 {
        let endless = "SELECT value FROM generate_series(1, 1000000000000)";
        let mut stream = serving.sql_stream(endless, vec![], SqlOptions::default()).await.unwrap();
        assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
        // Planning needs no turn.
        serving.sql_prepare("SELECT * FROM stats", None).await.unwrap();
        drop(stream);
        assert_eq!(rows(&serving, "SELECT 1").await, [[json!(1)]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reserved_entity_is_named_by_a_parameter_too() {
    let mut world = world().await;
    world.definition.reserved_prefixes.push("v2".to_owned());
    let serving = world.serve().await;
    let query = "SELECT sum(count) FROM stats WHERE entity_id = $1";
    let (found, _) = read(&serving, query, vec![ScalarValue::from("v2")]).await;
    assert!(found[0][0].as_u64().is_some_and(|count| count > 0), "{found:?}");
    let others = "SELECT count(*) FROM stats WHERE entity_id >= $1 AND entity_id <= 'v3'";
    let (seen, _) = read(&serving, others, vec![ScalarValue::from("v3")]).await;
    assert_eq!(seen, rows(&serving, "SELECT count(*) FROM stats WHERE entity_id = 'v3'").await);
}
