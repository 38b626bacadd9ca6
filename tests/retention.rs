//! Rollups and the colder store: a server that goes forty days ahead, and what it answers of the day before yesterday then.

use std::path::{Path, PathBuf};

use reckon_data::clock::{Clock as _, SystemClock};
use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, date_of, format_date, format_time};
use serde_json::{Value, json};

use crate::audit::ask::{BALANCED, audit_of, report};
use crate::harness::{Server, cold_at, command, data_at, in_folder, number, rows};

/// Minutes for 30 days, raw events at hand for 35. Files are kept for longer than the clock is set ahead: by that clock
/// what is just being written is old.
const RETENTION: &[&str] = &[
    "--log-partitions",
    "2",
    "--retention-minutes-days",
    "30",
    "--retention-cold-days",
    "35",
    "--retention-removed-files",
    "60d",
];

/// A time of the date that the test is about.
struct Day(i64);

impl Day {
    fn at(&self, hour: i64, minute: i64) -> String {
        format_time(self.0 + hour * MICROS_PER_HOUR + minute * MICROS_PER_MINUTE)
    }

    fn date(&self) -> String {
        format_date(date_of(self.0))
    }

    fn event(&self, id: &str, entity: &str, hour: i64, minute: i64) -> Value {
        let time = self.at(hour, minute);
        let (country, ip) = ("US", "10.0.0.1");
        json!({"event_id": id, "event_type": "view", "entity_id": entity, "event_time": time, "country": country, "ip": ip})
    }

    /// A count of `v1`.
    fn count(&self, from: (i64, i64), to: (i64, i64), more: &str) -> String {
        let (from, to) = (self.at(from.0, from.1), self.at(to.0, to.1));
        format!("/v1/entities/v1/count?type=view&from={from}&to={to}{more}")
    }

    fn stats(&self, step: &str) -> String {
        let (from, to) = (self.at(0, 0), self.at(24, 0));
        format!("/v1/entities/v1/stats?type=view&function=count&from={from}&to={to}&step={step}")
    }
}

fn ahead<'a>(cold: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [RETENTION, &["--retention-cold-url", cold], more].concat()
}

/// What is asked before and after, and has to be the same.
fn coarse(server: &Server, day: &Day) -> Vec<Value> {
    let (from, to) = (day.at(0, 0), day.at(24, 0));
    let points = |step: &str| server.get(&day.stats(step))["points"].clone();
    let sql = |query: &str| server.sql(query)["rows"].clone();
    vec![
        points("hour"),
        points("day"),
        server.get(&day.count((10, 0), (12, 0), ""))["count"].clone(),
        server.get(&format!("/v1/top?type=view&n=5&from={from}&to={to}"))["entities"].clone(),
        sql("select entity_id, minute, country, count, late from stats_hour order by 1, 2, 3"),
        sql("select entity_id, minute, country, count, late from stats_day order by 1, 2, 3"),
        sql("select event_id, entity_id, event_time from events order by 1"),
    ]
}

fn refused(server: &Server, path: &str, names: &str) {
    let (status, problem) = server.request("GET", path, &[], Vec::new());
    assert_eq!((status, &problem["type"]), (400, &json!("/problems/rolled-up")), "GET {path}: {problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(names)), "{problem}");
}

/// Files of raw events below a folder.
fn raw_files(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.join("tables/events")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend((!path.ends_with("_delta_log")).then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn old_minutes_are_rolled_up_and_old_raw_events_move_and_every_answer_stays_exact() {
    let (dir, cold_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, cold) = (dir.path(), cold_at(cold_dir.path()));
    let day = Day((i64::from(date_of(SystemClock.now())) - 2) * MICROS_PER_DAY);
    let server = Server::start_with(dir, &ahead(&cold, &[]));
    let times = [(10, 0), (10, 1), (10, 59), (11, 30), (23, 59)];
    let events = times.iter().enumerate().flat_map(|(n, (hour, minute))| {
        ["v1", "v2"].map(|entity| day.event(&format!("{entity}-{n}"), entity, *hour, *minute))
    });
    let (status, receipt) = server.post("/v1/events", &events.collect());
    assert_eq!((status, number(&receipt["accepted"])), (200, 10), "{receipt}");
    server.wait_counted();
    server.batch();
    let before = coarse(&server, &day);
    assert_eq!(number(&server.get(&day.count((10, 0), (10, 2), ""))["count"]), 2);
    assert_eq!(number(&rows(&server.sql("select sum(count) from stats"))[0][0]), 10);
    server.terminate();

    let server = Server::start_with(dir, &ahead(&cold, &["--clock-ahead", "40d"]));
    server.batch();
    // The view without them is looked for every half second.
    let fine = day.count((10, 0), (10, 2), "");
    server.wait_until("minutes are gone", || server.request("GET", &fine, &[], Vec::new()).0 == 400);
    assert_eq!(coarse(&server, &day), before);
    rolled_up_questions_are_refused(&server, &day);
    moved(&server, dir, cold_dir.path());

    // A late event: in the stream at once, in batch after the next run; the hour has it once.
    let (status, receipt) = server.post("/v1/events", &day.event("late", "v1", 10, 5));
    assert_eq!((status, number(&receipt["accepted"])), (200, 1), "{receipt}");
    server.wait_counted();
    let hour = || number(&server.get(&day.count((10, 0), (11, 0), ""))["count"]);
    assert_eq!(hour(), 4);
    server.batch();
    assert_eq!(hour(), 4);
    let of_day = number(&server.get(&day.count((0, 0), (24, 0), ""))["batch"]);
    assert_eq!(of_day, 6, "batch has counted it too");
    refused(&server, &day.count((10, 0), (10, 6), ""), &day.date());
    assert_eq!(number(&server.get(&day.count((10, 5), (10, 6), "&filter=ip:10.0.0.1"))["count"]), 1);

    let audited = report(&mut audit_of(&server), BALANCED);
    let line = audited.dates.iter().find(|line| line.date == day.date()).expect("a line of the date");
    assert!(line.balanced && line.rolled_up.is_some(), "{line:?}");
    assert_eq!((line.expected, line.hour, line.day), (11, 11, 11));
    server.terminate();
    without_its_cold_store(dir, &cold);
}

fn rolled_up_questions_are_refused(server: &Server, day: &Day) {
    refused(server, &day.count((10, 0), (10, 2), ""), &day.at(11, 0));
    refused(server, &day.count((10, 1), (11, 0), ""), &day.at(10, 0));
    refused(server, &day.stats("minute"), "whole hours");
    let (from, to) = (day.at(10, 30), day.at(24, 0));
    refused(server, &format!("/v1/top?type=view&n=5&from={from}&to={to}"), "rolled up");
    refused(server, &format!("/v1/entities/v1/why?minute={}", day.at(10, 1)), &day.date());
    // Raw events are as fine as ever.
    assert_eq!(number(&server.get(&day.count((10, 1), (10, 2), "&filter=ip:10.0.0.1"))["count"]), 1);
    let ask = |query: String| server.post("/v1/sql", &json!({ "query": query })).1["provenance"].clone();
    let missing = ask("select sum(count) from stats".to_owned());
    assert_eq!(
        (&missing["complete"], &missing["missing"][0]["date"]),
        (&json!(false), &json!(day.date())),
        "{missing}"
    );
    assert!(missing["missing"][0]["reason"].as_str().is_some_and(|text| text.contains("stats_hour")), "{missing}");
    let later = ask(format!("select sum(count) from stats where minute >= '{}'", day.at(24, 0)));
    assert_eq!(later["complete"], json!(true), "{later}");
    crate::postgres::tells_what_is_missing(server);
    crate::flight_sql::tells_what_is_missing(server);
}

/// The raw events lie in the colder store, and nowhere else.
fn moved(server: &Server, dir: &Path, cold: &Path) {
    let metrics = server.get("/metrics");
    let metrics = metrics.as_str().unwrap();
    let bytes = |place: &str| {
        let name = format!("reckon_raw_bytes{{place=\"{place}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{name} in {metrics}")).parse::<f64>().unwrap()
    };
    assert!(bytes("cold") > 0.0);
    assert!(bytes("hot").abs() < 0.5);
    if in_folder("moved: where the files are") {
        assert!(raw_files(dir).is_empty(), "{:?}", raw_files(dir));
        assert!(!raw_files(cold).is_empty());
    }
}

/// A server that is not told where the rest of its data lies does not start, and says what is missing.
fn without_its_cold_store(dir: &Path, cold: &str) {
    let mut up = command();
    up.args(["up", "--listen", "127.0.0.1:0"]);
    let output = data_at(&mut up, dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains(cold) && text.contains("retention.cold_url"), "{text}");
}
