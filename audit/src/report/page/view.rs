//! What the template shows, as texts: it decides nothing and escapes everything.

// The code that the template becomes names things by their full paths, and is one function.
#![allow(unused_qualifications, clippy::cognitive_complexity, clippy::too_many_lines)]

use askama::Template;
use reckon_data::event::time::parse_rfc3339;

use super::facts::{self, Fact};
use super::{findings, tables};
use crate::report::chart::{self, Chart};
use crate::report::format::{count, many, visible};
use crate::report::model::{Report, RunSummary, Verdict};
use crate::report::table::Table;

/// The page.
#[derive(Template)]
#[template(path = "report/page.html")]
pub struct View {
    /// What a browser calls it.
    title: String,
    /// The verdict, in large.
    verdict: String,
    /// Its sign, for those who see no colours.
    sign: &'static str,
    /// Its CSS class.
    class: &'static str,
    /// The verdict in a sentence.
    lead: String,
    /// What the verdict stands on.
    facts: Vec<Fact>,
    /// Findings that are errors.
    errors: Vec<Table>,
    /// What the design expects, in a sentence.
    expected_title: String,
    /// Findings that the design expects.
    expected: Vec<Table>,
    /// What a repair did.
    repair: Vec<Fact>,
    /// The charts.
    charts: Vec<Chart>,
    /// All other numbers.
    tables: Vec<Table>,
}

impl View {
    /// Everything that the page of a report says.
    #[must_use]
    pub fn new(report: &Report, hash: &str, trend: &[RunSummary]) -> Self {
        let (verdict, sign, class) = match report.verdict {
            Verdict::Balanced => ("Balanced".to_owned(), "✓", "good"),
            Verdict::Findings => (many(report.errors(), "finding", "findings"), "✗", "bad"),
        };
        Self {
            title: format!("Audit {}: {verdict}", visible(&report.finished_at)),
            verdict,
            sign,
            class,
            lead: lead(report),
            facts: facts::run(report, hash),
            errors: vec![findings::classes(report), findings::list(report, false)],
            expected_title: many(report.expected(), "difference", "differences"),
            expected: vec![findings::list(report, true)],
            repair: facts::repair(report),
            charts: charts(report, trend),
            tables: tables::all(report),
        }
    }
}

/// The verdict in a sentence.
fn lead(report: &Report) -> String {
    let events = many(report.events(), "raw event was", "raw events were");
    let expected = match report.expected() {
        0 => "No difference was found that the design expects.".to_owned(),
        1 => "One difference was found that the design expects.".to_owned(),
        number => format!("{} differences were found that the design expects.", count(number)),
    };
    let verdict = match report.verdict {
        Verdict::Balanced => "every number is what it should be",
        Verdict::Findings => "not every number is what it should be",
    };
    format!("{events} recounted, and {verdict}. {expected}")
}

fn charts(report: &Report, trend: &[RunSummary]) -> Vec<Chart> {
    let own = report.summary();
    // Fractions of a second make texts sort otherwise.
    let at = |run: &RunSummary| parse_rfc3339(&run.finished_at);
    // What came after it is not known to it.
    let is_earlier = |run: &&RunSummary| run.run_id != own.run_id && at(run) <= at(&own);
    let mut runs: Vec<RunSummary> = trend.iter().filter(is_earlier).cloned().collect();
    runs.sort_by_key(at);
    runs.push(own);
    vec![
        chart::stages(&report.stages),
        chart::hours(&report.hours),
        chart::trend(&runs),
        chart::horizon(&report.horizon),
    ]
}
