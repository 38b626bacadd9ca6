//! Findings as tables.

use crate::finding::{Class, Finding};
use crate::report::format::{count, visible, whole};
use crate::report::model::Report;
use crate::report::table::{Cell, Head, Table};
use crate::report::words::{entity, events, place, repair};

/// How many there were of each class.
pub fn classes(report: &Report) -> Table {
    let heads = vec![Head::text("Class"), Head::text("Kind"), Head::number("Findings")];
    let mut table = Table::new("Findings of each class", heads);
    for (name, number) in &report.findings_total {
        let expected = Class::ALL.into_iter().any(|class| class.name() == name && class.is_expected());
        let number = if expected { Cell::count(*number) } else { Cell::wrong(*number) };
        table.row(Cell::text(name), vec![Cell::ours(if expected { "expected" } else { "error" }), number]);
    }
    table
}

/// The findings that the design expects, or all others.
pub fn list(report: &Report, expected: bool) -> Table {
    let heads = vec![
        Head::text("Class"),
        Head::text("Place"),
        Head::text("Entity"),
        Head::text("Minute"),
        Head::number("Expected"),
        Head::number("Found"),
        Head::number("Difference"),
        Head::text("Events"),
        Head::text("What it is, and what to do"),
    ];
    let mut table = Table::new(if expected { "Differences that the design expects" } else { "Errors" }, heads);
    for finding in report.findings.iter().filter(|finding| finding.class.is_expected() == expected) {
        table.row(Cell::ours(finding.class.name()), cells(finding));
    }
    let all = if expected { report.expected() } else { report.errors() };
    let listed = table.rows.len() as u64;
    if all > listed {
        table.note = format!("{} of {} are listed.", count(listed), count(all));
    }
    table
}

fn cells(finding: &Finding) -> Vec<Cell> {
    let number = |number: Option<i64>| Cell::number(number.map(whole).unwrap_or_default());
    let difference = finding.expected.zip(finding.found).map(|(e, f)| i128::from(f) - i128::from(e));
    let mut what = vec![visible(&finding.explanation), visible(&finding.action), repair(finding.repair).to_owned()];
    what.retain(|line| !line.is_empty());
    vec![
        Cell::ours(place(finding).join("\n")),
        Cell::ours(entity(finding).join("\n")),
        Cell::text(finding.minute.as_deref().unwrap_or_default()),
        number(finding.expected),
        number(finding.found),
        difference.map_or_else(Cell::default, Cell::difference),
        Cell::ours(events(finding).join("\n")),
        Cell::long(what.join("\n")),
    ]
}
