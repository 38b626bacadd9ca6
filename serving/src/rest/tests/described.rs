//! The document and the routes say the same: what is there is described, what is described is there, and real answers are
//! what their schemas say.

use std::collections::{BTreeMap, BTreeSet};

use reckon_data::event::time;
use reckon_data::jobs::{Jobs, RunRequest};
use tower::ServiceExt as _;

use super::*;
use crate::entities::testing::Place;
use crate::testing::{Ev, Log, World};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];
/// A path parameter for which the document has no example: all of those are ids of runs.
const ID: &str = "00000000-0000-0000-0000-000000000001";

#[derive(Debug)]
struct Runner;

#[async_trait]
impl Jobs for Runner {
    async fn start(&self, _: RunRequest) -> Result<RunStatus, JobError> {
        Err(JobError::Invalid("it cannot".to_owned()))
    }

    fn get(&self, id: Uuid) -> Option<RunStatus> {
        Auditor.get(id)
    }

    fn list(&self) -> Vec<RunStatus> {
        self.get(RUNNING).into_iter().collect()
    }
}

#[derive(Debug)]
struct Again;

#[async_trait]
impl Replay for Again {
    async fn replay(&self, _: ReplayRequest) -> Result<ReplayReport, String> {
        Ok(ReplayReport { accepted: 1, ..ReplayReport::default() })
    }
}

/// A page that has been built.
#[derive(Debug)]
struct Built;

impl Page for Built {
    fn asset(&self, path: &str) -> Option<Asset> {
        (path == "/docs").then_some(Asset {
            body: b"<p>try it</p>",
            kind: "text/html",
            etag: "\"1\"",
            immutable: false,
        })
    }
}

fn view(id: &str, minute: i64) -> Ev {
    Ev {
        id: id.to_owned(),
        entity: "v1".to_owned(),
        event_type: "view",
        minute,
        country: Some("US"),
        ip: Some("10.0.0.1"),
        value: Some(2_500_000),
    }
}

/// A process that has every part, over a log of which batch has counted some.
async fn whole() -> Router {
    let world = World::new(Log(vec![vec![view("a", 1), view("b", 2), view("a", 1), view("c", 3)], vec![]]));
    world.clock.set(10_000_000);
    world.batch(&[1, 0]).await;
    world.seal(&[3, 0], 3, false).await;
    world.archive(&[4, 0]).await;
    world.bury(&[(9, "empty", "c"), (7, "too_long", "a")]).await;
    let serving = world.serve().await;
    let place = Arc::new(Place::new());
    serving.know_entities(place.start().await);
    let parts = RestParts {
        serving: Some(serving),
        ingest: Some(Arc::new(Door(|_| Ok(Receipt { accepted: 1, ..Receipt::default() })))),
        jobs: Some(Arc::new(Runner)),
        audits: Some(Arc::new(Auditor)),
        imports: Some(Arc::new(Memory)),
        replay: Some(Arc::new(Again)),
        health: Arc::new(Well),
        body_bytes_max: 10_000,
        clock: Arc::new(ManualClock::at(600_000_000)),
        listens: Listens::default(),
        canary_token: None,
        page: None,
    };
    // The folder lasts as long as the routes.
    router(parts).layer(axum::Extension(place))
}

async fn document(app: &Router) -> Value {
    let (status, document) = ask(app.clone(), "GET", "/openapi.json", &[], "").await;
    assert_eq!(status, StatusCode::OK, "{document}");
    document
}

/// Path, method and operation of all that is described.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(item.as_object().unwrap().keys().all(|key| METHODS.contains(&key.as_str())), "{path}: {item}");
        let methods = METHODS.into_iter().filter_map(|method| Some((method, item.get(method)?)));
        found.extend(methods.map(|(method, operation)| (path.as_str(), method, operation)));
    }
    found
}

fn parameters(operation: &Value) -> &[Value] {
    operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A request with the examples of all its parameters.
fn example(path: &str, operation: &Value) -> String {
    let (mut path, mut query) = (path.to_owned(), Vec::new());
    for parameter in parameters(operation) {
        let (name, example) = (parameter["name"].as_str().unwrap(), parameter["example"].as_str());
        match (parameter["in"].as_str().unwrap(), example) {
            ("path", example) => path = path.replace(&format!("{{{name}}}"), example.unwrap_or(ID)),
            ("query", Some(example)) => query.push(format!("{name}={example}")),
            (place, example) => assert!(place == "header" || example.is_none(), "{name}"),
        }
    }
    if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_says_what_it_takes_and_answers() {
    let document = document(&whole().await).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let tags = document["tags"].as_array().unwrap();
    let tags: BTreeSet<&str> = tags.iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut names = BTreeSet::new();
    let all = operations(&document);
    assert!(all.len() > 25, "{}", all.len());
    for (path, method, operation) in all {
        let place = format!("{method} {path}");
        let says = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
        assert!(says(&operation["summary"]) && says(&operation["description"]), "{place}: {operation}");
        assert!(names.insert(operation["operationId"].as_str().unwrap()), "{place}: its operationId is another's too");
        assert!(tags.contains(operation["tags"][0].as_str().unwrap()), "{place}: {}", operation["tags"]);
        for parameter in parameters(operation) {
            assert!(says(&parameter["description"]) && parameter["schema"].is_object(), "{place}: {parameter}");
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(says(&response["description"]), "{place} {status}");
            let Some(content) = response["content"].as_object() else {
                assert_eq!(status, "204", "{place}: an answer without a form");
                continue;
            };
            let schema = content.values().any(|kind| kind["schema"].is_object());
            assert!(schema, "{place} {status}: {response}");
            let refused = status.parse::<u16>().unwrap() >= 400 && path != "/readyz";
            assert_eq!(content.contains_key("application/problem+json"), refused, "{place} {status}");
        }
    }
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document["components"]["schemas"][name].is_object(), "{name} is no schema of the document");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_described_is_there_and_takes_what_is_described() {
    let app = whole().await;
    let document = document(&app).await;
    let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method, operation) in operations(&document) {
        let path = example(path, operation);
        let known = methods.entry(path.split('?').next().unwrap().to_owned()).or_default();
        known.insert(method.to_uppercase());
        if method == "get" {
            known.insert("HEAD".to_owned());
            let request = Request::get(path.as_str()).body(Body::empty()).unwrap();
            let status = app.clone().oneshot(request).await.unwrap().status();
            assert_ne!(status, StatusCode::BAD_REQUEST, "its own examples are refused: {path}");
            assert!(!status.is_server_error() || path == "/readyz", "{path}: {status}");
        }
    }
    for (path, known) in methods {
        let request = Request::builder().method("TRACE").uri(path.as_str()).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = response.headers()["allow"].to_str().unwrap().split(',').map(|method| method.trim().to_owned());
        assert_eq!(allowed.collect::<BTreeSet<_>>(), known, "{path}");
    }
}

#[tokio::test]
async fn a_process_describes_only_what_it_has() {
    let document = document(&app(|_| Ok(Receipt::default()))).await;
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/v1/events") && paths.contains_key("/readyz"), "{paths:?}");
    assert!(!paths.contains_key("/v1/top") && !paths.contains_key("/v1/batch/runs"), "{paths:?}");
    let letters = &document["paths"]["/v1/dead-letters"];
    assert!(letters["post"].is_object() && letters["get"].is_null(), "{letters}");
    assert!(!document["tags"].to_string().contains("\"sql\""), "{}", document["tags"]);
}

#[tokio::test]
async fn there_is_a_page_to_try_it_or_a_page_that_says_how_to_get_it() {
    let parts = |page: Option<Arc<dyn Page>>| RestParts {
        serving: None,
        ingest: None,
        jobs: None,
        audits: None,
        imports: None,
        replay: None,
        health: Arc::new(Well),
        body_bytes_max: 100,
        clock: Arc::new(ManualClock::at(0)),
        listens: Listens::default(),
        canary_token: None,
        page,
    };
    for (page, expected) in [(None, "/openapi.json"), (Some(Arc::new(Built) as Arc<dyn Page>), "try it")] {
        let request = Request::get("/docs").body(Body::empty()).unwrap();
        let response = router(parts(page)).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("http"), "{policy}");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains(expected), "{bytes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_answers_are_as_described() {
    let app = whole().await;
    let document = document(&app).await;
    let cases = [
        ("/v1/entities/{entity_id}/count", "/v1/entities/v1/count?type=view&from=0&to=600000"),
        ("/v1/entities/{entity_id}/count", "/v1/entities/nobody/count"),
        ("/v1/entities/{entity_id}/stats", "/v1/entities/v1/stats?function=sum&step=minute&from=0&to=600000"),
        ("/v1/entities/{entity_id}/stats", "/v1/entities/v1/stats"),
        ("/v1/entities/{entity_id}/why", "/v1/entities/v1/why?minute=60000"),
        ("/v1/ads/{ad_id}/aggregated_count", "/v1/ads/v1/aggregated_count?type=view"),
        ("/v1/videos/{video_id}/views", "/v1/videos/v1/views?window=5m"),
        ("/v1/top", "/v1/top?n=3&as_of=version:1"),
        ("/v1/top", "/v1/top?function=sum"),
        ("/v1/top", "/v1/top?from=120000&to=240000&compare=previous"),
        ("/v1/top", "/v1/top?group=channel"),
        ("/v1/entities/{entity_id}/count", "/v1/entities/v1/count?from=120000&to=240000&compare=previous"),
        ("/v1/entities/{entity_id}/stats", "/v1/entities/v1/stats?from=120000&to=240000&compare=previous"),
        ("/v1/entities/{entity_id}/stats", "/v1/entities/v1/stats?functions=count,sum"),
        ("/v1/entities/{entity_id}", "/v1/entities/v1"),
        ("/v1/entities/{entity_id}", "/v1/entities/nobody"),
        ("/v1/entities", "/v1/entities?search=v&limit=5"),
        ("/v1/channels", "/v1/channels"),
        ("/v1/filters", "/v1/filters"),
        ("/v1/filters/{filter_id}", "/v1/filters/nobody"),
        ("/v1/ads/popular_ads", "/v1/ads/popular_ads?type=view"),
        ("/v1/events/{event_id}", "/v1/events/a?entity=v1"),
        ("/v1/dead-letters", "/v1/dead-letters?limit=1"),
        ("/v1/imports", "/v1/imports?mapping=m"),
        ("/v1/batch/runs", "/v1/batch/runs"),
        ("/v1/audit/runs", "/v1/audit/runs"),
        ("/v1/audit/runs/{id}", "/v1/audit/runs/00000000-0000-0000-0000-000000000001"),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
    ];
    let known = r#"{"title": "One", "channel": "news", "attributes": {"language": "en"}}"#;
    for (body, expected) in [(known, StatusCode::OK), ("[\"One\"]", StatusCode::BAD_REQUEST)] {
        let (status, answer) = ask(app.clone(), "PUT", "/v1/entities/v1", &[], body).await;
        assert_eq!(status, expected, "{answer}");
        is_as_described(&document, "/v1/entities/{entity_id}", "put", body, (status, &answer));
    }
    for (path, asked) in cases {
        let (status, answer) = ask(app.clone(), "GET", asked, &[], "").await;
        is_as_described(&document, path, "get", asked, (status, &answer));
    }
    let json = [("content-type", "application/json")];
    for (path, body) in [
        ("/v1/events", "{}"),
        ("/v1/sql", r#"{"query": "select entity_id, sum(count) as n from stats group by entity_id"}"#),
        ("/v1/sql", r#"{"query": "select nothing"}"#),
        ("/v1/dead-letters", "[]"),
        ("/v1/dead-letters/replay", "{}"),
        ("/v1/audit/runs", "null"),
        ("/v1/batch/runs", "{}"),
        ("/v1/entities/import", r#"[{"entity_id": "v2"}, {"entity_id": ""}]"#),
        ("/v1/entities/query", r#"{"entities": ["v1"], "functions": ["count", "sum"], "step": "minute"}"#),
        ("/v1/entities/query", r#"[["v1"]]"#),
    ] {
        let (status, answer) = ask(app.clone(), "POST", path, &json, body).await;
        is_as_described(&document, path, "post", body, (status, &answer));
    }
    let (_, ready) = ask(app.clone(), "GET", "/readyz", &[], "").await;
    let parts: Vec<&str> = ready["parts"].as_array().unwrap().iter().filter_map(|part| part["part"].as_str()).collect();
    assert!(parts.contains(&"serving") && parts.contains(&"entities"), "{ready}");
    let (status, answer) = ask(app, "DELETE", "/v1/entities/v1", &[], "").await;
    is_as_described(&document, "/v1/entities/{entity_id}", "delete", "", (status, &answer));
}

fn is_as_described(document: &Value, path: &str, method: &str, asked: &str, (status, answer): (StatusCode, &Value)) {
    let described = &document["paths"][path][method]["responses"][status.as_str()];
    assert!(described.is_object(), "{asked}: {status} is not described: {answer}");
    let kind = if status.is_success() || path == "/readyz" { "application/json" } else { "application/problem+json" };
    let problems = differences(document, &described["content"][kind]["schema"], answer);
    assert!(problems.is_empty(), "{asked}: {problems:?} in {answer}");
}

/// Where a value is not what a schema says; stricter than JSON Schema in that an object has nothing but what is described.
fn differences(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let schema = resolved(document, schema);
    if let Some(options) = schema["oneOf"].as_array() {
        let all: Vec<_> = options.iter().map(|option| differences(document, option, value)).collect();
        let fitting = all.iter().filter(|differences| differences.is_empty()).count();
        return if fitting == 1 { Vec::new() } else { vec![format!("{fitting} of {options:?} fit {value}: {all:?}")] };
    }
    let mut found = Vec::new();
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is(kind)) {
        found.push(format!("{value} is none of {kinds:?}"));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        found.push(format!("{value} is none of {}", schema["enum"]));
    }
    if schema["format"] == "date-time" && value.as_str().is_some_and(|text| time::parse_rfc3339(text).is_none()) {
        found.push(format!("{value} is no time"));
    }
    for item in value.as_array().into_iter().flatten() {
        found.extend(differences(document, &schema["items"], item));
    }
    let (properties, required) = properties(document, schema);
    let others = &schema["additionalProperties"];
    for (name, value) in value.as_object().into_iter().flatten() {
        match properties.get(name.as_str()) {
            Some(property) => found.extend(differences(document, property, value)),
            None if others.is_object() => found.extend(differences(document, others, value)),
            // An object of which nothing is said: a report.
            None if properties.is_empty() => {}
            None => found.push(format!("{name} is not described")),
        }
    }
    let lacking = required.into_iter().filter(|name| value.is_object() && value.get(name).is_none());
    found.extend(lacking.map(|name| format!("{name} is not there")));
    found
}

/// Properties of an object, those of all its parts.
fn properties<'a>(document: &'a Value, schema: &'a Value) -> (BTreeMap<&'a str, &'a Value>, Vec<&'a str>) {
    let own = schema["properties"].as_object().into_iter().flatten();
    let mut found: BTreeMap<&str, &Value> = own.map(|(name, property)| (name.as_str(), property)).collect();
    let mut required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (properties, names) = properties(document, resolved(document, part));
        found.extend(properties);
        required.extend(names);
    }
    (found, required)
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let name = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/components/schemas/"));
    name.map_or(schema, |name| resolved(document, &document["components"]["schemas"][name]))
}
