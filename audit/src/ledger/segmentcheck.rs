//! What is wrong with segments by their own numbers, beside each other, and against what their events come to.

use super::segments::{Said, Segment, SegmentKey};
use super::window::{Due, Sealed};
use crate::finding::{Class, Finding, Repair};

/// Whose findings these are.
pub const TABLE: &str = "stream_counts";

/// A segment with a summary.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'a> {
    /// Where it begins.
    pub key: SegmentKey,
    /// What it says of itself.
    pub said: Said,
    /// All of it.
    pub segment: &'a Segment,
}

impl Checked<'_> {
    /// When it was sealed, and from where its repeats are to be looked for.
    pub fn sealed(&self) -> Sealed {
        let minute = self.said.log_time.minute().unwrap_or(0);
        Sealed { start: self.key.1, minute, refill_offset: self.said.refill_offset }
    }
}

/// What can be said of a segment without looking at its rows one by one.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing is wrong with it.
    Right,
    /// This is wrong.
    Wrong(Box<Finding>),
    /// Its rows have to be looked at one by one.
    Look,
}

/// Holds a segment against what its events come to.
pub fn judge(seg: &Checked<'_>, due: &Due, sees_all: bool, definition: u64, closed: i64, proven: bool) -> Verdict {
    let said = &seg.said;
    if due.accepted != said.accepted {
        // What retention has taken is no loss.
        if seg.segment.minute_min < closed && due.accepted < said.accepted {
            return Verdict::Right;
        }
        return Verdict::Wrong(Box::new(if proven { says_more(seg, due) } else { raw_differs(seg, due) }));
    }
    if !sees_all {
        return own_rows(seg).map_or(Verdict::Right, |finding| Verdict::Wrong(Box::new(finding)));
    }
    let counted = due.accepted - due.duplicate;
    let same = due.duplicate == said.duplicate && counted == said.counted && due.fingerprint == said.fingerprint;
    let rows = if said.definition == definition {
        due.rows == seg.segment.rows
    } else {
        due.fingerprint == seg.segment.fingerprint && counted == seg.segment.rows.count
    };
    if same && rows { Verdict::Right } else { Verdict::Look }
}

/// The raw events are those of the log: so it is the segment that is wrong.
fn says_more(seg: &Checked<'_>, due: &Due) -> Finding {
    let text = format!("it says to have accepted {} events, of which the log has {}", seg.said.accepted, due.accepted);
    let mut finding = of_segment(Class::Unbalanced, seg.key, &seg.said, text);
    (finding.expected, finding.found) = (i64::try_from(due.accepted).ok(), i64::try_from(seg.said.accepted).ok());
    finding.file = Some(seg.segment.file.clone());
    finding
}

fn raw_differs(seg: &Checked<'_>, due: &Due) -> Finding {
    let (class, text) = if due.accepted < seg.said.accepted {
        (Class::OffsetHole, "the counter accepted more events of the segment than the raw events have")
    } else {
        (Class::ExtraRows, "the raw events have more events of the segment than the counter accepted")
    };
    let mut finding = of_segment(class, seg.key, &seg.said, text.to_owned());
    "events".clone_into(&mut finding.table);
    (finding.expected, finding.found) = (i64::try_from(seg.said.accepted).ok(), i64::try_from(due.accepted).ok());
    finding.events = due.accepted.abs_diff(seg.said.accepted);
    finding.repair = Repair::Rebuild;
    "reckon audit --repair makes the raw events anew from the log, if it still holds them"
        .clone_into(&mut finding.action);
    finding
}

/// A finding of a segment, which batch repairs by counting past it.
pub fn of_segment(class: Class, (partition, start): SegmentKey, said: &Said, text: String) -> Finding {
    let mut finding = Finding::new(class, TABLE, text);
    finding.partition = Some(partition);
    (finding.offset_start, finding.offset_end) = (Some(start), Some(said.end));
    (finding.expected, finding.found) = (i64::try_from(said.accepted).ok(), i64::try_from(said.counted).ok());
    finding.repair = Repair::Recount;
    "reckon audit --repair lets batch count past it; find out why the counter was wrong"
        .clone_into(&mut finding.action);
    finding
}

/// Of rows without a summary, or with more than one.
pub fn summary_missing(key: SegmentKey, segment: &Segment) -> Option<Finding> {
    let (class, text) = match segment.summaries {
        1 => return None,
        0 => (Class::ExtraRows, "rows of a segment that has no summary"),
        _ => (Class::CountedTwice, "a segment is there more than once"),
    };
    let said = segment.said.unwrap_or_default();
    let mut finding = of_segment(class, key, &said, text.to_owned());
    finding.file = Some(segment.file.clone());
    finding.found = i64::try_from(segment.summaries).ok();
    Some(finding)
}

/// Segments that overlap, or leave a hole in what is still answered from them.
pub fn order(partition: u32, checked: &[Checked<'_>], needed: std::ops::Range<u64>, all_read: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut end = needed.start;
    for seg in overlapping_ones(checked) {
        let text = "segments overlap: what both hold counts twice".to_owned();
        findings.push(of_segment(Class::CountedTwice, seg.key, &seg.said, text));
    }
    for seg in checked.iter().filter(|seg| seg.said.end > needed.start) {
        if seg.key.1 > end && all_read {
            findings.push(hole(partition, end..seg.key.1));
        }
        end = end.max(seg.said.end);
    }
    if end < needed.end && all_read {
        findings.push(hole(partition, end..needed.end));
    }
    findings
}

/// Segments that begin before the one before them ends.
pub fn overlapping_ones<'a, 'b>(checked: &'b [Checked<'a>]) -> impl Iterator<Item = &'b Checked<'a>> {
    checked.windows(2).filter(|pair| pair[1].key.1 < pair[0].said.end).map(|pair| &pair[1])
}

fn hole(partition: u32, offsets: std::ops::Range<u64>) -> Finding {
    let text = "segments that were sealed, and that batch has not passed, are not there".to_owned();
    let mut finding = Finding::new(Class::OffsetHole, TABLE, text);
    finding.partition = Some(partition);
    (finding.offset_start, finding.offset_end) = (Some(offsets.start), Some(offsets.end));
    finding.repair = Repair::Recount;
    "reckon audit --repair lets batch count past it".clone_into(&mut finding.action);
    finding
}

///
pub fn unbalanced(seg: &Checked<'_>) -> Option<Finding> {
    let said = &seg.said;
    if said.counted.checked_add(said.duplicate) == Some(said.accepted) {
        return None;
    }
    let text = format!(
        "{} accepted, {} counted, {} duplicate do not add up (R-1)",
        said.accepted, said.counted, said.duplicate
    );
    let mut finding = of_segment(Class::Unbalanced, seg.key, said, text);
    finding.file = Some(seg.segment.file.clone());
    Some(finding)
}

/// A segment's rows against its summary, where its events cannot be looked at.
pub fn own_rows(seg: &Checked<'_>) -> Option<Finding> {
    let said = &seg.said;
    if seg.segment.rows.count == said.counted && seg.segment.fingerprint == said.fingerprint {
        return None;
    }
    let text = format!(
        "its rows count {} events, it says {}; or their fingerprints differ",
        seg.segment.rows.count, said.counted
    );
    let mut finding = of_segment(Class::Unbalanced, seg.key, said, text);
    finding.expected = i64::try_from(said.counted).ok();
    finding.found = i64::try_from(seg.segment.rows.count).ok();
    finding.file = Some(seg.segment.file.clone());
    Some(finding)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::weigh::Cell;
    use super::*;

    #[test]
    fn rows_that_are_not_what_their_summary_says_are_unbalanced() {
        let said = Said { end: 30, accepted: 5, counted: 4, duplicate: 1, fingerprint: 99, ..Said::default() };
        let found = |count: u64, fingerprint: u64| {
            let rows = Cell { count, ..Cell::default() };
            let segment = Segment { said: Some(said), summaries: 1, rows, fingerprint, ..Segment::default() };
            let finding = own_rows(&Checked { key: (2, 20), said, segment: &segment })?;
            let place = (finding.partition, finding.offset_start, finding.offset_end);
            Some((finding.class, place, finding.expected, finding.found))
        };
        let unbalanced = |rows: i64| Some((Class::Unbalanced, (Some(2), Some(20), Some(30)), Some(4), Some(rows)));
        assert_eq!(found(4, 99), None);
        assert_eq!(found(3, 99), unbalanced(3));
        assert_eq!(found(4, 98), unbalanced(4));
    }

    /// The holes in segments of partition 1, where offsets 10 to 40 are needed.
    fn holes(segments: &[Range<u64>], all_read: bool) -> Vec<Range<u64>> {
        let segment = Segment::default();
        let one = |offsets: &Range<u64>| {
            let said = Said { end: offsets.end, ..Said::default() };
            Checked { key: (1, offsets.start), said, segment: &segment }
        };
        let checked: Vec<Checked<'_>> = segments.iter().map(one).collect();
        let offsets = |found: Finding| {
            assert_eq!((found.class, found.table.as_str(), found.partition), (Class::OffsetHole, TABLE, Some(1)));
            found.offset_start.unwrap()..found.offset_end.unwrap()
        };
        order(1, &checked, 10..40, all_read).into_iter().map(offsets).collect()
    }

    #[test]
    fn segments_that_are_gone_leave_holes_before_between_and_behind_the_others() {
        assert!(holes(&[0..20, 20..40], true).is_empty());
        assert_eq!(holes(&[20..25, 30..35], true), [10..20, 25..30, 35..40]);
        assert_eq!(holes(&[], true), [10..40]);
        // They may be in a file that cannot be read.
        assert!(holes(&[20..25, 30..35], false).is_empty());
    }
}
