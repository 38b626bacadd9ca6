//! The functions that every query finds.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn minutes_and_steps_are_those_of_the_counts() {
    let serving = world().await.serve().await;
    for (call, expected) in [
        ("minute('2013-02-08T21:29:59.999Z')", json!("2013-02-08T21:29:00Z")),
        ("minute(timestamp '2013-02-08T21:29:59')", json!("2013-02-08T21:29:00Z")),
        ("minute(timestamp '1969-12-31T23:59:59')", json!("1969-12-31T23:59:00Z")),
        ("minute(date '2013-02-08')", json!("2013-02-08T00:00:00Z")),
        ("minute(NULL)", json!(null)),
        ("time_bucket('5 minutes', '2013-02-08T21:29:59Z')", json!("2013-02-08T21:25:00Z")),
        ("time_bucket(INTERVAL '1 day', timestamp '2013-02-08T21:29:59')", json!("2013-02-08T00:00:00Z")),
        (
            "time_bucket(INTERVAL '7 days', timestamp '2013-02-08T21:29:59', '1970-01-05')",
            json!("2013-02-04T00:00:00Z"),
        ),
        ("time_bucket(INTERVAL '3 months', timestamp '2013-12-31T23:59:59')", json!("2013-10-01T00:00:00Z")),
        ("time_bucket(NULL, timestamp '2013-12-31T23:59:59')", json!(null)),
        ("time_bucket(INTERVAL '1 hour', NULL)", json!(null)),
    ] {
        assert_eq!(rows(&serving, &format!("SELECT {call}")).await, [[expected]], "{call}");
    }
    for (call, says) in [
        ("time_bucket(INTERVAL '0 minutes', timestamp '2013-02-08')", "longer than nothing"),
        ("time_bucket(INTERVAL '1 month 1 day', timestamp '2013-02-08')", "a number of months, or of days"),
        ("time_bucket(INTERVAL '1 month', timestamp '2013-02-08', '2013-01-02')", "the start of one"),
        ("time_bucket(5, timestamp '2013-02-08')", "is no interval"),
        ("time_bucket(INTERVAL '1 day')", "takes an interval"),
        ("minute(5)", "a time was expected"),
    ] {
        let refused = serving.sql(&format!("SELECT {call}")).await.unwrap_err();
        assert!(matches!(refused, ServingError::BadRequest { field: "query", .. }), "{call}: {refused}");
        assert!(refused.to_string().contains(says), "{call}: {refused}");
    }
}

/// Hours and days made of minutes are those of the roll-ups, and of raw events.
#[tokio::test(flavor = "multi_thread")]
async fn steps_of_minutes_are_the_rollups() {
    let serving = world().await.serve().await;
    for (step, table) in [("1 hour", "stats_hour"), ("1 day", "stats_day")] {
        let of_minutes = format!("SELECT time_bucket('{step}', minute), sum(count) FROM stats GROUP BY 1 ORDER BY 1");
        let rolled = format!("SELECT minute, sum(count) FROM {table} GROUP BY 1 ORDER BY 1");
        assert_eq!(rows(&serving, &of_minutes).await, rows(&serving, &rolled).await, "{step}");
    }
    let raw = "SELECT DISTINCT minute(event_time) FROM events WHERE minute(event_time) < '1970-01-01T12:00:00Z' \
               AND entity_id = 'v2' ORDER BY 1";
    let held = "SELECT DISTINCT date_trunc('minute', event_time) FROM (SELECT * FROM events LIMIT 1000000) \
                WHERE event_time < '1970-01-01T12:00:00Z' AND entity_id = 'v2' ORDER BY 1";
    assert_eq!(rows(&serving, raw).await, rows(&serving, held).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn distinct_values_are_counted_about() {
    let serving = world().await.serve().await;
    for (query, expected) in [
        ("SELECT approx_distinct(entity_id) FROM events", 7),
        ("SELECT approx_distinct(entity_id) FROM stats", 7),
        ("SELECT approx_distinct(user_id) FROM events", 0),
        ("SELECT approx_distinct(entity_id) FROM events WHERE false", 0),
        ("SELECT approx_distinct(value) FROM generate_series(1, 10)", 10),
    ] {
        assert_eq!(rows(&serving, query).await, [[json!(expected)]], "{query}");
    }
    let no_sketch = serving.sql("SELECT approx_distinct(arrow_cast('x', 'Binary'))").await.unwrap_err();
    assert!(no_sketch.to_string().contains("not a sketch"), "{no_sketch}");
}

/// What stands in the place of a grouping where a row is alone.
#[tokio::test]
async fn a_sketch_alone_says_what_a_grouping_of_it_says() {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, Int64Array};
    use datafusion::prelude::SessionContext;
    use reckon_data::metric::Distinct;

    use crate::sql::functions::{Functions, sketches};

    let of = |users: std::ops::Range<u32>| {
        let mut sketch = Distinct::new();
        users.for_each(|user| sketch.insert(&user.to_string()));
        sketch.to_bytes()
    };
    let stored = [Some(of(0..1)), None, Some(of(0..20)), Some(of(7..5_000)), Some(of(0..200_000))];
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..5))),
        ("sketch", Arc::new(stored.iter().map(Option::as_deref).collect::<BinaryArray>())),
    ];
    let context = SessionContext::new();
    Functions::new(1 << 20).register(&context);
    context.register_udf(sketches::distinct_of());
    context.register_batch("t", RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    let query = "SELECT distinct_of(sketch) AS own, number, sketch, users FROM t JOIN (SELECT id AS place, \
                 merge_distinct(sketch) AS number, merge_users(sketch) AS users FROM t GROUP BY id) ON place = id";
    let found = context.sql(query).await.unwrap().collect().await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
    for batch in found {
        assert_eq!(batch.column(0), batch.column(1));
        assert_eq!(batch.column(2), batch.column(3));
    }
}
