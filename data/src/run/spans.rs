//! In which minutes a run has rows, as few ranges: one late event must not look like all the minutes since.

use std::ops::Range;

use super::Run;

/// Minutes are told apart as long as they lie within so many, and twos, fours, … of them where they do not.
const MARKS: i64 = 1 << 16;

impl Run {
    /// The minutes that rows lie in, in at most `most` ranges, ascending and apart. Every row lies in one of them; of what
    /// lies between rows some may be in them too. Takes a pass over the minutes.
    #[must_use]
    pub fn spans(&self, most: usize) -> Vec<Range<i64>> {
        let Some(all) = self.minute_range() else { return Vec::new() };
        let mut shift = 0;
        while (all.end - 1 - all.start) >> shift >= MARKS {
            shift += 1;
        }
        let mut marks = vec![false; ((all.end - 1 - all.start) >> shift) as usize + 1];
        self.rows.minutes.iter().for_each(|minute| marks[((i64::from(*minute) - all.start) >> shift) as usize] = true);
        let marked = (0_i64..).zip(&marks).filter(|(_, marked)| **marked);
        let spans = marked.map(|(at, _)| {
            let start = all.start + (at << shift);
            start..all.end.min(start + (1 << shift))
        });
        bounded(spans, most)
    }
}

/// The ranges as at most `most` (at least one), ascending and apart: those that meet are one, and the smallest gaps are
/// closed until there are few enough.
#[must_use]
pub fn bounded(ranges: impl IntoIterator<Item = Range<i64>>, most: usize) -> Vec<Range<i64>> {
    let mut all: Vec<Range<i64>> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
    all.sort_unstable_by_key(|range| range.start);
    all.dedup_by(|next, before| {
        let meets = next.start <= before.end;
        if meets {
            before.end = before.end.max(next.end);
        }
        meets
    });
    let over = all.len().saturating_sub(most.max(1));
    let mut closed = vec![false; all.len()];
    let mut gaps: Vec<(i64, usize)> =
        (1..all.len()).map(|at| (all[at].start.saturating_sub(all[at - 1].end), at)).collect();
    gaps.sort_unstable();
    gaps.into_iter().take(over).for_each(|(_, at)| closed[at] = true);
    let mut few: Vec<Range<i64>> = Vec::with_capacity(all.len() - over);
    for (range, closed) in all.into_iter().zip(closed) {
        match few.last_mut() {
            Some(before) if closed => before.end = range.end,
            _ => few.push(range),
        }
    }
    few
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metric::Cell;
    use crate::run::RunBuilder;

    fn run(minutes: &[i64]) -> Run {
        let mut builder = RunBuilder::new();
        for minute in minutes {
            builder.add(1, "v", "view", *minute, &[], &Cell::one(1, None, None)).unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn the_smallest_gaps_are_closed_first() {
        assert_eq!(bounded([5..6, 0..1, 1..2, 100..110, 104..120], 9), [0..2, 5..6, 100..120]);
        assert_eq!(bounded([0..1, 10..11, 30..31, 31..32, 35..36], 3), [0..1, 10..11, 30..36]);
        assert_eq!(bounded([0..1, 10..11, 30..31, 31..32, 35..36], 1), [0..36]);
        assert_eq!(bounded([0..1, 10..11], 0), [0..11]);
        assert!(bounded(std::iter::empty(), 4).is_empty());
    }

    #[test]
    fn one_late_event_is_a_range_of_its_own() {
        assert_eq!(run(&[-7, 1_000, 1_001, 1_002]).spans(16), [-7..-6, 1_000..1_003]);
        assert!(Run::default().spans(16).is_empty());
        // Minutes of decades are not told apart one by one.
        let far = run(&[0, 30_000_000, 30_000_001]).spans(16);
        assert_eq!((far.len(), far[0].start, far[1].end), (2, 0, 30_000_002));
        assert!(far[0].end <= 512 && far[1].start > 29_999_000, "{far:?}");
    }

    proptest! {
        #[test]
        fn every_row_lies_in_a_span(
            minutes in prop::collection::vec(prop_oneof![0..50_i64, -90_000..90_000_i64, -40_000_000..40_000_000_i64], 0..60),
            most in 1..20_usize,
        ) {
            let spans = run(&minutes).spans(most);
            prop_assert!(spans.len() <= most);
            prop_assert!(spans.windows(2).all(|pair| pair[0].end < pair[1].start), "{spans:?}");
            prop_assert!(minutes.iter().all(|minute| spans.iter().any(|span| span.contains(minute))));
            let ends = minutes.iter().min().zip(minutes.iter().max()).map(|(first, last)| (*first, *last + 1));
            prop_assert_eq!(spans.first().zip(spans.last()).map(|(first, last)| (first.start, last.end)), ends);
        }
    }
}
