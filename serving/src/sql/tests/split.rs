//! Rows of batch that are alone are not grouped, and every answer is what grouping all of them would give.

use std::collections::BTreeSet;

use reckon_data::metric::Function;

use super::*;

/// Two partitions that have no entity in common, so that batch writes each key of a date once.
fn event(partition: usize, id: i64, minute: i64) -> Ev {
    Ev {
        id: format!("e{id}"),
        entity: format!("{}{}", ["a", "b"][partition], id % 3),
        event_type: if id % 2 == 0 { "view" } else { "like" },
        minute,
        country: [Some("US"), None, Some("GB"), None, None][(id % 5) as usize],
        ip: None,
        value: (id % 4 != 0).then_some(id * 250_001),
    }
}

/// Batch has counted sixty events of each partition, which lie on three dates. Of the others the first adds to a key that
/// batch has, on the first date; some lie in a minute that batch has as well; the rest come after all that batch has.
fn log() -> Log {
    let of = |partition: usize| {
        let batch = (0..60).map(|n| event(partition, n, (n * 73) % 4_000));
        let stream = (60..90).map(|n| match n {
            60 => event(partition, n, 0),
            61..65 => event(partition, n, 146),
            _ => event(partition, n, 6_000 + n),
        });
        batch.chain(stream).collect()
    };
    Log(vec![of(0), of(1)])
}

/// Plans of a query, logical and physical.
async fn plans(serving: &Serving, query: &str) -> (String, String) {
    let rows = rows(serving, &format!("EXPLAIN {query}")).await;
    let plan = |at: usize| rows[at][1].as_str().unwrap().to_owned();
    (plan(0), plan(1))
}

/// What lies below the first step that groups by all keys.
fn grouped(physical: &str) -> String {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let is_grouping = |line: &&str| line.trim_start().starts_with("AggregateExec") && line.contains("gby=[entity_id@");
    let lines = physical.lines().skip_while(|line| !is_grouping(line)).collect::<Vec<_>>();
    let Some((first, below)) = lines.split_first() else { return String::new() };
    below.iter().take_while(|line| depth(line) > depth(first)).map(|line| format!("{line}\n")).collect()
}

/// Questions that cannot do without the rows as they are.
async fn says_what_its_rows_say(world: &World, serving: &Serving) {
    for (table, granularity) in TABLES {
        let expected = counted_slowly(world, granularity);
        assert_eq!(all_rows(serving, table).await, expected, "{table}");
        let counts: Vec<u64> = expected.iter().map(|row| row[4].as_u64().unwrap()).collect();
        let (rows_found, total) = (counts.len() as u64, counts.iter().sum::<u64>());
        let several = counts.iter().filter(|count| **count > 1).count();
        let in_us = expected.iter().filter(|row| row[3] == json!("US")).count();
        for (query, answer) in [
            ("SELECT count(*), sum(count), max(count) FROM {}", json!([[rows_found, total, counts.iter().max()]])),
            ("SELECT avg(count) FROM {}", json!([[total as f64 / rows_found as f64]])),
            ("SELECT count(*) FROM {} WHERE count > 1", json!([[several]])),
            ("SELECT count(*) FROM {} WHERE country = 'US'", json!([[in_us]])),
            ("SELECT count(*) FROM {} WHERE minute >= '1970-01-02' AND minute < '1970-01-02'", json!([[0]])),
            (
                "SELECT count(*) FROM (SELECT DISTINCT entity_id, event_type, minute, country FROM {})",
                json!([[rows_found]]),
            ),
            (
                "SELECT sum(a.count) FROM {} a JOIN {} b USING (entity_id, event_type, minute) WHERE a.country IS NOT DISTINCT FROM b.country",
                json!([[total]]),
            ),
            ("SELECT count(*) FROM (SELECT * FROM {} UNION ALL SELECT * FROM {})", json!([[2 * rows_found]])),
        ] {
            let query = query.replace("{}", table);
            assert_eq!(json!(rows(serving, &query).await), answer, "{query}");
        }
        let twice = format!(
            "SELECT entity_id, event_type, minute, country, sum(count) AS n FROM \
             (SELECT * FROM {table} UNION ALL SELECT * FROM {table}) GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 NULLS FIRST"
        );
        let doubled: Vec<Value> = counts.iter().map(|count| json!(2 * count)).collect();
        let found: Vec<Value> = rows(serving, &twice).await.into_iter().map(|row| row[4].clone()).collect();
        assert_eq!(found, doubled, "{table}");
        let by_day =
            format!("SELECT date_trunc('day', minute), count(*), sum(count) FROM {table} GROUP BY 1 ORDER BY 1");
        let mut days: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (row, count) in expected.iter().zip(&counts) {
            let day = days.entry(row[2].as_str().unwrap()[..10].to_owned()).or_default();
            *day = (day.0 + 1, day.1 + count);
        }
        let found = rows(serving, &by_day).await;
        let found: BTreeMap<String, (u64, u64)> = found
            .into_iter()
            .map(|row| {
                (row[0].as_str().unwrap()[..10].to_owned(), (row[1].as_u64().unwrap(), row[2].as_u64().unwrap()))
            })
            .collect();
        assert_eq!(found, days, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_minutes_of_the_stream_are_grouped() {
    let world = World::new(log());
    world.batch(&[60, 60]).await;
    let serving = world.serve().await;
    says_what_its_rows_say(&world, &serving).await;
    for query in
        ["SELECT count(*) FROM stats", "SELECT *, count + 1 FROM stats WHERE count < 1000 ORDER BY count LIMIT 3"]
    {
        let (logical, physical) = plans(&serving, query).await;
        let inner = usize::from(query.contains("count(*)"));
        assert_eq!(logical.matches("Aggregate:").count(), 1 + inner, "{query}: {logical}");
        let grouped = grouped(&physical);
        assert!(grouped.contains("StreamingTableExec"), "{query}: {physical}");
        assert!(grouped.contains("event_date=1970-01-01"), "the first date has minutes of both: {physical}");
        for date in ["event_date=1970-01-02", "event_date=1970-01-03"] {
            assert!(physical.contains(date) && !grouped.contains(date), "{date}, {query}: {physical}");
        }
        assert_eq!(physical.contains("TopK(fetch=3)"), inner == 0, "{physical}");
    }
    // What filters say reaches the files of both halves, and where they leave nothing of the stream no file is grouped.
    let (_, of_a_day) =
        plans(&serving, "SELECT count(*) FROM stats WHERE time_bucket('1 day', minute) = '1970-01-02'").await;
    assert!(of_a_day.contains("event_date=1970-01-02"), "{of_a_day}");
    assert!(!of_a_day.contains("event_date=1970-01-01") && !of_a_day.contains("event_date=1970-01-03"), "{of_a_day}");
    assert!(!grouped(&of_a_day).contains("DataSourceExec"), "{of_a_day}");
    // What is only added up is added up in one step, as ever.
    let (logical, _) = plans(&serving, "SELECT country, sum(count) FROM stats GROUP BY 1").await;
    assert_eq!(logical.matches("Aggregate:").count(), 1, "{logical}");
}

/// Groupings of a query's own that go by all keys, by more, or by sets of them, take the place of the one that is split, or
/// stand above it.
#[tokio::test(flavor = "multi_thread")]
async fn groupings_by_all_keys_say_what_the_rows_say() {
    let world = World::new(log());
    world.batch(&[60, 60]).await;
    let serving = world.serve().await;
    for (table, granularity) in TABLES {
        let expected = counted_slowly(&world, granularity);
        let counts: Vec<u64> = expected.iter().map(|row| row[4].as_u64().unwrap()).collect();
        let (found, total) = (counts.len() as u64, counts.iter().sum::<u64>());
        let several = counts.iter().filter(|count| **count > 1).count() as u64;
        let in_us = expected.iter().zip(&counts).filter(|(row, _)| row[3] == json!("US"));
        let in_us: u64 = in_us.map(|(_, count)| count).sum();
        // Rows that differ in the first so many keys.
        let by = |keys: usize| {
            expected.iter().map(|row| format!("{:?}", &row[..keys])).collect::<BTreeSet<String>>().len() as u64
        };
        assert!(several > 0 && several < found && in_us > 0 && in_us < total, "{table}");
        let keys = "entity_id, event_type, minute, country";
        for (query, answer) in [
            (format!("SELECT sum(count) AS n FROM {table} GROUP BY {keys}"), json!([[found, total]])),
            (format!("SELECT sum(count) AS n FROM {table} GROUP BY {keys}, upper(country)"), json!([[found, total]])),
            (
                format!("SELECT sum(count) AS n FROM {table} GROUP BY ROLLUP ({keys})"),
                json!([[found + by(3) + by(2) + by(1) + 1, 5 * total]]),
            ),
            (
                format!("SELECT sum(count) AS n FROM {table} GROUP BY GROUPING SETS (({keys}), (entity_id))"),
                json!([[found + by(1), 2 * total]]),
            ),
            (
                format!("SELECT sum(count) AS n FROM {table} GROUP BY {keys} HAVING sum(count) > 1"),
                json!([[several, total - (found - several)]]),
            ),
            (
                format!("SELECT sum(count) FILTER (WHERE country = 'US') AS n FROM {table} GROUP BY {keys}"),
                json!([[found, in_us]]),
            ),
            (
                format!("SELECT count(DISTINCT minute) AS n FROM {table} GROUP BY entity_id, event_type, country"),
                json!([[found_without_minute(&expected), found]]),
            ),
            (format!("SELECT DISTINCT {keys}, count AS n FROM {table} WHERE count > 0"), json!([[found, total]])),
            (
                format!(
                    "SELECT b.count AS n FROM {table} a FULL JOIN {table} b ON a.entity_id = b.entity_id AND \
                     a.event_type = b.event_type AND a.minute = b.minute AND a.count = b.count AND \
                     (a.country IS NOT DISTINCT FROM b.country) AND b.count > 1"
                ),
                json!([[2 * found - several, total]]),
            ),
        ] {
            let query = format!("SELECT count(*), sum(n) FROM ({query})");
            assert_eq!(json!(rows(&serving, &query).await), answer, "{query}");
        }
    }
}

/// How many rows differ in entity, type and country.
fn found_without_minute(rows: &[Vec<Value>]) -> usize {
    rows.iter().map(|row| format!("{:?}", (&row[0], &row[1], &row[3]))).collect::<BTreeSet<String>>().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_grouped_where_the_stream_has_nothing() {
    let mut world = World::new(log());
    world.batch(&[90, 90]).await;
    // Late events are counted otherwise now, and what batch has counted is as it was.
    world.definition.lateness = Duration::from_secs(90);
    let serving = world.serve().await;
    says_what_its_rows_say(&world, &serving).await;
    for table in ["stats", "stats_hour", "stats_day", "stats_batch"] {
        let (logical, physical) = plans(&serving, &format!("SELECT * FROM {table}")).await;
        assert!(!logical.contains("Aggregate") && !physical.contains("Aggregate"), "{table}: {logical} {physical}");
        assert!(physical.contains("DataSourceExec"), "{physical}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_segments_have_minutes_too() {
    for torn in [false, true] {
        let world = World::new(log());
        world.batch(&[60, 60]).await;
        world.seal(&[80, 75], 5, torn).await;
        world.tails.state.lock().on_disk_below.extend([(0, 80), (1, 75)]);
        let serving = world.serve().await;
        says_what_its_rows_say(&world, &serving).await;
        let (_, physical) = plans(&serving, "SELECT count(*) FROM stats").await;
        let grouped = grouped(&physical);
        assert!(grouped.contains("stream_counts") && grouped.contains("event_date=1970-01-01"), "{physical}");
        let alone = "event_date=1970-01-03";
        assert!(physical.contains(alone) && !grouped.contains(alone), "torn: {torn}, {physical}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_minutes_batch_and_stream_have_all_are_counted_once() {
    for seed in 1..=6_u64 {
        let mut state = seed;
        // Numerical Recipes' generator: there is nothing to it but that it is the same each time.
        let mut random = move |below: i64| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % (1 << 32);
            (state >> 8) as i64 % below
        };
        let spread = [40, 300, 3_000, 12_000][(seed % 4) as usize];
        let mut of = |partition: usize| (0..120).map(|n| event(partition, n, random(spread))).collect::<Vec<_>>();
        let world = World::new(Log(vec![of(0), of(1)]));
        let coverage = [30 * seed.min(4), 119 - seed];
        world.batch(&coverage).await;
        says_what_its_rows_say(&world, &*world.serve().await).await;
    }
}

/// Files that may have rows of one key are grouped: late events beside rows that could not be read, for one.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_may_share_a_key_are_grouped() {
    let of = |ids: std::ops::Range<i64>| ids.map(|n| event(0, n, n % 7)).collect::<Vec<_>>();
    let world = World::new(Log(vec![of(0..40), of(40..80)]));
    world.batch(&[40, 40]).await;
    let serving = world.serve().await;
    says_what_its_rows_say(&world, &serving).await;
    let (logical, _) = plans(&serving, "SELECT * FROM stats").await;
    assert_eq!(logical.matches("Aggregate:").count(), 1, "{logical}");
}

/// Rows that differ in a dimension that is no longer kept are one row now.
#[tokio::test(flavor = "multi_thread")]
async fn counts_of_more_dimensions_are_grouped() {
    let mut world = World::new(log());
    world.batch(&[90, 90]).await;
    let with_country = world.definition.dimensions.clone();
    let before = counted_slowly(&world, Granularity::Day).len();
    world.definition.dimensions.clear();
    let serving = world.serve().await;
    let events: Vec<Ev> = world.log.all().into_iter().cloned().collect();
    let mut expected: BTreeMap<(String, &str, i64), u64> = BTreeMap::new();
    for event in &events {
        let key = (event.entity.clone(), event.event_type, Granularity::Day.start_of(event.minute));
        *expected.entry(key).or_default() += 1;
    }
    assert!(expected.len() < before && !with_country.is_empty());
    let found = rows(&serving, "SELECT count FROM stats_day ORDER BY entity_id, event_type, minute").await;
    let expected: Vec<Vec<Value>> = expected.values().map(|count| vec![json!(count)]).collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_the_same_however_they_are_made() {
    let mut world = World::new(log());
    world.definition.metrics = Function::ALL.to_vec();
    world.batch(&[60, 60]).await;
    let some = world.serve().await.sql("SELECT * FROM stats").await.unwrap();
    world.batch(&[90, 90]).await;
    let none = world.serve().await.sql("SELECT * FROM stats").await.unwrap();
    let types = |answer: &SqlAnswer| {
        let of = answer.schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone()));
        of.collect::<Vec<_>>()
    };
    assert_eq!(types(&some), types(&none));
    assert!(types(&none).iter().any(|(name, _)| name == "users"));
    let nobody = "SELECT count(*), count(approx_distinct), count(users) FROM stats WHERE count > 0";
    let found = rows(&*world.serve().await, nobody).await;
    assert_eq!(found, [[json!(none.rows()), json!(0), json!(0)]]);
}
