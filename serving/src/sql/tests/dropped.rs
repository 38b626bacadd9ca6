//! What would be done otherwise than it says is refused, and what says the same clearly is not.

use super::*;

/// What a query is refused with.
async fn refusal(serving: &Serving, query: &str) -> String {
    match serving.sql(query).await {
        Err(ServingError::BadRequest { field: "query", message }) => message,
        Err(other) => panic!("{query}: {other}"),
        Ok(_) => panic!("{query}: is answered"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_is_read_too_far_is_refused() {
    let serving = world().await.serve().await;
    for (comparison, answer) in [
        ("(true IS DISTINCT FROM true) AND false", false),
        ("(true IS NOT DISTINCT FROM true) OR true", true),
        ("true IS NOT DISTINCT FROM (true AND false)", false),
        ("true IS DISTINCT FROM NOT true", true),
        ("(NULL::boolean IS DISTINCT FROM NULL::boolean) IS TRUE", false),
    ] {
        assert_eq!(rows(&serving, &format!("SELECT {comparison}")).await, [[json!(answer)]], "{comparison}");
    }
    for query in [
        "SELECT true IS DISTINCT FROM true AND false",
        "SELECT sum(count) FROM stats WHERE (count > 1) IS NOT DISTINCT FROM true OR count = 1",
        "SELECT NULL::boolean IS DISTINCT FROM NULL::boolean IS TRUE",
        "SELECT true IS DISTINCT FROM NULL IS NOT DISTINCT FROM true",
        "EXPLAIN SELECT 1 FROM stats WHERE count IN (SELECT 1 WHERE NOT true IS DISTINCT FROM NOT true AND false)",
    ] {
        let refused = refusal(&serving, query).await;
        assert!(refused.contains("brackets"), "{query}: {refused}");
    }
}

/// Queries that the planner answers without what is said here, and what is said of it.
type Cases = &'static [(&'static str, &'static str)];

const FUNCTIONS: Cases = &[
    ("SELECT coalesce(sum(count), 0) FILTER (WHERE event_type = 'view') FROM stats", "\"coalesce\" is no aggregate"),
    ("SELECT ABS(sum(count)) OVER () FROM stats", "\"abs\" is no aggregate"),
    ("SELECT length(DISTINCT entity_id) FROM stats", "\"length\" is no aggregate"),
    ("SELECT length(entity_id ORDER BY count) FROM stats", "\"length\" is no aggregate"),
    ("SELECT abs(count) IGNORE NULLS FROM stats", "\"abs\" is no aggregate"),
    ("SELECT row_number() FILTER (WHERE event_type = 'view') OVER (ORDER BY minute) FROM stats", "FILTER or"),
    ("SELECT FIRST_VALUE(count) FILTER (WHERE false) OVER (ORDER BY minute) FROM stats", "FILTER or"),
    ("SELECT lag(DISTINCT count) OVER (ORDER BY minute) FROM stats", "FILTER or DISTINCT"),
    ("SELECT sum(count) RESPECT NULLS OVER () FROM stats", "RESPECT NULLS"),
    ("SELECT row_number() IGNORE NULLS OVER () FROM stats", "IGNORE or RESPECT NULLS"),
    ("SELECT corr(DISTINCT count, count) FROM stats", "DISTINCT with \"corr\""),
    ("SELECT approx_percentile_cont(DISTINCT count, 0.5) FROM stats", "DISTINCT with"),
    ("SELECT percentile_cont(count, 0.5 ORDER BY minute) FROM stats", "WITHIN GROUP"),
    ("SELECT sum(0.5)(count) FROM stats", "one pair of brackets"),
    ("WITH a AS (SELECT abs(1) FILTER (WHERE false) AS b) SELECT * FROM a UNION SELECT 1", "\"abs\" is no aggregate"),
];

const WINDOWS: Cases = &[
    ("SELECT count FROM stats WINDOW w AS (ORDER BY minute) ORDER BY sum(count) OVER w", "name of a window"),
    ("SELECT count FROM stats WINDOW w AS (ORDER BY minute) QUALIFY sum(count) OVER w > 1", "name of a window"),
    (
        "SELECT sum(count) OVER w FROM stats GROUP BY event_type HAVING sum(count) OVER w > 5 WINDOW w AS ()",
        "name of a window",
    ),
    (
        "SELECT sum(count) OVER (w ORDER BY minute) FROM stats WINDOW w AS (PARTITION BY event_type)",
        "made of another one",
    ),
    (
        "SELECT sum(count) OVER v FROM stats WINDOW w AS (PARTITION BY event_type), v AS (w ORDER BY minute)",
        "made of another one",
    ),
    (
        "SELECT * REPLACE (sum(count) OVER w AS count) FROM (SELECT count FROM stats) AS s WINDOW w AS (ORDER BY count)",
        "name of a window",
    ),
    (
        "SELECT row_number() OVER w, (SELECT max(s) FROM (SELECT sum(count) OVER w AS s FROM stats \
             WINDOW w AS (PARTITION BY event_type)) AS q) FROM stats WINDOW w AS (ORDER BY minute)",
        "in a query that is a column",
    ),
];

const VALUES: Cases = &[
    ("SELECT sum(count) FROM stats WHERE event_type SIMILAR TO 'i'", "SIMILAR TO"),
    ("SELECT sum(count) FROM stats WHERE event_type NOT SIMILAR TO 'i'", "SIMILAR TO"),
    ("SELECT 2 ^ 3", "power"),
    ("SELECT 1 | 2 & 2", "brackets"),
    ("SELECT 1 << 2 & 3", "brackets"),
    ("SELECT '5' || 1 + 2", "brackets"),
    ("SELECT sum(count) / 1_000 FROM stats", "1_000 is no number"),
    ("SELECT 0x1_000", "no number"),
    ("SELECT 5 #3", "#3 would be a name"),
    ("SELECT 0b101", "0b101 is no number"),
    ("SELECT 'a'\n'b'", "put || between 'a'"),
    ("SELECT trim('xay', 'x', 'y')", "btrim"),
    ("EXPLAIN SELECT * FROM (SELECT 1 WHERE 'click' SIMILAR TO 'c') AS a", "SIMILAR TO"),
];

const TABLES: Cases = &[
    ("SELECT sum(count) FROM stats TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE"),
    ("SELECT sum(count) FROM (SELECT count FROM stats) TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE"),
    ("SELECT sum(count) FROM stats PARTITION (p)", "a partition"),
    ("SELECT count(*) FROM stats NATURAL LEFT JOIN (SELECT 1 AS zz WHERE false) AS b", "NATURAL"),
    ("SELECT count(*) FROM (stats NATURAL FULL JOIN stats_hour) AS c", "NATURAL"),
    ("SELECT count(*) FROM stats NATURAL LEFT ANTI JOIN (SELECT 1 AS zz) AS b", "NATURAL"),
    ("SELECT count(*) FROM stats LEFT JOIN stats_hour", "without ON"),
    ("SELECT count(*) FROM stats JOIN stats_hour", "without ON"),
    ("SELECT count(*) FROM stats FULL JOIN stats_hour USING (entity_id)", "RIGHT or FULL"),
    ("SELECT stats.* FROM (stats RIGHT OUTER JOIN stats_hour USING (entity_id))", "coalesce"),
    ("SELECT * FROM stats LEFT JOIN entities USING (entity_id)", "name the columns"),
    ("SELECT * FROM stats CROSS JOIN (stats_hour LEFT JOIN entities USING (entity_id)) AS a", "name the columns"),
    ("SELECT * FROM generate_series(1, 3, SETTINGS a = 1)", "SETTINGS"),
    ("SELECT * FROM generate_series(1, 3) WITH ORDINALITY", "WITH ORDINALITY"),
    ("SELECT * FROM stats, LATERAL generate_series(stop => 1, start => 5)", "name of an argument"),
    ("SELECT * FROM (VALUES ('10'), ('9')) AS t(a int) ORDER BY a", "type of a column"),
];

const QUERIES: Cases = &[
    ("SELECT sum(count) FROM stats PREWHERE event_type = 'view'", "write WHERE"),
    ("SELECT event_type, sum(count) FROM stats GROUP BY event_type WITH ROLLUP", "GROUP BY ROLLUP"),
    ("SELECT event_type, sum(count) FROM stats GROUP BY event_type WITH TOTALS", "GROUP BY ROLLUP"),
    ("SELECT event_type, sum(count) FROM stats GROUP BY ALL WITH CUBE", "GROUP BY ROLLUP"),
    ("SELECT sum(count) FROM stats START WITH count = 1 CONNECT BY PRIOR count = count", "CONNECT BY"),
    (
        "WITH RECURSIVE a AS (SELECT count FROM stats UNION ALL SELECT 0 ORDER BY 1 LIMIT 1) SELECT sum(count) FROM a",
        "WITH RECURSIVE",
    ),
    (
        "WITH RECURSIVE a AS (WITH stats AS (SELECT * FROM stats WHERE event_type = 'view') \
             SELECT count FROM stats UNION ALL SELECT 0) SELECT sum(count) FROM a",
        "WITH RECURSIVE",
    ),
    ("SELECT DISTINCT * ILIKE '%type%' FROM stats", "ILIKE behind *"),
    ("SELECT stats.* ILIKE '%type%' FROM stats", "ILIKE behind *"),
    ("SELECT * FROM stats |> AGGREGATE sum(count) AS n DESC GROUP BY entity_id |> LIMIT 3", "|>"),
    ("WITH a (SELECT 1) FROM stats SELECT count(*)", "FROM behind"),
    ("FROM stats", "FROM without SELECT"),
    ("SELECT count FROM stats EXCEPT ALL SELECT 1", "EXCEPT ALL"),
    ("SELECT count(*) FROM (SELECT 2 UNION (SELECT 1 INTERSECT ALL SELECT 1)) AS a", "INTERSECT ALL"),
    ("SELECT 1 INTERSECT ALL SELECT 1 UNION ALL SELECT 1", "INTERSECT ALL"),
    ("SELECT count FROM stats WHERE true SETTINGS a = 1", "SETTINGS"),
    ("SELECT count FROM stats WHERE true FORMAT CSV", "FORMAT"),
    ("SELECT count FROM stats FOR JSON AUTO", "FOR JSON"),
    ("SELECT 1 INTO x UNION ALL SELECT 2", "only reading"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_the_planner_leaves_out_is_refused() {
    let serving = world().await.serve().await;
    for (query, says) in [FUNCTIONS, WINDOWS, VALUES, TABLES, QUERIES].concat() {
        let refused = refusal(&serving, query).await;
        assert!(refused.contains(says), "{query}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_planner_knows_is_answered() {
    let serving = world().await.serve().await;
    let total = |rows: &[Vec<Value>]| rows.iter().filter_map(|row| row[0].as_i64()).sum::<i64>();
    let all = rows(&serving, "SELECT sum(count) FROM stats").await;
    let views = rows(&serving, "SELECT sum(count) FROM stats WHERE event_type = 'view'").await;
    assert!(total(&views) > 0 && total(&views) < total(&all));
    for query in [
        "SELECT coalesce(sum(count) FILTER (WHERE event_type = 'view'), 0) FROM stats",
        "SELECT sum(count) FROM stats WHERE event_type LIKE 'view'",
        "SELECT sum(count) FROM stats WHERE event_type ~ '^view$'",
        "SELECT SUM(ALL count) FILTER (WHERE event_type = 'view') FROM stats",
        "SELECT sum(count) OVER w FROM stats WHERE event_type = 'view' WINDOW w AS () ORDER BY 1 LIMIT 1",
        "WITH RECURSIVE a AS ((SELECT count FROM stats WHERE event_type = 'view' UNION ALL SELECT 0) ORDER BY 1) \
         SELECT sum(count) FROM a",
        "SELECT sum(a.count) FROM stats AS a CROSS JOIN (SELECT 1) AS b NATURAL JOIN (SELECT 'view' AS event_type) AS c",
        "SELECT sum(a.count) FROM stats AS a LEFT JOIN (SELECT 'view' AS event_type, 1 AS b) AS z USING (event_type) \
         WHERE b = 1",
        "FROM stats SELECT sum(count) WHERE event_type = 'view'",
        "SELECT sum(count) FROM stats WHERE event_type IN (SELECT event_type FROM stats EXCEPT SELECT 'like') \
         AND event_type = 'view'",
        "SELECT (sum(count) << 1) / 2 + (0 & 3 | 24) - (1 + 2 << 3) FROM stats WHERE 'v' || 'i' || 'ew' = event_type",
        "SELECT sum(count)::float::bigint FROM stats WHERE event_type = 'view' FOR UPDATE",
    ] {
        assert_eq!(total(&rows(&serving, query).await), total(&views), "{query}");
    }
    let rolled_up = rows(&serving, "SELECT sum(count), event_type FROM stats GROUP BY ROLLUP (event_type)").await;
    assert_eq!((rolled_up.len(), total(&rolled_up)), (3, 2 * total(&all)));
    let distinct =
        rows(&serving, "SELECT count(DISTINCT event_type), array_agg(event_type ORDER BY minute) FROM stats").await;
    assert_eq!(distinct[0][0], json!(2));
}

/// A LIMIT takes the first rows of an ordered query within its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_a_query_within_a_query_is_kept() {
    let serving = world().await.serve().await;
    for (query, answer) in [
        ("SELECT x FROM (SELECT value AS x FROM generate_series(1, 9) ORDER BY 1 DESC) AS a LIMIT 2", [9, 8]),
        ("WITH a AS (SELECT value AS x FROM generate_series(1, 9) ORDER BY 1 DESC) SELECT x FROM a LIMIT 2", [9, 8]),
        (
            "SELECT sum(x), count(*) FROM ((SELECT value AS x FROM generate_series(1, 9) ORDER BY 1 DESC LIMIT 1) \
             ORDER BY x) AS a",
            [9, 1],
        ),
    ] {
        let numbers: Vec<i64> = rows(&serving, query).await.into_iter().flatten().filter_map(|v| v.as_i64()).collect();
        assert_eq!(numbers, answer, "{query}");
    }
}

/// FLOAT has 53 bits for PostgreSQL and 24 for DataFusion; REAL has 24 for both.
#[tokio::test(flavor = "multi_thread")]
async fn a_float_is_as_wide_as_elsewhere() {
    let serving = world().await.serve().await;
    let query = "SELECT 16777217::float::bigint AS a, CAST(16777217 AS FLOAT(25))::bigint AS b, \
                 16777217::real::bigint AS c, 16777217::float(24)::bigint AS d, arrow_typeof(1::float)";
    assert_eq!(
        rows(&serving, query).await,
        [[json!(16_777_217), json!(16_777_217), json!(16_777_216), json!(16_777_216), json!("Float64")]]
    );
}
