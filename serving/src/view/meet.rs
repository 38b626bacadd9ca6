//! Whether the pieces of an answer meet: no hole, no overlap, and if not, what is missing.

use std::ops::Range;

use reckon_data::logtime::LogTime;
use reckon_data::loss::Loss;
use reckon_data::tail::{Position, Tail, TailSum};
use serde::Serialize;
use utoipa::ToSchema;

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

    /// A part that reaches to `offset` and needs nothing of the stream layer.
    #[must_use]
    pub const fn standing(partition: u32, offset: u64) -> Self {
        let position = Position {
            offset,
            log_time: LogTime::UNSET,
            event_time_max: i64::MIN,
            sealed: offset,
            durable_end: offset,
        };
        Self { partition, from: offset, given: Given::Counts { position, on_disk: Vec::new() } }
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
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

    /// Records that had gone before they were archived; where the first of them lay, nobody has kept.
    #[must_use]
    pub fn lost(loss: &Loss) -> Self {
        let reason = format!("{loss}; `reckon log accept` once that is known");
        let Loss { partition, to, .. } = *loss;
        Self { what: MissingWhat::Events, partition: Some(partition), from: None, to: Some(to), date: None, reason }
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

/// A segment, and why its rows cannot be counted, if they cannot.
pub type Candidate = (Range<u64>, Option<String>);

/// What of a range can be counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tiling {
    /// The segments that can be, by number: they lie in the range and overlap nothing.
    pub chosen: Vec<usize>,
    /// All of the range that lies in none of them, and why.
    pub gaps: Vec<(Range<u64>, String)>,
}

/// Tiles `range` with `segments`, ascending by start. Of those that overlap none is chosen: half an overlap would
/// count twice. One that reaches over the edge of the range is not chosen either.
#[must_use]
pub fn tile(range: &Range<u64>, segments: &[Candidate]) -> Tiling {
    let mut tiling = Tiling::default();
    let reasons = unusable(range, segments);
    let mut at = range.start;
    let mut gap = |gap: Range<u64>| {
        let within = (segments.iter().zip(&reasons)).filter(|((s, _), _)| s.start < gap.end && s.end > gap.start);
        let reason = within.filter_map(|(_, reason)| reason.as_deref()).next().unwrap_or("no segment holds it");
        tiling.gaps.push((gap.clone(), reason.to_owned()));
    };
    for (number, (segment, _)) in segments.iter().enumerate() {
        if reasons[number].is_none() && segment.start >= at && segment.end <= range.end {
            if segment.start > at {
                gap(at..segment.start);
            }
            at = segment.end;
            tiling.chosen.push(number);
        }
    }
    if at < range.end {
        gap(at..range.end);
    }
    tiling
}

/// Why each segment cannot be chosen, if it cannot.
fn unusable(range: &Range<u64>, segments: &[Candidate]) -> Vec<Option<String>> {
    let over_the_edge = |segment: &Range<u64>| segment.start < range.start || segment.end > range.end;
    let mut reasons: Vec<Option<String>> = (segments.iter())
        .map(|(segment, reason)| {
            let edge = || over_the_edge(segment).then(|| "a segment reaches over its edge".to_owned());
            reason.clone().or_else(edge)
        })
        .collect();
    // Of those so far, the one that reaches furthest: whatever begins before its end overlaps it.
    let mut furthest: Option<usize> = None;
    for (number, (segment, _)) in segments.iter().enumerate().filter(|(_, (segment, _))| !segment.is_empty()) {
        if let Some(before) = furthest.filter(|before| segments[*before].0.end > segment.start) {
            for overlapping in [before, number] {
                reasons[overlapping].get_or_insert_with(|| "segments overlap".to_owned());
            }
        }
        if furthest.is_none_or(|before| segments[before].0.end < segment.end) {
            furthest = Some(number);
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        /// an offset is counted exactly when one segment holds it, which lies in the range and overlaps no
        /// other; every other offset is named.
        #[test]
        fn tiles_are_checked_offset_by_offset(
            mut segments in prop::collection::vec((0..20_u64, 1..6_u64, prop::bool::weighted(0.1)), 0..8),
            from in 0..12_u64,
            length in 0..12_u64,
        ) {
            segments.sort_unstable();
            let broken = |broken: bool| broken.then(|| "broken".to_owned());
            let segments: Vec<Candidate> =
                segments.into_iter().map(|(start, len, bad)| (start..start + len, broken(bad))).collect();
            let range = from..from + length;
            let Tiling { chosen, gaps } = tile(&range, &segments);
            let overlaps = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
            let is_good = |at: usize| {
                let (own, reason) = &segments[at];
                reason.is_none() && range.start <= own.start && own.end <= range.end
                    && (0..segments.len()).all(|other| other == at || !overlaps(own, &segments[other].0))
            };
            for at in range.clone() {
                let good = (0..segments.len()).any(|number| is_good(number) && segments[number].0.contains(&at));
                let is_chosen = chosen.iter().filter(|number| segments[**number].0.contains(&at)).count();
                let named = gaps.iter().filter(|(gap, _)| gap.contains(&at)).count();
                prop_assert_eq!((is_chosen, named), if good { (1, 0) } else { (0, 1) }, "{}: {:?}", at, gaps);
            }
            prop_assert!(chosen.iter().all(|number| is_good(*number)));
            prop_assert!(gaps.iter().all(|(gap, _)| range.start <= gap.start && gap.end <= range.end && !gap.is_empty()));
        }
    }

    #[test]
    fn a_gap_says_why_it_is_one() {
        let broken = Some("its file is gone".to_owned());
        let segments = [(0..4, None), (4..6, broken), (7..9, None), (8..10, None), (10..13, None)];
        let Tiling { chosen, gaps } = tile(&(0..12), &segments);
        let gaps: Vec<(Range<u64>, &str)> = gaps.iter().map(|(gap, reason)| (gap.clone(), reason.as_str())).collect();
        assert_eq!(chosen, [0]);
        assert_eq!(gaps, [(4..12, "its file is gone")]);
        assert_eq!(tile(&(0..3), &[(0..2, None)]).gaps, [(2..3, "no segment holds it".to_owned())]);
        assert_eq!(tile(&(0..3), &[(0..2, None), (1..3, None)]).gaps, [(0..3, "segments overlap".to_owned())]);
        assert_eq!(tile(&(0..3), &[(0..4, None)]).gaps, [(0..3, "a segment reaches over its edge".to_owned())]);
    }
}
