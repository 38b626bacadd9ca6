//! Groupings of groupings that do not add up all rows: no step of them may be left out.

use super::*;

/// What the inner grouping leaves out, or counts once, the outer one must not count.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_inner_grouping_leaves_out_stays_out() {
    let serving = world().await.serve().await;
    for (inner, plain) in [
        (
            "sum(count) FILTER (WHERE country = 'US')",
            "SELECT CAST(sum(count) AS BIGINT) FROM stats WHERE country = 'US'",
        ),
        (
            "sum(DISTINCT late)",
            "SELECT CAST(sum(late) AS BIGINT) FROM (SELECT DISTINCT event_type, late FROM stats LIMIT 1000000)",
        ),
    ] {
        let nested = format!(
            "SELECT CAST(sum(n) AS BIGINT) FROM (SELECT event_type, {inner} AS n FROM stats GROUP BY event_type)"
        );
        let (found, expected) = (rows(&serving, &nested).await, rows(&serving, plain).await);
        assert_eq!(found, expected, "{nested}");
        let all = rows(&serving, "SELECT CAST(sum(count) AS BIGINT), CAST(sum(late) AS BIGINT) FROM stats").await;
        assert!(!all[0].contains(&found[0][0]), "{nested} is no question: it leaves nothing out");
    }
}
