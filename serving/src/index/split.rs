//! Which rows answer a window: whole days, whole hours and single minutes, so that few are touched.

use std::ops::Range;
use std::sync::Arc;

use reckon_data::minute::{MINUTES_PER_DAY, date_of_minute};
use reckon_data::run::Granularity;

use crate::rolled::RolledUp;
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
///
/// # Errors
/// [`RolledUp`] when a date has no rows that are fine enough: leaving it out would be a hole that nobody sees.
pub fn spans(view: &BatchView, window: &Range<i64>, step: Option<i64>) -> Result<Vec<Span>, RolledUp> {
    if window.is_empty() {
        return Ok(Vec::new());
    }
    let dates = date_of_minute(window.start)..=date_of_minute(window.end - 1);
    let mut spans = Vec::new();
    for (date, files) in view.dates.range(dates) {
        let start = i64::from(*date) * MINUTES_PER_DAY;
        let within = window.start.max(start)..window.end.min(start + MINUTES_PER_DAY);
        split((*date, files), within, step, &mut spans)?;
    }
    Ok(spans)
}

/// Splits minutes of one date, taking the coarsest granularity that fits and is there.
fn split(
    (date, files): (i32, &DateFiles),
    minutes: Range<i64>,
    step: Option<i64>,
    into: &mut Vec<Span>,
) -> Result<(), RolledUp> {
    if minutes.is_empty() {
        return Ok(());
    }
    for granularity in [Granularity::Day, Granularity::Hour] {
        let length = granularity.steps();
        let fits = step.is_none_or(|step| step < 1 || step % length == 0);
        let Some(set) = files.get(&granularity).filter(|_| fits) else { continue };
        let whole = granularity.start_of(minutes.start + length - 1)..granularity.start_of(minutes.end);
        if whole.is_empty() {
            continue;
        }
        split((date, files), minutes.start..whole.start, step, into)?;
        into.push(Span { files: Arc::clone(set), minutes: whole.clone() });
        return split((date, files), whole.end..minutes.end, step, into);
    }
    // Batch writes all granularities of a date in one commit, and maintenance drops the finest only.
    if let Some(set) = files.get(&Granularity::Minute) {
        into.push(Span { files: Arc::clone(set), minutes });
        return Ok(());
    }
    let kept = files.keys().next().copied().unwrap_or(Granularity::Day);
    Err(RolledUp { date, kept, minutes, step })
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
        let found = shape(&spans(&view, &(1_310..2_999), None).unwrap());
        let expected = vec![
            (Granularity::Minute, 1_310..1_320),
            (Granularity::Hour, 1_320..1_440),
            (Granularity::Day, 1_440..2_880),
            (Granularity::Hour, 2_880..2_940),
            (Granularity::Minute, 2_940..2_999),
        ];
        assert_eq!(found, expected);
        let hourly = shape(&spans(&view, &(1_440..2_880), Some(120)).unwrap());
        assert_eq!(hourly, vec![(Granularity::Hour, 1_440..2_880)]);
        let finely = shape(&spans(&view, &(1_440..2_880), Some(90)).unwrap());
        assert_eq!(finely, vec![(Granularity::Minute, 1_440..2_880)]);
        assert_eq!(spans(&view, &(5..5), None), Ok(vec![]));
    }

    #[test]
    fn a_date_without_rollups_is_answered_by_minutes() {
        let view = view(&[(0, &[Granularity::Minute])]);
        assert_eq!(shape(&spans(&view, &(0..9_999), None).unwrap()), vec![(Granularity::Minute, 0..1_440)]);
    }

    #[test]
    fn a_date_that_is_rolled_up_is_answered_by_what_it_has_or_not_at_all() {
        let coarse = &Granularity::ALL[1..];
        let view = view(&[(0, coarse), (1, &Granularity::ALL), (2, &Granularity::ALL[2..])]);
        let of = |window: Range<i64>, step| spans(&view, &window, step).map(|spans| shape(&spans));
        let hours = vec![(Granularity::Hour, 60..1_440), (Granularity::Minute, 1_440..1_470)];
        assert_eq!(of(60..1_470, None), Ok(hours));
        let all = [0..1_440, 1_440..2_880, 2_880..4_320].map(|day| (Granularity::Day, day)).to_vec();
        assert_eq!(of(i64::MIN..i64::MAX, None), Ok(all));
        let refused = |window: Range<i64>, step| of(window, step).unwrap_err();
        let edge = refused(60..130, None);
        assert_eq!((edge.date, edge.kept, edge.minutes.clone(), edge.field()), (0, Granularity::Hour, 120..130, "to"));
        assert_eq!(refused(0..1_440, Some(30)).field(), "step");
        let day = refused(2_940..4_320, None);
        assert_eq!((day.date, day.kept, day.field()), (2, Granularity::Day, "from"));
        assert_eq!(refused(2_880..4_320, Some(60)).field(), "step");
    }

    proptest! {
        /// of dates that are rolled up every minute of a window is answered once, or none is.
        #[test]
        fn rolled_up_dates_leave_no_hole(
            from in -3_000..6_000_i64,
            length in 0..5_000_i64,
            step in prop::option::of(0..3_000_i64),
            finest in 0..3_usize,
        ) {
            let left = &Granularity::ALL[finest..];
            let view = view(&[(-1, left), (0, &Granularity::ALL), (1, left)]);
            let window = from..from + length;
            match spans(&view, &window, step) {
                Ok(found) => {
                    for minute in -3_000..9_000_i64 {
                        let times = found.iter().filter(|span| span.minutes.contains(&minute)).count();
                        let known = window.contains(&minute) && view.dates.contains_key(&date_of_minute(minute));
                        prop_assert_eq!(times, usize::from(known), "minute {}", minute);
                    }
                }
                Err(rolled) => {
                    prop_assert!(rolled.kept > Granularity::Minute && rolled.kept == Granularity::ALL[finest]);
                    let edges = [rolled.minutes.start, rolled.minutes.end];
                    let too_fine = edges.iter().any(|edge| edge % rolled.kept.steps() != 0);
                    prop_assert!(too_fine || rolled.field() == "step", "{:?}", rolled);
                }
            }
        }

        /// every minute of a date that has files lies in exactly one span, each span in whole steps.
        #[test]
        fn spans_meet(from in -3_000..6_000_i64, length in 0..5_000_i64, step in prop::option::of(0..3_000_i64), rollups in 0..3_usize) {
            let all = &Granularity::ALL[..=rollups];
            let view = view(&[(-1, all), (0, all), (1, all), (3, all)]);
            let window = from..from + length;
            let found = spans(&view, &window, step).unwrap();
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
