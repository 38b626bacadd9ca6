//! Golden SQL: the files of tests/slt, asked of a real server over HTTP, before a batch run and after it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sqllogictest::{DB, DBOutput, DefaultColumnType, QueryExpect, Record, Runner, parse_file, strict_column_validator};

use crate::harness::{Dataset, RUNTIME, Server, number, rows};

const ACCESS: &str = "apache_semicomplete_2015";
const CLICKS: &str = "usagov_clicks_2013_jan_mar";

/// `POST /v1/sql` of a server.
struct Http {
    url: String,
}

/// What it refused, as `400 query: …`.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl DB for Http {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Refused> {
        let request = reqwest::Client::new()
            .post(format!("{}/v1/sql", self.url))
            .header("content-type", "application/json")
            .body(json!({ "query": sql }).to_string());
        let (status, text) = RUNTIME.block_on(async {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        });
        let answer: Value = serde_json::from_str(&text).unwrap();
        if status != 200 {
            return Err(Refused(format!("{status} {}", answer["detail"].as_str().unwrap())));
        }
        assert_eq!((&answer["truncated"], &answer["provenance"]["complete"]), (&json!(false), &json!(true)), "{sql}");
        if sql.starts_with("EXPLAIN") {
            return Ok(DBOutput::Rows { types: vec![DefaultColumnType::Text], rows: outline(&answer) });
        }
        let types = answer["columns"].as_array().unwrap().iter().map(|column| kind(column["type"].as_str().unwrap()));
        let rows = rows(&answer).iter().map(|row| row.iter().map(text_of).collect()).collect();
        Ok(DBOutput::Rows { types: types.collect(), rows })
    }
}

fn kind(name: &str) -> DefaultColumnType {
    match name {
        "text" => DefaultColumnType::Text,
        "bigint" | "integer" => DefaultColumnType::Integer,
        decimal if decimal == "double" || decimal.starts_with("decimal") => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Any,
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) if text.is_empty() => "(empty)".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What of a plan is the same on every machine: the folders that are scanned, and that a top list is kept as one.
fn outline(answer: &Value) -> Vec<Vec<String>> {
    let rows = rows(answer);
    let plan = rows.iter().find(|row| row[0] == "physical_plan").unwrap()[1].as_str().unwrap().to_owned();
    let mut outline = Vec::new();
    for line in plan.lines().map(str::trim) {
        if let Some(top) = line.strip_prefix("SortExec: ").filter(|sort| sort.starts_with("TopK(")) {
            outline.push(vec![top.split_inclusive(')').next().unwrap().to_owned()]);
        }
        if line.starts_with("DataSourceExec: ") {
            let files = line.split(['[', ']', ',', ' ', '{', '}']).filter(|part| part.contains(".parquet"));
            let folders: BTreeSet<&str> = files.map(|file| file.rsplit_once('/').unwrap().0).collect();
            let folders = folders.into_iter().collect::<Vec<_>>().join(" ");
            let rows = if line.contains("pruning_predicate=") { ", by row groups" } else { "" };
            outline.push(vec![format!("scan of {folders}{rows}")]);
        }
    }
    outline
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/slt").join(name)
}

fn run(server: &Server, name: &str) {
    let url = server.url().to_owned();
    let mut runner = Runner::new(move || {
        let url = url.clone();
        async { Ok(Http { url }) }
    });
    runner.with_column_validator(strict_column_validator);
    runner.run_file(file(name)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn golden_answers_are_given_before_batch_and_after_it() {
    let (Some(access), Some(clicks)) = (Dataset::find(ACCESS), Dataset::find(CLICKS)) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for data in [&access, &clicks] {
        data.import(server.url(), &data.files());
    }
    server.wait_counted();
    let golden = ["facts.slt", "analysts.slt", "refused.slt"];
    golden.iter().for_each(|name| run(&server, name));
    server.batch();
    golden.iter().for_each(|name| run(&server, name));
    run(&server, "plans.slt");
}

/// What a fact is as golden rows: one number, or a row a pair.
fn rows_of_fact(fact: &Value) -> Vec<String> {
    match fact.as_array() {
        None => vec![number(fact).to_string()],
        Some(pairs) => pairs.iter().map(|pair| format!("{} {}", pair[0].as_str().unwrap(), number(&pair[1]))).collect(),
    }
}

/// Golden answers could be wrong and stay so: those of facts.slt are what somebody else has counted.
#[test]
fn golden_answers_are_the_facts_of_the_data_sets() {
    let (Some(access), Some(clicks)) = (Dataset::find(ACCESS), Dataset::find(CLICKS)) else { return };
    let (mut fact, mut held) = (None, 0);
    for record in parse_file::<DefaultColumnType>(file("facts.slt")).unwrap() {
        match record {
            Record::Comment(lines) => {
                fact = lines.iter().find_map(|line| line.trim().strip_prefix("facts: ").map(str::to_owned)).or(fact);
            }
            Record::Query { sql, expected: QueryExpect::Results { results, .. }, .. } => {
                let name = fact.take().unwrap_or_else(|| panic!("no fact goes with {sql}"));
                let (set, key) = name.split_once(' ').unwrap();
                let facts = match set {
                    ACCESS => &access.facts,
                    CLICKS => &clicks.facts,
                    other => panic!("{other} is not loaded"),
                };
                assert_eq!(results, rows_of_fact(&facts[key]), "{name}: {sql}");
                held += 1;
            }
            Record::Query { sql, .. } | Record::Statement { sql, .. } => {
                panic!("only queries are held to facts: {sql}")
            }
            _ => {}
        }
    }
    assert!(held >= 20, "{held} golden answers were held to facts");
}
