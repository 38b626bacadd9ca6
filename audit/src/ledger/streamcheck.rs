//! The stream's segments against the raw events of their offsets.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use polars::prelude::DataFrame;
use reckon_data::minute::MINUTES_PER_DAY;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table};

use super::compare::{RowEvent, RowKey, differences, events};
use super::explain::{Cause, Known, explain};
use super::held::{Held, Keep, Reading, read_file};
use super::judged::{Judged, Marks, occurrences};
use super::load::{Loaded, load};
use super::pin::{Pinned, date_of_file};
use super::raw::{Counting, Events};
use super::rawcheck::overlapping;
use super::rows::{Rows, row_finding};
use super::scan::Scanner;
use super::segmentcheck::{
    Checked, TABLE, Verdict, judge, of_segment, order, overlapping_ones, own_rows, summary_missing, unbalanced,
};
use super::segments::{Segment, SegmentKey, Segments};
use super::window::{Reach, Sealed, due};
use crate::error::AuditError;
use crate::finding::{Class, Finding, Repair};
use crate::report::model::SegmentTotals;

/// Checks segments.
#[derive(Debug)]
pub struct StreamCheck<'a> {
    /// Reads files.
    pub scanner: &'a Scanner,
    /// The tables.
    pub pinned: &'a Pinned,
    /// The segments, read.
    pub segments: &'a Segments,
    /// How events are read.
    pub reading: &'a Arc<Reading>,
    /// The dedup window of now, minutes.
    pub window: i64,
    /// Events that are held at once.
    pub events_max: u64,
    /// What is known to be wrong with the raw events.
    pub known: &'a Known,
    /// Files of raw events that could not be read.
    pub bad: &'a [DataFile],
    /// From which offset of each partition on the raw events are known to be those of the log.
    pub proven_from: &'a BTreeMap<u32, u64>,
}

impl StreamCheck<'_> {
    /// Checks all segments.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run(&self) -> Result<(SegmentTotals, Vec<Finding>), AuditError> {
        let (mut totals, mut findings) = (SegmentTotals::default(), Vec::new());
        for state in &self.pinned.partitions {
            let partition = state.partition;
            let all: Vec<(&SegmentKey, &Segment)> =
                self.segments.all.range((partition, 0)..=(partition, u64::MAX)).collect();
            let before = findings.len();
            findings.extend(all.iter().filter_map(|(key, segment)| summary_missing(**key, segment)));
            let checked: Vec<Checked<'_>> = all
                .iter()
                .filter_map(|(key, segment)| Some(Checked { key: **key, said: segment.said?, segment }))
                .collect();
            findings.extend(order(partition, &checked, state.coverage..state.sealed, self.segments.bad.is_empty()));
            findings.extend(checked.iter().filter_map(|checked| unbalanced(checked)));
            add_totals(&mut totals, &checked);
            // What is there twice, or does not add up, is said already.
            let overlaps: HashSet<u64> = overlapping_ones(&checked).map(|seg| seg.key.1).collect();
            let alone = |seg: &Checked<'_>| {
                seg.segment.summaries == 1 && unbalanced(seg).is_none() && !overlaps.contains(&seg.key.1)
            };
            let (archived, rest): (Vec<Checked<'_>>, Vec<Checked<'_>>) = (checked.iter().copied())
                .filter(alone)
                .partition(|seg| self.can_be_held(partition, seg) && seg.said.end <= state.archived);
            findings.extend(rest.iter().filter_map(own_rows));
            let not_held = |seg: &&Checked<'_>| seg.said.end > state.coverage && !self.can_be_held(partition, seg);
            if let Some(first) = rest.iter().find(not_held) {
                totals.not_held_from.insert(partition, first.key.1);
            }
            // Between segments that do not meet there are events of which nobody knows when they came.
            for run in archived.chunk_by(|before, after| before.said.end == after.key.1) {
                findings.extend(self.against_raw(partition, run).await?);
            }
            for finding in findings.iter_mut().skip(before).filter(|finding| is_wrong(finding)) {
                if let Some(start) = finding.offset_start.filter(|_| finding.table == TABLE) {
                    repaired_by_batch(finding, start, self.pinned);
                }
            }
            let wrong = findings.iter().skip(before).filter(|finding| is_wrong(finding)).count();
            totals.balanced += (checked.len() - wrong.min(checked.len())) as u64;
        }
        Ok((totals, findings))
    }

    async fn against_raw(&self, partition: u32, archived: &[Checked<'_>]) -> Result<Vec<Finding>, AuditError> {
        let mut findings = Vec::new();
        let mut from = 0;
        while from < archived.len() {
            let mut to = from + 1;
            let mut rows = archived[from].said.accepted;
            while to < archived.len() && rows.saturating_add(archived[to].said.accepted) <= self.events_max {
                rows = rows.saturating_add(archived[to].said.accepted);
                to += 1;
            }
            findings.extend(self.part(partition, archived, from, to).await?);
            from = to;
        }
        Ok(findings)
    }

    /// Checks the segments `from` to `to` of a partition; those before them say what was remembered when an event came.
    async fn part(
        &self,
        partition: u32,
        all: &[Checked<'_>],
        from: usize,
        to: usize,
    ) -> Result<Vec<Finding>, AuditError> {
        let sealed: Vec<Sealed> = all[..to].iter().map(Checked::sealed).collect();
        let reach: Vec<Reach> = (0..to).map(|at| Reach::of(&sealed, at, self.window)).collect();
        let (start, end) = (all[from].key.1, all[to - 1].said.end);
        // A window that was raised reaches farther back than those of the segments before.
        let back = reach[from..].iter().map(|reach| reach.said.min(reach.now)).fold(start, u64::min);
        let held = self.held(partition, back..end).await?;
        let starts: Vec<u64> = sealed.iter().map(|seg| seg.start).collect();
        let is_certain = reach[from..].iter().all(|reach| reach.is_certain);
        let judged = Judged::of(occurrences(&held, partition, back..end, &starts), &reach, is_certain);
        let lateness = self.reading.counting.lateness.is_some();
        let due = due(&judged.occurrences, &judged.duplicate, &starts, &held, lateness);
        let closed = self.pinned.closed.saturating_mul(MINUTES_PER_DAY);
        let mut findings = Vec::new();
        for (seg, reach) in all[from..to].iter().zip(&reach[from..]) {
            let due = due.get(&seg.key.1).copied().unwrap_or_default();
            let verdict = judge(seg, &due, reach.is_seen, self.definition(), closed, self.is_proven(seg));
            match verdict {
                Verdict::Right => {}
                Verdict::Wrong(finding) => findings.push(*finding),
                Verdict::Look => {
                    let marks = judged.marks(&(seg.key.1..seg.said.end), reach.is_certain);
                    findings.extend(self.look(seg, &marks).await?);
                }
            }
        }
        findings.extend(of_another_window(partition, start..end, judged.let_through(start)));
        Ok(findings)
    }

    /// Whether the raw events of a segment could be read.
    fn can_be_held(&self, partition: u32, seg: &Checked<'_>) -> bool {
        overlapping(self.bad.iter(), partition, &(seg.key.1..seg.said.end)).is_empty()
    }

    /// Whether the raw events of a segment are known to be those of the log.
    fn is_proven(&self, seg: &Checked<'_>) -> bool {
        self.proven_from.get(&seg.key.0).is_some_and(|from| seg.key.1 >= *from)
    }

    fn definition(&self) -> u64 {
        self.scanner.definition.version()
    }

    fn files(&self, partition: u32, offsets: &std::ops::Range<u64>) -> Vec<DataFile> {
        overlapping(self.pinned.events.files.iter(), partition, offsets)
    }

    /// The raw events of a range, date by date.
    async fn held(&self, partition: u32, offsets: std::ops::Range<u64>) -> Result<Vec<(i32, Held)>, AuditError> {
        let mut dates: BTreeMap<i32, Held> = BTreeMap::new();
        let wanted = self.reading.counting.columns();
        let keep = Keep::Offsets { partition, range: offsets.clone() };
        let reading = Arc::new(Reading { keep, buckets: 0, ..(**self.reading).clone() });
        let read = move |file: &Loaded| read_file(file, &reading).map(|facts| facts.held);
        let take = |file: DataFile, _: u128, held: Held| {
            dates.entry(date_of_file(&file).unwrap_or(0)).or_default().append(held);
        };
        let files = self.files(partition, &offsets);
        self.scanner.walk(Table::Events, files, &wanted, read, take).await?;
        Ok(dates.into_iter().collect())
    }

    /// The events of a segment that count, and those that do not.
    async fn events_of(
        &self,
        seg: &Checked<'_>,
        counted: &HashMap<u64, bool>,
    ) -> Result<[Vec<DataFrame>; 2], AuditError> {
        let (partition, start) = seg.key;
        let (counting, wanted) = (&self.reading.counting, self.reading.counting.columns());
        let (mut counting_ones, mut repeats) = (Vec::new(), Vec::new());
        for file in self.files(partition, &(start..seg.said.end)) {
            let Ok(loaded) = load(&self.scanner.store, Table::Events, &file, &wanted).await? else { continue };
            for slice in loaded.slices() {
                let Ok(frame) = loaded.frame(slice) else { continue };
                let Ok(events) = Events::of(frame, counting) else { continue };
                let mask = |is: bool| -> Vec<bool> {
                    events.place.iter().map(|place| counted.get(&place.bits()) == Some(&is)).collect()
                };
                counting_ones.push(events.kept(&mask(true))?);
                repeats.push(events.kept(&mask(false))?);
            }
        }
        Ok([counting_ones, repeats])
    }

    /// Looks at the rows of a segment one by one.
    async fn look(&self, seg: &Checked<'_>, marks: &Marks) -> Result<Vec<Finding>, AuditError> {
        let (partition, start) = seg.key;
        let counting = &self.reading.counting;
        let [frames, repeats] = self.events_of(seg, &marks.counted).await?;
        let files = &self.pinned.stream.files;
        let rows = self.scanner.rows_of_segment(files, &seg.segment.file, seg.key, self.reading).await?;
        let (Some(raw), Some(counts)) = (super::rows::stack(frames)?, super::rows::stack(rows)?) else {
            let text = "its rows or its events cannot be looked at one by one";
            return Ok(vec![of_segment(Class::Unbalanced, seg.key, &seg.said, text.to_owned())]);
        };
        let diffs = differences(&raw, &counts, Granularity::Minute, counting)?;
        let own = by_row(&raw, counting)?;
        let repeats = super::rows::stack(repeats)?.map(|repeats| by_row(&repeats, counting)).transpose()?;
        let rows = Rows { diffs: &diffs, table: TABLE, granularity: Granularity::Minute };
        let causes = explain(&diffs, &own, &repeats.unwrap_or_default(), self.known);
        let (open, causes): (Vec<Cause>, Vec<Cause>) = causes.into_iter().partition(|cause| marks.leave_open(cause));
        let mut findings: Vec<Finding> = causes
            .iter()
            .map(|cause| {
                let mut finding = row_finding(&rows, cause);
                finding.partition = Some(partition);
                (finding.offset_start, finding.offset_end) = (Some(start), Some(seg.said.end));
                finding.file = Some(seg.segment.file.clone());
                finding
            })
            .collect();
        if findings.is_empty() && !open.is_empty() {
            findings.extend(own_rows(seg));
        } else if findings.is_empty() && self.known.gone.is_empty() && self.known.new.is_empty() {
            let text = "its rows are right one by one, its own numbers are not".to_owned();
            findings.push(of_segment(Class::Unbalanced, seg.key, &seg.said, text));
        }
        let events = open.iter().map(|cause| cause.total).sum();
        findings.extend(of_another_window(partition, start..seg.said.end, events));
        Ok(findings)
    }
}

/// Repeats that are no error of the counter, and that the window of now would have judged otherwise.
fn of_another_window(partition: u32, offsets: std::ops::Range<u64>, events: u64) -> Option<Finding> {
    if events == 0 {
        return None;
    }
    let text = "repeats that another dedup window than the one of now has decided on".to_owned();
    let mut finding = Finding::new(Class::DuplicatePastWindow, TABLE, text);
    finding.partition = Some(partition);
    (finding.offset_start, finding.offset_end) = (Some(offsets.start), Some(offsets.end));
    finding.events = events;
    "batch drops them, whatever the window is".clone_into(&mut finding.action);
    Some(finding)
}

const fn is_wrong(finding: &Finding) -> bool {
    !finding.class.is_expected()
}

fn by_row(frame: &DataFrame, counting: &Counting) -> Result<HashMap<RowKey, Vec<RowEvent>>, AuditError> {
    let mut rows: HashMap<RowKey, Vec<RowEvent>> = HashMap::new();
    for (key, event) in events(frame, Granularity::Minute, counting)? {
        rows.entry(key).or_default().push(event);
    }
    Ok(rows)
}

/// What is to be done about a segment: nothing counts from it any more once batch has passed it.
fn repaired_by_batch(finding: &mut Finding, start: u64, pinned: &Pinned) {
    let covered = finding.partition.and_then(|partition| pinned.partitions.get(partition as usize));
    let passed = covered.is_some_and(|state| start < state.coverage);
    finding.repair = if passed { Repair::NotNeeded } else { Repair::Recount };
    let text = if passed {
        "nothing is answered from it any more: batch has counted past it; find out why the counter was wrong"
    } else {
        "reckon audit --repair lets batch count past it; find out why the counter was wrong"
    };
    text.clone_into(&mut finding.action);
}

fn add_totals(totals: &mut SegmentTotals, checked: &[Checked<'_>]) {
    for seg in checked {
        totals.checked += 1;
        // What a damaged summary says may be anything.
        totals.accepted = totals.accepted.saturating_add(seg.said.accepted);
        totals.counted = totals.counted.saturating_add(seg.said.counted);
        totals.duplicate = totals.duplicate.saturating_add(seg.said.duplicate);
        totals.dead = totals.dead.saturating_add(seg.said.dead);
    }
}
