//! Importing files: what is counted once, what twice, and what a bad line does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Dataset, Server, command, data_at, number, rows, run_ok, total};

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn import(server: &Server, file: &Path, more: &[&str]) -> Value {
    let mut command = command();
    command
        .args(["import", "--json", "--url", server.url(), "--format", "ndjson", "--entity", "v", "--time", "t:s"])
        .args(["--type", "view"])
        .args(more)
        .arg(file);
    serde_json::from_slice(&run_ok(&mut command).stdout).unwrap()
}

#[test]
fn equal_lines_of_a_file_count_twice_and_the_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let line = "{\"v\":\"a\",\"t\":1360358940}\n";
    let file = write(dir.path(), "clicks.ndjson", &line.repeat(3));
    assert_eq!(number(&import(&server, &file, &[])["counted"]), 3);
    let renamed = write(dir.path(), "renamed.ndjson", &line.repeat(3));
    let again = import(&server, &renamed, &[]);
    assert_eq!((number(&again["counted"]), total(&server)), (0, 3), "the same contents: {again}");
    let other = write(dir.path(), "other.ndjson", &line.repeat(2));
    assert_eq!((number(&import(&server, &other, &[])["counted"]), total(&server)), (2, 5), "another file");
}

#[test]
fn an_hour_later_the_same_file_counts_nothing() {
    let Some(data) = Dataset::find("gharchive_2015_01_01") else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    data.import(server.url(), &data.files());
    server.wait_counted();
    let path = server.kill();
    let server = Server::start_with(&path, &["--clock-ahead", "61m"]);
    let again = data.import(server.url(), &data.files());
    assert_eq!(number(&again["counted"]), 0, "{again}");
    assert_eq!(total(&server), 15_129);
}

#[test]
fn a_file_that_grows_counts_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let (a, b) = ("{\"v\":\"a\",\"t\":1360358940}\n", "{\"v\":\"b\",\"t\":1360358941}\n");
    let file = write(dir.path(), "log.ndjson", &format!("{a}{a}{b}"));
    assert_eq!(number(&import(&server, &file, &["--id-from", "line"])["counted"]), 3);
    let file = write(dir.path(), "log.ndjson", &format!("{a}{a}{b}{a}{b}"));
    let grown = import(&server, &file, &["--id-from", "line"]);
    assert_eq!((number(&grown["counted"]), total(&server)), (2, 5), "{grown}");
    server.batch();
    assert_eq!(total(&server), 5, "batch agrees");
}

#[test]
fn a_bad_line_is_named_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let text = "{\"v\":\"a\",\"t\":1360358940}\n{\"v\":\"a\",\"t\":\"noon\"}\nnonsense\n{\"t\":1}\n{\"v\":\"b\",\"t\":1360358940}\n";
    let file = write(dir.path(), "clicks.ndjson", text);
    let summary = import(&server, &file, &[]);
    assert_eq!((number(&summary["counted"]), number(&summary["refused"])), (2, 3), "{summary}");
    server.batch();
    let letters = server.sql("select source from dead_letters order by source");
    let sources: Vec<String> = rows(&letters).iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
    let expected: Vec<String> = [2, 3, 4].iter().map(|line| format!("clicks.ndjson:{line}")).collect();
    assert_eq!(sources, expected);
}

#[test]
fn a_line_that_the_server_refuses_is_named_in_a_file_of_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let line = |time: &str| format!("{{\"v\":\"a\",\"t\":{time}}}\n");
    // The third line is too old, which only the server knows.
    let text = format!("{}\n{}{}", line("1360358940"), line("100"), line("1360358941"));
    let file = write(dir.path(), "Klicks-März.ndjson", &text);
    let summary = import(&server, &file, &[]);
    assert_eq!((number(&summary["counted"]), number(&summary["refused"])), (2, 1), "{summary}");
    server.batch();
    let letters = rows(&server.sql("select source from dead_letters"));
    assert_eq!(letters, [[Value::String("Klicks-März.ndjson:3".to_owned())]]);
}

/// Lines that take some seconds to import.
const MANY: u32 = 800_000;

#[test]
fn an_import_that_is_interrupted_counts_once_although_the_file_has_grown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let lines = |range: std::ops::Range<u32>| -> String {
        range.map(|n| format!("{{\"v\":\"v{}\",\"t\":1360358940}}\n", n % 100)).collect()
    };
    let file = write(dir.path(), "clicks.ndjson", &lines(0..MANY));
    let arguments = ["--format", "ndjson", "--entity", "v", "--time", "t:s"];
    let mut child = command()
        .args(["import", "--json", "--url", server.url()])
        .args(arguments)
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    server.wait_until("some of it is counted", || total(&server) > 0);
    run_ok(Command::new("kill").args(["-INT", &child.id().to_string()]));
    assert!(!child.wait().unwrap().success(), "it was interrupted");
    let before = total(&server);
    assert!(0 < before && before < u64::from(MANY), "{before}");
    let file = write(dir.path(), "clicks.ndjson", &lines(0..MANY + 3));
    let summary = import(&server, &file, &[]);
    assert_eq!(total(&server), u64::from(MANY) + 3, "{summary}");
    assert_eq!(number(&summary["duplicate"]), before, "{summary}");
}

#[test]
fn nothing_runs_and_the_folder_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = write(dir.path(), "clicks.csv", "who,what,when\nu1,a,2013-02-08T21:29:00Z\nu2,a,2013-02-08T21:29:30Z\n");
    let import = |file: &Path| {
        let mut command = command();
        data_at(command.args(["import", "--json"]), &data).args([
            "--format",
            "csv",
            "--entity",
            "what",
            "--time",
            "when:rfc3339",
            "--user",
            "who",
        ]);
        let output = run_ok(command.arg(file));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(number(&import(&file)["counted"]), 2);
    assert_eq!(number(&import(&file)["counted"]), 0);
    let query = "select entity_id, sum(count) as n from stats group by 1";
    let output = run_ok(data_at(command().arg("sql"), &data).args(["--format", "csv", query]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "entity_id,n\na,2\n");
}
