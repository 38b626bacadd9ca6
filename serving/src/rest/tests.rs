//! The routes, with stand-ins for what they stand on.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use reckon_data::clock::ManualClock;
use reckon_data::dead::DeadLetter;
use reckon_data::ingest::{Framing, Ingest, Submission, SubmitError};
use reckon_data::receipt::Receipt;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;

#[derive(Debug)]
struct Door(fn(&Submission) -> Result<Receipt, SubmitError>);

#[async_trait]
impl Ingest for Door {
    async fn submit(&self, submission: Submission) -> Result<Receipt, SubmitError> {
        (self.0)(&submission)
    }

    async fn bury(&self, _: Vec<DeadLetter>) -> Result<(), SubmitError> {
        Ok(())
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
        imports: None,
        replay: None,
        health: Arc::new(Well),
        body_bytes_max: 100,
        clock: Arc::new(ManualClock::at(0)),
    })
}

async fn ask(app: Router, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
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
        assert_eq!(submission.idempotency_key.as_deref(), Some("k"));
        assert_eq!(submission.body.as_ref(), b"{}");
        Ok(Receipt { accepted: 1, ..Receipt::default() })
    };
    let headers = [("content-type", "application/x-ndjson; charset=utf-8"), ("idempotency-key", "k")];
    let (status, receipt) = ask(app(door), "POST", "/v1/events", &headers, "{}").await;
    assert_eq!((status, &receipt["accepted"]), (StatusCode::OK, &Value::from(1)));
}

#[tokio::test]
async fn every_refusal_of_the_gateway_has_its_status() {
    let cases: [(fn(&Submission) -> Result<Receipt, SubmitError>, u16); 5] = [
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

/// The document and the routes know the same paths.
#[test]
fn the_openapi_document_has_every_route() {
    let document: Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
    let mut documented: Vec<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let sources = [
        include_str!("dead.rs"),
        include_str!("events.rs"),
        include_str!("imports.rs"),
        include_str!("jobs.rs"),
        include_str!("openapi.rs"),
        include_str!("questions.rs"),
        include_str!("sql.rs"),
        include_str!("state.rs"),
    ];
    let mut routed: Vec<String> = sources
        .iter()
        .flat_map(|source| source.split(".route(\"").skip(1))
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    documented.sort();
    routed.sort();
    routed.dedup();
    assert_eq!(documented, routed);
}
