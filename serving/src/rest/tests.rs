//! The routes, with stand-ins for what they stand on.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode};
use reckon_data::clock::ManualClock;
use reckon_data::dead::DeadLetter;
use reckon_data::imports::{ImportEntry, Imports};
use reckon_data::ingest::{Compression, Framing, Ingest, Submission, SubmitError};
use reckon_data::jobs::{AuditSummary, Audits, JobError, RunState, RunStatus};
use reckon_data::receipt::Receipt;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use super::*;

mod described;

#[derive(Debug)]
struct Door(fn(&Submission) -> Result<Receipt, SubmitError>);

#[async_trait]
impl Ingest for Door {
    async fn submit(&self, submission: Submission) -> Result<Receipt, SubmitError> {
        (self.0)(&submission)
    }

    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<(), SubmitError> {
        assert!(letters.iter().all(|letter| letter.clone().verified().as_ref() == Ok(letter)), "{letters:?}");
        Ok(())
    }
}

#[derive(Debug)]
struct Memory;

#[async_trait]
impl Imports for Memory {
    async fn find(&self, _: &str) -> Result<Vec<ImportEntry>, String> {
        Ok(Vec::new())
    }

    async fn record_all(&self, _: Vec<ImportEntry>) -> Result<(), String> {
        Ok(())
    }
}

/// The audit that runs.
const RUNNING: Uuid = Uuid::from_u128(1);
/// One that was stored by another process.
const STORED: Uuid = Uuid::from_u128(2);

#[derive(Debug)]
struct Auditor;

#[async_trait]
impl Audits for Auditor {
    async fn start(&self, request: Value) -> Result<RunStatus, JobError> {
        match request["dates"].as_array() {
            None => self.get(RUNNING).ok_or(JobError::AlreadyRunning(RUNNING)),
            Some(dates) if dates.is_empty() => Err(JobError::AlreadyRunning(RUNNING)),
            Some(dates) => Err(JobError::Invalid(format!("dates: {dates:?} are none"))),
        }
    }

    fn get(&self, id: Uuid) -> Option<RunStatus> {
        (id == RUNNING).then(|| RunStatus {
            id,
            state: RunState::Running,
            started_at: "2013-02-08T21:29:00Z".to_owned(),
            finished_at: None,
            step: "recounting 2013-02-08".to_owned(),
            done: 1,
            total: 3,
            events: 7,
            report: None,
            error: None,
        })
    }

    fn list(&self) -> Vec<AuditSummary> {
        let run = self.get(RUNNING).into_iter();
        run.map(|run| AuditSummary {
            id: run.id,
            state: run.state,
            started_at: run.started_at,
            finished_at: None,
            step: run.step,
            dates: vec!["2013-02-08".to_owned()],
            repair: false,
            verdict: None,
            events: None,
            errors: None,
            expected: None,
            error: None,
        })
        .collect()
    }

    async fn stored(&self, id: Uuid) -> Result<Option<Value>, String> {
        let report = json!({ "verdict": "balanced", "started_at": "a", "finished_at": "b", "dates": [{ "raw": 5 }] });
        match id.as_u128() {
            2 => Ok(Some(report)),
            3 => Err("the file is damaged".to_owned()),
            _ => Ok(None),
        }
    }

    async fn page(&self, id: Option<Uuid>) -> Result<Option<String>, String> {
        Ok((id != Some(RUNNING)).then(|| format!("<p>{id:?}</p>")))
    }
}

#[derive(Debug)]
struct Well;

impl Health for Well {
    fn ready(&self) -> Readiness {
        Readiness { reasons: vec!["the counter is behind".to_owned()], ..Readiness::default() }
    }

    fn metrics(&self, into: &mut MetricsText) {
        into.single("reckon_up", "gauge", "Whether it is up.", 1);
    }
}

fn app(door: fn(&Submission) -> Result<Receipt, SubmitError>) -> Router {
    router(RestParts {
        serving: None,
        ingest: Some(Arc::new(Door(door))),
        jobs: None,
        audits: Some(Arc::new(Auditor)),
        imports: Some(Arc::new(Memory)),
        replay: None,
        health: Arc::new(Well),
        body_bytes_max: 100,
        clock: Arc::new(ManualClock::at(0)),
        canary_token: Some(Arc::from("secret")),
        page: None,
        listens: Listens::default(),
    })
}

async fn ask(app: Router, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let response = app.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into())))
}

#[tokio::test]
async fn a_body_reaches_the_gateway_as_it_was_sent() {
    let door = |submission: &Submission| {
        assert_eq!(submission.framing, Framing::Lines);
        assert_eq!(submission.compression, Compression::Gzip);
        assert_eq!(submission.source.as_deref(), Some("événements.csv"));
        assert_eq!(submission.idempotency_key.as_deref(), Some("k"));
        assert_eq!(submission.body.as_ref(), b"{}");
        Ok(Receipt { accepted: 1, ..Receipt::default() })
    };
    let headers = [
        ("content-type", "application/x-ndjson; charset=utf-8"),
        ("content-encoding", "GZIP"),
        ("idempotency-key", "k"),
        ("reckon-source", "événements.csv"),
    ];
    let (status, receipt) = ask(app(door), "POST", "/v1/events", &headers, "{}").await;
    assert_eq!((status, &receipt["accepted"]), (StatusCode::OK, &Value::from(1)));
}

async fn send(headers: &[(&str, &str)], door: fn(&Submission) -> Result<Receipt, SubmitError>) -> (StatusCode, Value) {
    ask(app(door), "POST", "/v1/events", headers, "{}").await
}

#[tokio::test]
async fn reserved_entities_come_with_the_token_only() {
    let inside = |submission: &Submission| {
        assert!(submission.internal);
        Ok(Receipt { accepted: 1, ..Receipt::default() })
    };
    let outside = |submission: &Submission| {
        assert!(!submission.internal);
        Ok(Receipt { accepted: 1, ..Receipt::default() })
    };
    assert_eq!(send(&[("reckon-canary", "secret")], inside).await.0, StatusCode::OK);
    assert_eq!(send(&[], outside).await.0, StatusCode::OK);
    let never = |_: &Submission| panic!("the gateway was asked");
    for value in ["", "secre", "Secret", "secret2"] {
        let (status, problem) = send(&[("reckon-canary", value)], never).await;
        assert_eq!((status, &problem["field"]), (StatusCode::FORBIDDEN, &Value::from("reckon-canary")), "{value}");
        assert!(!problem.to_string().contains("secret"), "it does not give the token away: {problem}");
    }
}

#[tokio::test]
async fn every_refusal_of_the_gateway_has_its_status() {
    type Refuse = fn(&Submission) -> Result<Receipt, SubmitError>;
    let cases: [(Refuse, u16); 5] = [
        (|_| Err(SubmitError::Busy { retry_after_seconds: 1 }), 429),
        (|_| Err(SubmitError::TooLarge { limit: 7 }), 413),
        (|_| Err(SubmitError::Malformed { message: "at byte 3".to_owned(), receipt: Box::default() }), 400),
        (|_| Err(SubmitError::Full), 503),
        (|_| Ok(Receipt { refused: 1, ..Receipt::default() }), 422),
    ];
    for (door, expected) in cases {
        let (status, problem) = ask(app(door), "POST", "/v1/events", &[], "{}").await;
        assert_eq!((status.as_u16(), &problem["status"]), (expected, &Value::from(expected)), "{problem}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_before_the_gateway() {
    let never = |_: &Submission| panic!("the gateway was asked");
    let long = "x".repeat(101);
    for (headers, body, expected) in [
        (("content-encoding", "br"), "{}", 415),
        (("content-type", "text/html"), "{}", 415),
        (("accept", "*/*"), long.as_str(), 413),
        (("content-length", "101"), long.as_str(), 413),
    ] {
        let (status, problem) = ask(app(never), "POST", "/v1/events", &[headers], body).await;
        assert_eq!(status.as_u16(), expected, "{headers:?}: {problem}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_named() {
    let door = |_: &Submission| Ok(Receipt::default());
    let (status, problem) = ask(app(door), "GET", "/v1/top", &[], "").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "no questions without a serving layer");
    assert!(problem["detail"].as_str().unwrap().contains("/v1/top"), "{problem}");
    let (status, problem) = ask(app(door), "DELETE", "/v1/events", &[], "").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(problem["detail"].as_str().unwrap().contains("DELETE"), "{problem}");
}

#[tokio::test]
async fn health_and_metrics() {
    let door = |_: &Submission| Ok(Receipt::default());
    assert_eq!(ask(app(door), "GET", "/healthz", &[], "").await.0, StatusCode::OK);
    let (status, ready) = ask(app(door), "GET", "/readyz", &[], "").await;
    assert_eq!((status, &ready["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &Value::Bool(false)));
    let app = app(door);
    ask(app.clone(), "GET", "/healthz", &[], "").await;
    let (_, text) = ask(app, "GET", "/metrics", &[], "").await;
    let text = text.as_str().unwrap().to_owned();
    assert!(text.contains("reckon_up 1"), "{text}");
    assert!(text.contains("reckon_http_request_seconds_count{route=\"/healthz\",status=\"200\"} 1"), "{text}");
}

#[tokio::test]
async fn what_a_dead_letter_says_of_its_body_is_not_believed() {
    let door = |_: &Submission| Ok(Receipt::default());
    let letter = |body: &str| {
        format!(
            "[{{\"reason\":\"empty\",\"field\":null,\"message\":\"\",\"source\":null,{body}\"body_bytes\":{},\
             \"body_hash\":\"x\"}}]",
            u64::MAX
        )
    };
    let headers = [("content-type", "application/json")];
    let (status, answer) = ask(app(door), "POST", "/v1/dead-letters", &headers, &letter("\"body\":\"e30=\",")).await;
    assert_eq!((status, &answer["buried"]), (StatusCode::OK, &Value::from(1)), "{answer}");
    let (status, problem) = ask(app(door), "POST", "/v1/dead-letters", &headers, &letter("")).await;
    assert_eq!((status, &problem["field"]), (StatusCode::BAD_REQUEST, &Value::from("body_bytes")), "{problem}");
}

#[tokio::test]
async fn numbers_that_no_table_can_hold_are_refused_by_name() {
    let door = |_: &Submission| Ok(Receipt::default());
    let entry = ImportEntry { bytes: u64::MAX, ..ImportEntry::default() };
    let body = serde_json::to_string(&entry).unwrap();
    let json = [("content-type", "application/json")];
    let (status, problem) = ask(app(door), "POST", "/v1/imports", &json, &body).await;
    assert_eq!((status, &problem["field"]), (StatusCode::BAD_REQUEST, &Value::from("bytes")), "{problem}");
    let (status, problem) = ask(app(door), "POST", "/v1/imports", &[("content-type", "text/html")], &body).await;
    assert_eq!((status.as_u16(), &problem["status"]), (415, &Value::from(415)), "{problem}");
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(3 << 20));
    let (status, problem) = ask(app(door), "POST", "/v1/imports", &json, &long).await;
    assert_eq!((status.as_u16(), &problem["status"]), (413, &Value::from(413)), "{problem}");
}

#[tokio::test]
async fn audits_are_started_and_shown_wherever_they_ran() {
    let app = app(|_| Ok(Receipt::default()));
    let post = |body: &'static str| ask(app.clone(), "POST", "/v1/audit/runs", &[], body);
    for body in ["", "{}"] {
        let (status, run) = post(body).await;
        assert_eq!((status, &run["id"]), (StatusCode::ACCEPTED, &json!(RUNNING)), "{run}");
    }
    for (body, expected) in [("{\"dates\":[]}", 409), ("{\"dates\":[1]}", 400), ("{", 400), ("[]", 400)] {
        let (status, problem) = post(body).await;
        assert_eq!((status.as_u16(), &problem["status"]), (expected, &json!(expected)), "{body}: {problem}");
    }
    let get = async |path: &str| ask(app.clone(), "GET", &format!("/v1/audit/runs{path}"), &[], "").await;
    let listed = get("").await.1["runs"][0].clone();
    assert_eq!((&listed["step"], &listed["dates"][0]), (&json!("recounting 2013-02-08"), &json!("2013-02-08")));
    assert_eq!(get(&format!("/{RUNNING}")).await.1["state"], "running");
    let (_, stored) = get(&format!("/{STORED}")).await;
    let seen = [&stored["state"], &stored["events"], &stored["report"]["verdict"], &stored["finished_at"]];
    assert_eq!(seen, [&json!("succeeded"), &json!(5), &json!("balanced"), &json!("b")], "{stored}");
    assert_eq!(get(&format!("/{}", Uuid::from_u128(3))).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&format!("/{}", Uuid::from_u128(4))).await.0, StatusCode::NOT_FOUND);
    assert_eq!(get("/latest").await.1["field"], "id");
}

#[tokio::test]
async fn the_page_of_an_audit_loads_nothing_and_runs_nothing() {
    let app = app(|_| Ok(Receipt::default()));
    for (path, expected) in [
        ("/v1/audit/page".to_owned(), "<p>None</p>".to_owned()),
        (format!("/v1/audit/runs/{STORED}/page"), format!("<p>{:?}</p>", Some(STORED))),
    ] {
        let response = app.clone().oneshot(Request::get(path.as_str()).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("script"), "{policy}");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert_eq!(bytes, expected, "{path}");
    }
    let none = ask(app, "GET", &format!("/v1/audit/runs/{RUNNING}/page"), &[], "").await;
    assert_eq!(none.0, StatusCode::NOT_FOUND, "{}", none.1);
}

#[tokio::test]
async fn refusals_in_plain_text_become_problems() {
    use axum::response::IntoResponse as _;
    let plain = (StatusCode::BAD_REQUEST, "Invalid UTF-8 in `entity_id`").into_response();
    let response = fail::as_problem(plain).await;
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let problem: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&problem["status"], &problem["detail"]), (&400.into(), &"Invalid UTF-8 in `entity_id`".into()));
    let fine = fail::as_problem("text".into_response()).await;
    assert_eq!(fine.headers()["content-type"], "text/plain; charset=utf-8");
}

/// Sends `start` of a body, and never the rest.
fn stall(app: &Router, start: &'static str) -> tokio::task::JoinHandle<()> {
    use futures::StreamExt as _;
    let first = futures::stream::iter((!start.is_empty()).then_some(Ok::<_, std::io::Error>(start)));
    let body = Body::from_stream(first.chain(futures::stream::pending()));
    let request = Request::post("/v1/events").body(body).unwrap();
    let app = app.clone();
    tokio::spawn(async move { drop(app.oneshot(request).await) })
}

async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn bodies_that_are_arriving_have_room_and_no_more() {
    let app = app(|_| Ok(Receipt { accepted: 1, ..Receipt::default() }));
    // Of 100 bytes at most, so each of 32 takes a KiB.
    let slow: Vec<_> = (0..32).map(|_| stall(&app, "[")).collect();
    settle().await;
    let response = app.clone().oneshot(Request::post("/v1/events").body(Body::from("{}")).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    slow[0].abort();
    settle().await;
    assert_eq!(ask(app, "POST", "/v1/events", &[], "{}").await.0, StatusCode::OK);
}

#[tokio::test]
async fn health_is_told_however_much_is_under_way() {
    let app = app(|_| Ok(Receipt::default()));
    let slow: Vec<_> = (0..state::REQUESTS_MAX).map(|_| stall(&app, "")).collect();
    settle().await;
    assert_eq!(ask(app.clone(), "GET", "/openapi.json", &[], "").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(app.clone(), "GET", "/healthz", &[], "").await.0, StatusCode::OK);
    assert_eq!(ask(app, "GET", "/readyz", &[], "").await.1["reasons"][0], "the counter is behind");
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A route that is added past the document is not in it.
#[test]
fn every_route_is_added_with_its_description() {
    let sources = [
        include_str!("audits.rs"),
        include_str!("dead.rs"),
        include_str!("events.rs"),
        include_str!("imports.rs"),
        include_str!("jobs.rs"),
        include_str!("openapi.rs"),
        include_str!("questions.rs"),
        include_str!("sql.rs"),
        include_str!("state.rs"),
    ];
    for source in sources {
        assert!(!source.contains(".route(\""), "{source}");
    }
}
