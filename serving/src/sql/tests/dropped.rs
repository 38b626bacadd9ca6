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

/// The planner answers all of these, without what is said here.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_planner_leaves_out_is_refused() {
    let serving = world().await.serve().await;
    for (query, says) in [
        (
            "SELECT coalesce(sum(count), 0) FILTER (WHERE event_type = 'view') FROM stats",
            "\"coalesce\" is no aggregate",
        ),
        ("SELECT ABS(sum(count)) OVER () FROM stats", "\"abs\" is no aggregate"),
        ("SELECT length(DISTINCT entity_id) FROM stats", "\"length\" is no aggregate"),
        ("SELECT length(entity_id ORDER BY count) FROM stats", "\"length\" is no aggregate"),
        ("SELECT abs(count) IGNORE NULLS FROM stats", "\"abs\" is no aggregate"),
        ("SELECT sum(count) FROM stats PREWHERE event_type = 'view'", "write WHERE"),
        ("SELECT sum(count) FROM stats WHERE event_type SIMILAR TO 'i'", "SIMILAR TO"),
        ("SELECT sum(count) FROM stats WHERE event_type NOT SIMILAR TO 'i'", "SIMILAR TO"),
        ("SELECT event_type, sum(count) FROM stats GROUP BY event_type WITH ROLLUP", "GROUP BY ROLLUP"),
        ("SELECT event_type, sum(count) FROM stats GROUP BY event_type WITH TOTALS", "GROUP BY ROLLUP"),
        ("SELECT event_type, sum(count) FROM stats GROUP BY ALL WITH CUBE", "GROUP BY ROLLUP"),
        ("SELECT sum(count) FROM stats TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE"),
        ("SELECT sum(count) FROM (SELECT count FROM stats) TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE"),
        ("SELECT sum(count) FROM stats PARTITION (p)", "a partition"),
        ("SELECT sum(count) FROM stats START WITH count = 1 CONNECT BY PRIOR count = count", "CONNECT BY"),
        ("SELECT count FROM stats WINDOW w AS (ORDER BY minute) ORDER BY sum(count) OVER w", "name of a window"),
        ("SELECT count FROM stats WINDOW w AS (ORDER BY minute) QUALIFY sum(count) OVER w > 1", "name of a window"),
        ("SELECT sum(0.5)(count) FROM stats", "one pair of brackets"),
        (
            "WITH a AS (SELECT abs(1) FILTER (WHERE false) AS b) SELECT * FROM a UNION SELECT 1",
            "\"abs\" is no aggregate",
        ),
        ("EXPLAIN SELECT * FROM (SELECT 1 WHERE 'click' SIMILAR TO 'c') AS a", "SIMILAR TO"),
    ] {
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
    ] {
        assert_eq!(total(&rows(&serving, query).await), total(&views), "{query}");
    }
    let rolled_up = rows(&serving, "SELECT sum(count), event_type FROM stats GROUP BY ROLLUP (event_type)").await;
    assert_eq!((rolled_up.len(), total(&rolled_up)), (3, 2 * total(&all)));
    let distinct =
        rows(&serving, "SELECT count(DISTINCT event_type), array_agg(event_type ORDER BY minute) FROM stats").await;
    assert_eq!(distinct[0][0], json!(2));
}
