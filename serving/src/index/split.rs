//! Which rows answer a window: whole days, whole hours and single minutes, so that few are touched.

use std::ops::Range;
use std::sync::Arc;

use reckon_data::minute::{MINUTES_PER_DAY, date_of_minute};
use reckon_data::run::Granularity;

use crate::view::batch::DateFiles;
use crate::view::{BatchView, FileSet};

/// Part of a window within one date, and the files that count it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The files.
    pub files: Arc<FileSet>,
    /// Minutes since 1970, whole steps of the files' granularity.
    pub minutes: Range<i64>,
}

/// The spans of a window: no hole, no overlap. `step` is that of the answer, in minutes; a granularity
/// that does not divide it is of no use.
#[must_use]
pub fn spans(view: &BatchView, window: &Range<i64>, step: Option<i64>) -> Vec<Span> {
    if window.is_empty() {
        return Vec::new();
    }
    let dates = date_of_minute(window.start)..=date_of_minute(window.end - 1);
    let mut spans = Vec::new();
    for (date, files) in view.dates.range(dates) {
        let start = i64::from(*date) * MINUTES_PER_DAY;
        let within = window.start.max(start)..window.end.min(start + MINUTES_PER_DAY);
        split(files, within, step, &mut spans);
    }
    spans
}

/// Splits minutes of one date, taking the coarsest granularity that fits and is there.
fn split(files: &DateFiles, minutes: Range<i64>, step: Option<i64>, into: &mut Vec<Span>) {
    if minutes.is_empty() {
        return;
    }
    for granularity in [Granularity::Day, Granularity::Hour] {
        let length = granularity.steps();
        let fits = step.is_none_or(|step| step < 1 || step % length == 0);
        let Some(set) = files.get(&granularity).filter(|_| fits) else { continue };
        let whole = granularity.start_of(minutes.start + length - 1)..granularity.start_of(minutes.end);
        if whole.is_empty() {
            continue;
        }
        split(files, minutes.start..whole.start, step, into);
        into.push(Span { files: Arc::clone(set), minutes: whole.clone() });
        split(files, whole.end..minutes.end, step, into);
        return;
    }
    // Batch writes all granularities of a date in one commit; minutes are the ground truth.
    if let Some(set) = files.get(&Granularity::Minute) {
        into.push(Span { files: Arc::clone(set), minutes });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use reckon_data::table::{DataFile, Snapshot, Table};
    use uuid::Uuid;

    use super::*;

    fn view(dates: &[(i32, &[Granularity])]) -> BatchView {
        let file = |date: i32, granularity: Granularity| DataFile {
            path: format!("{date}-{granularity}"),
            bytes: 1,
            rows: 1,
            partition: BTreeMap::from([
                ("event_date".to_owned(), Some(reckon_data::minute::format_date(date))),
                ("granularity".to_owned(), Some(granularity.name().to_owned())),
            ]),
            min: BTreeMap::new(),
            max: BTreeMap::new(),
        };
        let files = dates.iter().flat_map(|(date, all)| all.iter().map(|granularity| file(*date, *granularity)));
        let snapshot =
            |table, files| Snapshot { table, version: 1, files: Arc::new(files), transactions: BTreeMap::new() };
        let stream = Arc::new(snapshot(Table::StreamCounts, vec![]));
        BatchView::new(&snapshot(Table::BatchCounts, files.collect()), stream, Uuid::nil(), 1).unwrap()
    }

    fn shape(spans: &[Span]) -> Vec<(Granularity, Range<i64>)> {
        spans.iter().map(|span| (span.files.granularity, span.minutes.clone())).collect()
    }

    #[test]
    fn a_long_window_is_days_and_two_ragged_ends() {
        let view =
            view(&[(0, &Granularity::ALL), (1, &Granularity::ALL), (2, &Granularity::ALL), (9, &Granularity::ALL)]);
        let found = shape(&spans(&view, &(1_310..2_999), None));
        let expected = vec![
            (Granularity::Minute, 1_310..1_320),
            (Granularity::Hour, 1_320..1_440),
            (Granularity::Day, 1_440..2_880),
            (Granularity::Hour, 2_880..2_940),
            (Granularity::Minute, 2_940..2_999),
        ];
        assert_eq!(found, expected);
        let hourly = shape(&spans(&view, &(1_440..2_880), Some(120)));
        assert_eq!(hourly, vec![(Granularity::Hour, 1_440..2_880)]);
        let finely = shape(&spans(&view, &(1_440..2_880), Some(90)));
        assert_eq!(finely, vec![(Granularity::Minute, 1_440..2_880)]);
        assert_eq!(spans(&view, &(5..5), None), vec![]);
    }

    #[test]
    fn a_date_without_rollups_is_answered_by_minutes() {
        let view = view(&[(0, &[Granularity::Minute])]);
        assert_eq!(shape(&spans(&view, &(0..9_999), None)), vec![(Granularity::Minute, 0..1_440)]);
    }

    proptest! {
        /// every minute of a date that has files lies in exactly one span, each span in whole steps.
        #[test]
        fn spans_meet(from in -3_000..6_000_i64, length in 0..5_000_i64, step in prop::option::of(0..3_000_i64), rollups in 0..3_usize) {
            let all = &Granularity::ALL[..=rollups];
            let view = view(&[(-1, all), (0, all), (1, all), (3, all)]);
            let window = from..from + length;
            let found = spans(&view, &window, step);
            for minute in -3_000..9_000_i64 {
                let times = found.iter().filter(|span| span.minutes.contains(&minute)).count();
                let known = window.contains(&minute) && view.dates.contains_key(&date_of_minute(minute));
                prop_assert_eq!(times, usize::from(known), "minute {}", minute);
            }
            for span in found {
                let steps = span.files.granularity.steps();
                prop_assert_eq!((span.minutes.start.rem_euclid(steps), span.minutes.end.rem_euclid(steps)), (0, 0));
                prop_assert!(step.is_none_or(|step| step < 1 || step % steps == 0));
                prop_assert_eq!(date_of_minute(span.minutes.start), span.files.date);
            }
        }
    }
}
