//! How many events each stage holds, beside how many it should hold.

use super::scale::{Scale, place};
use super::{Bar, Chart, KEY_BAR, LEAST, RIGHT};
use crate::report::format::{compact, count, difference, many, shortened, signed, visible};
use crate::report::model::Stage;
use crate::report::table::{Cell, Head, Table};

/// How high a stage is.
const ROW: f64 = 48.0;
/// Where bars begin.
const LEFT: f64 = 12.0;
/// Most characters of a stage's title.
const TITLE_MAX: usize = 34;

/// Expected and found of each stage, as bars.
#[must_use]
pub fn stages(stages: &[Stage]) -> Chart {
    let end = ROW * stages.len() as f64;
    let mut chart = Chart::new("stages", "Events at each stage", end + 30.0);
    let most = stages.iter().map(|stage| stage.expected.max(stage.found)).max().unwrap_or(0);
    let scale = Scale::new(most as f64, LEFT, RIGHT);
    for tick in scale.ticks() {
        chart.line("grid", (scale.at(tick), 0.0), (scale.at(tick), end));
        chart.label("middle", scale.at(tick), end + 18.0, compact(tick));
    }
    for (index, stage) in stages.iter().enumerate() {
        draw(&mut chart, &scale, stage, ROW * index as f64);
    }
    let off = stages.iter().filter(|stage| is_off(stage)).count() as u64;
    chart.summary = format!(
        "Bars of {}: expected beside found. {}.",
        many(stages.len() as u64, "stage", "stages"),
        if off == 0 { "All agree".to_owned() } else { format!("{} differ", count(off)) },
    );
    chart.key("expected", KEY_BAR, "expected");
    chart.key("found", KEY_BAR, "found");
    chart.key("off", KEY_BAR, "found, and differs");
    chart.tables.push(numbers(stages));
    chart
}

fn is_off(stage: &Stage) -> bool {
    stage.expected != stage.found || !stage.fingerprints_agree
}

fn draw(chart: &mut Chart, scale: &Scale, stage: &Stage, top: f64) {
    let sign = if is_off(stage) { "✗" } else { "✓" };
    chart.label("start", LEFT, top + 16.0, format!("{sign} {}", shortened(&visible(&stage.title), TITLE_MAX)));
    let off = signed(difference(stage.expected, stage.found));
    let mut said = format!("{} · difference {off}", count(stage.found));
    if !stage.fingerprints_agree {
        said += " · fingerprints differ";
    }
    chart.label("end", RIGHT, top + 16.0, said);
    let found = if is_off(stage) { "off" } else { "found" };
    for (class, number, y) in [("expected", stage.expected, top + 23.0), (found, stage.found, top + 33.0)] {
        let hint = format!(
            "{}: {} {}",
            visible(&stage.title),
            if class == "expected" { class } else { "found" },
            count(number)
        );
        let width = scale.long(number as f64, LEAST);
        chart.bars.push(Bar { class, x: LEFT, y: place(y), width, height: 8.0, hint });
    }
}

/// The same as a table.
fn numbers(stages: &[Stage]) -> Table {
    let heads = vec![
        Head::text("Stage"),
        Head::text("What it is"),
        Head::number("Expected"),
        Head::number("Found"),
        Head::number("Difference"),
        Head::text("Fingerprints agree"),
    ];
    let mut table = Table::new("Events at each stage", heads);
    for stage in stages {
        let cells = vec![
            Cell::text(&stage.title),
            Cell::count(stage.expected),
            Cell::count(stage.found),
            Cell::difference(difference(stage.expected, stage.found)),
            Cell::right(stage.fingerprints_agree),
        ];
        table.row(Cell::text(&stage.stage), cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(expected: u64, found: u64, fingerprints_agree: bool) -> Stage {
        Stage { stage: "raw".to_owned(), title: "Raw events".to_owned(), expected, found, fingerprints_agree }
    }

    #[test]
    fn equal_numbers_have_equal_bars() {
        let chart = stages(&[stage(1_000, 1_000, true)]);
        assert_eq!(chart.bars[0].width, chart.bars[1].width);
        assert_eq!(chart.bars[1].class, "found");
        assert!(chart.summary.contains("All agree"));
    }

    #[test]
    fn a_stage_whose_fingerprints_differ_is_said_to_differ() {
        let chart = stages(&[stage(1_000, 1_000, false), stage(5, 5, true)]);
        assert_eq!(chart.bars[1].class, "off");
        assert!(chart.summary.contains("1 differ"));
        assert!(chart.labels.iter().any(|label| label.text.contains("fingerprints differ")));
    }

    #[test]
    fn bars_stay_in_the_picture_however_large_the_numbers() {
        let chart = stages(&[stage(u64::MAX, 1, false), stage(0, 0, true)]);
        assert!(chart.bars.iter().all(|bar| bar.x + bar.width <= RIGHT));
        assert_eq!(chart.bars[1].width, LEAST, "one event is seen");
        assert_eq!(chart.bars[2].width, 0.0);
        assert!(stages(&[]).bars.is_empty());
    }
}
