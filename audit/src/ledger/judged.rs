//! Events of segments, and which of them count: for certain, or as far as only a window decides it.

use std::ops::Range;

use hashbrown::{HashMap, HashSet};

use super::compare::RowEvent;
use super::explain::Cause;
use super::held::Held;
use super::window::{Occurrence, Reach, duplicates};
use crate::finding::Class;

/// Events, and those of them that repeat others.
#[derive(Debug)]
pub struct Judged {
    /// The events.
    pub occurrences: Vec<Occurrence>,
    /// Whether each is a repeat, by what its segment says that was remembered.
    pub duplicate: Vec<bool>,
    /// By the window of now; none where that is certainly what they say.
    now: Vec<bool>,
    /// By the longest window; none as above.
    longest: Vec<bool>,
}

/// The events of a segment, by their places.
#[derive(Debug, Default)]
pub struct Marks {
    /// Whether each counts.
    pub counted: HashMap<u64, bool>,
    /// Those of which only a window decides that, where nobody knows for sure which one it was.
    open: HashSet<u64>,
}

impl Judged {
    /// `reach` is of all segments that there are events of.
    #[must_use]
    pub fn of(occurrences: Vec<Occurrence>, reach: &[Reach], is_certain: bool) -> Self {
        let duplicate = duplicates(&occurrences, |segment| reach[segment].said);
        let (mut now, mut longest) = (Vec::new(), Vec::new());
        if !is_certain {
            now = duplicates(&occurrences, |segment| reach[segment].now);
            longest = duplicates(&occurrences, |segment| reach[segment].longest);
        }
        Self { occurrences, duplicate, now, longest }
    }

    /// Of the events of a segment, which has these offsets.
    #[must_use]
    pub fn marks(&self, offsets: &Range<u64>, is_certain: bool) -> Marks {
        let mut marks = Marks::default();
        for (at, event) in self.occurrences.iter().enumerate() {
            if !offsets.contains(&event.place.offset()) {
                continue;
            }
            marks.counted.insert(event.place.bits(), !self.duplicate[at]);
            if !is_certain && self.longest.get(at) == Some(&true) {
                marks.open.insert(event.place.bits());
            }
        }
        marks
    }

    /// Repeats from an offset on that count, and would not with the window of now.
    #[must_use]
    pub fn let_through(&self, start: u64) -> u64 {
        let events = self.occurrences.iter().zip(&self.duplicate).zip(&self.now);
        events.filter(|((event, then), now)| event.place.offset() >= start && **now && !**then).count() as u64
    }
}

impl Marks {
    /// Whether a cause shows nothing but that another window has decided on repeats.
    #[must_use]
    pub fn leave_open(&self, cause: &Cause) -> bool {
        let should_count = match cause.class {
            Class::Lost => true,
            Class::CountedTwice => false,
            _ => return false,
        };
        let is_open = |event: &RowEvent| {
            let place = event.place.bits();
            self.open.contains(&place) && self.counted.get(&place) == Some(&should_count)
        };
        cause.proven && cause.events.len() as u64 == cause.total && cause.events.iter().all(is_open)
    }
}

/// The events of a partition in some offsets. `held` are those of dates, `starts` the first offsets of the segments.
#[must_use]
pub fn occurrences(held: &[(i32, Held)], partition: u32, offsets: Range<u64>, starts: &[u64]) -> Vec<Occurrence> {
    let mut all = Vec::new();
    for (date, (_, held)) in held.iter().enumerate() {
        for row in 0..held.len() {
            let place = held.place[row];
            if place.partition() != partition || !offsets.contains(&place.offset()) {
                continue;
            }
            let before = starts.partition_point(|start| *start <= place.offset());
            let Some(segment) = before.checked_sub(1) else { continue };
            all.push(Occurrence { hash: held.hash[row], place, segment, at: (date, row) });
        }
    }
    all
}
