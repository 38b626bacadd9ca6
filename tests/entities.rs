//! What is known of entities: written, imported, found, joined, and still there after a kill.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Server, command, data_at, number, rows, run_ok};

fn server() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    (dir, server)
}

fn put(server: &Server, entity: &str, body: &Value, headers: &[(&str, &str)]) -> (u16, Value) {
    let headers: Vec<(&str, &str)> = [("content-type", "application/json")].iter().chain(headers).copied().collect();
    server.request("PUT", &format!("/v1/entities/{entity}"), &headers, body.to_string().into_bytes())
}

fn status(server: &Server, method: &str, path: &str) -> u16 {
    server.request(method, path, &[], Vec::new()).0
}

/// Events of entities: so many each.
fn count(server: &Server, entities: &[(&str, usize)]) {
    let events: Vec<Value> = entities
        .iter()
        .flat_map(|(entity, times)| (0..*times).map(move |at| (entity, at)))
        .map(|(entity, at)| {
            json!({"event_id": format!("{entity}-{at}"), "event_type": "view", "entity_id": entity,
                "event_time": "2013-02-08T21:29:00Z"})
        })
        .collect();
    let (status, receipt) = server.post("/v1/events", &json!(events));
    assert_eq!(status, 200, "{receipt}");
    server.wait_counted();
}

#[test]
fn a_record_is_written_changed_and_removed() {
    let (_dir, server) = server();
    assert_eq!(status(&server, "GET", "/v1/entities/v1"), 404);
    let known = json!({"title": "One", "channel": "news", "owner": "ann", "url": "https://example.com/1",
        "attributes": {"language": "en"}});
    let (code, first) = put(&server, "v1", &known, &[("if-none-match", "*")]);
    assert_eq!((code, &first["title"], &first["channel"]), (200, &json!("One"), &json!("news")), "{first}");
    assert_eq!(server.get("/v1/entities/v1"), first);
    let etag = first["etag"].as_str().unwrap().to_owned();
    let (code, second) = put(&server, "v1", &json!({"title": "Two"}), &[("if-match", &etag)]);
    assert_eq!((code, &second["title"], &second["channel"]), (200, &json!("Two"), &Value::Null), "{second}");
    // Another editor, who read the record before that.
    let (code, problem) = put(&server, "v1", &json!({"title": "Three"}), &[("if-match", &etag)]);
    assert_eq!(code, 412, "{problem}");
    assert_eq!(put(&server, "v1", &json!({}), &[("if-none-match", "*")]).0, 412);
    for (body, field) in [
        (json!({"title": "x".repeat(2_000)}), "title"),
        (json!({"url": "javascript:alert(1)"}), "url"),
        (json!({"colour": "red"}), "body"),
        (json!({"attributes": {"a": "\n"}}), "attributes.a"),
    ] {
        let (code, problem) = put(&server, "v1", &body, &[]);
        assert_eq!((code, &problem["field"]), (400, &json!(field)), "{problem}");
    }
    assert_eq!(put(&server, "_reckon%2Fx", &json!({}), &[]).1["field"], "entity_id");
    assert_eq!(status(&server, "DELETE", "/v1/entities/v1"), 200);
    assert_eq!(status(&server, "GET", "/v1/entities/v1"), 404);
    assert_eq!(status(&server, "DELETE", "/v1/entities/v1"), 404);
    // Ids are anything.
    assert_eq!(put(&server, "a%2Fb%20c", &json!({"title": "odd"}), &[]).1["entity_id"], "a/b c");
    assert_eq!(put(&server, "%69mport", &json!({"title": "import"}), &[]).1["entity_id"], "import");
    assert_eq!(server.get("/v1/entities/%69mport")["title"], "import");
    for id in ["query", "import", "ü/%2F", "a.b"] {
        let url = server.url();
        let written = run_ok(command().args(["entities", "put", "--url", url, "--title", "T", "--json", id]));
        let written: Value = serde_json::from_slice(&written.stdout).unwrap();
        let read = run_ok(command().args(["entities", "get", "--url", url, "--json", id]));
        let read: Value = serde_json::from_slice(&read.stdout).unwrap();
        assert_eq!((&read["entity_id"], &read), (&json!(id), &written));
    }
    // An array of the fields is no record, though one could be read from it.
    assert_eq!(put(&server, "v1", &json!(["One"]), &[]).0, 400);
    // A variable of a script that was not set must not become "whatever there is".
    assert_eq!(put(&server, "v1", &json!({}), &[("if-match", "")]).1["field"], "if-match");
    let zipped = [("content-encoding", "gzip")];
    assert_eq!(server.request("POST", "/v1/entities/import", &zipped, b"x".to_vec()).0, 415);
}

#[test]
fn lines_that_are_refused_are_told_by_number() {
    let (_dir, server) = server();
    let lines = "{\"entity_id\":\"a\",\"title\":\"A\"}\nnothing\n\n{\"entity_id\":\"b\",\"url\":\"ftp://x\"}\n{\"entity_id\":\"c\"}";
    let headers = [("content-type", "application/x-ndjson")];
    let (code, answer) = server.request("POST", "/v1/entities/import", &headers, lines.as_bytes().to_vec());
    assert_eq!((code, number(&answer["stored"]), number(&answer["refused"])), (200, 2, 2), "{answer}");
    let told: Vec<u64> = answer["refusals"].as_array().unwrap().iter().map(|line| number(&line["line"])).collect();
    assert_eq!(told, [2, 4], "{answer}");
    assert_eq!(server.get("/v1/entities/c")["entity_id"], "c");
}

#[test]
fn ten_thousand_are_imported_and_found() {
    let (dir, server) = server();
    let mut csv = String::from("id,name,uploader,lang\n");
    for at in 0..10_000 {
        csv.push_str(&format!("v{at:05},\"Video, {at}\",channel-{},en\n", at % 7));
    }
    let file = dir.path().join("videos.csv");
    std::fs::write(&file, csv).unwrap();
    let maps = ["entity_id=id", "title=name", "channel=uploader", "attributes.language=lang"];
    let mut import = command();
    import.args(["entities", "import", "--url", server.url(), "--json"]).arg(&file);
    for map in maps {
        import.args(["--map", map]);
    }
    let report: Value = serde_json::from_slice(&run_ok(&mut import).stdout).unwrap();
    assert_eq!(report, json!({"stored": 10_000, "refused": 0}));
    let all = server.sql("select count(*), count(distinct channel), min(attributes) from entities");
    let all = &rows(&all)[0];
    assert_eq!((number(&all[0]), number(&all[1]), &all[2]), (10_000, 7, &json!("{\"language\":\"en\"}")));
    let found = server.get("/v1/entities?search=vIDEO,%204242&limit=5");
    let ids: Vec<&Value> = found["entities"].as_array().unwrap().iter().map(|entity| &entity["entity_id"]).collect();
    assert_eq!(ids, ["v04242"], "{found}");
    let found = server.get("/v1/entities?search=v0424&channel=channel-0&limit=5");
    let ids: Vec<&Value> = found["entities"].as_array().unwrap().iter().map(|entity| &entity["entity_id"]).collect();
    assert_eq!(ids, ["v04242", "v04249"], "{found}");
    let one = server.sql("select title from entities where entity_id = 'v00007'");
    assert_eq!(rows(&one)[0][0], "Video, 7");
    let channels = server.get("/v1/channels?search=channel-&limit=3");
    assert_eq!(channels["channels"], json!(["channel-0", "channel-1", "channel-2"]));
    let list = ["entities", "list", "--url", server.url(), "--channel", "channel-3", "--limit", "2000", "--json"];
    let listed = run_ok(command().args(list));
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["entities"].as_array().unwrap().len(), 1_429);
}

/// Sums by channel, as SQL says.
fn by_sql(server: &Server) -> BTreeMap<Option<String>, u64> {
    let answer = server.sql(
        "select channel, sum(count) from stats left join entities using (entity_id) group by 1 order by 2 desc, 1 nulls last",
    );
    rows(&answer).iter().map(|row| (row[0].as_str().map(str::to_owned), number(&row[1]))).collect()
}

fn by_rest(server: &Server) -> BTreeMap<Option<String>, u64> {
    let answer = server.get("/v1/top?group=channel&n=100");
    assert_eq!(answer["provenance"]["complete"], true, "{answer}");
    let channels = answer["channels"].as_array().unwrap();
    let counts: Vec<u64> = channels.iter().map(|channel| number(&channel["count"])).collect();
    assert!(counts.is_sorted_by(|a, b| a >= b), "{answer}");
    assert_eq!(counts.iter().sum::<u64>(), number(&answer["total"]), "{answer}");
    channels.iter().map(|row| (row["channel"].as_str().map(str::to_owned), number(&row["count"]))).collect()
}

#[test]
fn lists_carry_titles_and_are_grouped_by_channel() {
    let (_dir, server) = server();
    count(&server, &[("v1", 5), ("v2", 3), ("v3", 4), ("v4", 1), ("unknown", 2)]);
    for (entity, channel) in [("v1", Some("x")), ("v2", Some("y")), ("v3", Some("y")), ("v4", None)] {
        let known = json!({"title": format!("Title of {entity}"), "channel": channel});
        assert_eq!(put(&server, entity, &known, &[]).0, 200);
    }
    put(&server, "far", &json!({"channel": "z"}), &[]);
    let top = server.get("/v1/top?n=10");
    let listed: Vec<_> = top["entities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["entity_id"].as_str().unwrap(), &row["title"]))
        .collect();
    let title = |entity: &str| json!(format!("Title of {entity}"));
    let wanted =
        [("v1", title("v1")), ("v3", title("v3")), ("v2", title("v2")), ("unknown", Value::Null), ("v4", title("v4"))];
    assert_eq!(listed, wanted.iter().map(|(entity, title)| (*entity, title)).collect::<Vec<_>>(), "{top}");
    let first = server.get("/v1/top?n=1&function=count")["entities"][0].clone();
    assert_eq!(
        (&first["value"], &first["title"], &first["channel"]),
        (&json!(5), &title("v1"), &json!("x")),
        "{first}"
    );
    let wanted = BTreeMap::from([(Some("y".to_owned()), 7), (Some("x".to_owned()), 5), (None, 3)]);
    assert_eq!(by_rest(&server), wanted);
    assert_eq!(by_sql(&server), wanted);
    server.batch();
    assert_eq!((by_rest(&server), by_sql(&server)), (wanted.clone(), wanted));
    // What has counts and no record is found all the same.
    assert_eq!(server.get("/v1/entities?search=unknown")["counted"], json!(["unknown"]));
    let table = run_ok(command().args(["top", "--url", server.url()]));
    assert!(String::from_utf8_lossy(&table.stdout).contains("Title of v1"));
    let table = run_ok(command().args(["top", "--group", "channel", "--url", server.url()]));
    assert!(String::from_utf8_lossy(&table.stdout).contains('y'));
    for (path, field) in [("/v1/top?group=owner", "group"), ("/v1/top?group=channel&as_of=version:0", "as_of")] {
        let (code, problem) = server.request("GET", path, &[], Vec::new());
        assert_eq!((code, &problem["field"]), (400, &json!(field)), "{problem}");
    }
    let (code, problem) =
        server.post("/v1/sql", &json!({"query": "select count(*) from entities", "as_of": "version:0"}));
    assert_eq!((code, &problem["field"]), (400, &json!("as_of")), "{problem}");
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let (_dir, server) = server();
    for at in 0..50 {
        assert_eq!(put(&server, &format!("v{at}"), &json!({"title": format!("T{at}")}), &[]).0, 200);
    }
    assert_eq!(status(&server, "DELETE", "/v1/entities/v7"), 200);
    let path = server.kill();
    // Without this machine's store the data directory has it all; with it, too.
    for without in [false, true] {
        if without {
            let _ = std::fs::remove_dir_all(path.join("replica"));
        }
        let server = Server::start(&path);
        assert_eq!(number(&rows(&server.sql("select count(*) from entities"))[0][0]), 49);
        assert_eq!(server.get("/v1/entities/v49")["title"], "T49");
        assert_eq!(status(&server, "GET", "/v1/entities/v7"), 404);
        server.kill();
    }
    // No server runs: the command opens the folder itself.
    let mut get = command();
    let get = data_at(get.args(["entities", "get", "v3", "--json"]), &path);
    let record: Value = serde_json::from_slice(&run_ok(get).stdout).unwrap();
    assert_eq!(record["title"], "T3");
}
