//! Metrics as others read them: the dashboard and the rules in docs/monitoring ask for what there is, and a trace of a
//! request goes where the settings say.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use tonic::transport::server::TcpIncoming;

use crate::harness::{RUNTIME, Server, run_ok};

/// Functions and words of PromQL, and labels, that look like names of metrics.
const NO_METRICS: [&str; 3] = ["histogram_quantile", "label_values", "last_right"];

fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("reckon_") || word.starts_with("process_"))
        .filter(|word| !NO_METRICS.contains(word))
        .map(str::to_owned)
        .collect()
}

/// Every `expr` of a dashboard.
fn expressions(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| match value {
            Value::String(text) if key == "expr" || key == "query" => into.push(text.clone()),
            other => expressions(other, into),
        }),
        Value::Array(all) => all.iter().for_each(|value| expressions(value, into)),
        _ => {}
    }
}

#[test]
fn every_query_of_the_dashboard_and_the_rules_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--canary-every", "1s", "--canary-events", "200"]);
    let event = |entity: &str| json!({"event_type": "view", "entity_id": entity, "event_time": "2026-11-20T12:00:00Z"});
    server.post("/v1/events", &json!([event("a"), event("")]));
    server.post("/v1/sql", &json!({"query": "select nothing"}));
    let samples = || -> BTreeSet<String> {
        let (status, text) = server.request("GET", "/metrics", &[], Vec::new());
        assert_eq!(status, 200);
        let text = text.as_str().unwrap().to_owned();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
    };
    server.wait_until("a round of the canary was right", || samples().contains("reckon_canary_delay_seconds"));
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring");
    let dashboard = std::fs::read_to_string(docs.join("grafana.json")).unwrap();
    let mut asked = Vec::new();
    expressions(&serde_json::from_str(&dashboard).unwrap(), &mut asked);
    assert!(asked.len() > 20, "{asked:?}");
    let rules = std::fs::read_to_string(docs.join("alerts.yml")).unwrap();
    let rules: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(rules.len() > 10, "{rules:?}");
    let there = samples();
    for expression in asked.iter().map(String::as_str).chain(rules) {
        for name in names(expression) {
            assert!(there.contains(&name), "{name}, which {expression:?} asks for, is no metric: {there:?}");
        }
    }
}

/// Keeps the spans that it is sent.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[test]
fn a_request_is_traced_and_continues_the_trace_of_who_asks() {
    let collector = Collector::default();
    let listener = RUNTIME.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let service = TraceServiceServer::new(collector.clone());
    RUNTIME.spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)),
    );
    let dir = tempfile::tempdir().unwrap();
    // Only who asks for it is traced.
    let traces = ["--telemetry-traces", &address, "--telemetry-traces-share", "0.0", "--telemetry-logs", "json"];
    let server = Server::start_with(dir.path(), &traces);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    server.request("GET", "/v1/top?n=3", &[("traceparent", parent)], Vec::new());
    let found = || collector.0.lock().unwrap().clone();
    let named = |name: &str| found().into_iter().find(|span| span.name == name);
    server.wait_until("the trace has come", || named("GET /v1/top").is_some() && named("top").is_some());
    let (request, question) = (named("GET /v1/top").unwrap(), named("top").unwrap());
    assert_eq!(hex(&request.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&request.parent_span_id), "b7ad6b7169203331");
    assert_eq!(question.parent_span_id, request.span_id, "{question:?}");
    let status = request.attributes.iter().find(|attribute| attribute.key == "http.response.status_code");
    assert!(format!("{status:?}").contains("200"), "{status:?}");
    assert!(found().iter().all(|span| hex(&span.trace_id) == "0af7651916cd43dd8448eb211c80319c"), "{:?}", found());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn log_lines_may_be_json() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = crate::harness::command()
        .args(["up", "--listen", "127.0.0.1:0", "--telemetry-logs", "json", "--data-dir"])
        .arg(dir.path())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut listens = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut listens).unwrap();
    run_ok(Command::new("kill").args(["-TERM", &child.id().to_string()]));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let lines: Vec<Value> = text.lines().map(parse).collect();
    assert!(lines.iter().any(|line| line["message"] == "stopping" && line["level"] == "INFO"), "{text}");
}
