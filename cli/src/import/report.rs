//! What an import did: the closing table.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use super::sink::Totals;

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Files named.
    pub files: u64,
    /// Lines read.
    pub read: u64,
    /// Events counted.
    pub counted: u64,
    /// Events that were there already: lines of files imported before, and repeats that the stream dropped.
    pub duplicate: u64,
    /// Lines skipped: by `--skip-if`, headers and empty ones.
    pub skipped: u64,
    /// Lines and events refused; they lie in the dead letters.
    pub refused: u64,
    /// Last lines that are not whole yet, left for the next import (`--id-from line`).
    pub left: u64,
    /// Whether other events came in meanwhile, or no one server counts all, so that repeats cannot be told apart and
    /// `counted` may hold some.
    pub mixed: bool,
    /// How long it took.
    pub seconds: f64,
    /// Events a second.
    pub events_per_second: u64,
}

impl Report {
    /// Tells counted from duplicate by what the server counted meanwhile, if it has come to the end of it.
    pub fn settle(&mut self, accepted: u64, before: Option<Totals>, after: Option<Totals>) {
        let (Some(before), Some(after)) = (before, after) else {
            (self.mixed, self.counted) = (true, accepted);
            return;
        };
        let all = after.accepted.saturating_sub(before.accepted);
        let repeats = after.duplicate.saturating_sub(before.duplicate);
        self.mixed = all != accepted;
        let repeats = if self.mixed { 0 } else { repeats };
        self.counted = accepted.saturating_sub(repeats);
        self.duplicate += repeats;
    }

    /// Notes how long it took.
    pub fn time(&mut self, seconds: f64) {
        self.seconds = (seconds * 1e3).round() / 1e3;
        let events = self.counted + self.duplicate;
        // A rate for people: a rounded one will do.
        self.events_per_second = (events as f64 / seconds.max(1e-3)) as u64;
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header(["read", "counted", "duplicate", "skipped", "refused", "events/s"]);
        let row = [self.read, self.counted, self.duplicate, self.skipped, self.refused, self.events_per_second];
        table.add_row(row.map(|n| Cell::new(n).set_alignment(CellAlignment::Right)));
        let mut text = table.to_string();
        if self.mixed {
            text += "\nOther events came in meanwhile, or no one server counts all: repeats among these events, if any, \
                     are part of \"counted\".";
        }
        if self.left > 0 {
            text += &format!("\n{} last lines have no line break yet: they are left for the next import.", self.left);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_told_apart_when_nothing_else_came_in() {
        let before = Totals { accepted: 100, duplicate: 10 };
        let mut report = Report::default();
        report.settle(50, Some(before), Some(Totals { accepted: 150, duplicate: 13 }));
        assert_eq!((report.counted, report.duplicate, report.mixed), (47, 3, false));
        let mut report = Report::default();
        report.settle(50, Some(before), Some(Totals { accepted: 170, duplicate: 13 }));
        assert_eq!((report.counted, report.duplicate, report.mixed), (50, 0, true));
        let mut report = Report::default();
        report.settle(50, Some(before), None);
        assert_eq!((report.counted, report.duplicate, report.mixed), (50, 0, true));
    }
}
