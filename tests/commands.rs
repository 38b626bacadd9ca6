//! The command line: what it says of answers that are not whole, and where it looks for data.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::harness::{Server, command, data_at, in_folder, number, rows, run_ok};

fn event(id: &str, time: &str) -> Value {
    json!({"event_id": id, "event_type": "view", "entity_id": format!("v-{id}"), "event_time": time})
}

/// Sends events, of which none has to be taken.
fn send(server: &Server, events: &[Value]) {
    let (status, answer) = server.post("/v1/events", &json!(events));
    assert!(matches!(status, 200 | 422), "{status}: {answer}");
}

#[test]
fn a_question_without_data_has_no_answer() {
    if !in_folder("a question without data") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().join("nothing");
    for arguments in
        [&["sql", "select sum(count) from stats"][..], &["top"], &["where", "e"], &["dlq", "list"], &["batch"]]
    {
        let (first, rest) = arguments.split_first().unwrap();
        let output = data_at(command().arg(first), &nothing).args(rest).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("there is no data in") && error.contains("--url"), "{arguments:?}: {error}");
        assert!(!nothing.exists(), "{arguments:?} makes no folder");
    }
}

#[test]
fn rows_that_are_not_all_are_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--serving-rows-max", "2"]);
    send(&server, &[1, 2, 3].map(|n| event(&n.to_string(), "2013-02-08T21:29:00Z")));
    server.wait_counted();
    let query = "select entity_id from stats";
    for (more, printed) in [(&[][..], "v-"), (&["--format", "json"], "v-"), (&["--json"], "\"truncated\":true")] {
        let output = command().args(["sql", "--url", server.url(), query]).args(more).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(printed), "{more:?}: {text}");
        assert!(!output.status.success(), "{more:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("there are more rows"), "{more:?}");
    }
    let output = run_ok(command().args(["sql", "--json", "--url", server.url(), "select sum(count) from stats"]));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((number(&rows(&answer)[0][0]), &answer["provenance"]["complete"]), (3, &json!(true)));
}

#[test]
fn a_top_list_may_be_long() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let events: Vec<Value> = (0..1_200).map(|n| event(&n.to_string(), "2013-02-08T21:29:00Z")).collect();
    send(&server, &events);
    server.wait_counted();
    let output = run_ok(command().args(["top", "--json", "-n", "5000", "--url", server.url()]));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["entities"].as_array().unwrap().len(), 1_200);
}

#[test]
fn dead_letters_are_listed_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let events: Vec<Value> = (0..1_300).map(|n| event(&n.to_string(), "1970-01-01T00:00:00Z")).collect();
    send(&server, &events);
    server.batch();
    let list = |limit: &str| {
        let output = run_ok(command().args(["dlq", "--json", "--url", server.url(), "list", "--limit", limit]));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (
            answer["letters"].as_array().unwrap().len(),
            String::from_utf8_lossy(&output.stderr).contains("there are more"),
        )
    };
    assert_eq!(list("2000"), (1_300, false));
    assert_eq!(list("1200"), (1_200, true));
}

#[test]
fn where_an_event_is_and_why_a_count_is_what_it_is_are_told_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let one = event("1", "2013-02-08T21:29:10Z");
    send(&server, &[one.clone(), one]);
    server.batch();
    let run = |arguments: &[&str]| {
        let (first, rest) = arguments.split_first().unwrap();
        let output = run_ok(command().args([*first, "--url", server.url()]).args(rest));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = run(&["where", "1"]);
    for part in
        ["counted ", "duplicate ", "  gateway  ", "  log      ", "sealed in segment [", "  raw      event_date="]
    {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    assert_eq!(told.matches("covered since version ").count(), 2, "{told}");
    let told = run(&["why", "v-1", "2013-02-08T21:29Z"]);
    for part in
        ["view country=none: 1", "  batch    1  fingerprint ", "2 view, 1 of them distinct", "agrees: 1 counted"]
    {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    let json: Value = serde_json::from_str(&run(&["why", "--json", "v-1", "2013-02-08T21:29Z"])).unwrap();
    assert_eq!((number(&json["check"]["answer"]), number(&json["check"]["raw"])), (1, 2), "{json}");
    send(&server, &[event("2", "2013-02-08T21:29:10Z")]);
    server.wait_counted();
    let listed = |arguments: &[&str]| {
        let answer: Value = serde_json::from_str(&run(arguments)).unwrap();
        answer["entities"].as_array().unwrap().len()
    };
    assert_eq!(listed(&["top", "--json"]), 2);
    assert_eq!(listed(&["top", "--json", "--as-of", "2100-01-01T00:00:00Z"]), 1, "batch alone");
}

#[test]
fn how_a_server_is_is_told_on_one_screen() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    send(&server, &[event("1", "2013-02-08T21:29:00Z"), event("2", "1970-01-01T00:00:00Z")]);
    server.batch();
    server.wait_counted();
    let url = server.url().to_owned();
    let output = run_ok(command().args(["status", "--json", "--url", &url]));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["ready"], &report["role"]), (&json!(true), &json!("up")), "{report}");
    assert_eq!((&report["lag_records"], &report["dead_letters_today"]), (&json!(0), &json!(1)), "{report}");
    assert!(report["listens"]["flight_sql"].is_string(), "{report}");
    assert_eq!(report["batch_run"][0], "succeeded", "{report}");
    assert!(report["events_per_second"].is_number(), "{report}");
    let output = run_ok(command().args(["status", "--url", &url]));
    let told = String::from_utf8(output.stdout).unwrap();
    for part in ["(up)", "ready       yes", "batch run   succeeded", "dead today  1 letters", "audit       none"] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    server.kill();
    let output = command().args(["status", "--url", &url]).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("does not answer"), "{error}");
    let mut none = command();
    let output = data_at(none.arg("status"), &dir.path().join("nothing")).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("no server runs"), "{output:?}");
}

#[test]
fn a_live_top_list_goes_on_in_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    send(&server, &[event("1", "2013-02-08T21:29:00Z")]);
    server.wait_counted();
    let refused = command().args(["top", "--live", "--interval", "1ms", "--url", server.url()]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--interval"), "{refused:?}");
    let mut top = command()
        .args(["top", "--live", "--interval", "100ms", "--url", server.url()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines();
    let mut until = |what: &str| {
        let found = lines.by_ref().take(1_000).map(Result::unwrap).find(|line| line.contains(what));
        found.unwrap_or_else(|| panic!("{what} in none of a thousand lines"))
    };
    assert!(until("v-1").starts_with("1 "));
    let more: Vec<Value> = (10..13)
        .map(|n| json!({"event_id": n.to_string(), "event_type": "view", "entity_id": "v-2", "event_time": "2013-02-08T21:29:00Z"}))
        .collect();
    send(&server, &more);
    assert!(until("new").contains("v-2"), "it was not in the list before");
    send(
        &server,
        &[json!({"event_id": "20", "event_type": "view", "entity_id": "v-2", "event_time": "2013-02-08T21:29:00Z"})],
    );
    assert!(until("+1").contains("v-2"));
    let id = top.id().to_string();
    run_ok(std::process::Command::new("kill").args(["-INT", &id]));
    assert!(top.wait().unwrap().success());
}

#[test]
fn who_watches_a_list_may_leave_although_no_answer_comes() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut top = command().args(["top", "--live", "--url", &url]).stdout(Stdio::null()).spawn().unwrap();
    let _asked = silent.accept().unwrap();
    run_ok(std::process::Command::new("kill").args(["-INT", &top.id().to_string()]));
    let begun = std::time::Instant::now();
    assert!(top.wait().unwrap().success());
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// How many commits a table has.
fn commits(dir: &Path, table: &str) -> usize {
    let folder = dir.join("tables").join(table).join("_delta_log");
    // Not there is as good as empty.
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    files.filter(|file| file.path().extension().is_some_and(|extension| extension == "json")).count()
}

#[test]
fn a_replay_with_a_limit_gets_further_each_time() {
    if !in_folder("a replay") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let old: Vec<Value> = (0..5).map(|n| event(&n.to_string(), "1980-02-08T21:29:00Z")).collect();
    send(&server, &old);
    // These are refused whatever the limits are, and come before or after the others.
    send(&server, &(0..4).map(|n| json!({ "n": n })).collect::<Vec<_>>());
    server.batch();
    let path = server.kill();
    let server = Server::start_with(&path, &["--limits-event-time-min", "1970-01-01T00:00:00Z"]);
    let mut counted = Vec::new();
    for _ in 0..4 {
        let before = commits(&path, "imports");
        let output = run_ok(command().args(["dlq", "--json", "--url", server.url(), "replay", "--limit", "2"]));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        counted.push(number(&answer["accepted"]));
        assert!(commits(&path, "imports") - before <= 1, "one commit a page: {answer}");
    }
    assert_eq!(counted, [2, 2, 1, 0]);
    server.wait_counted();
    assert_eq!(number(&rows(&server.sql("select sum(count) from stats"))[0][0]), 5);
}

/// A running demo; killed when dropped.
struct Demo {
    child: Child,
    url: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut child = command()
            .args(["demo", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let at = line.find("http://").unwrap_or_else(|| panic!("no address in {line}"));
        let url = line[at..].split([' ', ',']).next().unwrap().to_owned();
        Self { child, url }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_demo_has_something_to_see_at_once_in_the_folder_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("demo");
    let demo = Demo::start(&["--data-dir", data.to_str().unwrap()]);
    let top = run_ok(command().args(["top", "--json", "--window", "5m", "--url", &demo.url]));
    let answer: Value = serde_json::from_slice(&top.stdout).unwrap();
    assert_eq!(answer["entities"].as_array().unwrap().len(), 10, "{answer}");
    assert!(data.join("log").exists(), "--data-dir is honoured");
}
