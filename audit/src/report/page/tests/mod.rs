//! The page says everything, runs nothing, and fetches nothing.

mod html;

use std::collections::HashSet;

use serde_json::Value;
use uuid::Uuid;

use self::html::{Document, parse};
use super::page;
use crate::finding::{Class, Finding};
use crate::report::format::{count, measured, percent, whole};
use crate::report::model::{HourTotals, Report, RunSummary};
use crate::report::testing::{SCRIPT, empty, sample, trend};

const HASH: &str = "5eed0123abcd";
const STYLE: &str = include_str!("../../../../templates/report/style.css");

fn written(report: &Report) -> String {
    page(report, HASH, &trend(12)).unwrap()
}

fn read(report: &Report) -> Document {
    parse(&written(report))
}

/// Every number of a report, as the page should say it.
fn numbers(value: &Value, path: &str, said: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| numbers(value, &format!("{path}/{name}"), said));
        }
        Value::Array(items) => items.iter().for_each(|item| numbers(item, path, said)),
        Value::Number(number) => {
            let text = match (number.as_u64(), number.as_i64()) {
                _ if path.starts_with("/seconds/") => measured(number.as_f64().unwrap()),
                _ if path.ends_with("/rows_compared") => percent(number.as_f64().unwrap()),
                (Some(number), _) if path == "/definition" => number.to_string(),
                (Some(number), _) => count(number),
                (None, Some(number)) => whole(number),
                (None, None) => panic!("{path} is a fraction"),
            };
            said.push((path.to_owned(), text));
        }
        _ => {}
    }
}

#[test]
fn every_number_of_a_report_is_in_the_page() {
    let report = sample();
    let text = read(&report).text;
    let mut said = Vec::new();
    numbers(&serde_json::to_value(&report).unwrap(), "", &mut said);
    assert!(said.len() > 100, "the sample has something of everything: {}", said.len());
    for (path, number) in said {
        assert!(text.contains(&number), "{path}: {number} is not in the page");
    }
}

#[test]
fn the_verdict_and_what_it_stands_on_are_in_the_page() {
    let report = sample();
    let text = read(&report).text;
    assert!(text.contains("4 findings"), "{text}");
    let previous = report.previous.clone().unwrap();
    let ids = [report.run_id, report.log, previous.run_id, report.repair.clone().unwrap().before.unwrap()];
    for id in ids {
        assert!(text.contains(&id.to_string()), "{id}");
    }
    let texts =
        [HASH, &previous.hash, &report.configuration, &report.files_hash, &report.code_version, &report.started_at];
    for said in texts {
        assert!(text.contains(said), "{said}");
    }
    assert!(read(&empty()).text.contains("✓ Balanced"));
}

#[test]
fn every_finding_is_in_the_page_with_all_that_is_known_of_it() {
    let report = sample();
    let text = read(&report).text;
    for finding in &report.findings {
        let known = [&finding.file, &finding.minute, &finding.entity_id, &finding.dimensions];
        let known = known.into_iter().flatten().chain(&finding.event_ids);
        for said in known.chain([&finding.explanation, &finding.action]) {
            assert!(text.contains(said.as_str()), "{said} is not in the page");
        }
    }
    assert!(text.contains("1 of 1,017 are listed."), "what is not listed is counted");
}

#[test]
fn the_trend_of_an_older_report_ends_with_it() {
    let report = sample();
    let run = |number: u128, finished_at: &str| RunSummary {
        run_id: Uuid::from_u128(number),
        finished_at: finished_at.to_owned(),
        ..report.summary()
    };
    let mut runs: Vec<RunSummary> = (1..=70).map(|number| run(number, "2013-02-10T03:00:00Z")).collect();
    runs.extend([run(80, "2013-02-08T03:00:00Z"), report.summary()]);
    let text = parse(&page(&report, HASH, &runs).unwrap()).text;
    assert!(text.contains("The last 2 runs, this one on the right."), "{text}");
    let is_there = |number| text.contains(&Uuid::from_u128(number).to_string());
    assert_eq!([80, 1, 70].map(is_there), [true, false, false]);
}

#[test]
fn expected_differences_are_apart_from_errors() {
    let document = read(&sample());
    let captions: Vec<&str> =
        document.all("table").filter_map(|tag| tag.inside.iter().nth_back(1)).map(String::as_str).collect();
    assert!(captions.contains(&"details"), "{captions:?}");
    let text = &document.text;
    let (errors, expected) = (text.find("event-7001").unwrap(), text.find("event-9001").unwrap());
    let between = text.find("Expected by the design: 1,017 differences").unwrap();
    assert!(errors < between && between < expected);
}

#[test]
fn what_comes_from_outside_is_text_wherever_it_stands() {
    let mut report = sample();
    let bad = || SCRIPT.to_owned();
    report.started_at = bad();
    report.finished_at = bad();
    report.code_version = bad();
    report.configuration = bad();
    report.files_hash = bad();
    report.request.dates = vec![bad()];
    report.stages[0].stage = bad();
    report.stages[0].title = bad();
    report.dates[0].date = bad();
    report.hours.iter_mut().for_each(|hour| hour.hour = bad());
    report.tables[0].table = bad();
    report.seconds.insert(bad(), 1.0);
    report.findings_total.insert(bad(), 1);
    report.findings.push(Finding {
        file: Some(bad()),
        date: Some(bad()),
        granularity: Some(bad()),
        minute: Some(bad()),
        event_type: Some(bad()),
        dimensions: Some(bad()),
        event_ids: vec![bad()],
        action: bad(),
        ..Finding::new(Class::Lost, SCRIPT, bad())
    });
    let mut runs = trend(3);
    runs[0].finished_at = bad();
    let document = parse(&page(&report, SCRIPT, &runs).unwrap());
    assert_eq!(document.all("script").count(), 0);
    assert!(document.text.matches(SCRIPT).count() > 20);
}

#[test]
fn nothing_is_fetched_and_nothing_runs() {
    let text = written(&sample());
    for outside in ["http://", "https://", "url(", "@import", "src=", "<script", "<iframe", "<object", "javascript:"] {
        assert!(!text.contains(outside), "{outside}");
    }
    for tag in parse(&text).tags {
        for (name, value) in &tag.attributes {
            assert!(!name.starts_with("on"), "{name} of {}", tag.name);
            assert!(name != "href" || value.starts_with('#') || value == "data:,", "{value}");
        }
    }
}

#[test]
fn headings_tables_and_charts_are_told_to_those_who_do_not_see_them() {
    let document = read(&sample());
    let levels: Vec<u32> = document
        .tags
        .iter()
        .filter_map(|tag| tag.name.strip_prefix('h').and_then(|level| level.parse().ok()))
        .collect();
    assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1);
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    assert_eq!(document.all("caption").count(), document.all("table").count());
    assert!(document.all("th").all(|head| matches!(head.get("scope"), Some("row" | "col"))));
    let charts: Vec<_> = document.all("svg").filter(|svg| svg.get("class") == Some("chart")).collect();
    assert_eq!(charts.len(), 4);
    for chart in charts {
        assert_eq!(chart.get("role"), Some("img"));
        assert!(chart.get("aria-label").is_some_and(|label| label.len() > 20));
    }
    let ids: Vec<&str> = document.tags.iter().filter_map(|tag| tag.get("id")).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "ids are there once");
    for tag in &document.tags {
        let named = tag.get("aria-labelledby").or_else(|| tag.get("href").and_then(|href| href.strip_prefix('#')));
        assert!(named.is_none_or(|id| ids.contains(&id)), "{named:?}");
    }
}

#[test]
fn reports_with_nothing_in_them_have_a_page() {
    let text = parse(&page(&empty(), HASH, &[]).unwrap()).text;
    assert!(text.contains("Errors: none."), "{text}");
    assert!(!text.contains("NaN") && !text.contains("inf "), "{text}");
}

#[test]
fn a_year_of_hours_has_a_page_of_bearable_size() {
    let hour = |index: u64| HourTotals {
        hour: format!("hour {index}"),
        expected: 1_000_000 + index,
        found: 1_000_000,
        differs: true,
    };
    let report = Report { hours: (0..10_000).map(hour).collect(), ..sample() };
    let text = written(&report);
    assert!(text.len() < 1_000_000, "{} bytes", text.len());
    assert!(parse(&text).all("rect").count() < 500);
}

#[test]
fn the_largest_numbers_have_a_page() {
    let mut report = sample();
    report.stages[0].expected = u64::MAX;
    report.stages[1].found = u64::MAX;
    report.dates.truncate(1);
    report.dates[0].raw = u64::MAX;
    report.hours.iter_mut().for_each(|hour| hour.expected = u64::MAX);
    report.horizon.window_minutes = u64::MAX;
    report.horizon.recommended_minutes = u64::MAX;
    report.findings[0].expected = Some(i64::MIN);
    report.findings[0].found = Some(i64::MAX);
    let document = read(&report);
    assert!(document.text.contains("+18,446,744,073,709,551,615"), "a difference has room for both ends");
    for bar in document.all("rect") {
        let number = |name| bar.get(name).and_then(|text| text.parse::<f64>().ok()).unwrap();
        assert!(number("x") >= 0.0 && number("x") + number("width") <= 720.0 && number("height") >= 0.0);
    }
}

#[test]
fn the_same_report_has_the_same_page() {
    assert_eq!(written(&sample()), written(&sample()));
}

/// Relative luminance, as WCAG defines it.
fn luminance(colour: &str) -> f64 {
    let part = |range: std::ops::Range<usize>| {
        let part = f64::from(u8::from_str_radix(&colour[range], 16).unwrap()) / 255.0;
        if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(1..3) + 0.7152 * part(3..5) + 0.0722 * part(5..7)
}

#[test]
fn colours_have_enough_contrast_in_the_light_in_the_dark_and_on_paper() {
    let blocks: Vec<&str> = STYLE.split(":root {").skip(1).collect();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let colour = |name: &str| {
            let (_, after) = block.split_once(&format!("--{name}: ")).unwrap();
            luminance(&after[..7])
        };
        let contrast = |a: f64, b: f64| (a.max(b) + 0.05) / (a.min(b) + 0.05);
        for ink in ["ink", "soft", "good", "bad", "found", "other"] {
            for ground in ["paper", "panel"] {
                let reached = contrast(colour(ink), colour(ground));
                assert!(reached >= 4.5, "{ink} on {ground}: {reached:.2}");
            }
        }
        assert!(contrast(colour("edge"), colour("paper")) >= 3.0, "what only shapes say");
        assert!(contrast(colour("bad"), colour("behind")) >= 3.0, "bars before bars");
    }
}
