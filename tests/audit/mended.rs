//! Damage in real files: named in the report and in SQL, made good, and the counts are the facts again.

use std::path::{Path, PathBuf};

use reckon_audit::finding::{Class, Finding};
use reckon_audit::report::model::Report;
use serde_json::Value;

use super::ask::{BALANCED, FINDINGS, audit_in, report};
use crate::damage::{files, flip};
use crate::datasets::check_facts;
use crate::harness::{Dataset, Server, command, data_at, in_folder, run_ok};

/// Every file that is there belongs to its table: none is put together with others.
const SETTINGS: &[&str] = &["--log-partitions", "1", "--batch-compact", "false"];
const RAW_DATE: &str = "2015-05-18";
const COUNTS_DATE: &str = "2015-05-19";

/// A folder with a data set that batch has counted, and nobody at work.
fn counted(test: &str) -> Option<(tempfile::TempDir, Dataset)> {
    let data = Dataset::find("apache_semicomplete_2015")?;
    if !in_folder(test) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), SETTINGS);
    data.import(server.url(), &data.files());
    server.batch();
    server.terminate();
    Some((dir, data))
}

fn audit(dir: &Path, more: &[&str], code: i32) -> Report {
    report(audit_in(dir).args(SETTINGS).args(more), code)
}

/// A file of a table whose path has these parts.
fn one(dir: &Path, table: &str, parts: &[&str]) -> PathBuf {
    let is_it = |path: &PathBuf| parts.iter().all(|part| path.to_str().unwrap().contains(part));
    files(dir, table).into_iter().find(is_it).unwrap_or_else(|| panic!("no file of {table} with {parts:?}"))
}

fn name_of(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// The finding of a class in a file.
fn finding<'a>(report: &'a Report, class: Class, file: &str) -> &'a Finding {
    let is_it =
        |finding: &&Finding| finding.class == class && finding.file.as_ref().is_some_and(|it| it.ends_with(file));
    report.findings.iter().find(is_it).unwrap_or_else(|| panic!("no {class} in {file}: {:?}", report.findings))
}

/// What SQL has of a run's findings: their classes and files.
fn in_sql(dir: &Path, report: &Report) -> Vec<(String, String)> {
    let query = format!("select class, file from audit_findings where run_id = '{}' order by number", report.run_id);
    let mut sql = command();
    let output = run_ok(data_at(sql.arg("sql"), dir).args(SETTINGS).args(["--format", "json", &query]));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    rows.iter().map(|row| (text(row, "class"), text(row, "file"))).collect()
}

/// SQL has the findings of a report, one for one.
fn assert_in_sql(dir: &Path, report: &Report) {
    let due: Vec<(String, String)> = report
        .findings
        .iter()
        .map(|finding| (finding.class.name().to_owned(), finding.file.clone().unwrap_or_default()))
        .collect();
    assert_eq!(in_sql(dir, report), due);
}

#[test]
fn damaged_and_missing_files_are_named_and_made_good() {
    let Some((dir, data)) = counted("damaged_and_missing_files_are_named_and_made_good") else { return };
    let dir = dir.path();
    let before = audit(dir, &[], BALANCED);
    let raw = flip(&one(dir, "events", &[RAW_DATE]));
    let counts = one(dir, "batch_counts", &["=minute", COUNTS_DATE]);
    std::fs::remove_file(&counts).unwrap();
    let counts = name_of(&counts);

    let found = audit(dir, &[], FINDINGS);
    for (class, table, file, date) in [
        (Class::CorruptFile, "events", raw.as_str(), RAW_DATE),
        (Class::MissingFile, "batch_counts", counts, COUNTS_DATE),
    ] {
        let finding = finding(&found, class, file);
        assert_eq!((finding.table.as_str(), finding.date.as_deref()), (table, Some(date)), "{finding:?}");
        assert!(!finding.explanation.is_empty() && !finding.action.is_empty(), "{finding:?}");
        assert!(found.findings_total[class.name()] >= 1);
    }
    // Nothing else is blamed: not on the dates that nobody has touched.
    let touched = |finding: &&Finding| {
        finding.date.as_deref().is_none_or(|date| [RAW_DATE, COUNTS_DATE].contains(&date))
            || finding.class.is_expected()
    };
    assert!(found.findings.iter().all(|finding| touched(&finding)), "{:?}", found.findings);
    assert_in_sql(dir, &found);

    let repaired = audit(dir, &["--repair"], BALANCED);
    let repair = repaired.repair.as_ref().expect("the report says what the repair did");
    assert!(repair.errors_before >= 2 && repair.before.is_some(), "{repair:?}");
    assert_eq!((repair.errors_after, repair.left.len()), (0, 0), "{repair:?}");
    assert!([RAW_DATE, COUNTS_DATE].iter().all(|date| repair.dates.iter().any(|done| done == date)), "{repair:?}");
    assert_eq!(repair.rebuilt.len(), 1, "{repair:?}");
    assert_eq!((&repaired.dates, &repaired.hours), (&before.dates, &before.hours), "as if nothing had been");
    assert!(repaired.findings.is_empty(), "{:?}", repaired.findings);
    assert_eq!(audit(dir, &[], BALANCED).repair, None, "and it stays so");
    let server = Server::start_with(dir, SETTINGS);
    check_facts(&server, &data.facts);
}

#[test]
fn a_repair_without_damage_does_nothing() {
    let Some((dir, _)) = counted("a_repair_without_damage_does_nothing") else { return };
    let repaired = audit(dir.path(), &["--repair"], BALANCED);
    let done = repaired.repair.unwrap_or_default();
    assert_eq!((done.errors_before, done.errors_after), (0, 0), "{done:?}");
    assert!(done.dates.is_empty() && done.rebuilt.is_empty() && done.left.is_empty(), "{done:?}");
}

#[test]
fn an_old_report_that_was_changed_is_named() {
    let Some((dir, _)) = counted("an_old_report_that_was_changed_is_named") else { return };
    let dir = dir.path();
    let first = audit(dir, &[], BALANCED);
    let stored = files(dir, "audit_runs");
    assert_eq!(stored.len(), 1, "one run is one file: {stored:?}");
    let second = audit(dir, &[], BALANCED);
    assert_eq!(second.previous.map(|run| run.run_id), Some(first.run_id));
    let name = flip(&stored[0]);
    let found = audit(dir, &[], FINDINGS);
    let finding = finding(&found, Class::ReportChanged, &name);
    assert_eq!(finding.table, "audit_runs", "{finding:?}");
    assert!(finding.explanation.contains(&first.run_id.to_string()), "{finding:?}");
    assert_eq!(found.errors(), found.findings_total[Class::ReportChanged.name()], "nothing else is wrong");
    assert_in_sql(dir, &found);
    // No repair can make it good, and none says that it has.
    let repaired = audit(dir, &["--repair"], FINDINGS);
    assert!(repaired.repair.is_some_and(|done| done.errors_after > 0 && !done.left.is_empty()));
}
