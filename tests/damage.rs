//! Bits that flip in data files: found by whoever reads them, named, and made good where there is another copy.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Server, command, in_folder, number, rows, run_ok, total};

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
pub fn files(data: &Path, table: &str) -> Vec<PathBuf> {
    let mut found = files_below(&data.join("tables").join(table));
    found.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    found
}

/// The files in a folder and those below it, in order.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("_delta_log") {
                folders.push(path);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Flips a bit in the middle of a file; its name.
pub fn flip(path: &Path) -> String {
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
    if !in_folder("a_damaged_file_of_sealed_counts_is_a_hole_that_batch_fills") {
        return;
    }
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
    if !in_folder("a_damaged_file_of_batch_counts_is_named_and_recounted") {
        return;
    }
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
    if !in_folder("a_damaged_file_of_raw_events_is_written_anew_from_the_log") {
        return;
    }
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
    if !in_folder("a_query_that_speaks_of_damage_is_a_bad_query") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), SETTINGS);
    let query = "select cast('file x is damaged: its checksum does not hold from byte 1' as int)";
    let (status, answer) = server.post("/v1/sql", &json!({ "query": query }));
    assert_eq!(status, 400, "{answer}");
}

/// Two partitions, and nothing is archived for as long as a test lasts.
const UNARCHIVED: &[&str] = &["--log-partitions", "2", "--archive-commit-every", "1h"];
const ARCHIVED: &[&str] = &["--log-partitions", "2", "--archive-commit-every", "200ms"];
/// Events of 15 KB, so that each partition has more than the log keeps in memory.
const LARGE: u64 = 3_200;

/// Sends so many large events, of ten entities in turn.
fn send_large(server: &Server) {
    let filler = "x".repeat(15_000);
    for start in (0..LARGE).step_by(100) {
        let line = |number: u64| {
            let event = json!({"event_id": format!("large-{number}"), "event_type": "view",
                "entity_id": format!("v{}", number % 10), "event_time": START + 1_000 * i64::try_from(number).unwrap(),
                "properties": {"filler": filler}});
            event.to_string() + "\n"
        };
        let body: String = (start..start + 100).map(line).collect();
        let headers = [("content-type", "application/x-ndjson")];
        let (status, answer) = server.request("POST", "/v1/events", &headers, body.into_bytes());
        assert_eq!(status, 200, "{answer}");
    }
}

/// The log's files that hold records, once they are written to their end, the largest last.
fn record_files(server: &Server, data: &Path) -> Vec<PathBuf> {
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
    let written = || {
        let mut found = files_below(&data.join("log/store"));
        found.retain(|path| path.parent().unwrap().ends_with("blobs") && size(path) > 8 << 20);
        found.sort_by_key(size);
        found
    };
    server.wait_until("records lie in files of both partitions", || {
        let (found, sizes) = (written(), written().iter().map(size).collect::<Vec<u64>>());
        std::thread::sleep(std::time::Duration::from_millis(500));
        found.len() >= 2 && written().iter().map(size).collect::<Vec<u64>>() == sizes
    });
    written()
}

fn ready(server: &Server) -> (u16, Value) {
    server.request("GET", "/readyz", &[], Vec::new())
}

/// Partition and offset of the damaged record that a server names, of which it says this.
fn named(server: &Server, saying: &str) -> (usize, u64) {
    let named = || ready(server).1["damaged"][0].as_str().map(str::to_owned);
    server.wait_until("the record is named", || named().is_some());
    let text = named().unwrap();
    let after = |word: &str| {
        let (_, rest) = text.split_once(word).unwrap_or_else(|| panic!("no {word} in {text}"));
        rest.split(|digit: char| !digit.is_ascii_digit()).next().unwrap().parse::<u64>().unwrap()
    };
    assert!(text.contains(saying), "{text}");
    (usize::try_from(after("partition ")).unwrap(), after("offset "))
}

/// `reckon log set-aside` of a record: whether it succeeded, and what it said.
fn set_aside(data: &Path, (partition, offset): (usize, u64), more: &[&str]) -> (bool, String) {
    let place = [partition.to_string(), offset.to_string()];
    let mut command = command();
    command.args(["log", "set-aside", "--log-partitions", "2", "--partition", &place[0], "--offset", &place[1]]);
    let output = command.arg("--data-dir").arg(data).args(more).output().unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Up to where each partition is archived, and where its log ends, if its counter can say.
fn archived(server: &Server) -> Vec<(u64, Option<u64>)> {
    let answer = server.get("/v1/dead-letters?limit=10");
    let partitions = answer["archived"].as_array().unwrap();
    partitions.iter().map(|at| (number(&at["dead_letters"]), at["durable_end"].as_u64())).collect()
}

#[test]
fn a_damaged_record_that_is_not_archived_is_given_up_and_nothing_else() {
    if !in_folder("a_damaged_record_that_is_not_archived_is_given_up_and_nothing_else") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), UNARCHIVED);
    send_large(&server);
    let blobs = record_files(&server, dir.path());
    assert!(files(dir.path(), "events").is_empty(), "nothing is archived");
    let path = server.kill();
    flip(blobs.last().unwrap());

    // It is named everywhere, and the other partition goes on.
    let server = Server::start_unready(&path, ARCHIVED);
    let place = named(&server, "it is not archived yet; with the server stopped, `reckon log set-aside`");
    let (damaged, other) = (place.0, 1 - place.0);
    server.wait_until("the other partition is archived", || {
        let archived = archived(&server);
        archived[other].1 == Some(archived[other].0) && archived[damaged].0 == place.1
    });
    let (status, answer) = ready(&server);
    assert_eq!(status, 503, "{answer}");
    let entity = (0..10).map(|at| server.get(&format!("/v1/entities/v{at}/count?type=view"))["provenance"].clone());
    let short: Vec<Value> = entity.filter(|provenance| provenance["complete"] == false).collect();
    let missing = format!("offset {}", place.1);
    assert!(!short.is_empty() && short.iter().all(|it| it["missing"].to_string().contains(&missing)), "{short:?}");
    let batch = command().args(["batch", "--url", server.url()]).output().unwrap();
    let said = String::from_utf8_lossy(&batch.stderr);
    assert!(!batch.status.success() && said.contains(&missing), "{said}");
    let (done, said) = set_aside(&path, place, &["--yes"]);
    assert!(!done && said.contains("stop it first"), "{said}");
    server.kill();

    // What would be lost is said before it is.
    let (done, said) = set_aside(&path, (damaged, place.1 + 1), &["--yes"]);
    assert!(!done && said.contains("nothing is wrong with"), "{said}");
    let (done, said) = set_aside(&path, place, &[]);
    assert!(done && said.contains("nothing was done") && said.contains("--yes") && said.contains("events"), "{said}");
    let (done, said) = set_aside(&path, place, &["--yes", "--json"]);
    assert!(done, "{said}");
    let told: Value = serde_json::from_str(&said).unwrap();
    let lost = number(&told["events"]);
    assert!(lost > 0 && lost < 100 && told["set_aside"] == true, "{told}");
    let kept = std::fs::metadata(told["kept"].as_str().unwrap()).unwrap().len();
    assert_eq!(told["bytes"], kept, "{told}");

    let server = Server::start_with(&path, ARCHIVED);
    assert_eq!(total(&server), LARGE - lost);
    server.batch();
    assert_eq!(total(&server), LARGE - lost);
    let raw = rows(&server.sql("select count(*), count(distinct event_id) from events"));
    assert_eq!((number(&raw[0][0]), number(&raw[0][1])), (LARGE - lost, LARGE - lost));
    let letters = server.get("/v1/dead-letters?reason=damaged_record")["letters"].clone();
    let [letter] = letters.as_array().unwrap().as_slice() else { panic!("{letters}") };
    assert_eq!(letter["body_bytes"], told["bytes"]);
    assert_eq!(letter["source"], format!("log partition {damaged}, offset {}", place.1));
    assert_eq!(ready(&server).1.get("damaged"), None);
    run_ok(command().args(["dlq", "--url", server.url(), "list", "--reason", "damaged_record"]));

    // Of what is archived there is another copy, and it is not given up.
    server.kill();
    flip(&blobs[0]);
    let server = Server::start_with(&path, ARCHIVED);
    let place = named(&server, "made anew from the tables");
    assert_eq!(total(&server), LARGE - lost);
    server.kill();
    let (done, said) = set_aside(&path, place, &["--yes"]);
    assert!(!done && said.contains("nothing has to be given up"), "{said}");
}
