//! Whether the pieces of an answer meet: no hole, no overlap, and if not, what is missing.

use std::ops::Range;

use reckon_data::tail::{Position, Tail, TailSum};
use serde::Serialize;

/// What the stream gave for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The partition.
    pub partition: u32,
    /// First offset that was asked for.
    pub from: u64,
    /// What was given.
    pub given: Given,
}

/// See [`Part`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// The counts of [from, position.offset), those of `on_disk` still to be read.
    Counts {
        /// Where the counter stands.
        position: Position,
        /// Ranges to be read from `stream_counts`.
        on_disk: Vec<Range<u64>>,
    },
    /// Nothing, and why.
    Nothing {
        /// Why.
        reason: String,
    },
}

impl Part {
    /// What `sum` says of the counts of [from, …).
    #[must_use]
    pub fn of_sum(partition: u32, from: u64, sum: &TailSum) -> Self {
        Self { partition, from, given: Given::Counts { position: sum.position, on_disk: sum.on_disk.clone() } }
    }

    /// What `tail` says.
    #[must_use]
    pub fn of_tail(tail: &Tail) -> Self {
        let given = Given::Counts { position: tail.position, on_disk: tail.on_disk.clone() };
        Self { partition: tail.partition, from: tail.from, given }
    }

    /// A part that cannot be had.
    #[must_use]
    pub fn nothing(partition: u32, from: u64, reason: impl ToString) -> Self {
        Self { partition, from, given: Given::Nothing { reason: reason.to_string() } }
    }

    /// Where the counter stands.
    #[must_use]
    pub const fn position(&self) -> Option<&Position> {
        match &self.given {
            Given::Counts { position, .. } => Some(position),
            Given::Nothing { .. } => None,
        }
    }

    /// Ranges to be read from `stream_counts`.
    #[must_use]
    pub fn on_disk(&self) -> &[Range<u64>] {
        match &self.given {
            Given::Counts { on_disk, .. } => on_disk,
            Given::Nothing { .. } => &[],
        }
    }
}

/// Something that an answer should hold and does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// What kind of counts.
    pub what: MissingWhat,
    /// The log partition, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// First offset missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Offset after the last; none when nobody can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// The UTC date, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Why.
    pub reason: String,
}

/// See [`Missing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingWhat {
    /// What the stream has counted.
    Stream,
    /// What the stream has sealed.
    StreamCounts,
    /// Raw events.
    Events,
    /// What batch has counted.
    BatchCounts,
}

impl Missing {
    /// Offsets of a partition.
    #[must_use]
    pub fn offsets(what: MissingWhat, partition: u32, from: u64, to: Option<u64>, reason: impl Into<String>) -> Self {
        Self { what, partition: Some(partition), from: Some(from), to, date: None, reason: reason.into() }
    }

    /// Something that nobody has named, which cannot be.
    #[must_use]
    pub fn silent() -> Self {
        let reason = "a partition says nothing of itself: please report this".to_owned();
        Self { what: MissingWhat::Stream, partition: None, from: None, to: None, date: None, reason }
    }

    /// A whole date.
    #[must_use]
    pub fn date(what: MissingWhat, date: String, reason: impl Into<String>) -> Self {
        Self { what, partition: None, from: None, to: None, date: Some(date), reason: reason.into() }
    }
}

/// What is missing of the complement of `coverage` when the stream has given `parts`: nothing if there is
/// exactly one part a partition, and each begins where batch ends.
#[must_use]
pub fn missing_parts(coverage: &[u64], parts: &[Part]) -> Vec<Missing> {
    let mut missing = Vec::new();
    for (partition, &covered) in (0_u32..).zip(coverage) {
        let own: Vec<&Part> = parts.iter().filter(|part| part.partition == partition).collect();
        let reason = match own.as_slice() {
            [] => Some("the stream layer gave nothing".to_owned()),
            [part] => trouble(part, covered),
            more => Some(format!("the stream layer gave {} overlapping parts", more.len())),
        };
        if let Some(reason) = reason {
            missing.push(Missing::offsets(MissingWhat::Stream, partition, covered, None, reason));
        }
    }
    for part in parts.iter().filter(|part| part.partition as usize >= coverage.len()) {
        let reason = "the view knows nothing of this partition".to_owned();
        missing.push(Missing::offsets(MissingWhat::Stream, part.partition, part.from, None, reason));
    }
    missing
}

fn trouble(part: &Part, covered: u64) -> Option<String> {
    match &part.given {
        Given::Nothing { reason } => Some(reason.clone()),
        _ if part.from != covered => {
            Some(format!("batch ends at offset {covered}, the stream begins at {}", part.from))
        }
        Given::Counts { position, .. } if position.offset < covered => {
            Some(format!("the counter stands at offset {}, before coverage", position.offset))
        }
        Given::Counts { position, on_disk } => {
            let mut at = covered;
            for range in on_disk {
                if range.start < at || range.end < range.start || range.end > position.offset {
                    return Some(format!("the range {}..{} on disk does not fit", range.start, range.end));
                }
                at = range.end;
            }
            None
        }
    }
}

/// The part of `range` that `segments` (ascending by start) do not tile: the first hole or overlap.
///
/// Segments wholly outside the range are no concern of it; one that reaches over its edge is.
#[must_use]
pub fn untiled(
    range: &Range<u64>,
    segments: impl IntoIterator<Item = Range<u64>>,
) -> Option<(Range<u64>, &'static str)> {
    if range.is_empty() {
        return None;
    }
    let mut at = range.start;
    for segment in segments.into_iter().filter(|segment| segment.start < range.end && segment.end > range.start) {
        if segment.start < at || segment.end > range.end {
            return Some((at.min(segment.start.max(range.start))..range.end, "segments overlap"));
        }
        if segment.start > at {
            return Some((at..segment.start, "no segment holds it"));
        }
        at = segment.end;
    }
    (at < range.end).then_some((at..range.end, "no segment holds it"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reckon_data::logtime::LogTime;

    use super::*;

    fn position(offset: u64) -> Position {
        Position { offset, log_time: LogTime::UNSET, event_time_max: i64::MIN, sealed: 0, durable_end: offset }
    }

    fn part(partition: u32, from: u64, to: u64, on_disk: Vec<Range<u64>>) -> Part {
        Part { partition, from, given: Given::Counts { position: position(to), on_disk } }
    }

    #[test]
    fn parts_that_meet_are_whole() {
        assert_eq!(missing_parts(&[5, 0], &[part(1, 0, 0, vec![]), part(0, 5, 9, vec![5..6, 6..8])]), []);
    }

    #[test]
    fn whatever_does_not_meet_is_named() {
        let table = [
            (vec![], "gave nothing"),
            (vec![part(0, 4, 9, vec![])], "begins at 4"),
            (vec![part(0, 6, 9, vec![])], "begins at 6"),
            (vec![part(0, 5, 4, vec![])], "before coverage"),
            (vec![part(0, 5, 9, vec![]), part(0, 5, 9, vec![])], "overlapping"),
            (vec![Part::nothing(0, 5, "it has stopped")], "it has stopped"),
            (vec![part(0, 5, 9, vec![4..6])], "does not fit"),
            (vec![part(0, 5, 9, vec![5..7, 6..8])], "does not fit"),
            (vec![part(0, 5, 9, vec![5..10])], "does not fit"),
        ];
        for (parts, reason) in table {
            let missing = missing_parts(&[5], &parts);
            assert_eq!(missing.len(), 1, "{parts:?}");
            assert!(missing[0].reason.contains(reason), "{missing:?}");
            assert_eq!((missing[0].partition, missing[0].from), (Some(0), Some(5)));
        }
        assert_eq!(missing_parts(&[5], &[part(0, 5, 5, vec![]), part(1, 0, 3, vec![])])[0].partition, Some(1));
    }

    proptest! {
        /// a range is tiled exactly when every offset of it lies in exactly one segment, and no
        /// segment reaches over its edge.
        #[test]
        fn tiles_are_checked_offset_by_offset(
            mut segments in prop::collection::vec((0..20_u64, 1..6_u64), 0..8),
            from in 0..12_u64,
            length in 0..12_u64,
        ) {
            segments.sort_unstable();
            let segments: Vec<Range<u64>> = segments.into_iter().map(|(start, len)| start..start + len).collect();
            let range = from..from + length;
            let touching = || segments.iter().filter(|s| s.start < range.end && s.end > range.start);
            let whole = range.clone().all(|at| touching().filter(|s| s.contains(&at)).count() == 1)
                && touching().all(|s| range.start <= s.start && s.end <= range.end);
            let found = untiled(&range, segments.iter().cloned());
            prop_assert_eq!(found.is_none(), whole || range.is_empty(), "{:?}", found);
            if let Some((hole, _)) = found {
                prop_assert!(range.start <= hole.start && hole.end <= range.end && hole.start < hole.end);
            }
        }
    }
}
