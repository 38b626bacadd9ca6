//! What a filter says reaches partitions, files and row groups: EXPLAIN shows it.

use super::*;

async fn plan(serving: &Serving, query: &str) -> String {
    let rows = rows(serving, &format!("EXPLAIN {query}")).await;
    rows.iter().map(|row| row[1].as_str().unwrap_or_default().to_owned() + "\n").collect()
}

/// The second day of three, said in many ways.
#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_say_a_time_leaves_files_out() {
    let world = world_on_disk(true).await;
    let serving = world.serve().await;
    let all = rows(&serving, "SELECT sum(count) FROM stats").await;
    let expected = world.log.all().into_iter().filter(|event| (1_440..2_880).contains(&event.minute)).count();
    for day in [
        "minute >= '1970-01-02T00:00:00Z' AND minute < '1970-01-03T00:00:00Z'",
        "minute >= timestamp '1970-01-02T00:00:00' AND minute <= timestamp '1970-01-02T23:59:00'",
        "minute(minute) >= '1970-01-02T00:00:00Z' AND minute(minute) < '1970-01-03T00:00:00Z'",
        "time_bucket('1 day', minute) = '1970-01-02T00:00:00Z'",
        "time_bucket(INTERVAL '1 hour', minute) >= '1970-01-02' AND time_bucket(INTERVAL '1 hour', minute) < '1970-01-03'",
        "date_trunc('day', minute) = '1970-01-02'",
        "date_trunc('hour', minute) >= '1970-01-02' AND date_trunc('hour', minute) < '1970-01-03'",
    ] {
        let query = format!("SELECT sum(count) FROM stats WHERE {day}");
        assert_eq!(rows(&serving, &query).await, [[json!(expected)]], "{day}");
        let plan = plan(&serving, &query).await;
        assert!(plan.contains("granularity=minute/event_date=1970-01-02"), "{day}: {plan}");
        for left_out in ["event_date=1970-01-01", "event_date=1970-01-03", "granularity=hour", "granularity=day"] {
            assert!(!plan.contains(left_out), "{day}: {left_out} in {plan}");
        }
        assert!(plan.contains("pruning_predicate=") && plan.contains("minute_max"), "row groups, by {day}: {plan}");
    }
    // Nothing is that young.
    let now = plan(&serving, "SELECT sum(count) FROM stats_batch WHERE minute >= now() - INTERVAL '1 hour'").await;
    assert!(!now.contains("event_date=") && now.contains("EmptyExec"), "{now}");
    // A month that all of it lies in says nothing, and must not lose a row.
    let month = "SELECT sum(count) FROM stats WHERE date_trunc('month', minute) = '1970-01-01' \
                 AND time_bucket(INTERVAL '1 month', minute) = '1970-01-01'";
    assert_eq!(rows(&serving, month).await, all);
}

/// A literal that is no start of a step has no times; what is left and right of it has.
#[tokio::test(flavor = "multi_thread")]
async fn times_between_steps_say_what_they_say_row_by_row() {
    let serving = world().await.serve().await;
    for comparison in ["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"] {
        for literal in ["1970-01-02T00:00:00Z", "1970-01-02T00:00:30Z", "1970-01-02T12:20:00Z"] {
            for call in ["minute(minute)", "time_bucket('1 hour', minute)", "date_trunc('hour', minute)"] {
                let pushed = format!("SELECT sum(count) FROM stats WHERE {call} {comparison} timestamp '{literal}'");
                let held = format!(
                    "SELECT sum(count) FROM (SELECT count, {call} AS t FROM stats LIMIT 1000000) \
                     WHERE t {comparison} timestamp '{literal}'"
                );
                assert_eq!(rows(&serving, &pushed).await, rows(&serving, &held).await, "{pushed}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_top_of_a_list_is_not_all_of_it_sorted() {
    let serving = world().await.serve().await;
    let query = "SELECT entity_id, sum(count) AS c FROM stats WHERE event_type = 'like' \
                 AND minute >= '1970-01-02T00:00:00Z' GROUP BY 1 ORDER BY 2 DESC LIMIT 3";
    let plan = plan(&serving, query).await;
    assert!(plan.contains("SortExec: TopK(fetch=3)"), "{plan}");
    assert_eq!(plan.matches("Aggregate:").count(), 1, "{plan}");
    assert!(plan.contains("predicate=event_type") || plan.contains("predicate=minute"), "{plan}");
    assert!(!plan.contains("event_date=1970-01-01"), "{plan}");
    let all = rows(&serving, &query.replace("LIMIT 3", ", entity_id")).await;
    let found = rows(&serving, query).await;
    let counts = |rows: &[Vec<Value>]| rows.iter().map(|row| row[1].clone()).collect::<Vec<_>>();
    assert_eq!(counts(&found), counts(&all[..3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_events_are_pruned_by_their_date() {
    let serving = world().await.serve().await;
    let plan = plan(&serving, "SELECT count(country) FROM events WHERE event_date = '1970-01-01'").await;
    assert!(plan.contains("events/event_date=1970-01-01"), "{plan}");
    assert!(!plan.contains("event_date=1970-01-02"), "{plan}");
}
