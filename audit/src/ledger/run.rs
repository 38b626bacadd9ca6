//! One run of the ledger, from the pinned tables to the report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashSet;
use object_store::ObjectStore;
use reckon_data::clock::Clock;
use reckon_data::definition::Definition;
use reckon_data::log::Log;
use reckon_data::loss::Loss;
use reckon_data::minute::format_date;
use reckon_data::table::Tables;
use uuid::Uuid;

use super::conclude::{Concluded, bad_file, conclude, unnamed};
use super::datecheck::DateCheck;
use super::gathered::Gathered;
use super::held::{ByPlace, EVENT_BYTES, Reading, cell_start, of_log_cell};
use super::logcheck::{self, LogCells, LogScope};
use super::pin::Pinned;
use super::place::Place;
use super::raw::Counting;
use super::rawcheck::{against_log, by_index, overlapping, wrong_hashes};
use super::scan::Scanner;
use super::segments::Segments;
use super::served::{self, Answers, Reach};
use super::streamcheck::StreamCheck;
use super::told::{expected, explains, is_same_place, leave_out_what_raw_lacks, unreadable_record};
use crate::error::AuditError;
use crate::finding::{Class, Finding, Repair};
use crate::report::model::{AuditRequest, Report};

/// Ranges of offsets in which log and raw events differ that are looked at event by event.
const RANGES_MAX: usize = 64;
/// Events that are looked at in them.
const EVENTS_MAX: usize = 1 << 20;

/// What the ledger works with.
#[derive(Debug, Clone)]
pub struct LedgerParts {
    /// The tables.
    pub tables: Arc<dyn Tables>,
    /// Where their files lie: the store rooted at the tables' folder.
    pub store: Arc<dyn ObjectStore>,
    /// The log's identity.
    pub log: Uuid,
    /// Its partitions.
    pub partitions: u32,
    /// The log, to be read; none: the raw events are held against the stream's segments only.
    pub reader: Option<Arc<dyn Log>>,
    /// Who is asked for answers; none: none is.
    pub answers: Option<Arc<dyn Answers>>,
    /// What is counted.
    pub definition: Arc<Definition>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What it goes by.
    pub options: LedgerOptions,
}

/// What the ledger goes by.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    /// The stream's dedup window, minutes.
    pub window_minutes: u32,
    /// Memory that events may take, bytes.
    pub memory: u64,
    /// Entities of which answers are asked, of each date.
    pub served_entities: usize,
    /// Hash of the settings, hexadecimal.
    pub configuration: String,
    /// Version of the program.
    pub code_version: String,
}

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it does: `reading 2013-02-08`.
    pub step: String,
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// Events read so far.
    pub events: u64,
}

/// Who is told how far a run is.
pub type OnProgress<'a> = dyn Fn(Progress) + Send + Sync + 'a;

/// Recounts, and balances.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(super) parts: LedgerParts,
}

impl Ledger {
    /// A ledger with these parts.
    #[must_use]
    pub const fn new(parts: LedgerParts) -> Self {
        Self { parts }
    }

    /// Runs once.
    ///
    /// # Errors
    /// When it could not look: a table, the store or the log failed, or the request makes no sense. What it finds is no
    /// error.
    pub async fn run(
        &self,
        request: &AuditRequest,
        run_id: Uuid,
        progress: &OnProgress<'_>,
    ) -> Result<Report, AuditError> {
        let started = self.parts.clock.now();
        let reader = self.parts.reader.as_deref();
        let pinned = Pinned::new(&*self.parts.tables, self.parts.log, self.parts.partitions, reader).await?;
        let mut gathered = Gathered::default();
        let by_place = self.look_at_dates(&pinned, request, run_id, &mut gathered, progress).await?;
        let whole = request.dates.is_empty();
        if whole {
            self.look_at_log(&pinned, &by_place, &mut gathered, progress).await?;
        }
        let at_cut = self.look_at_coverage(&pinned, &mut gathered).await?;
        self.conclude_dates(&pinned, at_cut, &mut gathered).await?;
        if whole {
            self.look_at_stream(&pinned, &mut gathered, progress).await?;
        }
        self.look_at_answers(&pinned, &mut gathered, progress).await;
        Ok(self.report(request, run_id, started, &pinned, gathered))
    }

    fn scanner(&self) -> Scanner {
        Scanner {
            store: Arc::clone(&self.parts.store),
            definition: Arc::clone(&self.parts.definition),
            window: i64::from(self.parts.options.window_minutes),
            events_max: (self.parts.options.memory / EVENT_BYTES).max(1),
        }
    }

    async fn look_at_dates(
        &self,
        pinned: &Pinned,
        request: &AuditRequest,
        run_id: Uuid,
        gathered: &mut Gathered,
        progress: &OnProgress<'_>,
    ) -> Result<ByPlace, AuditError> {
        let begun = Instant::now();
        let dates = pinned.asked(&request.dates)?;
        let scanner = self.scanner();
        let check = DateCheck {
            scanner: &scanner,
            coverage: Arc::new(pinned.coverage()),
            seed: run_id.as_u64_pair().1,
            served: if self.parts.answers.is_some() { self.parts.options.served_entities } else { 0 },
            closed: pinned.closed,
        };
        let mut by_place = ByPlace::new();
        let (total, mut events) = (dates.len() as u64, 0);
        for (done, (date, files)) in (0..).zip(&dates) {
            progress(Progress { step: format!("reading {}", format_date(*date)), done, total, events });
            let rows: u64 = files.events.iter().map(|file| file.rows).sum();
            let mut places = ByPlace::new();
            let checked = check.run(*date, files, &mut places, &mut gathered.hashes).await?;
            // What retention has taken is no loss; and what is read without dimensions is not what the log has.
            if !(checked.coarse || i64::from(*date) < pinned.closed) {
                by_place.merge(places);
            }
            gathered.dates.push(checked);
            events += rows;
        }
        gathered.seconds.insert("dates".to_owned(), begun.elapsed().as_secs_f64());
        Ok(by_place)
    }

    /// The raw events against the log, by their places.
    async fn look_at_log(
        &self,
        pinned: &Pinned,
        by_place: &ByPlace,
        gathered: &mut Gathered,
        progress: &OnProgress<'_>,
    ) -> Result<(), AuditError> {
        let begun = Instant::now();
        let raw_whole = gathered.dates.iter().all(|date| date.raw_whole);
        let mut starts: BTreeMap<u32, u64> =
            (pinned.partitions.iter()).filter_map(|state| Some((state.partition, state.log_start?))).collect();
        if let Some(log) = self.parts.reader.as_deref() {
            let coarse = gathered.dates.iter().filter(|date| date.coarse).map(|date| date.date).collect();
            let scope = LogScope { counting: Counting::of(&self.parts.definition), closed: pinned.closed, coarse };
            let (mut cells, mut whole) = (LogCells::new(), true);
            for state in &pinned.partitions {
                let step = format!("reading partition {} of the log", state.partition);
                let total = pinned.partitions.len() as u64;
                progress(Progress { step, done: u64::from(state.partition), total, events: 0 });
                let range = state.log_start.unwrap_or(0)..state.archived;
                let extent = logcheck::add_up(log, state.partition, range, &scope, &mut cells).await?;
                starts.insert(state.partition, extent.start);
                whole &= extent.start == 0 && extent.end == state.archived;
                whole &= extent.unreadable.is_empty() && extent.given_up.is_empty();
                let unreadable = extent.unreadable.iter().map(|bad| unreadable_record(state.partition, bad));
                gathered.findings.extend(unreadable);
            }
            gathered.whole_log = whole;
            if raw_whole {
                self.compare_with_log(log, pinned, &scope, (&cells, by_place), &starts, gathered).await?;
            }
        }
        if let (Some(records), true) = (&by_place.records, raw_whole) {
            let is_held = |partition, offset| {
                let held = starts.get(&partition).is_some_and(|begins| cell_start(offset) >= *begins);
                held && gathered.log_events.is_some()
            };
            // A record whose events are of several dates is not whole where some of them are left out.
            if pinned.closed <= 0 && !gathered.dates.iter().any(|date| date.coarse) {
                gathered.findings.extend(by_index(records, is_held));
            }
        }
        gathered.seconds.insert("log".to_owned(), begun.elapsed().as_secs_f64());
        Ok(())
    }

    async fn compare_with_log(
        &self,
        log: &dyn Log,
        pinned: &Pinned,
        scope: &LogScope,
        (cells, by_place): (&LogCells, &ByPlace),
        starts: &BTreeMap<u32, u64>,
        gathered: &mut Gathered,
    ) -> Result<(), AuditError> {
        let held = |cell: &u64| {
            let (partition, start, _) = of_log_cell(*cell);
            starts.get(&partition).is_some_and(|begins| start >= *begins)
        };
        gathered.log_events = Some(cells.iter().filter(|(cell, _)| held(cell)).map(|(_, (rows, _))| rows).sum());
        gathered.log_raw = by_place.cells.iter().filter(|(cell, _)| held(cell)).map(|(_, (rows, _))| rows).sum();
        let differing = logcheck::differing(cells, &by_place.cells, starts);
        let (scanner, counting) = (self.scanner(), Arc::new(scope.counting.clone()));
        let (mut looked_at, mut events) = (0, 0);
        for (partition, start, end) in differing.iter().take(RANGES_MAX).copied() {
            if events > EVENTS_MAX {
                break;
            }
            looked_at += 1;
            let archived = pinned.partitions.get(partition as usize).map_or(0, |state| state.archived);
            let range = start..end.min(archived).max(start);
            let (of_log, extent) = logcheck::events(log, partition, range, scope).await?;
            // What the raw events have above what is archived is there twice, once it is.
            let range = extent.start..end;
            let files = overlapping(pinned.events.files.iter(), partition, &range);
            let mut of_raw = scanner.raw_events(files, partition, range, &counting).await?;
            // Of a record that cannot be read nobody knows what it held.
            of_raw.retain(|seen| !extent.is_unknown(seen.place.offset()));
            events += of_log.len() + of_raw.len();
            gathered.findings.extend(against_log(partition, &of_log, &of_raw, &mut gathered.known));
        }
        for (partition, start, end) in differing.iter().skip(looked_at).copied() {
            let text = "log and raw events differ here; there is more of that than was looked at".to_owned();
            let mut finding = Finding::new(Class::OffsetHole, "events", text);
            (finding.partition, finding.offset_start, finding.offset_end) = (Some(partition), Some(start), Some(end));
            finding.repair = Repair::Rebuild;
            gathered.findings.push(finding);
        }
        Ok(())
    }

    /// Whether coverage lies where it may: at cuts, below what is archived. And what had gone from the log.
    async fn look_at_coverage(&self, pinned: &Pinned, gathered: &mut Gathered) -> Result<bool, AuditError> {
        let mut at_cut = true;
        for state in &pinned.partitions {
            let partition = state.partition;
            let mut stale = |text: String| {
                let mut finding = Finding::new(Class::StaleCoverage, "batch_counts", text);
                finding.partition = Some(partition);
                finding.offset_start = Some(state.coverage);
                finding.repair = Repair::Recount;
                "reckon audit --repair recounts every date".clone_into(&mut finding.action);
                gathered.findings.push(finding);
            };
            if state.coverage > state.archived {
                stale(format!(
                    "batch says to have counted up to {}, and {} is archived",
                    state.coverage, state.archived
                ));
            }
            let held = state
                .log_start
                .zip(state.log_end)
                .is_some_and(|(start, end)| state.coverage >= start && state.coverage < end && state.coverage > 0);
            if let Some(log) = self.parts.reader.as_deref().filter(|_| held)
                && logcheck::is_cut(log, partition, state.coverage).await? == Some(false)
            {
                at_cut = false;
                stale(format!("coverage is {}, where the log has no cut", state.coverage));
            }
            if let Some(loss) = Loss::of(&pinned.events, pinned.log, partition)
                && Loss::accepted(&pinned.counts, pinned.log, partition) < loss.records
            {
                let mut finding = Finding::new(Class::GoneFromLog, "log", format!("{loss}"));
                finding.partition = Some(partition);
                finding.offset_end = Some(loss.to);
                finding.repair = Repair::Impossible;
                "reckon log accept takes note of it; a longer retention of the log avoids it"
                    .clone_into(&mut finding.action);
                gathered.findings.push(finding);
            }
        }
        Ok(at_cut)
    }

    async fn conclude_dates(&self, pinned: &Pinned, at_cut: bool, gathered: &mut Gathered) -> Result<(), AuditError> {
        let (scanner, counting) = (self.scanner(), Arc::new(Counting::of(&self.parts.definition)));
        let mut findings = Vec::new();
        let raw_told = gathered.findings.iter().any(|finding| finding.table == "events");
        // Where one date shows that coverage says too much, a single event of another is not lost either.
        let is_stale = |found: &Finding| found.class == Class::StaleCoverage;
        let mut concluded: Vec<Concluded> =
            gathered.dates.iter().map(|checked| conclude(checked, &gathered.known, at_cut)).collect();
        if at_cut && concluded.iter().any(|date| date.findings.iter().any(is_stale)) {
            concluded = gathered.dates.iter().map(|checked| conclude(checked, &gathered.known, false)).collect();
        }
        for (checked, concluded) in gathered.dates.iter_mut().zip(concluded) {
            let before = findings.len();
            findings.extend(checked.bad.iter().map(|bad| bad_file(bad, Some(checked.date))));
            findings.extend(concluded.findings);
            findings.extend(wrong_hashes(&checked.wrong_hash, checked.date));
            let totals = &mut checked.totals;
            totals.doubtful = !(totals.closed || concluded.raw_accounts || (gathered.whole_log && !checked.coarse));
            if !(totals.balanced || totals.closed || raw_told) && findings.len() == before {
                findings.push(unnamed(checked));
            }
            let reduced = &checked.reduced;
            if reduced.late_uncovered > 0 {
                findings.push(expected(Class::LateNotRecounted, checked.date, reduced.late_uncovered, Vec::new()));
            }
            if reduced.past_window_total > 0 {
                let ids = scanner.ids(&pinned.events.files, &reduced.past_window, &counting).await?;
                findings.push(expected(Class::DuplicatePastWindow, checked.date, reduced.past_window_total, ids));
            }
            if reduced.differing_total > 0 {
                let places: Vec<Place> = reduced.differing.iter().map(|repeat| repeat.place).collect();
                let ids = scanner.ids(&pinned.events.files, &places, &counting).await?;
                findings.push(expected(Class::RepeatDiffers, checked.date, reduced.differing_total, ids));
            }
        }
        gathered.findings.append(&mut findings);
        Ok(())
    }

    async fn look_at_stream(
        &self,
        pinned: &Pinned,
        gathered: &mut Gathered,
        progress: &OnProgress<'_>,
    ) -> Result<(), AuditError> {
        let begun = Instant::now();
        progress(Progress { step: "looking at the stream's segments".to_owned(), ..Progress::default() });
        let scanner = self.scanner();
        let reading = Arc::new(Reading::new(&self.parts.definition, false, 0));
        let segments: Segments = scanner.segments(&pinned.stream.files, &reading, &mut gathered.hashes).await?;
        gathered.findings.extend(segments.bad.iter().map(|bad| bad_file(bad, None)));
        let check = StreamCheck {
            scanner: &scanner,
            pinned,
            segments: &segments,
            reading: &reading,
            window: scanner.window,
            events_max: (self.parts.options.memory / EVENT_BYTES / 2).max(1),
            known: &gathered.known,
            raw_whole: gathered.dates.iter().all(|date| date.raw_whole),
            raw_is_log: gathered.log_events.is_some()
                && !gathered.dates.iter().any(|date| date.coarse)
                && !gathered.findings.iter().any(|finding| {
                    !finding.class.is_expected() && (finding.table == "events" || finding.table == "log")
                }),
        };
        let (totals, findings) = check.run().await?;
        gathered.segments = totals;
        // What the log has shown already is not said again.
        let told = |finding: &Finding| gathered.findings.iter().any(|other| is_same_place(other, finding));
        let new: Vec<Finding> = findings.into_iter().filter(|finding| !told(finding)).collect();
        gathered.findings.extend(new);
        leave_out_what_raw_lacks(&mut gathered.findings);
        gathered.seconds.insert("stream".to_owned(), begun.elapsed().as_secs_f64());
        Ok(())
    }

    async fn look_at_answers(&self, pinned: &Pinned, gathered: &mut Gathered, progress: &OnProgress<'_>) {
        let Some(answers) = &self.parts.answers else { return };
        let begun = Instant::now();
        progress(Progress { step: "asking for answers".to_owned(), ..Progress::default() });
        let reach = Reach {
            batch_version: pinned.counts.version,
            archived: pinned.partitions.iter().map(|state| state.archived).collect(),
        };
        for checked in &gathered.dates {
            if !checked.raw_whole {
                continue;
            }
            let (totals, findings) = served::check(&**answers, &checked.samples, &reach).await;
            gathered.served.asked += totals.asked;
            gathered.served.equal += totals.equal;
            gathered.served.incomplete += totals.incomplete;
            // An answer over counts that are wrong is wrong for that reason.
            let differing = checked.diffs.values().flatten().map(|diff| diff.key.entity.as_str());
            let wrong: HashSet<&str> = differing.collect();
            let told = |finding: &Finding| {
                finding.entity_id.as_deref().is_some_and(|entity| wrong.contains(entity))
                    || gathered.findings.iter().any(|other| explains(other, finding))
            };
            let new: Vec<Finding> = findings.into_iter().filter(|finding| !told(finding)).collect();
            gathered.findings.extend(new);
        }
        gathered.seconds.insert("served".to_owned(), begun.elapsed().as_secs_f64());
    }
}
