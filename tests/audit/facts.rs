//! Every figure of a report against the facts of real data sets.

use std::path::Path;

use reckon_audit::report::model::{Report, Verdict};
use serde_json::{Value, json};

use super::ask::{BALANCED, NOT_RUN, audit_in, audit_of, ended, ends_with, report, rows_of_page, start, thousands};
use super::plain::Plain;
use crate::harness::{Dataset, Server, in_folder, number};

/// Of each entity its date is asked for, and the hour and the minute of one of its events.
const QUESTIONS: u64 = 3;

/// What a report is held against.
struct Due<'a> {
    plain: &'a Plain,
    facts: &'a Value,
    /// Repeats of events, all of them on the one date that there is.
    repeats: u64,
}

impl Due<'_> {
    fn raw(&self) -> u64 {
        self.plain.events() + self.repeats
    }

    fn check(&self, report: &Report) {
        assert_eq!((report.verdict, report.errors()), (Verdict::Balanced, 0), "{:?}", report.findings);
        assert!(report.findings.is_empty() && report.findings_total.is_empty(), "{:?}", report.findings);
        assert_eq!(report.events(), self.raw(), "raw events");
        self.check_stages(report);
        self.check_dates(report);
        self.check_hours(report);
        self.check_stream(report);
        self.check_answers(report);
        self.check_tables(report);
        assert_eq!(report.horizon.repeats, self.repeats, "repeats by their delay");
        let buckets: u64 = report.horizon.buckets.iter().map(|bucket| bucket.repeats).sum();
        assert_eq!((buckets, report.horizon.past_window), (self.repeats, 0), "{:?}", report.horizon);
        let limits = &report.thresholds;
        assert_eq!(limits.difference_max, 0);
        assert!((limits.rows_compared - 1.0).abs() < 1e-9, "few events are all compared: {}", limits.rows_compared);
    }

    fn check_stages(&self, report: &Report) {
        let events = self.plain.events();
        for (name, due) in [
            ("log", self.raw()),
            ("raw_distinct", events),
            ("stream", events),
            ("batch_minute", events),
            ("batch_hour", events),
            ("batch_day", events),
            ("served", report.served.asked),
        ] {
            let stage = report.stages.iter().find(|stage| stage.stage == name);
            let stage = stage.unwrap_or_else(|| panic!("no stage {name} in {:?}", report.stages));
            assert_eq!((stage.expected, stage.found, stage.fingerprints_agree), (due, due, true), "{name}");
        }
    }

    fn check_dates(&self, report: &Report) {
        let found: Vec<&str> = report.dates.iter().map(|date| date.date.as_str()).collect();
        assert_eq!(found, self.plain.dates.keys().collect::<Vec<_>>(), "dates");
        assert!(self.repeats == 0 || found.len() == 1, "nobody knows on which date repeats are");
        for (date, (name, &events)) in report.dates.iter().zip(&self.plain.dates) {
            assert_eq!((date.raw, date.repeats), (events + self.repeats, self.repeats), "{name}");
            assert_eq!((date.expected, date.uncovered, date.reserved), (events, 0, 0), "{name}");
            assert_eq!((date.minute, date.hour, date.day), (events, events, events), "{name}");
            assert!(date.balanced && !date.closed, "{name}");
        }
    }

    fn check_hours(&self, report: &Report) {
        let found: Vec<(&str, u64, u64, bool)> =
            report.hours.iter().map(|hour| (hour.hour.as_str(), hour.expected, hour.found, hour.differs)).collect();
        let due: Vec<(&str, u64, u64, bool)> =
            self.plain.hours.iter().map(|(hour, &events)| (hour.as_str(), events, events, false)).collect();
        assert_eq!(found, due, "hours");
    }

    fn check_stream(&self, report: &Report) {
        let segments = &report.segments;
        assert!(segments.checked > 0, "{segments:?}");
        assert_eq!(segments.balanced, segments.checked, "segments balanced");
        assert_eq!((segments.accepted, segments.counted), (self.raw(), self.plain.events()), "{segments:?}");
        let refused = number(&self.facts["malformed_lines"]);
        assert_eq!((segments.duplicate, segments.dead), (self.repeats, refused), "{segments:?}");
        assert!(!report.partitions.is_empty());
        for at in &report.partitions {
            assert_eq!(at.gone, 0, "{at:?}");
            assert!(at.coverage <= at.archived && at.coverage <= at.sealed, "{at:?}");
        }
    }

    fn check_answers(&self, report: &Report) {
        let (served, each) = (&report.served, report.thresholds.served_entities);
        let entities = self.plain.entities.values().map(|all| u64::try_from(all.len()).unwrap().min(each));
        assert_eq!(served.asked, QUESTIONS * entities.sum::<u64>(), "answers of {each} entities a date");
        assert!(served.asked > 0, "no answer was asked for");
        assert_eq!((served.equal, served.incomplete), (served.asked, 0), "answers");
    }

    fn check_tables(&self, report: &Report) {
        let rows = |name: &str| report.tables.iter().find(|table| table.table == name).map(|table| table.rows);
        assert_eq!(rows("events"), Some(self.raw()), "rows of raw events");
        assert_eq!(rows("batch_counts"), Some(self.plain.rows), "rows of counts");
    }

    /// The page says the same.
    fn check_page(&self, page: &Path, report: &Report) {
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("</span> Balanced</p>"), "the verdict");
        let lead =
            format!("{} raw events were recounted, and every number is what it should be.", thousands(self.raw()));
        assert!(page.contains(&lead), "{lead}");
        assert!(page.contains(&report.run_id.to_string()));
        let rows = rows_of_page(&page);
        let again = thousands(self.repeats);
        for (date, &events) in &self.plain.dates {
            let (raw, due) = (thousands(events + self.repeats), thousands(events));
            assert_row(&rows, &[date, &raw, &again, &due, &due, &due, &due, "0", "0", "0", "open", "✓ yes"]);
        }
        for (hour, &events) in &self.plain.hours {
            let due = thousands(events);
            assert_row(&rows, &[hour, hour, "1", &due, &due, "0", "0", "0"]);
        }
        for stage in &report.stages {
            let (due, found) = (thousands(stage.expected), thousands(stage.found));
            assert_row(&rows, &[&stage.stage, &stage.title, &due, &found, "0", "✓ yes"]);
        }
        let (segments, served) = (&report.segments, &report.served);
        for (name, due) in [
            ("Segments checked", segments.checked),
            ("Without a difference", segments.balanced),
            ("With a difference", 0),
            ("Events accepted", self.raw()),
            ("Events counted", self.plain.events()),
            ("Repeats dropped", self.repeats),
            ("Events refused", number(&self.facts["malformed_lines"])),
            ("Questions", served.asked),
            ("Right answers", served.asked),
            ("Wrong answers", 0),
            ("Repeats looked at", self.repeats),
        ] {
            assert_row(&rows, &[name, &thousands(due)]);
        }
    }
}

fn assert_row(rows: &[Vec<String>], due: &[&str]) {
    assert!(rows.iter().any(|row| row == due), "no row {due:?} on the page");
}

/// Imports a data set, counts it, and holds an audit's report and page to its facts.
fn audited(name: &str, kind_is_type: bool) {
    let Some(data) = Dataset::find(name) else { return };
    let plain = Plain::read(&data.events(), kind_is_type);
    plain.assert_facts(&data.facts);
    let (dir, pages) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(dir.path());
    data.import(server.url(), &data.files());
    server.batch();
    let due = Due { plain: &plain, facts: &data.facts, repeats: 0 };
    let page = pages.path().join("audit.html");
    let found = report(audit_of(&server).arg("--page").arg(&page), BALANCED);
    due.check(&found);
    due.check_page(&page, &found);

    // What was printed is what is stored.
    let id = found.run_id.to_string();
    let stored = ended(&server, &id);
    assert_eq!((&stored["run_id"], &stored["verdict"]), (&json!(id), &json!("balanced")), "{stored}");
    assert_eq!(stored["dates"], serde_json::to_value(&found.dates).unwrap());
    assert_eq!(stored["stages"], serde_json::to_value(&found.stages).unwrap());

    // Some dates alone: the first and the last.
    let (first, last) = (plain.dates.first_key_value().unwrap(), plain.dates.last_key_value().unwrap());
    let some = report(audit_of(&server).args(["--date", first.0, "--date", last.0]), BALANCED);
    let mut asked = vec![(first.0.as_str(), *first.1), (last.0.as_str(), *last.1)];
    asked.dedup();
    let dates: Vec<(&str, u64)> = some.dates.iter().map(|date| (date.date.as_str(), date.minute)).collect();
    assert_eq!((dates, some.request.dates.len()), (asked, 2));
    assert_eq!(some.previous.map(|run| run.run_id), Some(found.run_id), "each run names the one before");
}

#[test]
fn an_audit_of_usagov_clicks_says_the_facts() {
    audited("usagov_clicks_2013_jan_mar", false);
}

#[test]
fn an_audit_of_gharchive_events_says_the_facts() {
    audited("gharchive_2015_01_01", true);
}

#[test]
fn an_audit_of_the_nasa_access_log_says_the_facts() {
    audited("nasa_1995_08_01", false);
}

#[test]
fn an_audit_of_the_apache_log_says_the_facts() {
    audited("apache_semicomplete_2015", false);
}

#[test]
fn repeats_are_counted_apart() {
    let Some(data) = Dataset::find("gharchive_2015_01_01") else { return };
    let plain = Plain::read(&data.events(), true);
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(dir.path());
    let files = data.files();
    data.import(server.url(), &files);
    // The same events as another file: its lines from the last to the first.
    let text =
        std::io::read_to_string(flate2::read::MultiGzDecoder::new(std::fs::File::open(&files[0]).unwrap())).unwrap();
    let turned = other.path().join("again.json");
    std::fs::write(&turned, text.lines().rev().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let again = data.import(server.url(), &[turned]);
    assert_eq!(number(&again["counted"]), 0, "{again}");
    server.batch();
    let repeats = number(&data.facts["files"][0]["events"]);
    let due = Due { plain: &plain, facts: &data.facts, repeats };
    let page = other.path().join("audit.html");
    let found = report(audit_of(&server).arg("--page").arg(&page), BALANCED);
    due.check(&found);
    due.check_page(&page, &found);
    let of_server = server.get(&format!("/v1/audit/runs/{}/page", found.run_id));
    assert!(of_server.as_str() == std::fs::read_to_string(&page).ok().as_deref(), "there is one way to make a page");
}

#[test]
fn an_audit_asks_the_server_of_a_folder_or_opens_it() {
    let Some(data) = Dataset::find("apache_semicomplete_2015") else { return };
    if !in_folder("an_audit_asks_the_server_of_a_folder_or_opens_it") {
        return;
    }
    let plain = Plain::read(&data.events(), false);
    let due = Due { plain: &plain, facts: &data.facts, repeats: 0 };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    data.import(server.url(), &data.files());
    server.batch();
    let asked = report(&mut audit_in(dir.path()), BALANCED);
    let runs = server.get("/v1/audit/runs")["runs"].clone();
    assert_eq!(runs[0]["id"], json!(asked.run_id.to_string()), "the server has run it: {runs}");
    let started = start(&server).expect("no audit is going on");
    let over_rest = ended(&server, &started);
    assert_eq!(over_rest["dates"], serde_json::to_value(&asked.dates).unwrap());
    assert!(server.terminate().as_secs() < 10);

    let opened = report(&mut audit_in(dir.path()), BALANCED);
    due.check(&opened);
    assert_eq!((opened.dates, opened.hours), (asked.dates, asked.hours));
    assert_eq!(opened.previous.map(|run| run.run_id.to_string()), Some(started));
    let said = ends_with(&mut audit_in(dir.path()), BALANCED);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.to_lowercase().contains("balanced") && said.contains("9,999"), "{said}");
}

#[test]
fn what_cannot_be_audited_ends_with_a_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for date in ["noon", "2013-02-30", ""] {
        let output = ends_with(audit_of(&server).args(["--date", date]), NOT_RUN);
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{date:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(date), "{output:?}");
    }
    let stopped = server.url().to_owned();
    server.kill();
    ends_with(crate::harness::command().args(["audit", "--url", &stopped]), NOT_RUN);
    if !in_folder("a folder without data") {
        return;
    }
    ends_with(audit_in(dir.path()).args(["--date", "noon"]), NOT_RUN);
    let nothing = dir.path().join("nothing");
    let output = ends_with(audit_in(&nothing).arg("--json"), NOT_RUN);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("there is no data in"), "{said}");
    assert!(!nothing.exists(), "asking makes nothing");
}
