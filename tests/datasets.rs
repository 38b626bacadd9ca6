//! Real clicks and access logs, counted end to end, give their exact facts: before a batch run, after
//! it, after kill -9 and restart, and across a cut.

use reckon_client::encode;
use serde_json::Value;

use crate::harness::{Dataset, Server, number, pairs, rows};

const USAGOV: &str = "usagov_clicks_2013_jan_mar";

/// Everything the facts say that a server can be asked.
pub fn check_facts(server: &Server, facts: &Value) {
    server.wait_counted();
    let events = number(&facts["events"]);
    let counted = server.sql("select sum(count) from stats");
    assert_eq!(number(&rows(&counted)[0][0]), events, "all events, by SQL");
    check_top(server, facts);
    check_countries(server, facts);
    for window in facts["chosen_minutes"].as_array().unwrap() {
        check_window(server, window);
    }
    check_window(server, &facts["busiest_hour"]);
    check_busiest(server, facts);
}

fn expected_pairs(value: &Value) -> Vec<(String, u64)> {
    let list = value.as_array().unwrap_or_else(|| panic!("no list: {value}"));
    list.iter().map(|pair| (pair[0].as_str().unwrap().to_owned(), number(&pair[1]))).collect()
}

fn span(facts: &Value) -> (String, String) {
    let from = facts["first_ts"].as_str().unwrap()[..10].to_owned() + "T00:00:00Z";
    let to = facts["last_ts"].as_str().unwrap()[..10].to_owned() + "T23:59:00Z";
    (from, to)
}

/// Top lists and single entities, by REST and by SQL.
fn check_top(server: &Server, facts: &Value) {
    let expected = expected_pairs(&facts["top5_entities"]);
    let (from, to) = span(facts);
    let top = server.get(&format!("/v1/top?n=5&from={from}&to={to}"));
    let found: Vec<(String, u64)> = top["entities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entity| (entity["entity_id"].as_str().unwrap().to_owned(), number(&entity["count"])))
        .collect();
    assert_eq!(found, expected, "top entities by REST");
    let top = server.sql("select entity_id, sum(count) c from stats group by 1 order by c desc, entity_id limit 5");
    assert_eq!(pairs(&rows(&top)), expected, "top entities by SQL");
    for (entity, count) in expected {
        let path = format!("/v1/entities/{}/count?from={from}&to={to}", encode(&entity));
        let answer = server.get(&path);
        assert_eq!(number(&answer["count"]), count, "{path}: {answer}");
        assert_eq!(number(&answer["batch"]) + number(&answer["stream"]), count, "the parts add up: {answer}");
        assert_eq!(answer["provenance"]["complete"], true, "{answer}");
    }
}

fn check_countries(server: &Server, facts: &Value) {
    if facts["top5_countries"].is_null() {
        return;
    }
    let found = server.sql(
        "select country, sum(count) c from stats where country is not null group by 1 order by c desc, country limit 5",
    );
    assert_eq!(pairs(&rows(&found)), expected_pairs(&facts["top5_countries"]), "countries");
    let without = server.sql("select sum(count) from stats where country is null");
    assert_eq!(number(&rows(&without)[0][0]), number(&facts["events_without_country"]), "without a country");
}

/// Events, entities and top entities of a window of the facts.
fn check_window(server: &Server, window: &Value) {
    let bounds = expected_bounds(window);
    let events = server.sql(&format!("select sum(count), count(distinct entity_id) from stats where {bounds}"));
    let row = &rows(&events)[0];
    assert_eq!(number(&row[0]), number(&window["events"]), "{bounds}");
    assert_eq!(number(&row[1]), number(&window["distinct_entities"]), "{bounds}");
    let expected = expected_pairs(&window["top_entities"]);
    let top = server.get(&format!(
        "/v1/top?n={}&from={}&to={}",
        expected.len(),
        window["window"][0].as_str().unwrap(),
        window["window"][1].as_str().unwrap()
    ));
    let found: Vec<u64> = top["entities"].as_array().unwrap().iter().map(|e| number(&e["count"])).collect();
    assert_eq!(found, expected.iter().map(|(_, count)| *count).collect::<Vec<_>>(), "{bounds}: {top}");
    for (entity, count) in window["top1_entity_count"].as_object().into_iter().flatten() {
        let path = format!(
            "/v1/entities/{}/count?from={}&to={}",
            encode(entity),
            window["window"][0].as_str().unwrap(),
            window["window"][1].as_str().unwrap()
        );
        assert_eq!(number(&server.get(&path)["count"]), number(count), "{path}");
    }
}

fn expected_bounds(window: &Value) -> String {
    let at = |index: usize| window["window"][index].as_str().unwrap();
    format!("minute >= timestamp '{}' and minute < timestamp '{}'", at(0), at(1))
}

fn check_busiest(server: &Server, facts: &Value) {
    for (table, key) in [("stats", "busiest_minutes"), ("stats_hour", "busiest_hours")] {
        let expected = expected_pairs(&facts[key]);
        let found = server.sql(&format!(
            "select to_char(minute, '%Y-%m-%dT%H:%M:%SZ'), sum(count) c from {table} group by minute \
             order by c desc, minute limit 5"
        ));
        let counts = |list: &[(String, u64)]| list.iter().map(|(_, count)| *count).collect::<Vec<_>>();
        let found = pairs(&rows(&found));
        assert_eq!(counts(&found), counts(&expected), "{key}");
        assert_eq!(found[0], expected[0], "{key}");
    }
}

/// Imports a whole data set and checks its facts before batch, after it, and after a crash.
fn whole_story(name: &str) {
    let Some(data) = Dataset::find(name) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let summary = data.import(server.url(), &data.files());
    assert_eq!(number(&summary["counted"]), number(&data.facts["events"]), "{summary}");
    assert_eq!(number(&summary["refused"]), number(&data.facts["malformed_lines"]), "{summary}");
    check_facts(&server, &data.facts);
    let dir_path = server.kill();
    let server = Server::start(&dir_path);
    check_facts(&server, &data.facts);
    server.batch();
    check_facts(&server, &data.facts);
    let dir_path = server.kill();
    let server = Server::start(&dir_path);
    check_facts(&server, &data.facts);
    let again = data.import(server.url(), &data.files());
    assert_eq!(number(&again["counted"]), 0, "imported again: {again}");
    check_facts(&server, &data.facts);
    assert!(server.terminate().as_secs() < 10, "SIGTERM takes less than 10 s");
}

#[test]
fn usagov_clicks() {
    whole_story(USAGOV);
}

#[test]
fn gharchive_events_with_ids_and_nested_fields() {
    whole_story("gharchive_2015_01_01");
}

#[test]
fn nasa_access_log_with_tabs() {
    whole_story("nasa_1995_08_01");
}

#[test]
fn apache_combined_log() {
    whole_story("apache_semicomplete_2015");
}

#[test]
fn usagov_half_before_and_half_after_a_batch_run() {
    let Some(data) = Dataset::find(USAGOV) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    // Every other file, so that most dates lie on both sides of the cut.
    let files = data.files();
    let (first, second): (Vec<_>, Vec<_>) = files.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let paths = |list: Vec<(usize, std::path::PathBuf)>| list.into_iter().map(|(_, path)| path).collect::<Vec<_>>();
    data.import(server.url(), &paths(first));
    server.batch();
    data.import(server.url(), &paths(second));
    check_facts(&server, &data.facts);
    let parts = server.sql("select (select sum(count) from stats_batch), (select sum(count) from stats_stream)");
    let row = &rows(&parts)[0];
    assert!(number(&row[0]) > 0 && number(&row[1]) > 0, "both layers take part: {parts}");
    server.batch();
    check_facts(&server, &data.facts);
}

#[test]
fn usagov_refused_and_skipped_lines_are_accounted_for() {
    let Some(data) = Dataset::find(USAGOV) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let summary = data.import(server.url(), &data.files());
    assert_eq!(number(&summary["read"]), 160_270, "{summary}");
    assert_eq!(number(&summary["counted"]), 156_193, "{summary}");
    assert_eq!(number(&summary["skipped"]), 4_076, "{summary}");
    assert_eq!(number(&summary["refused"]), 1, "{summary}");
    server.batch();
    let letters = server.sql("select source, reason, body_bytes from dead_letters");
    let letters = rows(&letters);
    assert_eq!(letters.len(), 1, "{letters:?}");
    let source = letters[0][0].as_str().unwrap();
    assert!(source.contains("usagov_bitly_data2013-01-01-1356999061.gz:1264"), "{source}");
}
