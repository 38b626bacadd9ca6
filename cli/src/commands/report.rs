//! What `reckon status` says of a server, out of what the server says of itself: pure.

use serde::Serialize;
use serde_json::{Map, Value};

use super::ranks::fitted;
use crate::node::metrics::{ARCHIVER_LAG, COUNTING_LAG};

/// What the server says of itself.
#[derive(Debug, Default)]
pub struct Facts {
    /// Where it is.
    pub url: String,
    /// `/readyz`.
    pub ready: Value,
    /// `/metrics`, twice.
    pub before: String,
    /// The second time.
    pub after: String,
    /// Seconds between the two.
    pub seconds: f64,
    /// `/v1/batch/runs`; null where there are none.
    pub batch: Value,
    /// Verdict and end of the last audit, as a row of SQL; null where nobody says.
    pub audit: Value,
    /// How many dead letters were received today; null where nobody says.
    pub dead: Value,
}

/// How a server is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where it is.
    pub url: String,
    /// What it does: `up`, `serve`, `gateway`, `stream` or `archive`.
    pub role: &'static str,
    /// Whether it can do its work.
    pub ready: bool,
    /// What is in the way, or missing from answers.
    pub reasons: Vec<String>,
    /// Damaged files that it knows of.
    pub damaged: usize,
    /// Events that it takes in a second; none where it takes none.
    pub events_per_second: Option<f64>,
    /// Records of the log that are not counted yet.
    pub lag_records: Option<u64>,
    /// The version of batch that answers begin with.
    pub batch_version: Option<u64>,
    /// Minutes before it are settled.
    pub watermark: Option<String>,
    /// The last batch run that this process knows of: its state, and when it ended or began.
    pub batch_run: Option<[String; 2]>,
    /// The last audit that is stored: its verdict, and when it ended.
    pub audit: Option<[String; 2]>,
    /// What the canary has seen.
    pub canary: Option<Canary>,
    /// Dead letters received today.
    pub dead_letters_today: Option<u64>,
    /// Memory of the process, bytes.
    pub memory_bytes: Option<u64>,
    /// Where else it listens.
    pub listens: Map<String, Value>,
}

/// What the canary has seen since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Canary {
    /// Rounds that are over.
    pub rounds: u64,
    /// Its findings.
    pub findings: u64,
}

impl Report {
    /// What the facts come to.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let metric = |name: &str| sum(&facts.after, name);
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
        };
        let ready = &facts.ready;
        Self {
            url: facts.url.clone(),
            role: role(ready, &facts.after),
            ready: ready["ready"] == true,
            reasons: texts(&ready["reasons"]),
            damaged: ready["damaged"].as_array().map_or(0, Vec::len),
            events_per_second: rate(facts, "reckon_events_accepted_total"),
            lag_records: ready["lag_records"].as_u64(),
            batch_version: ready["serving"]["batch_version"].as_u64(),
            watermark: ready["serving"]["watermark"].as_str().map(str::to_owned),
            batch_run: last_run(&facts.batch),
            audit: row(&facts.audit),
            canary: whole(metric("reckon_canary_rounds_total"))
                .map(|rounds| Canary { rounds, findings: whole(metric("reckon_canary_findings")).unwrap_or(0) }),
            dead_letters_today: number(&facts.dead),
            memory_bytes: whole(metric("process_resident_memory_bytes")),
            listens: ready["listens"].as_object().cloned().unwrap_or_default(),
        }
    }

    /// Its lines, none wider than `columns`.
    #[must_use]
    pub fn lines(&self, columns: usize) -> Vec<String> {
        let mut told = vec![("server", format!("{} ({})", self.url, self.role))];
        told.push(("ready", if self.ready { "yes" } else { "no" }.to_owned()));
        told.extend(self.reasons.iter().map(|reason| ("", reason.clone())));
        if self.damaged > 0 {
            told.push(("damaged", format!("{} files or records, named in /readyz", self.damaged)));
        }
        told.extend(self.events_per_second.map(|rate| ("events/s", format!("{rate:.0}"))));
        told.extend(self.lag_records.map(|lag| ("lag", format!("{lag} records not counted yet"))));
        let settled = self.watermark.as_ref().map_or_else(String::new, |at| format!(", settled before {at}"));
        told.extend(self.batch_version.map(|version| ("coverage", format!("batch version {version}{settled}"))));
        told.extend(self.batch_run.as_ref().map(|[state, at]| ("batch run", format!("{state}, {at}"))));
        let audit =
            self.audit.as_ref().map_or_else(|| "none is stored".to_owned(), |[verdict, at]| format!("{verdict}, {at}"));
        if self.batch_version.is_some() {
            told.push(("audit", audit));
        }
        told.extend(
            self.canary.map(|canary| ("canary", format!("{} rounds, {} findings", canary.rounds, canary.findings))),
        );
        told.extend(self.dead_letters_today.map(|dead| ("dead today", format!("{dead} letters"))));
        told.extend(self.memory_bytes.map(|bytes| ("memory", format!("{} MiB", bytes >> 20))));
        for (name, address) in &self.listens {
            told.push(("listens", format!("{name} at {}", address.as_str().unwrap_or_default())));
        }
        told.into_iter().map(|(what, text)| fitted(&format!("{what:<12}{text}"), columns)).collect()
    }
}

/// What a process does, by what it has.
fn role(ready: &Value, metrics: &str) -> &'static str {
    let has = |name| sum(metrics, name).is_some();
    let takes = has("reckon_events_accepted_total");
    match (takes, ready["serving"].is_object()) {
        (true, true) => "up",
        (false, true) => "serve",
        (true, false) => "gateway",
        (false, false) if has(COUNTING_LAG) => "stream",
        (false, false) if has(ARCHIVER_LAG) => "archive",
        (false, false) => "unknown",
    }
}

/// The sum of a metric's values over all its labels; none when there is no such metric.
fn sum(metrics: &str, name: &str) -> Option<f64> {
    let value = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once("} ")?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.trim().parse().ok()
    };
    metrics.lines().filter_map(value).reduce(|sum, value| sum + value)
}

fn rate(facts: &Facts, name: &str) -> Option<f64> {
    let (before, after) = (sum(&facts.before, name)?, sum(&facts.after, name)?);
    // It began anew in between.
    (facts.seconds > 0.0 && after >= before).then(|| (after - before) / facts.seconds)
}

fn whole(value: Option<f64>) -> Option<u64> {
    value.filter(|value| value.is_finite() && *value >= 0.0).map(|value| value as u64)
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn last_run(runs: &Value) -> Option<[String; 2]> {
    let run = runs["runs"].as_array()?.first()?;
    let at = run["finished_at"].as_str().or_else(|| run["started_at"].as_str())?;
    Some([run["state"].as_str()?.to_owned(), at.to_owned()])
}

fn row(row: &Value) -> Option<[String; 2]> {
    Some([row[0].as_str()?.to_owned(), row[1].as_str()?.to_owned()])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts() -> Facts {
        Facts {
            url: "http://here".to_owned(),
            ready: json!({
                "ready": false, "lag_records": 7, "reasons": ["the counter has stopped"], "damaged": ["x"],
                "serving": {"batch_version": 12, "watermark": "2026-01-01T00:00:00Z"},
                "listens": {"flight_sql": "127.0.0.1:7733"},
            }),
            before: "reckon_events_accepted_total 100\n".to_owned(),
            after:
                "# HELP x y\nreckon_events_accepted_total 300\nreckon_canary_rounds_total 5\nreckon_canary_findings 1\n\
                    process_resident_memory_bytes 104857600\n"
                    .to_owned(),
            seconds: 2.0,
            batch: json!({"runs": [{"state": "succeeded", "started_at": "a", "finished_at": "b"}, {"state": "failed"}]}),
            audit: json!(["balanced", "2026-01-01T02:00:00Z"]),
            dead: json!("3"),
        }
    }

    #[test]
    fn facts_become_a_report() {
        let report = Report::of(&facts());
        assert_eq!((report.role, report.ready, report.damaged), ("up", false, 1));
        assert_eq!(report.events_per_second, Some(100.0));
        assert_eq!(report.batch_run, Some(["succeeded".to_owned(), "b".to_owned()]));
        assert_eq!(report.canary, Some(Canary { rounds: 5, findings: 1 }));
        assert_eq!((report.dead_letters_today, report.memory_bytes), (Some(3), Some(100 << 20)));
        let lines = report.lines(80);
        for part in [
            "server      http://here (up)",
            "ready       no",
            "            the counter has stopped",
            "events/s    100",
            "coverage    batch version 12, settled before 2026-01-01T00:00:00Z",
            "batch run   succeeded, b",
            "audit       balanced, 2026-01-01T02:00:00Z",
            "dead today  3 letters",
            "memory      100 MiB",
            "listens     flight_sql at 127.0.0.1:7733",
        ] {
            assert!(lines.iter().any(|line| line == part), "{part} in {lines:#?}");
        }
        assert!(report.lines(20).iter().all(|line| line.chars().count() <= 20));
    }

    #[test]
    fn what_nobody_says_is_not_made_up() {
        let report = Report::of(&Facts::default());
        assert_eq!((report.role, report.ready, report.events_per_second), ("unknown", false, None));
        assert_eq!((report.audit.clone(), report.dead_letters_today, report.memory_bytes), (None, None, None));
        assert_eq!(report.lines(80).len(), 2, "{:?}", report.lines(80));
    }

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let text = "lag{partition=\"0\"} 2\nlag{partition=\"a} b\"} 3\nlagging 9\nlag_total 8\n";
        assert_eq!(sum(text, "lag"), Some(5.0));
        assert_eq!(sum(text, "la"), None);
        let again = Facts { before: "n 9\n".to_owned(), after: "n 1\n".to_owned(), seconds: 1.0, ..Facts::default() };
        assert_eq!(rate(&again, "n"), None, "a server that began anew has no rate");
    }

    #[test]
    fn roles_are_told_apart() {
        let told = |metrics: &str| role(&json!({}), metrics);
        assert_eq!(told("reckon_events_accepted_total 1\n"), "gateway");
        assert_eq!(told(&format!("{COUNTING_LAG}{{partition=\"0\"}} 1\n")), "stream");
        assert_eq!(told(&format!("{ARCHIVER_LAG} 1\n")), "archive");
        assert_eq!(role(&json!({"serving": {}}), ""), "serve");
    }
}
