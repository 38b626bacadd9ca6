//! The front door: what is taken, and how everything else is refused (R-8, R-9).

use serde_json::{Value, json};

use crate::harness::{Server, number, rows};

const MINUTE: &str = "2013-02-08T21:29:00Z";

fn event(id: &str, entity: &str) -> Value {
    json!({"event_id": id, "event_type": "view", "entity_id": entity, "event_time": MINUTE, "country": "US"})
}

fn server() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    (dir, server)
}

/// A refusal: its status, and a problem document whose text holds `names`.
fn refused(server: &Server, method: &str, path: &str, body: &str, status: u16, names: &str) {
    let (found, problem) =
        server.request(method, path, &[("content-type", "application/json")], body.as_bytes().to_vec());
    assert_eq!(found, status, "{method} {path}: {problem}");
    assert_eq!(problem["status"], status, "{method} {path}: {problem}");
    assert!(problem["type"].is_string() && problem["title"].is_string(), "{problem}");
    let text = problem.to_string();
    assert!(text.contains(names), "{method} {path} should name {names}: {text}");
}

/// A refusal of a question because of one field, which it names as such.
fn refused_field(server: &Server, path: &str, field: &str) {
    let (status, problem) = server.request("GET", path, &[], Vec::new());
    assert_eq!((status, &problem["field"]), (400, &json!(field)), "GET {path}: {problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(field)), "{problem}");
}

#[test]
fn one_event_an_array_and_lines() {
    let (_dir, server) = server();
    let (status, receipt) = server.post("/v1/events", &event("e1", "v1"));
    assert_eq!((status, number(&receipt["accepted"])), (200, 1), "{receipt}");
    assert!(receipt["places"][0]["partition"].is_u64(), "{receipt}");
    let (_, receipt) = server.post("/v1/events", &json!([event("e1", "v1"), event("e2", "v1")]));
    assert_eq!(number(&receipt["accepted"]), 2, "{receipt}");
    let lines = format!("{}\n{}\n", event("e3", "v1"), event("e4", "v2"));
    let (_, receipt) =
        server.request("POST", "/v1/events", &[("content-type", "application/x-ndjson")], lines.into_bytes());
    assert_eq!(number(&receipt["accepted"]), 2, "{receipt}");
    server.wait_counted();
    let count = server.get("/v1/entities/v1/count?type=view&from=2013-02-08T00:00:00Z&to=2013-02-09T00:00:00Z");
    assert_eq!(number(&count["count"]), 3, "e1 came twice: {count}");
    let provenance = &count["provenance"];
    for key in ["complete", "watermark", "state", "definition", "batch_version"] {
        assert!(!provenance[key].is_null(), "{key} in {provenance}");
    }
    let partitions = provenance["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 4, "{provenance}");
    assert!(partitions.iter().all(|partition| partition["position"].is_u64() && partition["coverage"].is_u64()));
}

#[test]
fn compressed_bodies() {
    use std::io::Write;
    let (_dir, server) = server();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(event("e1", "v1").to_string().as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(event("e2", "v1").to_string().as_bytes(), 1).unwrap();
    for (encoding, body) in [("gzip", gzip.clone()), ("zstd", zstd)] {
        let (status, receipt) = server.request("POST", "/v1/events", &[("content-encoding", encoding)], body);
        assert_eq!((status, number(&receipt["accepted"])), (200, 1), "{encoding}: {receipt}");
    }
    let cut = gzip[..gzip.len() / 2].to_vec();
    let (status, problem) = server.request("POST", "/v1/events", &[("content-encoding", "gzip")], cut);
    assert_eq!(status, 400, "{problem}");
    let (status, problem) = server.request("POST", "/v1/events", &[("content-encoding", "br")], b"x".to_vec());
    assert_eq!(status, 415, "{problem}");
}

#[test]
fn bad_bodies_are_refused_by_name_and_kept() {
    let (_dir, server) = server();
    let whole = event("e1", "v1").to_string();
    refused(&server, "POST", "/v1/events", &whole[..whole.len() - 7], 400, "byte");
    refused(&server, "POST", "/v1/events", &format!("[{whole},"), 400, "byte");
    refused(&server, "POST", "/v1/events", "", 400, "no event");
    let large = format!("[{}]", " ".repeat(10 << 20));
    refused(&server, "POST", "/v1/events", &large, 413, "8388608");
    // A single bad event of a readable body has its own verdict.
    for (broken, field) in [
        (whole.replace("\"v1\"", "17"), "entity_id"),
        (whole.replace("country", "colour"), "colour"),
        (whole.replace("2013", "1813"), "event_time"),
        (whole.replace("e1", &"x".repeat(129)), "128"),
    ] {
        let (status, verdict) = server.request("POST", "/v1/events", &[], broken.into_bytes());
        assert_eq!(status, 422, "{verdict}");
        assert!(verdict.to_string().contains(field), "{field}: {verdict}");
    }
    server.batch();
    let letters = server.sql("select count(*), count(body) from dead_letters");
    let letters = &rows(&letters)[0];
    assert!(number(&letters[0]) >= 6, "{letters:?}");
    assert_eq!(letters[0], letters[1], "with their bytes");
}

#[test]
fn bad_questions_are_refused_by_name() {
    let (_dir, server) = server();
    let stats = "/v1/entities/v1/stats?type=view";
    refused_field(&server, "/v1/entities/v1/count?from=2013-02-09T00:00:00Z&to=2013-02-08T00:00:00Z", "from");
    refused_field(&server, &format!("{stats}&from=noon"), "from");
    refused_field(&server, &format!("{stats}&function=median"), "function");
    refused_field(&server, &format!("{stats}&step=7parsecs"), "step");
    refused_field(&server, "/v1/entities/v1/count?filter=9999", "filter");
    refused_field(&server, "/v1/entities/v1/count?filter=colour:red", "filter");
    refused_field(&server, "/v1/top?n=0", "n");
    refused_field(&server, "/v1/top?window=soon", "window");
    refused_field(&server, "/v1/top?nn=3", "nn");
    // A variable of a script that was not set must not mean everything.
    refused_field(&server, "/v1/entities/v1/count?type=", "type");
    refused_field(&server, "/v1/top?from=&n=3", "from");
    refused(&server, "GET", "/v1/entities/v1/count?filter=colour:red", "", 400, "colour");
    refused(&server, "GET", "/v1/entities/%ff/count", "", 400, "UTF-8");
    refused(&server, "POST", "/v1/sql", &"x".repeat(3 << 20), 413, "2097152");
    refused(&server, "GET", "/v1/nothing", "", 404, "/v1/nothing");
    refused(&server, "GET", "/v1/events", "", 405, "GET");
    refused(&server, "GET", "/v1/batch/runs/42", "", 400, "42");
    refused(&server, "POST", "/v1/sql", "{\"query\":1}", 400, "query");
    refused(&server, "POST", "/v1/sql", "{\"query\":\"select nothing from stats\"}", 400, "nothing");
    for query in [
        "insert into stats values (1)",
        "drop table stats",
        "create table x as select 1",
        "delete from events",
        "copy (select 1) to '/tmp/x.csv'",
        "create external table x stored as csv location '/etc/passwd'",
        "set datafusion.execution.batch_size = 1",
    ] {
        refused(&server, "POST", "/v1/sql", &json!({ "query": query }).to_string(), 400, "read");
    }
}

#[test]
fn an_event_can_be_found() {
    let (_dir, server) = server();
    server.post("/v1/events", &json!([event("e1", "v1"), event("e1", "v1"), event("e2", "v1")]));
    server.batch();
    let found = server.get("/v1/events/e1?entity=v1&date=2013-02-08");
    let copies = found["copies"].as_array().unwrap();
    assert_eq!(copies.len(), 2, "{found}");
    let states: Vec<&str> = copies.iter().map(|copy| copy["verdict"].as_str().unwrap()).collect();
    assert_eq!(states, ["counted", "duplicate"], "{found}");
    let (status, _) = server.request("GET", "/v1/events/e9?entity=v1", &[], Vec::new());
    assert_eq!(status, 404);
}

#[test]
fn a_copy_of_an_event_is_followed_stage_by_stage() {
    let (_dir, server) = server();
    server.post("/v1/events", &json!([event("e1", "v1"), event("e1", "v1")]));
    server.batch();
    let found = server.get("/v1/events/e1");
    let version = server.get("/v1/entities/v1/count")["provenance"]["batch_version"].clone();
    for (copy, verdict) in found["copies"].as_array().unwrap().iter().zip(["counted", "duplicate"]) {
        let stages = &copy["stages"];
        assert_eq!(stages["gateway"]["received_at"], copy["received_at"], "{copy}");
        assert_eq!((&stages["log"]["offset"], &stages["log"]["state"]), (&copy["offset"], &json!("in_log")), "{copy}");
        let stream = &stages["stream"];
        assert_eq!((&stream["state"], &stream["verdict"]), (&json!("sealed"), &json!(verdict)), "{copy}");
        let within = stream["segment"]["start"].as_u64()..stream["segment"]["end"].as_u64();
        assert!(within.contains(&copy["offset"].as_u64()), "{copy}");
        assert!(stages["raw"]["file"].as_str().unwrap().starts_with("event_date=2013-02-08/"), "{copy}");
        assert!(number(&stages["raw"]["archived"]) > number(&copy["offset"]), "{copy}");
        assert_eq!(stages["batch"]["covered"], true, "{copy}");
        assert!((1..=number(&version)).contains(&number(&stages["batch"]["version"])), "{copy}");
        assert!(stages["batch"]["committed_at"].is_string(), "{copy}");
    }
}

#[test]
fn a_count_is_taken_apart() {
    let (_dir, server) = server();
    server.post("/v1/events", &json!([event("e1", "v1"), event("e1", "v1"), event("e2", "v1")]));
    server.batch();
    server.post("/v1/events", &event("e3", "v1"));
    server.wait_counted();
    let why = server.get("/v1/entities/v1/why?minute=2013-02-08T21:29Z&type=view");
    let count = &why["counts"][0];
    assert_eq!((number(&count["count"]), &count["dimensions"]), (3, &json!({"country": "US"})), "{why}");
    let row = &count["batch"][0];
    assert_eq!((number(&row["count"]), row["fingerprint"].as_str().unwrap().len()), (2, 16), "{why}");
    let file = row["file"].as_str().unwrap();
    assert!(file.ends_with(".parquet") && file.contains("event_date=2013-02-08"), "{why}");
    let stream: u64 = count["stream"].as_array().unwrap().iter().map(|piece| number(&piece["count"])).sum();
    assert_eq!(stream, 1, "{why}");
    assert_eq!(number(&why["history"][0]["count"]), 2, "{why}");
    assert_eq!(why["minute"], MINUTE);
    let verdict = why["check"]["verdict"].as_str().unwrap();
    assert!(["agrees", "raw_behind"].contains(&verdict), "{why}");
    server.batch();
    let why = server.get(&format!("/v1/entities/v1/why?minute={MINUTE}"));
    assert_eq!((&why["check"]["verdict"], &why["check"]["answer"]), (&json!("agrees"), &json!(3)), "{why}");
    assert_eq!((number(&why["check"]["raw"]), number(&why["check"]["raw_distinct"])), (4, 3), "{why}");
    let counts: Vec<u64> = why["history"].as_array().unwrap().iter().map(|version| number(&version["count"])).collect();
    assert!(counts[0] == 3 && counts.contains(&2), "{why}");
    refused_field(&server, "/v1/entities/v1/why", "minute");
    refused_field(&server, "/v1/entities/v1/why?minute=noon", "minute");
}

#[test]
fn older_versions_answer_as_they_did() {
    let (_dir, server) = server();
    let mut ends = Vec::new();
    for id in ["e1", "e2"] {
        server.post("/v1/events", &event(id, "v1"));
        server.batch();
        ends.push(server.get("/v1/entities/v1/count")["provenance"]["batch_version"].clone());
    }
    server.post("/v1/events", &event("e3", "v1"));
    server.wait_counted();
    for (path, count) in [
        ("/v1/entities/v1/count", "count"),
        ("/v1/entities/v1/stats?function=count", "total"),
        ("/v1/top?n=3", "entities"),
    ] {
        let ask = |as_of: &str| {
            let sign = if path.contains('?') { '&' } else { '?' };
            server.get(&format!("{path}{sign}as_of={as_of}"))
        };
        let counted = |answer: &Value| match &answer[count] {
            Value::Array(entities) => number(&entities[0]["count"]),
            count => number(count),
        };
        let first = ask(&format!("version:{}", ends[0]));
        assert_eq!(counted(&first), 1, "{path}: {first}");
        let provenance = &first["provenance"];
        assert_eq!((&provenance["as_of"]["version"], &provenance["stream"]), (&ends[0], &json!(0)), "{provenance}");
        assert_eq!((&provenance["complete"], &provenance["watermark"]), (&json!(true), &Value::Null), "{provenance}");
        let then = provenance["as_of"]["committed_at"].as_str().unwrap();
        assert_eq!(counted(&ask(then)), 1, "{path} as of {then}");
        assert_eq!(counted(&ask("2100-01-01T00:00:00Z")), 2, "the newest version, without the stream");
        assert_eq!(counted(&server.get(path)), 3, "{path} is live without as_of");
    }
    let count = "/v1/entities/v1/count";
    for as_of in ["version:99999", "version:x", "soon", "1970-01-01T00:00:00Z"] {
        refused_field(&server, &format!("{count}?as_of={as_of}"), "as_of");
    }
    refused_field(&server, &format!("{count}?as_of=version:0&filter=ip:10.0.0.1"), "as_of");
}

#[test]
fn the_usual_questions_have_their_own_paths() {
    let (_dir, server) = server();
    let mut ad = event("c1", "ad-1");
    ad["event_type"] = json!("click");
    let mut like = event("l1", "v1");
    like["country"] = json!("FR");
    let (status, receipt) = server.post("/v1/events", &json!([ad, event("e1", "v1"), like]));
    assert_eq!(status, 200, "{receipt}");
    server.wait_counted();
    let span = "from=2013-02-08T00:00:00Z&to=2013-02-09T00:00:00Z";
    let clicks = server.get(&format!("/v1/ads/ad-1/aggregated_count?{span}"));
    assert_eq!(number(&clicks["count"]), 1, "{clicks}");
    let views = server.get(&format!("/v1/videos/v1/views?{span}&filter=0012"));
    assert_eq!(number(&views["count"]), 1, "{views}");
    let popular = server.get(&format!("/v1/ads/popular_ads?count=3&{span}"));
    assert_eq!(popular["entities"][0]["entity_id"], "ad-1", "{popular}");
    let stats = server.get(&format!("/v1/entities/v1/stats?function=count&step=1h&{span}"));
    assert_eq!(stats["points"].as_array().unwrap().len(), 1, "{stats}");
    assert!(stats["points"][0]["start"].as_str().unwrap().starts_with("2013-02-08T21:00:00"), "{stats}");
}

#[test]
fn dead_letters_are_listed_and_replayed_once() {
    let (_dir, server) = server();
    let early = event("e1", "v1").to_string().replace("2013", "1813");
    server.request("POST", "/v1/events", &[], early.into_bytes());
    server.batch();
    let listed = server.get("/v1/dead-letters?limit=10");
    assert_eq!(listed["letters"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["letters"][0]["reason"], "too_old", "{listed}");
    // The cause is still there: it is refused again, and does not come back as another letter.
    let (status, replay) = server.post("/v1/dead-letters/replay", &json!({}));
    assert_eq!(status, 200, "{replay}");
    assert_eq!((number(&replay["accepted"]), number(&replay["refused"])), (0, 1), "{replay}");
    let path = server.kill();
    let server = Server::start_with(&path, &["--limits-event-time-min", "1800-01-01T00:00:00Z"]);
    let (_, replay) = server.post("/v1/dead-letters/replay", &json!({}));
    assert_eq!(number(&replay["accepted"]), 1, "{replay}");
    let (_, replay) = server.post("/v1/dead-letters/replay", &json!({}));
    assert_eq!(number(&replay["accepted"]), 0, "replayed already: {replay}");
    server.wait_counted();
    let total = server.sql("select sum(count) from stats");
    assert_eq!(number(&rows(&total)[0][0]), 1);
}

/// A length that no table can hold used to stop the archiver, again after every restart.
#[test]
fn no_dead_letter_stops_the_archiver() {
    let (_dir, server) = server();
    let letter = |body: Value| {
        json!([{"reason": "empty", "field": null, "message": "", "source": null, "body": body,
            "body_bytes": u64::MAX, "body_hash": "x"}])
    };
    let (status, problem) = server.post("/v1/dead-letters", &letter(Value::Null));
    assert_eq!((status, &problem["field"]), (400, &json!("body_bytes")), "{problem}");
    let (status, answer) = server.post("/v1/dead-letters", &letter(json!("e30=")));
    assert_eq!(status, 200, "{answer}");
    server.post("/v1/events", &event("e1", "v1"));
    server.batch();
    let listed = server.get("/v1/dead-letters?limit=10");
    assert_eq!((listed["letters"].as_array().unwrap().len(), &listed["letters"][0]["body_bytes"]), (1, &json!(2)));
}

#[test]
fn an_end_that_nobody_named_is_null() {
    let (_dir, server) = server();
    assert_eq!(server.get("/v1/entities/v1/count")["window"], json!({"from": null, "to": null}));
    let ends = server.get("/v1/entities/v1/count?from=0&to=60000")["window"].clone();
    assert_eq!(ends, json!({"from": "1970-01-01T00:00:00Z", "to": "1970-01-01T00:01:00Z"}));
}

#[test]
fn the_server_says_how_it_is() {
    let (_dir, server) = server();
    assert_eq!(server.get("/healthz")["status"], "ok");
    let ready = server.get("/readyz");
    assert_eq!(ready["ready"], true, "{ready}");
    let metrics = server.get("/metrics");
    let metrics = metrics.as_str().unwrap();
    for name in
        ["reckon_events_accepted_total", "reckon_counting_lag_records", "reckon_dedup_expected_collisions_total"]
    {
        assert!(metrics.contains(name), "{name} in\n{metrics}");
    }
    let openapi = server.get("/openapi.json");
    for path in [
        "/v1/events",
        "/v1/top",
        "/v1/entities/query",
        "/v1/filters",
        "/v1/sql",
        "/v1/batch/runs",
        "/v1/dead-letters/replay",
    ] {
        assert!(openapi["paths"][path].is_object(), "{path} in the OpenAPI document");
    }
}
