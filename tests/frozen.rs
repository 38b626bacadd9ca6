//! Formats are frozen: what the first version has written is read by every later one, and what a later one has
//! written is refused.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;

use crate::harness::{Server, command, in_folder, number, rows, run_ok, total};

/// Folders as versions of the formats have written them: 300 events in a log of two partitions, some of them twice;
/// the first 200 recounted by batch, the rest sealed; one dead letter. Counts are in `stats.csv`.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
/// Since the second one tables of counts have late events, which all of these are; and how many raw events there are.
const FORMATS: [(&str, u64); 2] = [("format-1", 350), ("format-2", 351)];
const BY_KEY: &str =
    "select entity_id, event_type, country, sum(count), sum(sum) from stats group by 1,2,3 order by 1,2,3";

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.unwrap(), to.to_owned());
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn fixture(format: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    copy(&Path::new(FIXTURES).join(format).join("data"), &data);
    (dir, data)
}

fn csv(server: &Server) -> String {
    let output = run_ok(command().args(["sql", "--format", "csv", "--url", server.url(), BY_KEY]));
    String::from_utf8(output.stdout).unwrap()
}

/// How starting with this folder fails.
fn refusal(data: &Path) -> String {
    let mut up = command();
    up.args(["up", "--listen", "127.0.0.1:0", "--log-partitions", "2", "--data-dir"]).arg(data);
    let output = up.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "it was read");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_format_is_read_and_counted_on() {
    if !in_folder("every_format_is_read_and_counted_on") {
        return;
    }
    for (format, raw) in FORMATS {
        let (_dir, data) = fixture(format);
        let server = Server::start_with(&data, &["--log-partitions", "2"]);
        assert_eq!(total(&server), 300, "{format}");
        let expected = std::fs::read_to_string(Path::new(FIXTURES).join(format).join("stats.csv")).unwrap();
        assert_eq!(csv(&server), expected, "{format}");
        assert_eq!(number(&rows(&server.sql("select count(*) from events"))[0][0]), raw, "{format}");
        let mixed = |server: &Server| server.get("/v1/entities/v0/count")["provenance"]["definitions_mixed"].clone();
        assert_eq!(mixed(&server), json!(format == "format-1"), "{format}");
        let dead = server.sql("select reason, message from dead_letters");
        assert_eq!(rows(&dead).len(), 1, "{format}: {dead}");
        // It is no museum: batch recounts it, and what comes is counted.
        server.batch();
        assert_eq!(csv(&server), expected, "{format}");
        let event =
            json!({"event_id": "new", "event_type": "view", "entity_id": "v0", "event_time": 1_767_225_600_000_i64});
        assert_eq!(server.post("/v1/events", &event).0, 200);
        assert_eq!(total(&server), 301, "{format}");
        // The tables of the first format have become those of the newest.
        assert_eq!(number(&rows(&server.sql("select sum(late) from stats"))[0][0]), 301, "{format}");
        let count = server.get("/v1/entities/v0/count");
        assert_eq!(count["provenance"]["late"], count["count"], "{count}");
        assert_eq!(mixed(&server), json!(false), "{format}");
    }
}

#[test]
fn a_newer_table_is_refused_by_name() {
    if !in_folder("a_newer_table_is_refused_by_name") {
        return;
    }
    let (_dir, data) = fixture("format-1");
    let log = data.join("tables/stream_counts/_delta_log/00000000000000000000.json");
    let text = std::fs::read_to_string(&log).unwrap();
    let newer = text.replace(r#""reckon.schema":"1""#, r#""reckon.schema":"3""#);
    assert_ne!(text, newer);
    std::fs::write(&log, newer).unwrap();
    let refusal = refusal(&data);
    assert!(refusal.contains("stream_counts"), "{refusal}");
}
