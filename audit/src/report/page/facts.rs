//! What a verdict stands on, as names and values.

use crate::report::format::{bytes, count, many, percent, visible};
use crate::report::model::Report;

/// A name and what belongs to it.
#[derive(Debug)]
pub struct Fact {
    /// Its name.
    pub name: &'static str,
    /// Its value. A line break is one on the page.
    pub value: String,
}

impl Fact {
    const fn new(name: &'static str, value: String) -> Self {
        Self { name, value }
    }
}

/// Of the run: which it is, what it read, what it went by.
pub fn run(report: &Report, hash: &str) -> Vec<Fact> {
    let previous = report.previous.as_ref().map_or_else(
        || "none: it is the first of its chain".to_owned(),
        |previous| format!("{}\n{}", previous.run_id, visible(&previous.hash)),
    );
    let mut facts = vec![
        Fact::new("Run", report.run_id.to_string()),
        Fact::new("Hash of this report", visible(hash)),
        Fact::new("Chained to run, and its hash", previous),
        Fact::new("Began", visible(&report.started_at)),
        Fact::new("Ended", visible(&report.finished_at)),
        Fact::new("Asked for", asked(report)),
        Fact::new("Code version", visible(&report.code_version)),
        Fact::new("Definition version", report.definition.to_string()),
        Fact::new("Configuration", visible(&report.configuration)),
        Fact::new("Log", report.log.to_string()),
        Fact::new("Hash of the files read", visible(&report.files_hash)),
    ];
    facts.extend(thresholds(report));
    facts
}

fn asked(report: &Report) -> String {
    let dates: Vec<String> = report.request.dates.iter().map(|date| visible(date)).collect();
    let dates = if dates.is_empty() { "all dates".to_owned() } else { dates.join(", ") };
    if report.request.repair { format!("{dates}, with repair") } else { dates }
}

fn thresholds(report: &Report) -> [Fact; 5] {
    let memory_peak = if report.memory_peak == 0 { "cannot be told".to_owned() } else { bytes(report.memory_peak) };
    let limits = &report.thresholds;
    [
        Fact::new("Differences let pass", format!("{} in a count", count(limits.difference_max))),
        Fact::new("Answers asked for", many(limits.served_entities, "entity", "entities")),
        Fact::new(
            "Rows compared one by one",
            format!(
                "{}, all others by sums, which leave out smallest, largest and distinct",
                percent(limits.rows_compared)
            ),
        ),
        Fact::new("Events of each record counted", records_counted(report)),
        Fact::new("Memory: limit, and most used", format!("{}\n{memory_peak}", bytes(limits.memory))),
    ]
}

/// Whether events that are missing from records which the log no longer has would have been seen.
fn records_counted(report: &Report) -> String {
    let text = match (report.thresholds.records_counted, report.whole_log) {
        (true, _) => "yes, also of records that the log no longer has",
        (false, true) => "no, the log has all of them",
        (false, false) => "no: what only raw events have is held against counts and segments alone",
    };
    text.to_owned()
}

/// Of a repair: before and after. Nothing, when none was asked for.
pub fn repair(report: &Report) -> Vec<Fact> {
    let Some(repair) = &report.repair else { return Vec::new() };
    let before = repair.before.map_or_else(|| "not known".to_owned(), |run| run.to_string());
    vec![
        Fact::new("Followed run", before),
        Fact::new("Errors before, without the canary's", count(repair.errors_before)),
        Fact::new("Errors after, without the canary's", count(repair.errors_after)),
        Fact::new("Dates recounted", lines(&repair.dates)),
        Fact::new("Files made anew from the log", lines(&repair.rebuilt)),
        Fact::new("Could not be made good", lines(&repair.left)),
    ]
}

fn lines(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| visible(text)).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join("\n") }
}
