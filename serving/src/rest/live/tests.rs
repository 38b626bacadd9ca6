//! Live streams over a small log, without a network.

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode, header};
use futures::StreamExt as _;
use reckon_data::run::Dimension;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::super::parts::{Health, Readiness, RestParts};
use super::super::{Asset, Listens, MetricsText, Page};
use super::frame::Change;
use super::*;
use crate::query::PartsPoint;
use crate::testing::{Ev, Log, World};

#[derive(Debug)]
struct Well;

impl Health for Well {
    fn ready(&self) -> Readiness {
        Readiness { ready: true, ..Readiness::default() }
    }

    fn metrics(&self, _: &mut MetricsText) {}
}

#[derive(Debug)]
struct OnePage;

impl Page for OnePage {
    fn asset(&self, path: &str) -> Option<Asset> {
        let root = Asset { body: b"<p>", kind: "text/html", etag: "\"1\"", immutable: false };
        match path {
            "/" => Some(root),
            "/assets/a.js" => Some(Asset { body: b"a", kind: "text/javascript", etag: "\"2\"", immutable: true }),
            _ => None,
        }
    }
}

fn event(n: i64, minute: i64) -> Ev {
    Ev {
        id: format!("e{n}"),
        entity: "v1".to_owned(),
        event_type: "view",
        minute,
        country: None,
        ip: None,
        value: None,
    }
}

/// Five events in minute 1 that batch has counted, and two in minutes 1 and 2 that it has not.
async fn world() -> World {
    let mut events: Vec<Ev> = (0..5).map(|n| event(n, 1)).collect();
    events.extend([event(5, 1), event(6, 2)]);
    let world = World::new(Log(vec![events]));
    world.clock.set(3 * 60_000_000);
    world.batch(&[5]).await;
    world
}

async fn parts(world: &World) -> RestParts {
    RestParts {
        serving: Some(world.serve().await),
        ingest: None,
        jobs: None,
        audits: None,
        imports: None,
        replay: None,
        health: Arc::new(Well),
        body_bytes_max: 100,
        clock: Arc::clone(&world.clock) as _,
        listens: Listens::default(),
        canary_token: None,
        page: Some(Arc::new(OnePage)),
    }
}

async fn get(app: &Router, path: &str) -> Response {
    let request = Request::get(path).body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

/// Reads events until one of this name comes; its data.
async fn read(stream: &mut BodyDataStream, name: &str) -> Value {
    let mut text = String::new();
    loop {
        let bytes = stream.next().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&bytes).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let line = |prefix: &str| event.lines().find_map(|line| line.strip_prefix(prefix).map(str::to_owned));
            let (found, data) = (line("event: "), line("data: "));
            text = rest.to_owned();
            if found.as_deref() == Some(name) {
                return serde_json::from_str(&data.unwrap()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_stream_begins_with_all_steps_and_goes_on_with_changes() {
    let world = world().await;
    let app = super::super::router(parts(&world).await);
    let response = get(&app, "/v1/live?entity=v1&type=view&from=0&top=3").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let series = read(&mut stream, "series").await;
    let told: Vec<_> = series["points"].as_array().unwrap().iter().map(|at| (&at["batch"], &at["stream"])).collect();
    assert_eq!(told, [(&json!(5), &json!(1)), (&json!(0), &json!(1))], "{series}");
    let tick = read(&mut stream, "tick").await;
    assert_eq!(tick["series"]["count"], 7);
    assert_eq!(tick["series"]["changed"], json!([]), "the series has told it");
    let first = &tick["top"]["entities"][0];
    assert_eq!((&first["entity_id"], &first["count"], &first["rank"]), (&json!("v1"), &json!(7), &json!(1)), "{tick}");
    assert_eq!(tick["series"]["provenance"]["partitions"][0]["position"], 7);
    let next = read(&mut stream, "tick").await;
    assert_eq!(next["id"].as_u64(), tick["id"].as_u64().map(|id| id + 1));
    // One who comes later gets the whole of it too.
    let mut other = get(&app, "/v1/live?top=3&from=0&type=view&entity=v1").await.into_body().into_data_stream();
    assert_eq!(read(&mut other, "series").await["points"].as_array().map(Vec::len), Some(2));
}

/// Who was told of an error instead of steps has none that a change could be a change of.
#[tokio::test]
async fn the_first_answer_after_an_error_is_told_whole() {
    let world = world().await;
    let shared = Shared::new(parts(&world).await);
    let view = View::read(Some("entity=v1&from=0")).unwrap();
    let failed = Frame { id: 1, tick: "{}".to_owned(), whole: false, parts: None };
    let first = Box::pin(frame::make(&shared, &view, Some(&failed))).await;
    assert_eq!((first.id, first.whole, first.parts.is_some()), (2, true, true));
    let next = Box::pin(frame::make(&shared, &view, Some(&first))).await;
    assert_eq!((next.id, next.whole, next.parts.is_some()), (3, false, true));
}

/// Counts that were made without a dimension would be too small, and look whole.
#[tokio::test]
async fn a_filter_that_older_counts_do_not_hold_is_no_short_count() {
    let mut world = world().await;
    world.definition.dimensions.push(Dimension::Ip);
    let app = super::super::router(parts(&world).await);
    let mut stream = get(&app, "/v1/live?entity=v1&from=0&filter=ip:10.0.0.1").await.into_body().into_data_stream();
    let tick = read(&mut stream, "tick").await;
    for part in ["series", "top"] {
        let error = tick[part]["error"].as_str().unwrap_or_else(|| panic!("{part} of {tick}"));
        assert!(error.contains("raw events"), "{error}");
    }
    let mut stream = get(&app, "/v1/live?entity=v1&from=0").await.into_body().into_data_stream();
    assert_eq!(read(&mut stream, "tick").await["series"]["count"], 7, "without the filter any counts will do");
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let world = world().await;
    let app = super::super::router(parts(&world).await);
    for (query, field) in [
        ("step=soon&entity=v1", "step"),
        ("window=5", "window"),
        ("window=1x&entity=v1", "window"),
        ("top=0", "top"),
        ("top=101", "top"),
        ("top_window=1", "top_window"),
        ("colour=red", "colour"),
        ("entity=v1&filter=ip:10.0.0.1", "filter"),
        ("from=1&to=0&entity=v1", "from"),
    ] {
        let response = get(&app, &format!("/v1/live?{query}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["field"], field, "{query}: {problem}");
    }
}

#[tokio::test]
async fn streams_are_bounded_and_leave_their_place() {
    let world = world().await;
    let app = super::super::router(parts(&world).await);
    let mut held = Vec::new();
    for _ in 0..STREAMS_MAX {
        let response = get(&app, "/v1/live").await;
        assert_eq!(response.status(), StatusCode::OK);
        held.push(response);
    }
    let refused = get(&app, "/v1/live").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    held.pop();
    assert_eq!(get(&app, "/v1/live").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stream_ends_when_the_server_stops() {
    let world = world().await;
    let (stop, stopping) = watch::channel(false);
    let app = super::super::router(parts(&world).await).layer(axum::Extension(Stopping(stopping)));
    let mut stream = get(&app, "/v1/live").await.into_body().into_data_stream();
    read(&mut stream, "tick").await;
    stop.send_replace(true);
    let end = async { while stream.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(5), end).await.unwrap();
}

#[test]
fn changes_make_one_list_of_the_other() {
    let at = |start, batch, stream| PartsPoint { start, batch, stream, late: 0 };
    let (before, after) = ([at(1, 1, 0), at(2, 2, 2), at(3, 0, 1)], [at(2, 2, 2), at(3, 1, 0), at(4, 0, 9)]);
    let change = Change::between(&before, &after);
    assert_eq!(change, Change { changed: vec![at(3, 1, 0), at(4, 0, 9)], gone: vec![1] });
    assert_eq!(Change::between(&after, &after), Change::default());
}

#[test]
fn one_who_has_missed_a_frame_is_behind() {
    assert!(!stream::is_behind(8, Some(7)));
    assert!(stream::is_behind(9, Some(7)) && stream::is_behind(1, None));
}

#[tokio::test]
async fn the_page_is_served_with_its_policy_and_from_the_cache() {
    let world = world().await;
    let app = super::super::router(parts(&world).await);
    let page = get(&app, "/").await;
    assert_eq!((page.status(), &page.headers()[header::CACHE_CONTROL]), (StatusCode::OK, &"no-cache".parse().unwrap()));
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let file = get(&app, "/assets/a.js").await;
    assert!(file.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    let again = Request::get("/assets/a.js").header(header::IF_NONE_MATCH, "W/\"2\", \"3\"").body(Body::empty());
    assert_eq!(app.clone().oneshot(again.unwrap()).await.unwrap().status(), StatusCode::NOT_MODIFIED);
    assert_eq!(get(&app, "/assets/b.js").await.status(), StatusCode::NOT_FOUND);
}
