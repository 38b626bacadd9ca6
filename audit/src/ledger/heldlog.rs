//! The raw events held against the log, as far as it still has their records.
//!
//! ```text
//! log      ··· start ├ first ┤├── 1,024 records ──┤├── 1,024 records ──┤ archived
//!                      │               │ sums that differ
//!                      └── record by ──┴─▶ records that differ ──▶ events
//! ```
//!
//! What lies below the first whole range is always looked at record by record: of a log that is trimmed soon it may be all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashSet;
use reckon_data::log::Log;
use reckon_data::table::DataFile;

use super::gathered::Gathered;
use super::held::{ByPlace, LOG_CELL_RECORDS, cell_start, of_log_cell};
use super::logcheck::{self, Extent, LogCells, LogScope, Records};
use super::pin::{Pinned, date_of_file};
use super::raw::Counting;
use super::rawcheck::{against_log, by_index, overlapping};
use super::run::{Ledger, OnProgress, Progress};
use super::scan::Scanner;
use super::told::{differing_more, unreadable_record};
use crate::error::AuditError;

/// Ranges of offsets with findings that are looked at.
const RANGES_MAX: usize = 64;
/// Events that are looked at one by one.
const EVENTS_MAX: u64 = 1 << 20;

/// Records of a partition in which log and raw events differ.
#[derive(Debug)]
struct Differing {
    offsets: BTreeSet<u64>,
    /// Events that log and raw events have in them.
    events: u64,
    /// Events of all records that were compared, in the log and among the raw events.
    compared: (u64, u64),
    /// From which offset on the log still had them.
    start: u64,
}

/// Holds ranges of offsets against each other.
struct Holding<'a> {
    log: &'a dyn Log,
    pinned: &'a Pinned,
    scanner: Scanner,
    counting: Arc<Counting>,
    scope: &'a LogScope,
}

impl Ledger {
    /// The raw events against the log, by their places.
    ///
    /// # Errors
    /// When the log or the store fails.
    pub(super) async fn look_at_log(
        &self,
        pinned: &Pinned,
        by_place: &ByPlace,
        gathered: &mut Gathered,
        progress: &OnProgress<'_>,
    ) -> Result<(), AuditError> {
        let begun = Instant::now();
        if let Some(log) = self.parts.reader.as_deref() {
            let left_out: HashSet<i32> =
                gathered.dates.iter().filter(|date| !date.is_held_against_log()).map(|date| date.date).collect();
            let counting = Counting::of(&self.parts.definition);
            let scope = LogScope { counting, closed: pinned.closed, left_out };
            let cells = self.add_up_log(log, pinned, &scope, gathered, progress).await?;
            self.compare_with_log(log, pinned, &scope, (&cells, by_place), gathered).await?;
        }
        // A record whose events are of several dates is not whole where some of them are left out.
        let are_all = pinned.closed <= 0 && gathered.dates.iter().all(|date| date.is_held_against_log());
        if let (Some(records), true) = (&by_place.records, are_all) {
            let starts = gathered.log_starts.as_ref();
            let is_held = |partition: u32, offset: u64| {
                starts.and_then(|starts| starts.get(&partition)).is_some_and(|start| offset >= *start)
            };
            gathered.findings.extend(by_index(records, is_held));
            gathered.records_counted = true;
        }
        gathered.seconds.insert("log".to_owned(), begun.elapsed().as_secs_f64());
        Ok(())
    }

    async fn add_up_log(
        &self,
        log: &dyn Log,
        pinned: &Pinned,
        scope: &LogScope,
        gathered: &mut Gathered,
        progress: &OnProgress<'_>,
    ) -> Result<LogCells, AuditError> {
        let (mut cells, mut starts, mut whole) = (LogCells::new(), BTreeMap::new(), true);
        for state in &pinned.partitions {
            let step = format!("reading partition {} of the log", state.partition);
            let total = pinned.partitions.len() as u64;
            progress(Progress { step, done: u64::from(state.partition), total, events: 0 });
            let range = state.log_start.unwrap_or(0)..state.archived;
            let extent = logcheck::add_up(log, state.partition, range, scope, &mut cells).await?;
            starts.insert(state.partition, extent.start);
            let unknown = extent.given_up.iter().copied().chain(extent.unreadable.iter().map(|(offset, _)| *offset));
            gathered.unknown.insert(state.partition, unknown.collect());
            whole &= extent.start == 0 && extent.end == state.archived;
            whole &= extent.unreadable.is_empty() && extent.given_up.is_empty();
            gathered.findings.extend(extent.unreadable.iter().map(|bad| unreadable_record(state.partition, bad)));
        }
        gathered.whole_log = whole;
        gathered.log_starts = Some(starts);
        Ok(cells)
    }

    async fn compare_with_log(
        &self,
        log: &dyn Log,
        pinned: &Pinned,
        scope: &LogScope,
        (cells, by_place): (&LogCells, &ByPlace),
        gathered: &mut Gathered,
    ) -> Result<(), AuditError> {
        let starts = gathered.log_starts.clone().unwrap_or_default();
        let held = |cell: &u64| {
            let (partition, start, _) = of_log_cell(*cell);
            starts.get(&partition).is_some_and(|begins| start >= *begins)
        };
        let rows = |cells: &LogCells| cells.iter().filter(|(cell, _)| held(cell)).map(|(_, (rows, _))| *rows).sum();
        let (mut of_log, mut of_raw): (u64, u64) = (rows(cells), rows(&by_place.cells));
        let counting = Arc::new(scope.counting.clone());
        let holding = Holding { log, pinned, scanner: self.scanner(), counting, scope };
        let first = starts.iter().filter_map(|(partition, start)| first_range(*partition, *start, pinned));
        let (mut with_findings, mut events) = (0, 0);
        let mut more: BTreeMap<u32, Vec<Range<u64>>> = BTreeMap::new();
        for (partition, range) in first {
            let differing = holding.records(partition, range.clone()).await?;
            gathered.log_begins(partition, differing.start);
            (of_log, of_raw) = (of_log + differing.compared.0, of_raw + differing.compared.1);
            events += differing.events;
            if holding.look(partition, range.clone(), &differing, events, gathered).await? == Looked::Partly {
                more.entry(partition).or_default().push(range);
            }
        }
        for (partition, start, end) in logcheck::differing(cells, &by_place.cells, &starts) {
            if with_findings == RANGES_MAX || events > EVENTS_MAX {
                more.entry(partition).or_default().push(start..end);
                continue;
            }
            let differing = holding.records(partition, start..end).await?;
            gathered.log_begins(partition, differing.start);
            events += differing.events;
            if differing.start > start && !gathered.has_unknown(partition, &(start..end)) {
                // It has been trimmed since the sums were made: what differed in it, nobody can look at any more.
                more.entry(partition).or_default().push(start..end);
            }
            // Of a record that cannot be read nobody knows what it held: such a range differs for no reason.
            with_findings += usize::from(!differing.offsets.is_empty());
            if holding.look(partition, start..end, &differing, events, gathered).await? == Looked::Partly {
                more.entry(partition).or_default().push(start..end);
            }
        }
        gathered.log_events = Some(of_log);
        gathered.log_raw = of_raw;
        gathered.findings.extend(more.iter().filter_map(|(partition, ranges)| differing_more(*partition, ranges)));
        Ok(())
    }
}

/// What the log still has of the first of its ranges.
fn first_range(partition: u32, start: u64, pinned: &Pinned) -> Option<(u32, Range<u64>)> {
    let archived = pinned.partitions.get(partition as usize)?.archived;
    let end = (cell_start(start) + LOG_CELL_RECORDS).min(archived);
    (cell_start(start) != start && start < end).then_some((partition, start..end))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// At every event.
    Wholly,
    /// There are too many, or the log has let go of some.
    Partly,
}

impl Holding<'_> {
    /// The records of a range that differ.
    async fn records(&self, partition: u32, range: Range<u64>) -> Result<Differing, AuditError> {
        let (of_log, extent) =
            logcheck::records(self.log, partition, self.archived(partition, &range), self.scope).await?;
        // What the raw events have above what is archived is there twice, once it is.
        let range = extent.start.min(range.end)..range.end;
        let files = self.files(partition, &range);
        let of_raw = self.scanner.raw_records(files, partition, range, &self.counting).await?;
        Ok(compared(&of_log, &of_raw, &extent))
    }

    /// Looks at the events of records that differ, unless they are too many.
    async fn look(
        &self,
        partition: u32,
        range: Range<u64>,
        differing: &Differing,
        events: u64,
        gathered: &mut Gathered,
    ) -> Result<Looked, AuditError> {
        if differing.offsets.is_empty() {
            return Ok(Looked::Wholly);
        }
        if events > EVENTS_MAX {
            return Ok(Looked::Partly);
        }
        let wanted = &differing.offsets;
        let offsets = self.archived(partition, &range);
        let (mut of_log, extent) = logcheck::events(self.log, partition, offsets, self.scope, wanted).await?;
        // What the log has let go of since is not missing from it.
        of_log.retain(|seen| seen.place.offset() >= extent.start);
        let held: BTreeSet<u64> = wanted.range(extent.start..).copied().collect();
        let is_whole = held.len() == wanted.len();
        let files = self.files(partition, &range);
        let of_raw = self.scanner.raw_events(files, partition, &Arc::new(held), &self.counting).await?;
        gathered.log_begins(partition, extent.start);
        gathered.findings.extend(against_log(partition, &of_log, &of_raw, &mut gathered.known));
        Ok(if is_whole { Looked::Wholly } else { Looked::Partly })
    }

    fn archived(&self, partition: u32, range: &Range<u64>) -> Range<u64> {
        let archived = self.pinned.partitions.get(partition as usize).map_or(0, |state| state.archived);
        range.start..range.end.min(archived).max(range.start)
    }

    /// The files that may hold such offsets, of the dates that are not left out.
    fn files(&self, partition: u32, range: &Range<u64>) -> Vec<DataFile> {
        let files = self.pinned.events.files.iter();
        let meant = files.filter(|file| date_of_file(file).is_none_or(|date| self.scope.holds(date)));
        overlapping(meant, partition, range)
    }
}

fn compared(log: &Records, raw: &Records, extent: &Extent) -> Differing {
    // What was read before the log let go of it is not compared.
    let known = |(offset, _): &(&u64, &(u64, u64))| **offset >= extent.start && !extent.is_unknown(**offset);
    let rows = |records: &Records| records.iter().filter(known).map(|(_, (rows, _))| *rows).sum();
    let offsets: BTreeSet<u64> = log
        .iter()
        .chain(raw)
        .filter(known)
        .map(|(offset, _)| *offset)
        .filter(|offset| log.get(offset) != raw.get(offset))
        .collect();
    let of = |records: &Records| offsets.iter().filter_map(|offset| records.get(offset)).map(|(rows, _)| *rows).sum();
    let events: u64 = [of(log), of(raw)].into_iter().fold(0, u64::saturating_add);
    Differing { offsets, events, compared: (rows(log), rows(raw)), start: extent.start }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_differ_unless_nobody_knows_what_they_held() {
        let log = Records::from([(3, (2, 7)), (4, (1, 9)), (5, (1, 1)), (7, (1, 1))]);
        let raw = Records::from([(3, (2, 7)), (4, (1, 8)), (6, (3, 3)), (8, (9, 9)), (9, (4, 4))]);
        let extent = Extent { unreadable: vec![(8, "broken".to_owned())], given_up: vec![9], ..Extent::default() };
        let found = compared(&log, &raw, &extent);
        assert_eq!(found.offsets, [4, 5, 6, 7].into());
        assert_eq!((found.events, found.compared), (1 + 1 + 1 + 1 + 3, (5, 6)));
    }
}
