//! Metrics as others read them: the dashboard and the rules in docs/monitoring ask for what there is, and a trace of a
//! request goes where the settings say.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::Server;

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
    let server = Server::start_with(dir.path(), &["--canary-every", "1s", "--canary-events", "10"]);
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
