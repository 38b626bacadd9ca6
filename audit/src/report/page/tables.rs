//! All numbers that are no findings, as tables.

use reckon_data::run::Granularity;

use crate::report::chart::hours_that_differ;
use crate::report::format::{difference, measured};
use crate::report::model::{DateTotals, Report};
use crate::report::table::{Cell, Head, Table};

/// The tables, in the order in which the page has them.
pub fn all(report: &Report) -> Vec<Table> {
    vec![
        dates(report),
        hours_that_differ(&report.hours),
        partitions(report),
        segments(report),
        served(report),
        versions(report),
        seconds(report),
    ]
}

fn dates(report: &Report) -> Table {
    let heads = vec![
        Head::text("Date"),
        Head::number("Raw events"),
        Head::number("Repeats"),
        Head::number("Expected"),
        Head::number("In minutes"),
        Head::number("In hours"),
        Head::number("In days"),
        Head::number("Difference"),
        Head::number("Not covered yet"),
        Head::number("Reserved"),
        Head::text("Closed"),
        Head::text("Balanced"),
    ];
    let mut table = Table::new("Dates", heads);
    for date in &report.dates {
        table.row(Cell::text(&date.date), date_cells(date));
    }
    table.note =
        "Difference: in minutes less expected; in hours or days where retention has rolled the date up, which is \
                  held against what is left. Not covered: distinct events that no batch run has counted \
                  yet. Reserved: of the expected, the canary's. Closed: retention has dropped raw events, and the date \
                  is only held against itself. In part: several definitions made its counts, so only entity, type and \
                  time are compared, and not the log; reckon batch --full counts it with the one in force."
            .to_owned();
    table
}

fn date_cells(date: &DateTotals) -> Vec<Cell> {
    let of = |granularity: Granularity, found: u64| {
        if date.has(granularity) { Cell::count(found) } else { Cell::ours("rolled up") }
    };
    vec![
        Cell::count(date.raw),
        Cell::count(date.repeats),
        Cell::count(date.expected),
        of(Granularity::Minute, date.minute),
        of(Granularity::Hour, date.hour),
        of(Granularity::Day, date.day),
        // Of a closed date there is nothing to hold it against.
        if date.closed { Cell::ours("closed") } else { Cell::difference(difference(date.expected, date.finest())) },
        Cell::count(date.uncovered),
        Cell::count(date.reserved),
        Cell::ours(match (date.closed, date.coarse) {
            (true, _) => "closed",
            (false, true) => "in part",
            (false, false) => "open",
        }),
        Cell::right(date.balanced),
    ]
}

fn partitions(report: &Report) -> Table {
    let heads = vec![
        Head::number("Partition"),
        Head::number("Log start"),
        Head::number("Log end"),
        Head::number("Archived"),
        Head::number("Sealed"),
        Head::number("Coverage"),
        Head::number("Gone"),
    ];
    let mut table = Table::new("Partitions of the log", heads);
    for state in &report.partitions {
        let cells = vec![
            Cell::maybe(state.log_start),
            Cell::maybe(state.log_end),
            Cell::count(state.archived),
            Cell::count(state.sealed),
            Cell::count(state.coverage),
            Cell::wrong(state.gone),
        ];
        table.row(Cell::count(state.partition), cells);
    }
    table.note = "Offsets. Gone: records that had gone from the log before they were archived.".to_owned();
    table
}

fn segments(report: &Report) -> Table {
    let segments = &report.segments;
    let mut table = Table::new("Segments of the stream", vec![Head::text("What"), Head::number("How many")]);
    let off = segments.checked.saturating_sub(segments.balanced);
    let rows = [
        ("Segments checked", Cell::count(segments.checked)),
        ("Without a difference", Cell::count(segments.balanced)),
        ("With a difference", Cell::wrong(off)),
        ("Events accepted", Cell::count(segments.accepted)),
        ("Events counted", Cell::count(segments.counted)),
        ("Repeats dropped", Cell::count(segments.duplicate)),
        ("Events refused", Cell::count(segments.dead)),
    ];
    for (name, cell) in rows {
        table.row(Cell::ours(name), vec![cell]);
    }
    table
}

fn served(report: &Report) -> Table {
    let served = &report.served;
    let mut table = Table::new("Answers asked for", vec![Head::text("What"), Head::number("How many")]);
    let wrong = served.asked.saturating_sub(served.equal).saturating_sub(served.incomplete);
    let rows = [
        ("Questions", Cell::count(served.asked)),
        ("Right answers", Cell::count(served.equal)),
        ("Answers that said that they were not complete", Cell::count(served.incomplete)),
        ("Wrong answers", Cell::wrong(wrong)),
    ];
    for (name, cell) in rows {
        table.row(Cell::ours(name), vec![cell]);
    }
    table
}

fn versions(report: &Report) -> Table {
    let heads = vec![
        Head::text("Table"),
        Head::number("Version"),
        Head::number("Files"),
        Head::number("Bytes"),
        Head::number("Rows"),
    ];
    let mut table = Table::new("Tables that were read", heads);
    for state in &report.tables {
        let numbers = [state.version, state.files, state.bytes, state.rows];
        table.row(Cell::text(&state.table), numbers.map(Cell::count).to_vec());
    }
    table
}

fn seconds(report: &Report) -> Table {
    let mut table = Table::new("How long it took", vec![Head::text("Part"), Head::number("Time")]);
    for (part, seconds) in &report.seconds {
        table.row(Cell::text(part), vec![Cell::number(measured(*seconds))]);
    }
    table
}
