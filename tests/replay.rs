//! Dead letters are replayed after their cause is gone, and each event counts once.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Server, command, number, rows, run_ok, total};

/// Ids of entities may have four bytes: too few for every second event.
const SHORT: &[&str] = &["--limits-entity-id", "4", "--archive-commit-every", "100ms"];
const EVENTS: i64 = 2_000;
/// So many of those that are refused come twice.
const REPEATS: i64 = 300;

fn event(number: i64) -> String {
    let entity = if number % 2 == 0 { format!("v{}", number % 3) } else { format!("video-{}", number % 5) };
    let event = json!({"event_id": format!("e{number}"), "event_type": "view", "entity_id": entity,
        "event_time": 1_767_225_600_000 + number * 1_000});
    event.to_string() + "\n"
}

fn send(server: &Server, numbers: impl Iterator<Item = i64>) -> Value {
    let body: String = numbers.map(event).collect();
    let headers = [("content-type", "application/x-ndjson")];
    server.request("POST", "/v1/events", &headers, body.into_bytes()).1
}

fn one(server: &Server, query: &str) -> u64 {
    number(&rows(&server.sql(query))[0][0])
}

fn replay(server: &Server) -> Value {
    let output = run_ok(command().args(["dlq", "--json", "--url", server.url(), "replay"]));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_replay_counts_each_once_even_if_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), SHORT);
    let (events, refused) = (EVENTS.unsigned_abs(), (EVENTS / 2 + REPEATS).unsigned_abs());
    let receipt = send(&server, 0..EVENTS);
    assert_eq!((number(&receipt["accepted"]), number(&receipt["refused"])), (events / 2, events / 2), "{receipt}");
    // A client that did not hear of it.
    send(&server, (1..2 * REPEATS).step_by(2));
    assert_eq!(total(&server), events / 2);
    server.wait_until("dead letters are archived", || one(&server, "select count(*) from dead_letters") == refused);
    server.batch();
    // As long as the cause is there, nothing changes.
    assert_eq!(replay(&server)["accepted"], 0);
    let path = server.kill();

    let server = Server::start_with(&path, &["--archive-commit-every", "100ms"]);
    let mut half = command();
    half.args(["dlq", "--url", server.url(), "replay"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut half = half.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(150));
    let path = server.kill();
    half.kill().unwrap();
    half.wait().unwrap();
    let server = Server::start_with(&path, &["--archive-commit-every", "100ms"]);
    let before = total(&server);
    assert!((events / 2..=events).contains(&before), "{before}");
    replay(&server);
    assert_eq!(total(&server), events);
    let again = replay(&server);
    assert_eq!((&again["accepted"], number(&again["skipped"])), (&json!(0), refused), "{again}");
    server.batch();
    assert_eq!(total(&server), events);
    assert_eq!(one(&server, "select count(distinct event_id) from events"), events);
    assert_eq!(one(&server, "select count(*) from dead_letters"), refused, "they stay as they are");
}
