//! Found less expected, hour by hour, before the events that each hour has.
//!
//! A year has more hours than a picture has room for: neighbouring ones share a bar. Nothing that differs is lost by
//! that: what is too much and what is missing are added up apart, so that they never cancel out.

use super::scale::{Scale, labelled, place};
use super::{Bar, Chart, KEY_BAR, LEAST, MARGIN, RIGHT, curve, diamond, pointer, slot};
use crate::report::format::{compact, count, difference, many, moment, signed, visible};
use crate::report::model::HourTotals;
use crate::report::table::{Cell, Head, Table};

/// Most bars.
const BARS_MAX: usize = 200;
/// Most hours that are listed one by one.
const LISTED_MAX: usize = 1_000;
/// Where signs stand.
const SIGNS: f64 = 8.0;
/// The upper end of the drawing.
const TOP: f64 = 24.0;
/// Where no difference lies.
const MIDDLE: f64 = 134.0;
/// The lower end of the drawing.
const BOTTOM: f64 = 244.0;
/// The shape of the key for a sign that points down.
const KEY_POINTER: &str = "M3 2h10l-5 8z";
/// The shape of the key for a square that stands on its corner.
const KEY_DIAMOND: &str = "M8 1l5 5l-5 5l-5 -5z";

/// Neighbouring hours that share a bar.
#[derive(Debug, Default, PartialEq)]
struct Span {
    from: String,
    to: String,
    hours: u64,
    expected: u128,
    found: u128,
    /// Events too many, of the hours that have too many.
    more: u128,
    /// Events missing, of the hours that lack some.
    less: u128,
    /// Hours whose fingerprints differ although their counts agree.
    swapped: u64,
}

impl Span {
    fn of(hours: &[HourTotals]) -> Self {
        let mut span = Self { hours: hours.len() as u64, ..Self::default() };
        span.from = hours.first().map(|hour| visible(&hour.hour)).unwrap_or_default();
        span.to = hours.last().map(|hour| visible(&hour.hour)).unwrap_or_default();
        for hour in hours {
            span.expected += u128::from(hour.expected);
            span.found += u128::from(hour.found);
            span.more += u128::from(hour.found.saturating_sub(hour.expected));
            span.less += u128::from(hour.expected.saturating_sub(hour.found));
            span.swapped += u64::from(hour.differs && hour.found == hour.expected);
        }
        span
    }

    const fn differs(&self) -> bool {
        self.more > 0 || self.less > 0 || self.swapped > 0
    }

    fn hint(&self) -> String {
        let until = if self.hours > 1 { format!(" to {}", self.to) } else { String::new() };
        let mut hint = format!("{}{until}: expected {}, found {}", self.from, count(self.expected), count(self.found));
        hint += &format!(", {} too many, {} missing", count(self.more), count(self.less));
        if self.swapped > 0 {
            hint += &format!(", fingerprints differ in {}", many(self.swapped, "hour", "hours"));
        }
        hint
    }
}

/// Hours as at most [`BARS_MAX`] bars, and how many share one.
fn spans(hours: &[HourTotals]) -> (Vec<Span>, usize) {
    let size = hours.len().div_ceil(BARS_MAX).max(1);
    (hours.chunks(size).map(Span::of).collect(), size)
}

/// The difference of every hour over time.
#[must_use]
pub fn hours(hours: &[HourTotals]) -> Chart {
    let (spans, size) = spans(hours);
    let mut chart = Chart::new("hours", "Difference per hour", BOTTOM + 30.0);
    expected(&mut chart, &spans);
    differences(&mut chart, &spans);
    signs(&mut chart, &spans);
    for index in labelled(spans.len(), 5) {
        let (x, width) = slot(index, spans.len());
        chart.label("middle", x + width / 2.0, BOTTOM + 20.0, moment(&spans[index].from));
    }
    chart.note = format!(
        "A bar is {}; hours without events and dates that retention has closed are left out. Left axis: found less \
         expected. Right axis: expected events.",
        if size == 1 { "an hour".to_owned() } else { format!("up to {size} hours") },
    );
    chart.summary = summary(&spans);
    chart.key("behind", KEY_BAR, "expected events");
    chart.key("off", KEY_BAR, "up: too many; down: missing");
    chart.key("off", KEY_POINTER, "counts differ");
    chart.key("mark", KEY_DIAMOND, "counts agree, fingerprints differ");
    chart.tables.push(numbers(&spans));
    chart
}

fn summary(spans: &[Span]) -> String {
    let hours: u64 = spans.iter().map(|span| span.hours).sum();
    let more: u128 = spans.iter().map(|span| span.more).sum();
    let less: u128 = spans.iter().map(|span| span.less).sum();
    let swapped: u64 = spans.iter().map(|span| span.swapped).sum();
    format!(
        "Found less expected over {}: {} too many, {} missing; fingerprints alone differ in {}.",
        many(hours, "hour", "hours"),
        count(more),
        count(less),
        many(swapped, "hour", "hours"),
    )
}

/// Expected events, behind everything else: bars, and a line along their tops.
fn expected(chart: &mut Chart, spans: &[Span]) {
    let most = spans.iter().map(|span| span.expected).max().unwrap_or(0);
    let scale = Scale::new(most as f64, BOTTOM, TOP);
    let mut edge = Vec::with_capacity(spans.len() * 2);
    for (index, span) in spans.iter().enumerate() {
        let (x, width) = slot(index, spans.len());
        let height = scale.long(span.expected as f64, 1.0);
        edge.extend([(x, BOTTOM - height), (x + width, BOTTOM - height)]);
        let (x, y, width) = (place(x), place(BOTTOM - height), place(width));
        chart.bars.push(Bar { class: "behind", x, y, width, height, hint: span.hint() });
    }
    chart.sign("edge", curve(&edge), String::new());
    for tick in scale.ticks() {
        chart.label("start", RIGHT + 6.0, scale.at(tick) + 4.0, compact(tick));
    }
}

/// Differences: what is too much goes up, what is missing down.
fn differences(chart: &mut Chart, spans: &[Span]) {
    let most = spans.iter().map(|span| span.more.max(span.less)).max().unwrap_or(0);
    let (up, down) = (Scale::new(most as f64, MIDDLE, TOP), Scale::new(most as f64, MIDDLE, BOTTOM));
    for tick in up.ticks() {
        chart.line("grid", (MARGIN, up.at(tick)), (RIGHT, up.at(tick)));
        chart.label("end", MARGIN - 6.0, up.at(tick) + 4.0, compact(tick));
        if tick > 0.0 {
            chart.line("grid", (MARGIN, down.at(tick)), (RIGHT, down.at(tick)));
            chart.label("end", MARGIN - 6.0, down.at(tick) + 4.0, compact(-tick));
        }
    }
    chart.sign("zero", curve(&[(MARGIN, MIDDLE), (RIGHT, MIDDLE)]), String::new());
    for (index, span) in spans.iter().enumerate().filter(|(_, span)| span.more > 0 || span.less > 0) {
        let (x, slot_width) = slot(index, spans.len());
        let width = place(slot_width.max(LEAST));
        let (above, below) = (up.long(span.more as f64, LEAST), down.long(span.less as f64, LEAST));
        for (y, height) in [(MIDDLE - above, above), (MIDDLE, below)] {
            if height > 0.0 {
                chart.bars.push(Bar { class: "off", x: place(x), y: place(y), width, height, hint: span.hint() });
            }
        }
    }
}

/// A sign above every bar that differs, however little.
fn signs(chart: &mut Chart, spans: &[Span]) {
    for (index, span) in spans.iter().enumerate() {
        let (x, width) = slot(index, spans.len());
        let x = x + width / 2.0;
        if span.more > 0 || span.less > 0 {
            chart.sign("off", pointer(x, SIGNS), span.hint());
        }
        if span.swapped > 0 {
            chart.sign("mark", diamond(x, MIDDLE), span.hint());
        }
    }
}

fn numbers(spans: &[Span]) -> Table {
    let heads = vec![
        Head::text("From hour"),
        Head::text("To hour"),
        Head::number("Hours"),
        Head::number("Expected"),
        Head::number("Found"),
        Head::number("Too many"),
        Head::number("Missing"),
        Head::number("Hours of which fingerprints alone differ"),
    ];
    let mut table = Table::new("Difference per hour", heads);
    for span in spans {
        let cells = vec![
            Cell::ours(span.to.clone()),
            Cell::count(span.hours),
            Cell::count(span.expected),
            Cell::count(span.found),
            Cell::wrong(span.more),
            Cell::wrong(span.less),
            Cell::wrong(span.swapped),
        ];
        table.row(Cell::ours(span.from.clone()), cells);
    }
    let off = spans.iter().filter(|span| span.differs()).count() as u64;
    table.note = format!("{} of {} differ.", count(off), many(spans.len() as u64, "row", "rows"));
    table
}

/// The hours that differ, one by one, at most [`LISTED_MAX`] of them.
#[must_use]
pub fn hours_that_differ(hours: &[HourTotals]) -> Table {
    let heads = vec![
        Head::text("Hour"),
        Head::number("Expected"),
        Head::number("Found"),
        Head::number("Difference"),
        Head::text("Fingerprints agree"),
    ];
    let mut table = Table::new("Hours that differ", heads);
    let differing: Vec<&HourTotals> = hours.iter().filter(|hour| hour.differs || hour.expected != hour.found).collect();
    for hour in differing.iter().take(LISTED_MAX) {
        let cells = vec![
            Cell::count(hour.expected),
            Cell::count(hour.found),
            Cell::difference(difference(hour.expected, hour.found)),
            Cell::right(!hour.differs),
        ];
        table.row(Cell::text(&hour.hour), cells);
    }
    if differing.len() > LISTED_MAX {
        let (listed, all) = (count(LISTED_MAX as u64), count(differing.len() as u64));
        let rest: i128 = differing[LISTED_MAX..].iter().map(|hour| difference(hour.expected, hour.found)).sum();
        table.note = format!("The first {listed} of {all}; the others differ by {} in all.", signed(rest));
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hour(index: usize, expected: u64, found: u64, differs: bool) -> HourTotals {
        HourTotals { hour: format!("hour {index}"), expected, found, differs }
    }

    fn year() -> Vec<HourTotals> {
        (0..10_000).map(|index| hour(index, 1_000_000, 1_000_000, false)).collect()
    }

    #[test]
    fn one_hour_too_many_and_one_missing_do_not_cancel_out() {
        let span = Span::of(&[hour(0, 10, 15, true), hour(1, 10, 5, true)]);
        assert_eq!((span.more, span.less), (5, 5));
        assert_eq!((span.expected, span.found), (20, 20));
        assert!(span.differs());
    }

    #[test]
    fn a_single_event_in_ten_thousand_hours_is_seen() {
        let mut all = year();
        all[7_777].found -= 1;
        let chart = hours(&all);
        assert_eq!(chart.bars.iter().filter(|bar| bar.class == "off").count(), 1);
        assert_eq!(chart.paths.iter().filter(|path| path.class == "off").count(), 1);
        assert!(chart.bars.iter().filter(|bar| bar.class == "behind").count() <= BARS_MAX);
        assert!(chart.note.contains("up to 50 hours"));
        assert_eq!(hours_that_differ(&all).rows.len(), 1);
    }

    #[test]
    fn fingerprints_that_differ_are_marked_although_counts_agree() {
        let mut all = year();
        all[42].differs = true;
        let chart = hours(&all);
        assert_eq!(chart.paths.iter().filter(|path| path.class == "mark").count(), 1);
        assert!(chart.summary.contains("0 too many, 0 missing; fingerprints alone differ in 1 hour."));
        assert!(!chart.bars.iter().any(|bar| bar.class == "off"));
    }

    #[test]
    fn no_hour_and_one_hour_are_drawn_too() {
        assert!(hours(&[]).bars.is_empty());
        let one = hours(&[hour(0, u64::MAX, 0, true)]);
        assert_eq!(one.bars.len(), 2);
        assert!(one.note.contains("A bar is an hour;"));
        assert!(one.bars.iter().all(|bar| bar.x + bar.width <= RIGHT && bar.y + bar.height <= BOTTOM));
    }

    #[test]
    fn more_hours_than_are_listed_are_summed_up() {
        let all: Vec<HourTotals> = (0..1_500).map(|index| hour(index, 10, 8, true)).collect();
        let table = hours_that_differ(&all);
        assert_eq!(table.rows.len(), LISTED_MAX);
        assert_eq!(table.note, "The first 1,000 of 1,500; the others differ by -1,000 in all.");
    }

    proptest! {
        #[test]
        fn bars_hold_every_difference(counts in prop::collection::vec((any::<u32>(), any::<u32>()), 0..900)) {
            let totals = counts.iter().enumerate();
            let all: Vec<HourTotals> =
                totals.map(|(index, (e, f))| hour(index, u64::from(*e), u64::from(*f), e != f)).collect();
            let (spans, _) = spans(&all);
            prop_assert!(spans.len() <= BARS_MAX);
            let apart: u128 = all.iter().map(|hour| u128::from(hour.expected.abs_diff(hour.found))).sum();
            let drawn: u128 = spans.iter().map(|span| span.more + span.less).sum();
            prop_assert_eq!(apart, drawn);
            prop_assert_eq!(spans.iter().map(|span| span.hours).sum::<u64>(), all.len() as u64);
        }
    }
}
