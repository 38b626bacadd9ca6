//! What the stream should have counted of a partition's events: those whose key its counter did not remember.
//!
//! Computed by sorting: of two copies of a key next to each other in the order of the log, the later one is a
//! duplicate when the earlier one, counted or not, lies where the counter still remembered keys (DESIGN 3.8). From which offset
//! on that was, a segment says itself: its refill offset is where the dedup window began. All of its records have one minute
//! of log time, so this is the window, whatever `stream.dedup_minutes` has become since, and whether the log went as far
//! back when the counter started or not.

use std::collections::BTreeMap;

use super::held::Held;
use super::place::Place;
use super::weigh::{Cell, place};
use reckon_data::run::Granularity;

/// No dedup window has more minutes.
pub const WINDOW_MAX: i64 = 14;

/// A segment, as far as repeats go.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    /// Its first offset.
    pub start: u64,
    /// The minute of log time of its records.
    pub minute: i64,
    /// From where on it says that its counter remembered keys.
    pub refill_offset: u64,
}

/// From which offset on copies make an event of a segment a repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// By what the segment says, in the bounds of the longest window.
    pub said: u64,
    /// By the window of now.
    pub now: u64,
    /// By the longest window there may have been.
    pub longest: u64,
    /// Whether all that its counter remembered lies in segments that are there.
    pub is_seen: bool,
    /// Whether its window was, for all that can be seen, the one of now.
    pub is_certain: bool,
}

impl Reach {
    /// Of one of some segments that meet; `window` is the one of now, minutes.
    #[must_use]
    pub fn of(all: &[Sealed], at: usize, window: i64) -> Self {
        let (first, own) = (all[0].start, all[at]);
        let begins = |window: i64| all[all[..at].partition_point(|seg| seg.minute < own.minute - window)].start;
        let (now, longest) = (begins(window), begins(WINDOW_MAX.max(window)));
        // A refill offset that cannot be is no reason to read all there is.
        let said = own.refill_offset.max(longest).min(own.start);
        Self {
            said,
            now,
            longest,
            is_seen: own.refill_offset >= first || said > first,
            is_certain: said == now && (now > first || first == 0),
        }
    }
}

/// An event of a partition.
#[derive(Debug, Clone, Copy)]
pub struct Occurrence {
    /// Its key's hash.
    pub hash: u64,
    /// Its place.
    pub place: Place,
    /// Its segment, by its number.
    pub segment: usize,
    /// Where it is held.
    pub at: (usize, usize),
}

/// What a segment should hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// Events.
    pub accepted: u64,
    /// Those that repeat one that was remembered.
    pub duplicate: u64,
    /// Wrapping sum of the hashes of the others.
    pub fingerprint: u64,
    /// The others, weighed.
    pub rows: Cell,
}

/// Marks the duplicates: for each occurrence, in the order of the slice, whether it is one. `from` is the offset from which on
/// copies make an event of a segment a repeat.
#[must_use]
pub fn duplicates(occurrences: &[Occurrence], from: impl Fn(usize) -> u64) -> Vec<bool> {
    // What is compared is sorted itself: looked up by its number, it would lie anywhere in memory.
    let mut order: Vec<(u64, Place, usize)> =
        occurrences.iter().enumerate().map(|(at, event)| (event.hash, event.place, at)).collect();
    order.sort_unstable();
    let mut duplicate = vec![false; occurrences.len()];
    for pair in order.windows(2) {
        let ((hash, place, _), (same, _, at)) = (pair[0], pair[1]);
        duplicate[at] = hash == same && place.offset() >= from(occurrences[at].segment);
    }
    duplicate
}

/// Adds up what every segment should hold. `starts` are the first offsets of the segments; `held` are the events of dates.
#[must_use]
pub fn due(
    occurrences: &[Occurrence],
    duplicate: &[bool],
    starts: &[u64],
    held: &[(i32, Held)],
    lateness: bool,
) -> BTreeMap<u64, Due> {
    let mut due: BTreeMap<u64, Due> = starts.iter().map(|start| (*start, Due::default())).collect();
    for (occurrence, duplicate) in occurrences.iter().zip(duplicate) {
        let Some((_, segment)) = due.range_mut(..=occurrence.place.offset()).next_back() else { continue };
        segment.accepted += 1;
        if *duplicate {
            segment.duplicate += 1;
            continue;
        }
        let (date, held) = &held[occurrence.at.0];
        let row = occurrence.at.1;
        let mut amount = held.amount(row);
        if !lateness {
            amount.late = 0;
        }
        segment.fingerprint = segment.fingerprint.wrapping_add(occurrence.hash);
        segment.rows.add(&amount, place(held.group[row], Granularity::Minute, held.minute(row, *date)));
    }
    due
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The same as remembering, event by event, when each key occurred last, whatever the window was at that time.
        #[test]
        fn sorting_finds_what_remembering_finds(
            events in prop::collection::vec((0..6_u64, 0..3_i64, 0..=WINDOW_MAX), 1..80),
            window in 0..=WINDOW_MAX,
        ) {
            let (mut minute, mut last): (i64, HashMap<u64, i64>) = (0, HashMap::new());
            let (mut sealed, mut occurrences): (Vec<Sealed>, Vec<Occurrence>) = (Vec::new(), Vec::new());
            let (mut expected, mut expected_now) = (Vec::new(), Vec::new());
            for (at, (hash, pause, of_then)) in events.iter().enumerate() {
                minute += pause;
                let refill = sealed.iter().position(|before| before.minute >= minute - of_then).unwrap_or(at);
                sealed.push(Sealed { start: at as u64, minute, refill_offset: refill as u64 });
                let place = Place::new(0, at as i64, 0).unwrap();
                occurrences.push(Occurrence { hash: *hash, place, segment: at, at: (0, at) });
                let passed = last.insert(*hash, minute).map_or(i64::MAX, |before| minute - before);
                expected.push(passed <= *of_then);
                expected_now.push(passed <= window);
            }
            let reach: Vec<Reach> = (0..sealed.len()).map(|at| Reach::of(&sealed, at, window)).collect();
            prop_assert!(reach.iter().all(|reach| reach.is_seen));
            prop_assert_eq!(duplicates(&occurrences, |segment| reach[segment].said), expected);
            prop_assert_eq!(duplicates(&occurrences, |segment| reach[segment].now), expected_now);
        }
    }

    #[test]
    fn what_came_before_the_first_segment_that_is_left_is_not_seen() {
        let reach = |refill_offset, window| {
            let before = Sealed { start: 5, minute: 10, refill_offset: 2 };
            Reach::of(&[before, Sealed { start: 7, minute: 12, refill_offset }], 1, window)
        };
        let seen = |reach: Reach| (reach.said, reach.is_seen, reach.is_certain);
        assert_eq!(seen(reach(2, 3)), (5, false, false));
        assert_eq!(seen(reach(5, 3)), (5, true, false), "the window of now may begin before that");
        assert_eq!(seen(reach(7, 3)), (7, true, false));
        assert_eq!(seen(reach(7, 1)), (7, true, true));
        assert_eq!(seen(reach(99, 1)), (7, true, true), "no later than the segment itself");
    }
}
