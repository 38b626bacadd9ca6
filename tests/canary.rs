//! The canary: it finds what is lost and what counts twice, over the real interfaces, and no total holds what it sends.

use std::collections::BTreeSet;
use std::process::Output;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::harness::{RUNTIME, Server, command, number, rows};

const TOKEN: &str = "of-these-tests";

fn server(arguments: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let own = ["--archive-commit-every", "1s"];
    let server = Server::start_with(dir.path(), &[&own[..], arguments].concat());
    (dir, server)
}

fn event(id: &str, entity: &str) -> Value {
    json!({"event_id": id, "event_type": "view", "entity_id": entity, "event_time": "2013-02-08T21:29:00Z"})
}

/// A metric; none when it is not there.
fn metric(server: &Server, name: &str) -> Option<f64> {
    let metrics = server.get("/metrics");
    let line =
        metrics.as_str().unwrap().lines().find(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(' ')));
    line.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

fn sum(server: &Server, query: &str) -> u64 {
    number(&rows(&server.sql(query))[0][0])
}

#[test]
fn a_servers_own_canary_is_right_and_in_no_total() {
    let (_dir, server) = server(&["--canary-every", "1s", "--canary-events", "200"]);
    let (status, receipt) = server.post("/v1/events", &json!([event("1", "a"), event("2", "a"), event("3", "b")]));
    assert_eq!(status, 200, "{receipt}");
    server.wait_until("two rounds are right", || {
        metric(&server, "reckon_canary_rounds_right_total").is_some_and(|rounds| rounds >= 2.0)
    });
    for name in ["lost_total", "excess_total", "findings"] {
        assert_eq!(metric(&server, &format!("reckon_canary_{name}")), Some(0.0), "{name}");
    }
    for name in ["rounds_total", "events_sent_total", "delay_seconds", "last_right_timestamp_seconds"] {
        assert!(metric(&server, &format!("reckon_canary_{name}")).is_some_and(|value| value > 0.0), "{name}");
    }
    for name in ["open_rounds", "requests_failed_total", "answer_seconds_count"] {
        assert!(metric(&server, &format!("reckon_canary_{name}")).is_some(), "{name}");
    }
    let totals_are_ours = || {
        for path in ["/v1/top?n=100", "/v1/top?n=100&filter=user_id:nobody", "/v1/ads/popular_ads?count=100&type=view"]
        {
            let (_, top) = server.request("GET", path, &[], Vec::new());
            assert!(!top.to_string().contains("_reckon/"), "{path}: {top}");
        }
        for table in ["stats", "stats_hour", "stats_day"] {
            assert_eq!(sum(&server, &format!("select sum(count) from {table}")), 3, "{table}");
            let asked = format!("select sum(count) from {table} where entity_id like '_reckon/%'");
            assert!(sum(&server, &asked) >= 400, "{table}");
        }
    };
    totals_are_ours();
    server.batch();
    totals_are_ours();
    assert_eq!(sum(&server, "select count(*) from events"), 3);
    assert!(sum(&server, "select count(*) from events where starts_with(entity_id, '_reckon/')") >= 400);
}

#[test]
fn reserved_entities_are_for_who_has_the_token() {
    let (_dir, server) = server(&["--canary-token", TOKEN]);
    let send = |headers: &[(&str, &str)]| {
        let body = event("1", "_reckon/canary/x").to_string().into_bytes();
        server.request("POST", "/v1/events", headers, body)
    };
    let (status, problem) = send(&[]);
    assert_eq!(status, 422, "{problem}");
    for token in ["", "wrong", "of-these-test", "of-these-tests2"] {
        let (status, problem) = send(&[("reckon-canary", token)]);
        assert_eq!((status, &problem["field"]), (403, &json!("reckon-canary")), "{problem}");
    }
    let (status, receipt) = send(&[("reckon-canary", TOKEN)]);
    assert_eq!((status, number(&receipt["accepted"])), (200, 1), "{receipt}");
    assert_eq!(metric(&server, "reckon_canary_rounds_total"), None, "a canary that is off says nothing");
}

/// Rounds of the command, and what it said.
fn canary(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let Output { status, stdout, stderr } = command()
        .args(["canary", "--json", "--token", TOKEN, "--archive-commit-every", "1s"])
        .args(arguments)
        .output()
        .unwrap();
    let said = serde_json::from_slice(&stdout).unwrap_or(Value::Null);
    (status.code(), said, String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn the_command_says_by_its_code_what_it_found() {
    let (_dir, server) = server(&["--canary-token", TOKEN]);
    let (code, said, error) = canary(&["--url", server.url(), "--rounds", "2", "--canary-patience", "30s"]);
    assert_eq!(code, Some(0), "{said} {error}");
    assert_eq!(said["rounds"].as_array().unwrap().len(), 2, "{said}");
    assert!(said["rounds"].as_array().unwrap().iter().all(|round| round["outcome"] == "right"), "{said}");
    assert_eq!(said["findings"], json!([]));
    let nowhere = ["--url", "http://127.0.0.1:1", "--canary-patience", "1s"];
    let (code, said, error) = canary(&nowhere);
    assert_eq!((code, &said["rounds"][0]["outcome"]), (Some(2), &json!("not_sent")), "{error}");
    let wrong = ["canary", "--url", server.url(), "--token", "wrong", "--canary-patience", "1s"];
    let output = command().args(wrong).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && error.contains("canary.token"), "{error}");
    let output = command().args(["canary", "--url", server.url()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "without a token");
}

/// What is done to the events of a request.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// One in a thousand is acknowledged and goes no further.
    Drop,
    /// One in a thousand comes once more, under another id.
    Double,
}

/// A front door that does not do what it says.
#[derive(Debug, Clone)]
struct Proxy {
    to: String,
    fault: Fault,
    lines: Arc<Mutex<Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    seen: u64,
    /// Ids of lines that went no further.
    dropped: BTreeSet<String>,
    /// Ids of lines that did.
    passed: BTreeSet<String>,
}

impl Proxy {
    fn start(to: &str, fault: Fault) -> (String, Arc<Mutex<Lines>>) {
        let lines: Arc<Mutex<Lines>> = Arc::default();
        let proxy = Self { to: to.to_owned(), fault, lines: Arc::clone(&lines) };
        let listener = RUNTIME.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(pass).with_state(proxy);
        RUNTIME.spawn(async move { axum::serve(listener, app).await.unwrap() });
        (url, lines)
    }

    /// The body that goes further.
    fn spoil(&self, body: &[u8]) -> Vec<u8> {
        let (mut lines, mut spoilt) = (self.lines.lock().unwrap(), String::new());
        for line in std::str::from_utf8(body).unwrap().lines() {
            let id = serde_json::from_str::<Value>(line).unwrap()["event_id"].as_str().unwrap().to_owned();
            lines.seen += 1;
            let is_hit = lines.seen % 1_000 == 500;
            match self.fault {
                Fault::Drop if is_hit => {
                    lines.dropped.insert(id);
                    continue;
                }
                Fault::Double if is_hit => spoilt.push_str(&format!("{}\n", line.replace(&id, &format!("{id}-again")))),
                _ => {}
            }
            lines.passed.insert(id);
            spoilt.push_str(line);
            spoilt.push('\n');
        }
        spoilt.into_bytes()
    }
}

async fn pass(State(proxy): State<Proxy>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap();
    let is_events = parts.method == Method::POST && parts.uri.path() == "/v1/events";
    let lines = body.iter().filter(|byte| **byte == b'\n').count();
    let body = if is_events { Bytes::from(proxy.spoil(&body)) } else { body };
    let mut forward = reqwest::Client::new().request(parts.method, format!("{}{}", proxy.to, parts.uri)).body(body);
    for (name, value) in
        parts.headers.iter().filter(|(name, _)| **name != header::HOST && **name != header::CONTENT_LENGTH)
    {
        forward = forward.header(name, value);
    }
    let answer = forward.send().await.unwrap();
    let status = answer.status();
    let mut body = answer.bytes().await.unwrap();
    if is_events && status.is_success() {
        let mut receipt: Value = serde_json::from_slice(&body).unwrap();
        receipt["accepted"] = json!(lines);
        body = Bytes::from(receipt.to_string());
    }
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The proof: a gateway that acknowledges everything and drops one in a thousand.
#[test]
fn a_gateway_that_drops_one_event_in_a_thousand_is_found() {
    let (_dir, server) = server(&["--canary-token", TOKEN]);
    let (url, lines) = Proxy::start(server.url(), Fault::Drop);
    let (code, said, error) = canary(&["--url", &url, "--canary-patience", "8s"]);
    assert_eq!(code, Some(1), "{said} {error}");
    let lines = lines.lock().unwrap();
    let lost: BTreeSet<&str> = lines.dropped.difference(&lines.passed).map(String::as_str).collect();
    assert!(lost.len() >= 3, "{:?}", lines.dropped);
    let round = &said["rounds"][0];
    assert_eq!((&round["outcome"], number(&round["lost"])), (&json!("differs"), lost.len() as u64), "{said}");
    let findings = said["findings"].as_array().unwrap();
    let named: BTreeSet<&str> = findings
        .iter()
        .flat_map(|finding| finding["event_ids"].as_array().unwrap())
        .map(|id| id.as_str().unwrap())
        .collect();
    assert_eq!(named, lost, "{said}");
    for finding in findings {
        assert_eq!(finding["class"], "canary_differs", "{finding}");
        assert!(finding["entity_id"].as_str().unwrap().starts_with("_reckon/canary/"), "{finding}");
        assert!(finding["minute"].is_string() && finding["expected"].as_i64() > finding["found"].as_i64(), "{finding}");
    }
}

#[test]
fn an_event_that_counts_twice_is_found_at_once() {
    let (_dir, server) = server(&["--canary-token", TOKEN]);
    let (url, _) = Proxy::start(server.url(), Fault::Double);
    let start = std::time::Instant::now();
    // So much patience that the test would not end if it waited for it.
    let (code, said, error) = canary(&["--url", &url, "--canary-patience", "9m"]);
    assert_eq!(code, Some(1), "{said} {error}");
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    assert!(number(&said["rounds"][0]["excess"]) > 0 && number(&said["rounds"][0]["lost"]) == 0, "{said}");
}

/// Answers come from where nothing is counted of what the front door takes.
#[test]
fn a_counter_that_has_stopped_is_found() {
    let ((_dir, door), (_other, standing)) = (server(&["--canary-token", TOKEN]), server(&[]));
    let arguments = ["--url", door.url(), "--ask", standing.url(), "--canary-events", "500", "--canary-patience", "3s"];
    let (code, said, error) = canary(&arguments);
    assert_eq!(code, Some(1), "{said} {error}");
    let round = &said["rounds"][0];
    assert_eq!((&round["outcome"], number(&round["lost"])), (&json!("differs"), 500), "{said}");
    assert!(said["findings"].as_array().unwrap().iter().all(|finding| finding["found"] == 0), "{said}");
}
