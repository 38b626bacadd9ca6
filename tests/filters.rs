//! Named filters, dimensions that are added later, many entities, the period before, and what is kept of answers.

use serde_json::{Value, json};

use crate::harness::{RUNTIME, Server, number};

const DAY: &str = "from=2013-02-08T00:00:00Z&to=2013-02-09T00:00:00Z";

fn event(id: &str, entity: &str, minute: &str, ip: &str, country: &str, value: &str) -> Value {
    json!({
        "event_id": id, "event_type": "view", "entity_id": entity, "event_time": format!("2013-02-08T21:{minute}:00Z"),
        "ip": ip, "country": country, "value": value,
    })
}

fn send(server: &Server, events: &[Value]) {
    let (status, receipt) = server.post("/v1/events", &json!(events));
    assert_eq!((status, number(&receipt["accepted"])), (200, events.len() as u64), "{receipt}");
    server.wait_counted();
}

fn put(server: &Server, id: &str, condition: &str) -> (u16, Value) {
    let body = json!({ "condition": condition }).to_string().into_bytes();
    server.request("PUT", &format!("/v1/filters/{id}"), &[("content-type", "application/json")], body)
}

/// Asks until the raw events go as far as what was sent: they are archived now and then.
fn count_archived(server: &Server, filter: &str, expected: u64) -> Value {
    let path = format!("/v1/entities/v1/count?{DAY}&filter={filter}");
    server.wait_until("the raw events are archived", || number(&server.get(&path)["count"]) == expected);
    server.get(&path)
}

#[test]
fn a_filter_added_while_running_counts_what_was_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    send(&server, &[event("1", "v1", "00", "10.0.0.1", "US", "1"), event("2", "v1", "01", "10.0.0.2", "GB", "2")]);
    server.batch();
    assert_eq!(put(&server, "us", "country = 'US'").0, 201);
    assert_eq!(put(&server, "us", "country = 'US'").0, 200, "it means that already");
    assert_eq!(put(&server, "us", "country = 'GB'").0, 409, "a name means the same for ever");
    assert_eq!(put(&server, "home", "ip in ('10.0.0.1', '10.0.0.9')").0, 201);
    assert_eq!(put(&server, "0012", "country = 'GB'").0, 409, "the configuration's filters win");
    assert_eq!(put(&server, "x", "colour = 'red'").0, 400);
    send(&server, &[event("3", "v1", "02", "10.0.0.1", "US", "3")]);
    // On a dimension: from the counts, all of them, at once.
    let us = server.get(&format!("/v1/entities/v1/count?{DAY}&filter=us"));
    assert_eq!((number(&us["count"]), &us["provenance"]["source"]), (2, &json!("counts")), "{us}");
    assert_eq!(us["provenance"]["complete"], true, "{us}");
    // On another column: from the raw events.
    server.batch();
    let home = count_archived(&server, "home", 2);
    assert_eq!(home["provenance"]["source"], "events", "{home}");
    let functions = format!("/v1/entities/v1/stats?{DAY}&filter=home&functions=count,sum,min,max,avg&step=day");
    let total = server.get(&functions)["entities"][0]["total"].clone();
    assert_eq!(total, json!({"count": 2, "sum": "4", "min": "1", "max": "3", "avg": "2"}));
    let listed = server.get("/v1/filters");
    let ids: Vec<&str> = listed["filters"].as_array().unwrap().iter().map(|own| own["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["0012", "home", "us"], "{listed}");
    assert_eq!(server.get("/v1/filters/home")["answered_from"], "events");
    // It is known after a restart, and gone when it was taken away.
    server.terminate();
    let server = Server::start(dir.path());
    assert_eq!(number(&server.get(&format!("/v1/entities/v1/count?{DAY}&filter=us"))["count"]), 2);
    assert_eq!(server.request("DELETE", "/v1/filters/us", &[], Vec::new()).0, 204);
    assert_eq!(server.request("DELETE", "/v1/filters/us", &[], Vec::new()).0, 404);
    assert_eq!(server.request("DELETE", "/v1/filters/0012", &[], Vec::new()).0, 409);
    // An array of the fields is no filter, though one could be read from it.
    assert_eq!(server.request("PUT", "/v1/filters/gb", &[], b"[\"country = 'GB'\"]".to_vec()).0, 400);
    let (status, refused) = server.request("GET", "/v1/entities/v1/count?filter=us", &[], Vec::new());
    assert_eq!((status, &refused["field"]), (400, &json!("filter")), "{refused}");
}

/// Counts that were made without a dimension say nothing of it; added up they would be too small and look whole.
#[test]
fn a_dimension_added_later_is_answered_from_raw_events_before_that() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    send(&server, &[event("1", "v1", "00", "10.0.0.1", "US", "1"), event("2", "v1", "01", "10.0.0.2", "GB", "2")]);
    server.batch();
    server.terminate();
    let arguments = ["--definition-dimensions", "country,ip", "--archive-commit-every", "1s"];
    let server = Server::start_with(dir.path(), &arguments);
    send(&server, &[event("3", "v1", "02", "10.0.0.1", "US", "3")]);
    let mixed = count_archived(&server, "ip:10.0.0.1", 2);
    assert_eq!(mixed["provenance"]["source"], "events", "{mixed}");
    let top = format!("/v1/top?{DAY}&function=sum&filter=ip:10.0.0.1");
    assert_eq!(server.get(&top)["entities"][0]["value"], "4");
    // The dimension that was there before is answered from counts.
    let us = server.get(&format!("/v1/entities/v1/count?{DAY}&filter=country:US"));
    assert_eq!((number(&us["count"]), &us["provenance"]["source"]), (2, &json!("counts")), "{us}");
    // Counts of a day without the old ones hold the dimension.
    let new = json!({
        "event_id": "4", "event_type": "view", "entity_id": "v1", "event_time": "2013-02-10T10:00:00Z", "ip": "10.0.0.1",
    });
    send(&server, &[new]);
    server.batch();
    let next = "/v1/entities/v1/count?from=2013-02-10T00:00:00Z&to=2013-02-11T00:00:00Z&filter=ip:10.0.0.1";
    let next = server.get(next);
    assert_eq!((number(&next["count"]), &next["provenance"]["source"]), (1, &json!("counts")), "{next}");
    // That run has recounted the day, too, since there were new events of it.
    let recounted = server.get(&format!("/v1/entities/v1/count?{DAY}&filter=ip:10.0.0.1"));
    assert_eq!(number(&recounted["count"]), 2, "{recounted}");
    assert_eq!(recounted["provenance"]["complete"], true, "{recounted}");
}

#[test]
fn many_entities_and_the_period_before() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (ip, us) = ("10.0.0.1", "US");
    send(
        &server,
        &[
            event("1", "v1", "00", ip, us, "1"),
            event("2", "v1", "10", ip, us, "2"),
            event("3", "v1", "11", ip, us, "0.5"),
            event("4", "v2", "12", ip, us, "-1"),
        ],
    );
    let window = json!({"from": "2013-02-08T21:10:00Z", "to": "2013-02-08T21:20:00Z"});
    let mut body = json!({"entities": ["v1", "v2", "v3"], "functions": ["count", "sum"], "compare": "previous"});
    body.as_object_mut().unwrap().extend(window.as_object().unwrap().clone());
    for _ in 0..2 {
        let (status, answer) = server.post("/v1/entities/query", &body);
        assert_eq!((status, &answer["provenance"]["complete"]), (200, &json!(true)), "{answer}");
        let entities = answer["entities"].as_array().unwrap();
        let totals: Vec<&Value> = entities.iter().map(|own| &own["total"]).collect();
        let expected =
            [json!({"count": 2, "sum": "2.5"}), json!({"count": 1, "sum": "-1"}), json!({"count": 0, "sum": null})];
        assert_eq!(totals, expected.iter().collect::<Vec<_>>(), "{answer}");
        assert_eq!(entities[0]["previous"], json!({"count": 1, "sum": "1"}), "{answer}");
        assert_eq!(entities[0]["change"]["count"], json!({"absolute": 1, "ratio": "1"}), "{answer}");
        assert_eq!(entities[1]["change"]["count"], json!({"absolute": 1, "ratio": null}), "{answer}");
        let window = "from=2013-02-08T21:10:00Z&to=2013-02-08T21:20:00Z&compare=previous";
        let one = server.get(&format!("/v1/entities/v1/count?{window}"));
        assert_eq!((number(&one["count"]), number(&one["previous"])), (2, 1), "{one}");
        assert_eq!(number(&one["batch"]) + number(&one["stream"]), 2, "{one}");
        let steps = server.get(&format!("/v1/entities/v1/stats?{window}&function=sum&step=minute"));
        assert_eq!(
            (&steps["total"], &steps["previous"], &steps["change"]["ratio"]),
            (&json!("2.5"), &json!("1"), &json!("1.5"))
        );
        assert_eq!(steps["points"].as_array().unwrap().len(), 2, "{steps}");
        let list = server.get(&format!("/v1/top?{window}&function=avg"));
        assert_eq!(list["entities"][0]["value"], "1.25", "{list}");
        assert_eq!(list["entities"][0]["change"]["absolute"], "0.25", "{list}");
        assert_eq!(list["entities"][1]["previous"], Value::Null, "{list}");
        server.batch();
    }
    for (wrong, field) in [
        (json!({"entities": []}), "entities"),
        (json!({"entities": ["a"], "functions": ["median"]}), "functions"),
        (json!({"entities": ["a"], "compare": "previous"}), "compare"),
        (json!({"entities": ["a"], "colour": "red"}), "body"),
        (json!([["a"]]), "body"),
    ] {
        let (status, refused) = server.post("/v1/entities/query", &wrong);
        assert_eq!((status, &refused["field"]), (400, &json!(field)), "{refused}");
    }
}

/// A late event shows at once, though the sum of batch for its minute was kept.
#[test]
fn what_is_kept_of_answers_never_makes_them_old() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    send(&server, &[event("1", "v1", "00", "10.0.0.1", "US", "1")]);
    server.batch();
    let path = format!("/v1/entities/v1/count?{DAY}");
    let hits = || {
        let text = server.request("GET", "/metrics", &[], Vec::new()).1;
        let line = text
            .as_str()
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix("reckon_cache_hits_total "))
            .unwrap()
            .to_owned();
        line.parse::<u64>().unwrap()
    };
    let first = server.get(&path);
    let before = hits();
    assert_eq!(number(&server.get(&path)["count"]), 1);
    assert!(hits() > before, "the sum was kept");
    send(&server, &[event("2", "v1", "00", "10.0.0.1", "US", "1")]);
    let late = server.get(&path);
    assert_eq!((number(&late["count"]), number(&late["batch"]), number(&late["stream"])), (2, 1, 1), "{late}");
    server.batch();
    let recounted = server.get(&path);
    assert_eq!((number(&recounted["count"]), number(&recounted["batch"])), (2, 2), "{recounted}");
    let version = number(&first["provenance"]["batch_version"]);
    let past = format!("{path}&as_of=version:{version}");
    assert_eq!(number(&server.get(&past)["count"]), 1);
    // Who has that answer is told that it still holds; who has an older one of now gets the new one.
    let tag = |path: &str, held: Option<&str>| {
        let mut request = reqwest::Client::new().get(format!("{}{path}", server.url()));
        if let Some(held) = held {
            request = request.header("if-none-match", held);
        }
        RUNTIME.block_on(async {
            let response = request.send().await.unwrap();
            let tag = response.headers()["etag"].to_str().unwrap().to_owned();
            assert_eq!(response.headers()["cache-control"], "private, no-cache");
            (response.status().as_u16(), tag, response.bytes().await.unwrap().len())
        })
    };
    let (status, held, _) = tag(&past, None);
    assert_eq!(status, 200);
    assert_eq!(tag(&past, Some(&held)), (304, held, 0));
    let (_, held, _) = tag(&path, None);
    assert_eq!(tag(&path, Some(&held)).0, 304);
    send(&server, &[event("3", "v1", "00", "10.0.0.1", "US", "1")]);
    assert_eq!(tag(&path, Some(&held)).0, 200, "there is one more");
}
