//! Every role as processes of their own, over Fluvio, S3 and Ballista: exact, whoever dies.
//!
//! Runs when `RECKON_TEST_FLUVIO_RUN` names a `fluvio-run`, and says that it was skipped when not.

mod gap;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::datasets::check_facts;
use crate::harness::{Dataset, Roles, Server, command, number, rows, run_ok};

const SERVING: [&str; 2] = ["serve-1", "serve-2"];

/// What a serving node has counted, and whether that is all that there is.
fn counted(server: &Server) -> Option<(u64, bool)> {
    let query = serde_json::json!({ "query": "select coalesce(sum(count), 0) from stats" });
    let (status, answer) = server.post("/v1/sql", &query);
    (status == 200).then(|| (number(&rows(&answer)[0][0]), answer["provenance"]["complete"] == true))
}

/// Starts everything and waits until the partitions have been shared out: while one changes hands, answers lack it.
fn start(test: &str) -> Option<Roles> {
    let roles = Roles::start(test)?;
    let mut whole = Instant::now();
    roles.of("serve-1").wait_until("partitions stay where they are", || {
        if counted(roles.of("serve-1")) != Some((0, true)) {
            whole = Instant::now();
        }
        whole.elapsed() > Duration::from_secs(6)
    });
    Some(roles)
}

fn wait_for(roles: &Roles, events: u64) {
    for name in SERVING {
        let server = roles.of(name);
        server.wait_until(&format!("{name} has counted {events} events"), || counted(server) == Some((events, true)));
    }
}

/// A batch run on the executors; its report.
fn batch(server: &Server, arguments: &[&str]) -> Value {
    let output = run_ok(command().args(["batch", "--json", "--url", server.url()]).args(arguments));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn whole_story(name: &str) {
    let (Some(data), Some(roles)) = (Dataset::find(name), start(name)) else { return };
    let events = number(&data.facts["events"]);
    let summary = data.import(&roles.gateways(), &data.files());
    assert_eq!(number(&summary["refused"]), number(&data.facts["malformed_lines"]), "{summary}");
    wait_for(&roles, events);
    SERVING.iter().for_each(|name| check_facts(roles.of(name), &data.facts));
    let report = batch(roles.of("serve-1"), &[]);
    assert_eq!((&report["engine"], number(&report["events"])), (&Value::from("ballista"), events), "{report}");
    for name in SERVING {
        let server = roles.of(name);
        let in_batch = || rows(&server.sql("select sum(count) from stats_batch"))[0][0].as_u64();
        server.wait_until("answers come from batch", || in_batch() == Some(events));
        check_facts(server, &data.facts);
    }
    // The same rows, whoever counts (R-5).
    let sql = "select entity_id, event_type, minute, country, count from stats_batch order by 1, 2, 3, 4";
    let before = roles.of("serve-1").sql(sql)["rows"].clone();
    let report = batch(roles.of("serve-1"), &["--full", "--engine", "local"]);
    assert_eq!((&report["engine"], number(&report["events"])), (&Value::from("local"), events), "{report}");
    assert!(roles.of("serve-1").sql(sql)["rows"] == before, "the same rows");
}

#[test]
fn usagov_clicks_in_processes_of_their_own() {
    whole_story("usagov_clicks_2013_jan_mar");
}

#[test]
fn gharchive_in_processes_of_their_own() {
    whole_story("gharchive_2015_01_01");
}

#[test]
fn nasa_in_processes_of_their_own() {
    whole_story("nasa_1995_08_01");
}

#[test]
fn apache_in_processes_of_their_own() {
    whole_story("apache_semicomplete_2015");
}

const EVENTS: u64 = 300_000;

/// A file of events that nobody has sent before.
fn write_events(dir: &std::path::Path, run: usize) -> PathBuf {
    write_some(dir, run, 0..EVENTS)
}

fn write_some(dir: &std::path::Path, run: usize, events: std::ops::Range<u64>) -> PathBuf {
    let mut text = String::new();
    let name = format!("{run}-{}.ndjson", events.end);
    for event in events {
        let (entity, minute, second) = (event % 997, event / 60 % 60, event % 60);
        writeln!(
            text,
            r#"{{"event_id":"{run}-{event}","event_type":"view","entity_id":"v{entity}","event_time":"2024-05-01T10:{minute:02}:{second:02}Z"}}"#
        )
        .unwrap();
    }
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// So many that batch finds them by their hashes, and compares their keys.
const REPEATS: u64 = 3_000;

fn import_with_repeats(roles: &Roles, dir: &std::path::Path) {
    for file in [write_events(dir, 0), write_some(dir, 0, 0..REPEATS)] {
        assert!(start_import(roles, &file).wait().unwrap().success());
    }
}

fn start_import(roles: &Roles, file: &std::path::Path) -> Child {
    let mut import = command();
    import.args(["import", "--json", "--url", &roles.gateways(), "--format", "ndjson"]);
    import.args(["--entity", "entity_id", "--time", "event_time", "--type-field", "event_type", "--id", "event_id"]);
    import.arg(file).stdout(Stdio::null()).spawn().unwrap()
}

/// How long answers of a serving node said that they lack something, after something was done to another process.
fn incomplete_for(roles: &Roles, import: &mut Child, watched: &str) -> Duration {
    let (start, mut incomplete, mut whole_since) = (Instant::now(), Duration::ZERO, None);
    loop {
        let now = Instant::now();
        match counted(roles.of(watched)) {
            Some((_, true)) => drop(whole_since.get_or_insert(now)),
            _ => {
                incomplete = start.elapsed();
                whole_since = None;
            }
        }
        let imported = import.try_wait().unwrap();
        assert!(imported.is_none_or(|status| status.success()), "the import failed");
        // A worker is missed when its lease is over, which takes seconds.
        let settled = whole_since.is_some_and(|since| since.elapsed() > Duration::from_secs(12));
        if imported.is_some() && settled {
            return incomplete;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "answers stay incomplete");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn each_process_may_be_killed_during_an_import() {
    let Some(mut roles) = start("kills") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut sent = 0;
    let killed = ["gateway-1", "gateway-2", "stream-1", "stream-2", "archive-1", "serve-1", "serve-2", "broker"];
    for (run, name) in killed.into_iter().enumerate() {
        let file = write_events(dir.path(), run);
        let mut import = start_import(&roles, &file);
        sleep(Duration::from_millis(700));
        assert!(import.try_wait().unwrap().is_none(), "the import is over before {name} is killed");
        let watched = if name == "serve-1" { "serve-2" } else { "serve-1" };
        if name == "broker" {
            roles.log.kill_broker();
            sleep(Duration::from_secs(3));
            roles.log.start_broker();
        } else {
            roles.kill(name);
        }
        // Whoever serves is started again at once, for it is asked below; others are done without.
        if name.starts_with("serve") || name.starts_with("archive") {
            sleep(Duration::from_secs(2));
            roles.start_one(name);
        }
        let incomplete = incomplete_for(&roles, &mut import, watched);
        sent += EVENTS;
        wait_for(&roles, sent);
        println!("{name} killed: {sent} events, exact; answers were incomplete for {:.1} s", incomplete.as_secs_f64());
        if name.starts_with("gateway") || name.starts_with("stream") {
            roles.start_one(name);
        }
    }
    let report = batch(roles.of("serve-1"), &[]);
    // What was appended and not acknowledged before the kill was sent again, and is in the log twice.
    let repeats = number(&report["duplicates"]);
    let counted = number(&report["dates"][0]["counted"]);
    assert_eq!((number(&report["events"]), counted), (sent + repeats, sent), "{report}");
    wait_for(&roles, sent);
    println!("{repeats} events were in the log twice, and counted once");
}

/// Recounts on the cluster, and does something to it meanwhile.
fn recount_while(roles: &mut Roles, harm: impl FnOnce(&mut Roles)) {
    let dir = tempfile::tempdir().unwrap();
    import_with_repeats(roles, dir.path());
    wait_for(roles, EVENTS);
    let mut run = command();
    let run = run.args(["batch", "--json", "--url", roles.of("serve-1").url()]).stdout(Stdio::piped()).spawn().unwrap();
    let server = roles.of("serve-1");
    server.wait_until("the run looks at the events", || {
        let runs = server.get("/v1/batch/runs");
        let step = runs["runs"][0]["step"].as_str().unwrap_or_default();
        ["looking at", "counting"].iter().any(|begin| step.starts_with(begin))
    });
    // The cluster is asked next, and nothing says when it has been.
    sleep(Duration::from_millis(200));
    harm(roles);
    let report = run.wait_with_output().unwrap();
    assert!(report.status.success(), "the run failed");
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let counted = (&report["engine"], number(&report["events"]), number(&report["duplicates"]));
    assert_eq!(counted, (&Value::from("ballista"), EVENTS + REPEATS, REPEATS), "{report}");
    wait_for(roles, EVENTS);
}

#[test]
fn an_executor_may_be_killed_during_a_recount() {
    let Some(mut roles) = start("an executor killed") else { return };
    recount_while(&mut roles, |roles| roles.kill("executor-1"));
}

/// A run that loses its scheduler asks again, and the one that is started in its place has it counted.
#[test]
fn the_scheduler_may_be_killed_during_a_recount() {
    let Some(mut roles) = start("the scheduler killed") else { return };
    recount_while(&mut roles, |roles| {
        roles.kill("scheduler");
        sleep(Duration::from_secs(1));
        roles.start_one("scheduler");
    });
    assert!(roles.said("serve-1").contains("the cluster is asked again"), "the scheduler was not missed");
}

/// A worker that sleeps until its partitions are another's, and goes on, harms nothing.
#[test]
fn a_worker_may_sleep_longer_than_its_lease() {
    let Some(roles) = start("a worker that sleeps") else { return };
    let dir = tempfile::tempdir().unwrap();
    let worker = roles.of("stream-1");
    let mut import = start_import(&roles, &write_events(dir.path(), 0));
    sleep(Duration::from_millis(700));
    worker.signal("-STOP");
    let incomplete = incomplete_for(&roles, &mut import, "serve-1");
    wait_for(&roles, EVENTS);
    worker.signal("-CONT");
    sleep(Duration::from_secs(12));
    let report = batch(roles.of("serve-2"), &[]);
    assert_eq!((number(&report["events"]), number(&report["duplicates"])), (EVENTS, 0), "{report}");
    wait_for(&roles, EVENTS);
    println!("stream-1 slept: exact; answers were incomplete for {:.1} s", incomplete.as_secs_f64());
}

/// A worker that works on partitions that are others' is kept from committing, or keeps them from it.
#[test]
fn of_two_who_own_a_partition_one_is_fenced() {
    let Some(mut roles) = start("two owners") else { return };
    let dir = tempfile::tempdir().unwrap();
    roles.start_one("stream-3");
    let mut sent = 0;
    for run in 0..4 {
        assert!(start_import(&roles, &write_events(dir.path(), run)).wait().unwrap().success());
        sent += EVENTS;
        // The cuts of a batch run end the segments of both owners, who seal them at once.
        let report = batch(roles.of("serve-1"), &[]);
        assert_eq!((number(&report["events"]), number(&report["duplicates"])), (sent, 0), "{report}");
        wait_for(&roles, sent);
    }
    let fenced = ["stream-1", "stream-2", "stream-3"].map(|name| roles.said(name).matches("fenced").count());
    println!("fenced: {fenced:?}; {sent} events, exact");
    assert!(fenced.iter().sum::<usize>() > 0, "nobody was fenced");
}
