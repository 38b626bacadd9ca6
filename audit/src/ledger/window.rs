//! What the stream should have counted of a partition's events: those whose key did not occur within the dedup window.
//!
//! Computed by sorting: of two copies of a key next to each other in the order of the log, the later one is a
//! duplicate when it comes at most `window` minutes of log time after the earlier one, counted or not (DESIGN 3.8).

use std::collections::BTreeMap;

use super::held::Held;
use super::weigh::{Cell, place};
use reckon_data::run::Granularity;

/// An event of a partition.
#[derive(Debug, Clone, Copy)]
pub struct Occurrence {
    /// Its key's hash.
    pub hash: u64,
    /// Its place.
    pub place: super::place::Place,
    /// The minute of log time.
    pub minute: i64,
    /// Where it is held.
    pub at: (usize, usize),
}

/// What a segment should hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// Events.
    pub accepted: u64,
    /// Those that repeat one within the window.
    pub duplicate: u64,
    /// Wrapping sum of the hashes of the others.
    pub fingerprint: u64,
    /// The others, weighed.
    pub rows: Cell,
}

/// Marks the duplicates: for each occurrence, in the order of the slice, whether it is one.
#[must_use]
pub fn duplicates(occurrences: &[Occurrence], window: i64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..occurrences.len()).collect();
    order.sort_unstable_by_key(|at| (occurrences[*at].hash, occurrences[*at].place));
    let mut duplicate = vec![false; occurrences.len()];
    for pair in order.windows(2) {
        let (before, after) = (&occurrences[pair[0]], &occurrences[pair[1]]);
        duplicate[pair[1]] = before.hash == after.hash && after.minute - before.minute <= window;
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

    use super::super::place::Place;
    use super::*;

    proptest! {
        /// The same as remembering, event by event, when each key occurred last.
        #[test]
        fn sorting_finds_what_remembering_finds(
            events in prop::collection::vec((0..6_u64, 0..3_i64), 0..80),
            window in 0..5_i64,
        ) {
            let mut minute = 0;
            let occurrences: Vec<Occurrence> = events.iter().enumerate().map(|(offset, (hash, pause))| {
                minute += pause;
                let place = Place::new(0, offset as i64, 0).unwrap();
                Occurrence { hash: *hash, place, minute, at: (0, offset) }
            }).collect();
            let mut last: HashMap<u64, i64> = HashMap::new();
            let expected: Vec<bool> = occurrences.iter().map(|event| {
                last.insert(event.hash, event.minute).is_some_and(|before| event.minute - before <= window)
            }).collect();
            prop_assert_eq!(duplicates(&occurrences, window), expected);
        }
    }
}
