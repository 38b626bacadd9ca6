//! Audits while events come in and batch runs: they are balanced, one at a time, and run by themselves where the
//! settings say so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::ask::{BALANCED, audit_of, ended, report, rows_of_page, start, thousands};
use crate::harness::{Server, number, rows};

/// Batch every other second, and small segments; not so many files that audits over an object store take longer and longer.
const BUSY: &[&str] = &[
    // Only those that are asked for.
    "--audit-after-batch",
    "false",
    "--batch-schedule",
    "*/2 * * * * *",
    "--archive-commit-every",
    "500ms",
    "--stream-seal-every",
    "500ms",
    "--stream-segment-events",
    "1000",
];
/// The start of 2026.
const START: u64 = 1_767_225_600_000;
/// Events of a request.
const AT_ONCE: u64 = 100;
/// Each request of so many is sent twice.
const TWICE: u64 = 10;
/// Audits while events come in.
const AUDITS: usize = 4;
/// Attempts at having two audits at once.
const ATTEMPTS: usize = 20;

/// How many events were sent for the first time, and how many again.
#[derive(Debug, Default)]
struct Sent {
    events: u64,
    repeats: u64,
}

fn send(server: &Server, from: u64) {
    let line = |number: u64| {
        let event = json!({"event_id": format!("e{number}"), "event_type": "view",
            "entity_id": format!("v{}", number % 97), "event_time": START + number * 1_000});
        event.to_string() + "\n"
    };
    let body: String = (from..from + AT_ONCE).map(line).collect();
    let headers = [("content-type", "application/x-ndjson")];
    let (status, answer) = server.request("POST", "/v1/events", &headers, body.into_bytes());
    assert_eq!(status, 200, "{answer}");
}

/// Sends events until it is told to stop.
fn traffic(server: &Server, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    while !stop.load(Ordering::Relaxed) {
        send(server, sent.events);
        if (sent.events / AT_ONCE).is_multiple_of(TWICE) {
            send(server, sent.events);
            sent.repeats += AT_ONCE;
        }
        sent.events += AT_ONCE;
        std::thread::sleep(Duration::from_millis(20));
    }
    sent
}

/// Stops the traffic when it goes out of scope, also when a test fails: who waits for it would wait for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn batch_runs(server: &Server) -> usize {
    let runs = server.get("/v1/batch/runs")["runs"].clone();
    runs.as_array().unwrap().iter().filter(|run| run["state"] == "succeeded").count()
}

/// Starts an audit when none is going on; its report.
fn audited(server: &Server) -> Value {
    let mut id = None;
    server.wait_until("an audit is started", || {
        id = start(server);
        id.is_some()
    });
    ended(server, &id.unwrap())
}

fn assert_balanced(report: &Value) {
    assert_eq!(report["verdict"], "balanced", "{}", report["findings"]);
    for stage in report["stages"].as_array().unwrap() {
        assert_eq!((&stage["expected"], &stage["fingerprints_agree"]), (&stage["found"], &json!(true)), "{stage}");
    }
}

/// Audits while batch goes on; the reports.
fn audits_meanwhile(server: &Server) -> Vec<Value> {
    let mut reports = Vec::new();
    for done in 1..=AUDITS {
        server.wait_until("batch has run again", || batch_runs(server) >= done);
        reports.push(audited(server));
    }
    reports
}

/// Starts two at once until the second is refused; the reports of those that ran.
fn two_at_once(server: &Server) -> Vec<Value> {
    let (mut reports, mut is_refused) = (Vec::new(), false);
    for _ in 0..ATTEMPTS {
        let both = [start(server), start(server)];
        is_refused |= both[0].is_some() && both[1].is_none();
        reports.extend(both.into_iter().flatten().map(|id| ended(server, &id)));
        if is_refused {
            break;
        }
    }
    assert!(is_refused, "of two audits at once the second is refused");
    reports
}

#[test]
fn audits_under_traffic_are_balanced_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), BUSY);
    let stop = AtomicBool::new(false);
    let (sent, reports) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| traffic(&server, &stop));
        let stopped = Stop(&stop);
        let mut reports = audits_meanwhile(&server);
        reports.extend(two_at_once(&server));
        drop(stopped);
        (sender.join().unwrap(), reports)
    });
    reports.iter().for_each(assert_balanced);
    let raw = |report: &Value| report["dates"].as_array().unwrap().iter().map(|date| number(&date["raw"])).sum::<u64>();
    let grown: Vec<u64> = reports.iter().map(raw).collect();
    assert!(grown.is_sorted() && grown.first() < grown.last(), "events came in meanwhile: {grown:?}");

    // When all is quiet, the last one knows of all that was sent.
    server.wait_counted();
    server.wait_until("no scheduled batch run is in the way", || {
        let (status, run) = server.post("/v1/batch/runs", &json!({}));
        assert!(matches!(status, 202 | 409), "{status}: {run}");
        status == 202
    });
    let before = batch_runs(&server);
    server.wait_until("batch has counted all", || batch_runs(&server) > before);
    let last = report(&mut audit_of(&server), BALANCED);
    let sum = |of: fn(&reckon_audit::report::model::DateTotals) -> u64| last.dates.iter().map(of).sum::<u64>();
    assert_eq!((sum(|date| date.raw), sum(|date| date.repeats)), (sent.events + sent.repeats, sent.repeats));
    assert_eq!((sum(|date| date.minute), sum(|date| date.uncovered)), (sent.events, 0));
    check_trend(&server, &reports, &last.run_id.to_string(), sent.events + sent.repeats);
}

/// The page and the tables know every run.
fn check_trend(server: &Server, reports: &[Value], last: &str, raw: u64) {
    let page = server.get("/v1/audit/page");
    let page = page.as_str().unwrap();
    assert!(page.contains("Findings over the last runs"), "the trend is on the page");
    let trend = rows_of_page(page);
    let ids = reports.iter().map(|report| report["run_id"].as_str().unwrap()).chain([last]);
    for id in ids.clone() {
        let row = trend.iter().find(|row| row.get(1).is_some_and(|cell| cell == id));
        let row = row.unwrap_or_else(|| panic!("run {id} is not in the trend"));
        assert_eq!((row[2].as_str(), row[3].as_str()), ("✓ balanced", "0"), "{row:?}");
        let own = server.get(&format!("/v1/audit/runs/{id}/page"));
        assert!(own.as_str().unwrap().contains(id), "the page of {id}");
    }
    assert!(trend.iter().any(|row| row.len() == 6 && row[1] == last && row[5] == thousands(raw)), "{raw} events");
    let stored = rows(&server.sql("select run_id, verdict, errors from audit_runs order by number"));
    let stored: Vec<(&str, &str, u64)> =
        stored.iter().map(|row| (row[0].as_str().unwrap(), row[1].as_str().unwrap(), number(&row[2]))).collect();
    let due: Vec<(&str, &str, u64)> = ids.map(|id| (id, "balanced", 0)).collect();
    assert_eq!(stored, due, "every run, in order");
}

/// A server with some events, on which audits run by themselves.
fn by_itself(arguments: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let quick = ["--archive-commit-every", "200ms", "--stream-seal-every", "200ms"];
    let server = Server::start_with(dir.path(), &[&quick[..], arguments].concat());
    send(&server, 0);
    let ended = || {
        let runs = server.get("/v1/audit/runs")["runs"].clone();
        let runs = runs.as_array().unwrap().clone();
        runs.into_iter().filter(|run| run["state"] != "running").collect::<Vec<Value>>()
    };
    let has_events = |run: &Value| run["events"].as_u64().is_some_and(|events| events > 0);
    server
        .wait_until("two audits have run by themselves", || ended().iter().filter(|run| has_events(run)).count() >= 2);
    for run in ended() {
        assert_eq!((&run["state"], &run["verdict"]), (&json!("succeeded"), &json!("balanced")), "{run}");
        assert_balanced(&server.get(&format!("/v1/audit/runs/{}", run["id"].as_str().unwrap()))["report"]);
    }
    let stored = server.sql("select count(*) from audit_runs where verdict = 'balanced' and errors = 0");
    assert!(number(&rows(&stored)[0][0]) >= 2, "{stored}");
    assert!(server.terminate().as_secs() < 10, "a schedule does not hold up the end");
}

#[test]
fn audits_run_on_their_schedule() {
    by_itself(&["--audit-schedule", "*/2 * * * * *"]);
}

#[test]
fn audits_run_after_scheduled_batch_runs() {
    by_itself(&["--audit-after-batch", "true", "--batch-schedule", "*/3 * * * * *"]);
}
