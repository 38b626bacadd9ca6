//! Bits that flip in data files: found by whoever reads them, named, and made good where there is another copy.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Server, command, number, rows, total};

/// Small segments, so that some are sealed while the test looks on.
const SETTINGS: &[&str] = &[
    "--log-partitions",
    "1",
    "--stream-segment-events",
    "1000",
    "--stream-seal-every",
    "100ms",
    "--archive-commit-every",
    "200ms",
];
/// The start of 2026.
const START: i64 = 1_767_225_600_000;
const ONE: &str = "/v1/entities/v1/count?type=view";

/// Sends so many events from number `from` on, one a second, of three entities in turn.
fn send(server: &Server, from: i64, events: i64) {
    for start in (from..from + events).step_by(100) {
        let line = |number: i64| {
            let event = json!({"event_id": format!("e{number}"), "event_type": "view",
                "entity_id": format!("v{}", number % 3), "event_time": START + number * 1_000});
            event.to_string() + "\n"
        };
        let body: String = (start..(start + 100).min(from + events)).map(line).collect();
        let headers = [("content-type", "application/x-ndjson")];
        let (status, answer) = server.request("POST", "/v1/events", &headers, body.into_bytes());
        assert_eq!(status, 200, "{answer}");
    }
}

/// The data files of a table.
fn files(data: &Path, table: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![data.join("tables").join(table)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("_delta_log") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Flips a bit in the middle of a file; its name.
fn flip(path: &Path) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn count(server: &Server) -> (u16, Value) {
    server.request("GET", ONE, &[], Vec::new())
}

fn damaged(server: &Server) -> String {
    let metrics = server.get("/metrics");
    assert!(metrics.as_str().unwrap().contains("\nreckon_damaged_files 1\n"), "{metrics}");
    server.get("/readyz")["damaged"].to_string()
}

#[test]
fn a_damaged_file_of_sealed_counts_is_a_hole_that_batch_fills() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), SETTINGS);
    send(&server, 0, 300);
    server.batch();
    let before = files(dir.path(), "stream_counts");
    send(&server, 300, 3_300);
    assert_eq!(total(&server), 3_600);
    let sealed = || files(dir.path(), "stream_counts").into_iter().filter(|file| !before.contains(file)).collect();
    server.wait_until("counts are sealed", || Vec::len(&sealed()) >= 2);
    server.wait_until("all is archived", || number(&rows(&server.sql("select count(*) from events"))[0][0]) == 3_600);
    let path = server.kill();
    let sealed: Vec<PathBuf> = sealed();
    let name = flip(&sealed[0]);

    let server = Server::start_with(&path, SETTINGS);
    let (status, answer) = count(&server);
    assert_eq!((status, &answer["provenance"]["complete"]), (200, &json!(false)), "{answer}");
    assert!(number(&answer["count"]) < 1_200, "{answer}");
    let missing = answer["provenance"]["missing"].to_string();
    assert!(missing.contains(&name) && missing.contains("damaged"), "{missing}");
    assert!(damaged(&server).contains(&name));
    let top = server.get("/v1/top?type=view&n=3");
    assert_eq!(top["provenance"]["complete"], false, "{top}");
    let (_, sql) = server.post("/v1/sql", &json!({ "query": "select sum(count) from stats" }));
    assert!(sql.to_string().contains(&name), "{sql}");

    // What it held is in the raw events too.
    server.batch();
    let (_, answer) = count(&server);
    assert_eq!((number(&answer["count"]), &answer["provenance"]["complete"]), (1_200, &json!(true)), "{answer}");
    assert_eq!(total(&server), 3_600);
}

#[test]
fn a_damaged_file_of_batch_counts_is_named_and_recounted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), SETTINGS);
    send(&server, 0, 3_000);
    server.batch();
    let path = server.kill();
    let minutes: Vec<PathBuf> =
        files(&path, "batch_counts").into_iter().filter(|file| file.to_str().unwrap().contains("=minute")).collect();
    let name = flip(&minutes[0]);
    let server = Server::start_with(&path, SETTINGS);
    // Not the whole day, which the roll-ups could answer.
    let part = format!("{ONE}&from=2026-01-01T00:00:00Z&to=2026-01-01T00:10:00Z");
    let (status, answer) = server.request("GET", &part, &[], Vec::new());
    assert_eq!((status, answer["type"].as_str().unwrap().rsplit('/').next()), (500, Some("damaged-file")), "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains(&name), "{answer}");
    let (status, answer) = server.post("/v1/sql", &json!({ "query": "select sum(count) from stats" }));
    assert!(status == 500 && answer["detail"].as_str().unwrap().contains(&name), "{answer}");
    assert!(damaged(&server).contains(&name));
    // Nothing is new, and the date is recounted all the same.
    server.batch();
    assert_eq!(server.get("/readyz").get("damaged"), None);
    assert_eq!(total(&server), 3_000);
    assert_eq!(number(&server.get(&part)["count"]), 200);
}

#[test]
fn a_damaged_file_of_raw_events_is_written_anew_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), SETTINGS);
    send(&server, 0, 3_000);
    server.batch();
    let path = server.kill();
    let name = flip(&files(&path, "events")[0]);
    let server = Server::start_with(&path, SETTINGS);
    let (status, answer) = server.post("/v1/sql", &json!({ "query": "select count(distinct event_id) from events" }));
    assert!(status == 500 && answer["detail"].as_str().unwrap().contains(&name), "{answer}");
    assert!(damaged(&server).contains(&name));
    // What was counted before stands.
    assert_eq!(total(&server), 3_000);
    // A run that needs it finds its rows in the log.
    let recount = command().args(["batch", "--full", "--url", server.url()]).output().unwrap();
    assert!(recount.status.success(), "{}", String::from_utf8_lossy(&recount.stderr));
    assert_eq!(server.get("/readyz").get("damaged"), None);
    assert_eq!(number(&rows(&server.sql("select count(distinct event_id) from events"))[0][0]), 3_000);
    assert_eq!(total(&server), 3_000);
}

#[test]
fn a_query_that_speaks_of_damage_is_a_bad_query() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), SETTINGS);
    let query = "select cast('file x is damaged: its checksum does not hold from byte 1' as int)";
    let (status, answer) = server.post("/v1/sql", &json!({ "query": query }));
    assert_eq!(status, 400, "{answer}");
}
