//! SQL over HTTP and on the command line: one immutable view, the same numbers, three formats.

use serde_json::json;

use crate::harness::{Server, command, data_at, number, rows, run_ok};

fn loaded() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let event = |id: u32, entity: &str, time: &str, value: &str| json!({"event_id": id.to_string(), "event_type": "view", "entity_id": entity, "event_time": time, "value": value});
    let events = json!([
        event(1, "a", "2013-02-08T21:29:10Z", "0.1"),
        event(2, "a", "2013-02-08T21:29:20Z", "0.2"),
        event(3, "a", "2013-02-08T22:00:00Z", "-1"),
        event(4, "b", "2013-02-09T00:00:00Z", "5"),
    ]);
    let (status, receipt) = server.post("/v1/events", &events);
    assert_eq!(status, 200, "{receipt}");
    server.wait_counted();
    (dir, server)
}

#[test]
fn sums_are_exact_in_both_layers() {
    let (_dir, server) = loaded();
    let query = "select entity_id, minute, count, sum, min, max, avg from stats order by entity_id, minute";
    let before = server.sql(query);
    let first = &rows(&before)[0];
    assert_eq!(first[1], "2013-02-08T21:29:00Z");
    assert_eq!((number(&first[2]), &first[3]), (2, &json!("0.3")), "{first:?}");
    assert_eq!(first[6], json!("0.15"), "{first:?}");
    server.batch();
    assert_eq!(rows(&server.sql(query)), rows(&before), "batch gives the same rows");
    let coverage = server.sql("select sum(count) from stats_batch");
    assert_eq!(number(&rows(&coverage)[0][0]), 4);
}

#[test]
fn hours_and_days_are_there() {
    let (_dir, server) = loaded();
    for _ in 0..2 {
        let hours = server.sql("select minute, count from stats_hour where entity_id = 'a' order by minute");
        assert_eq!(rows(&hours).iter().map(|row| number(&row[1])).collect::<Vec<_>>(), [2, 1]);
        let days = server.sql("select minute, count from stats_day where entity_id = 'a'");
        assert_eq!(rows(&days).iter().map(|row| number(&row[1])).collect::<Vec<_>>(), [3]);
        server.batch();
    }
}

#[test]
fn raw_events_and_a_description_of_the_tables() {
    let (_dir, server) = loaded();
    server.batch();
    let events = server.sql("select count(*), sum(value) from events where event_date = '2013-02-08'");
    assert_eq!(rows(&events)[0], [json!(3), json!("-0.7")]);
    let tables = server.sql("select table_name from information_schema.tables where table_schema = 'public'");
    let names: Vec<String> = rows(&tables).iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
    let raw = ["events", "dead_letters", "audit_runs", "audit_findings"];
    for name in ["stats", "stats_hour", "stats_day", "stats_batch", "stats_stream"].into_iter().chain(raw) {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
    for table in ["audit_runs", "audit_findings"] {
        let none = server.sql(&format!("select count(*) from {table}"));
        assert_eq!(rows(&none)[0], [json!(0)], "{table}");
    }
}

/// `events` ends where it is archived, `stats` where the stream stands.
#[test]
fn an_answer_says_how_far_the_raw_events_go() {
    let (_dir, server) = loaded();
    server.batch();
    let answer = server.sql("select (select sum(count) from stats), (select count(*) from events)");
    let archived = answer["provenance"]["archived"].as_array().unwrap();
    assert_eq!(archived.len(), 4, "{answer}");
    assert!(archived.iter().all(|partition| partition["events"].is_u64()), "{answer}");
}

#[test]
fn an_older_version_can_be_asked_in_sql() {
    let (_dir, server) = loaded();
    server.batch();
    let version = server.sql("select 1 from stats")["provenance"]["batch_version"].clone();
    let late = json!({"event_id": "5", "event_type": "view", "entity_id": "b", "event_time": "2013-02-08T21:29:30Z"});
    assert_eq!(server.post("/v1/events", &late).0, 200);
    server.batch();
    let ask = |query: &str, as_of: serde_json::Value| {
        let (status, answer) = server.post("/v1/sql", &json!({ "query": query, "as_of": as_of }));
        assert_eq!(status, 200, "{query}: {answer}");
        assert_eq!(answer["provenance"]["complete"], true, "{answer}");
        answer
    };
    for table in ["stats", "stats_hour", "stats_day", "stats_batch"] {
        let query = format!("select sum(count) from {table}");
        let then = ask(&query, json!(format!("version:{version}")));
        assert_eq!(number(&rows(&then)[0][0]), 4, "{table}: {then}");
        assert_eq!(then["provenance"]["as_of"]["version"], version, "{then}");
        let now = ask(&query, json!(4_102_444_800_000_u64));
        assert_eq!(number(&rows(&now)[0][0]), 5, "{table}: {now}");
        assert_eq!(number(&rows(&server.sql(&query))[0][0]), 5, "{table}");
    }
    let stream = ask("select count(*) from stats_stream", json!("2100-01-01T00:00:00Z"));
    assert_eq!(number(&rows(&stream)[0][0]), 0);
    let body = json!({"query": "select count(*) from events", "as_of": format!("version:{version}")});
    let (status, problem) = server.post("/v1/sql", &body);
    assert_eq!((status, &problem["field"]), (400, &json!("as_of")), "{problem}");
    let query = "select sum(count) from stats";
    let as_of = format!("version:{version}");
    let output = run_ok(command().args(["sql", "--url", server.url(), "--format", "csv", "--as-of", &as_of, query]));
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("\n4\n"));
}

/// Such a query used to take gigabytes, whatever the limit.
#[test]
fn memory_cannot_be_taken_by_functions() {
    let (_dir, server) = loaded();
    for query in ["select array_length(range(1, 200000000))", "select length(repeat('x', 2000000000))"] {
        let (status, problem) = server.post("/v1/sql", &json!({ "query": query }));
        assert_eq!(status, 400, "{query}: {problem}");
    }
}

#[test]
fn a_long_answer_is_cut_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--serving-rows-max", "10"]);
    let answer = server.sql("select * from generate_series(1, 100)");
    assert_eq!((rows(&answer).len(), &answer["truncated"]), (10, &json!(true)));
}

#[test]
fn a_query_over_its_time_ends() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--serving-query-time", "300ms"]);
    let query =
        "select count(*) from generate_series(1, 300000) a, generate_series(1, 300000) b where a.value + b.value = 7";
    let (status, problem) = server.post("/v1/sql", &json!({ "query": query }));
    assert_eq!(status, 504, "{problem}");
}

/// A sum of so many numbers overflowed a stack, and the process was gone.
#[test]
fn queries_that_are_too_large_to_be_planned_are_refused() {
    let (_dir, server) = loaded();
    let many = |count: usize, one: &dyn Fn(usize) -> String, between: &str| {
        (0..count).map(one).collect::<Vec<_>>().join(between)
    };
    let doubled = |step: usize| {
        let (name, of) = (format!("t{}", step + 1), format!("t{step}"));
        format!("{name} AS (SELECT x FROM {of} UNION ALL SELECT x FROM {of})")
    };
    let chained = |step: usize| format!("t{} AS (SELECT x + 1 AS x FROM t{step} WHERE x > 0)", step + 1);
    for (query, says) in [
        (format!("SELECT {}", many(100_000, &|_| "1".to_owned(), "+")), "words and signs"),
        (format!("SELECT {}", many(5_000, &|_| "1".to_owned(), "+")), "operators around one another"),
        (format!("SELECT {}", many(5_000, &|_| "entity_id".to_owned(), " || ")), "operators around one another"),
        (
            format!("SELECT 1 FROM stats WHERE {}", many(5_000, &|at| format!("count = {at}"), " OR ")),
            "operators around",
        ),
        (many(2_000, &|_| "SELECT 1".to_owned(), " UNION ALL "), "operators around one another"),
        (format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000)), "brackets within one another"),
        (format!("SELECT {} 1", "NOT ".repeat(20_000)), "operators around one another"),
        // Each of them is read twice: this was never read to its end.
        (format!("SELECT {}1{}", "cast(".repeat(45), ")".repeat(45)), "words and signs to read"),
        (format!("SELECT {}1{}", "case (".repeat(45), ")".repeat(45)), "words and signs to read"),
        (format!("SELECT {}", "not (1) = ".repeat(45)), "words and signs to read"),
        (format!("SELECT 1 WHERE 1 IN ({})", many(80_000, &|at| at.to_string(), ", ")), "words and signs"),
        (format!("SELECT {}", many(5_000, &|at| format!("1 AS a{at}"), ", ")), "columns"),
        (format!("WITH t0 AS (SELECT 1 AS x), {} SELECT * FROM t30", many(30, &doubled, ", ")), "tables"),
        (format!("WITH t0 AS (SELECT 1 AS x), {} SELECT * FROM t400", many(400, &chained, ", ")), "within one another"),
    ] {
        let (status, problem) = server.post("/v1/sql", &json!({ "query": query }));
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert_eq!((status, detail.contains(says)), (400, true), "{}: {problem}", query.get(..80).unwrap_or(&query));
    }
    // What is merely long is answered.
    let list = many(5_000, &|at| format!("'e{at}'"), ", ");
    let none = server.sql(&format!("SELECT count(*) FROM stats WHERE entity_id IN ({list})"));
    assert_eq!(number(&rows(&none)[0][0]), 0);
    let sum = server.sql(&format!("SELECT {}", many(400, &|_| "1".to_owned(), "+")));
    assert_eq!(number(&rows(&sum)[0][0]), 400);
}

/// Must-show: a query that would take all memory, or an hour, ends with a reason; and beside it others are answered.
#[test]
fn a_query_that_would_take_everything_ends_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--serving-query-time", "4s", "--serving-query-memory", "64 MiB"]);
    let event = json!({"event_id": "1", "event_type": "view", "entity_id": "a", "event_time": "2013-02-08T21:29:10Z"});
    assert_eq!(server.post("/v1/events", &event).0, 200);
    server.wait_counted();
    let series = "generate_series(1, 1000000000000000)";
    let endless = [
        format!("SELECT count(*) FROM {series}"),
        format!("SELECT count(*) FROM {series} a, {series} b WHERE a.value + b.value = 7"),
        format!("SELECT value FROM {series} ORDER BY value DESC"),
        format!("SELECT value % 1000000007, count(*) FROM {series} GROUP BY 1"),
        format!("SELECT count(DISTINCT value) FROM {series}"),
        format!("SELECT array_agg(value) FROM {series}"),
        format!(
            "SELECT sum(value) OVER (ORDER BY value ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM {series}"
        ),
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t".to_owned(),
        "WITH RECURSIVE t(s) AS (SELECT 'xxxxxxxx' UNION ALL SELECT concat(s, s) FROM t) SELECT max(length(s)) FROM t"
            .to_owned(),
    ];
    for query in endless {
        let (status, problem) = std::thread::scope(|scope| {
            let asked = scope.spawn(|| server.post("/v1/sql", &json!({ "query": query })));
            let beside = server.sql("select sum(count) from stats");
            assert_eq!(number(&rows(&beside)[0][0]), 1, "beside {query}");
            asked.join().unwrap()
        });
        assert!(status == 504 || status == 507, "{query}: {status} {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("limit")), "{query}: {problem}");
    }
    for pattern in ["(((a{1,100}){1,100}){1,100}){1,100}", "((((("] {
        let query = format!("select count(*) from stats where entity_id ~ '{pattern}'");
        let (status, problem) = server.post("/v1/sql", &json!({ "query": query }));
        assert_eq!(status, 400, "{problem}");
    }
    if let Some(memory) = server.memory() {
        assert!(memory < 1 << 30, "{} MiB after queries of 64 MiB each", memory >> 20);
    }
    assert_eq!(number(&rows(&server.sql("select sum(count) from stats"))[0][0]), 1, "it goes on");
}

/// Sketches of minutes are put together to what REST says of the same hour, and of all of it; raw events say the same.
#[test]
fn distinct_users_are_those_of_rest_in_both_layers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--definition-metrics", "count,approx_distinct"]);
    let event = |n: u32| {
        json!({"event_id": n.to_string(), "event_type": "view", "entity_id": "a", "user_id": format!("u{}", n % 700),
            "event_time": format!("2013-02-08T{:02}:{:02}:10Z", 20 + n % 2, n % 60)})
    };
    let send = |numbers: std::ops::Range<u32>| {
        let events: Vec<_> = numbers.map(event).collect();
        assert_eq!(server.post("/v1/events", &json!(events)).0, 200);
        server.wait_counted();
    };
    let agree = || {
        for (from, to) in [("20:00:00", "21:00:00"), ("20:00:00", "22:00:00"), ("20:10:00", "20:13:00")] {
            let (from, to) = (format!("2013-02-08T{from}Z"), format!("2013-02-08T{to}Z"));
            let path = format!("/v1/entities/a/stats?function=approx_distinct&step=1h&from={from}&to={to}");
            let by_rest = number(&server.get(&path)["total"]);
            assert!(by_rest > 0, "{path}");
            let query =
                format!("select approx_distinct(users) from stats where minute >= '{from}' and minute < '{to}'");
            assert_eq!(number(&rows(&server.sql(&query))[0][0]), by_rest, "{query}");
            // Held apart from the grouping that stats is made with.
            let query = format!(
                "select approx_distinct(users) from (select * from stats limit 100000) where minute >= '{from}' and minute < '{to}'"
            );
            assert_eq!(number(&rows(&server.sql(&query))[0][0]), by_rest, "{query}");
        }
        let day = server.sql("select approx_distinct(users), max(approx_distinct) from stats_day");
        assert_eq!(rows(&day)[0][0], rows(&day)[0][1], "{day}");
    };
    send(0..2_000);
    agree();
    server.batch();
    agree();
    send(2_000..3_000);
    agree();
    server.batch();
    agree();
    let both =
        server.sql("select (select approx_distinct(user_id) from events), (select approx_distinct(users) from stats)");
    assert_eq!(rows(&both)[0][0], rows(&both)[0][1], "{both}");
}

#[test]
fn the_command_line_prints_tables_json_and_csv() {
    let (dir, server) = loaded();
    let query = "select entity_id, sum(count) as n from stats group by 1 order by 1";
    let run = |arguments: &[&str]| {
        let output = run_ok(command().arg("sql").args(arguments).arg(query));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["--url", server.url(), "--format", "csv"]), "entity_id,n\na,3\nb,1\n");
    let table = run(&["--url", server.url()]);
    assert!(table.contains("entity_id") && table.contains('a'), "{table}");
    let json = run(&["--url", server.url(), "--format", "json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap(),
        json!([{"entity_id":"a","n":3},{"entity_id":"b","n":1}])
    );
    let took = server.terminate();
    assert!(took.as_secs() < 10, "{took:?}");
    let mut offline = command();
    let output = run_ok(data_at(offline.arg("sql"), dir.path()).args(["--format", "csv", query]));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "entity_id,n\na,3\nb,1\n", "the folder alone");
}
