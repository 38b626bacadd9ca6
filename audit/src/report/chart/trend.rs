//! Findings and events of the last runs.

use super::scale::{Scale, labelled, place};
use super::{Bar, Chart, KEY_BAR, KEY_LINE, MARGIN, RIGHT, curve, disc, slot, square};
use crate::report::format::{compact, count, many, moment, visible};
use crate::report::model::{RunSummary, Verdict};
use crate::report::table::{Cell, Head, Table};

/// Most runs that are drawn: the last ones.
const RUNS_MAX: usize = 60;
/// The upper end of the findings.
const TOP: f64 = 26.0;
/// The lower end of the findings.
const MIDDLE: f64 = 146.0;
/// The upper end of the events.
const LOWER: f64 = 184.0;
/// The lower end of the events.
const BOTTOM: f64 = 264.0;

/// Errors and expected differences of the last runs, above the events that each looked at.
#[must_use]
pub fn trend(runs: &[RunSummary]) -> Chart {
    let runs = &runs[runs.len().saturating_sub(RUNS_MAX)..];
    let mut chart = Chart::new("trend", "Findings over the last runs", BOTTOM + 30.0);
    findings(&mut chart, runs);
    events(&mut chart, runs);
    for index in labelled(runs.len(), 5) {
        let (x, width) = slot(index, runs.len());
        chart.label("middle", x + width / 2.0, BOTTOM + 20.0, moment(&visible(&runs[index].finished_at)));
    }
    let without = runs.iter().filter(|run| run.errors == 0).count() as u64;
    let all = many(runs.len() as u64, "run", "runs");
    chart.summary = format!("{all}, oldest first: {} without an error.", count(without));
    chart.note = format!("The last {all}, this one on the right.");
    chart.key("errors", KEY_LINE, "errors (discs)");
    chart.key("passed", KEY_LINE, "differences that the design expects (squares)");
    chart.key("found", KEY_BAR, "raw events looked at");
    chart.tables.push(numbers(runs));
    chart
}

fn findings(chart: &mut Chart, runs: &[RunSummary]) {
    let most = runs.iter().map(|run| run.errors.max(run.expected)).max().unwrap_or(0);
    let scale = Scale::new(most as f64, MIDDLE, TOP);
    chart.label("start", MARGIN, TOP - 10.0, "Findings");
    chart.axis(&scale);
    let x = |index| {
        let (x, width) = slot(index, runs.len());
        x + width / 2.0
    };
    let points = |of: fn(&RunSummary) -> u64| -> Vec<(f64, f64)> {
        runs.iter().enumerate().map(|(index, run)| (x(index), scale.at(of(run) as f64))).collect()
    };
    let (passed, errors) = (points(|run| run.expected), points(|run| run.errors));
    chart.sign("passed", curve(&passed), String::new());
    chart.sign("errors", curve(&errors), String::new());
    for (index, run) in runs.iter().enumerate() {
        let (passed, errors) = (passed[index], errors[index]);
        chart.sign("passed dot", square(passed.0, passed.1), hint(run));
        chart.sign("errors dot", disc(errors.0, errors.1), hint(run));
    }
}

fn events(chart: &mut Chart, runs: &[RunSummary]) {
    let most = runs.iter().map(|run| run.events).max().unwrap_or(0);
    let scale = Scale::new(most as f64, BOTTOM, LOWER);
    chart.label("start", MARGIN, LOWER - 10.0, "Raw events looked at");
    // Low as it is, it has room for every other number only.
    for tick in scale.ticks().into_iter().step_by(2) {
        chart.line("grid", (MARGIN, scale.at(tick)), (RIGHT, scale.at(tick)));
        chart.label("end", MARGIN - 6.0, scale.at(tick) + 4.0, compact(tick));
    }
    for (index, run) in runs.iter().enumerate() {
        let (x, width) = slot(index, runs.len());
        let height = scale.long(run.events as f64, 1.0);
        // A few runs would be blocks.
        let wide = (width * 0.7).min(48.0);
        let (x, y) = (place(x + (width - wide) / 2.0), place(BOTTOM - height));
        chart.bars.push(Bar { class: "found", x, y, width: place(wide), height, hint: hint(run) });
    }
}

fn hint(run: &RunSummary) -> String {
    let (at, errors) = (visible(&run.finished_at), many(run.errors, "error", "errors"));
    format!("{at}: {errors}, {} expected, {}", count(run.expected), many(run.events, "event", "events"))
}

fn numbers(runs: &[RunSummary]) -> Table {
    let heads = vec![
        Head::text("Ended at"),
        Head::text("Run"),
        Head::text("Verdict"),
        Head::number("Errors"),
        Head::number("Expected differences"),
        Head::number("Raw events"),
    ];
    let mut table = Table::new("Findings over the last runs", heads);
    for run in runs {
        let verdict = match run.verdict {
            Verdict::Balanced => "✓ balanced",
            Verdict::Findings => "✗ findings",
        };
        let cells = vec![
            Cell::ours(run.run_id.to_string()),
            Cell::ours(verdict),
            Cell::wrong(run.errors),
            Cell::count(run.expected),
            Cell::count(run.events),
        ];
        table.row(Cell::text(&run.finished_at), cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn run(number: u128) -> RunSummary {
        RunSummary {
            run_id: Uuid::from_u128(number),
            finished_at: "2013-02-09T03:00:00Z".to_owned(),
            verdict: Verdict::Balanced,
            events: 1_000,
            errors: 0,
            expected: 3,
        }
    }

    #[test]
    fn only_the_last_runs_are_drawn() {
        let runs: Vec<RunSummary> = (0..500).map(run).collect();
        let chart = trend(&runs);
        assert_eq!(chart.bars.len(), RUNS_MAX);
        assert!(chart.tables[0].rows[59].cells[0].text.ends_with("1f3"), "the last one is on the right");
    }

    #[test]
    fn one_run_is_a_trend_too() {
        let chart = trend(&[run(1)]);
        assert_eq!(chart.bars.len(), 1);
        assert_eq!(chart.summary, "1 run, oldest first: 1 without an error.");
        assert!(trend(&[]).bars.is_empty());
    }
}
