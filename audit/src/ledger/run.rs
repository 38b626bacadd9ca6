//! One run of the ledger, from the pinned tables to the report.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashSet;
use object_store::ObjectStore;
use reckon_data::clock::Clock;
use reckon_data::definition::Definition;
use reckon_data::log::Log;
use reckon_data::loss::Loss;
use reckon_data::minute::format_date;
use reckon_data::rolled::Rolled;
use reckon_data::table::{DataFile, Tables};
use uuid::Uuid;

use super::conclude::{Concluded, bad_file, conclude, unnamed};
use super::datecheck::DateCheck;
use super::gathered::Gathered;
use super::held::{ByPlace, EVENT_BYTES, Reading};
use super::logcheck;
use super::pin::Pinned;
use super::place::Place;
use super::raw::Counting;
use super::rawcheck::wrong_hashes;
use super::scan::Scanner;
use super::segments::Segments;
use super::served::{self, Answers, Reach};
use super::streamcheck::StreamCheck;
use super::told::{expected, explains, is_same_place, leave_out_what_raw_lacks};
use crate::error::AuditError;
use crate::finding::{Class, Finding, Repair};
use crate::repair::Plan;
use crate::report::model::{AuditRequest, Report};

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

    /// Runs once. Of many findings the report names some; the plan is what all of them ask for.
    ///
    /// # Errors
    /// When it could not look: a table, the store or the log failed, or the request makes no sense. What it finds is no
    /// error.
    pub async fn run(
        &self,
        request: &AuditRequest,
        run_id: Uuid,
        progress: &OnProgress<'_>,
    ) -> Result<(Report, Plan), AuditError> {
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
        // Batch is not to count past segments of which nobody knows whether the raw events have what they count.
        if whole || request.repair {
            self.look_at_stream(&pinned, &mut gathered, progress).await?;
        }
        self.look_at_answers(&pinned, &mut gathered, progress).await;
        Ok(self.report(request, run_id, started, &pinned, gathered))
    }

    pub(super) fn scanner(&self) -> Scanner {
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
            rolled: Rolled::of(&pinned.counts),
        };
        let mut by_place = ByPlace::new();
        let (total, mut events) = (dates.len() as u64, 0);
        for (done, (date, files)) in (0..).zip(&dates) {
            progress(Progress { step: format!("reading {}", format_date(*date)), done, total, events });
            let rows: u64 = files.events.iter().map(|file| file.rows).sum();
            let mut places = ByPlace::new();
            let checked = check.run(*date, files, &mut places, &mut gathered.hashes).await?;
            // What retention has taken is no loss.
            if checked.is_held_against_log() && i64::from(*date) >= pinned.closed {
                by_place.merge(places);
            }
            gathered.dates.push(checked);
            events += rows;
        }
        gathered.seconds.insert("dates".to_owned(), begun.elapsed().as_secs_f64());
        Ok(by_place)
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
        let shown_by_log: HashSet<i32> =
            gathered.dates.iter().filter(|date| date.is_held_against_log()).map(|date| date.date).collect();
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
            let is_shown = gathered.whole_log && gathered.log_starts.is_some() && shown_by_log.contains(&checked.date);
            totals.doubtful = !(totals.closed || concluded.raw_accounts || is_shown);
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
        let unreadable: HashSet<&str> =
            gathered.dates.iter().flat_map(|date| &date.bad).map(|bad| bad.path.as_str()).collect();
        let is_bad = |file: &&DataFile| unreadable.contains(file.path.as_str());
        let bad: Vec<DataFile> = pinned.events.files.iter().filter(is_bad).cloned().collect();
        let proven_from = gathered.proven_from();
        let check = StreamCheck {
            scanner: &scanner,
            pinned,
            segments: &segments,
            reading: &reading,
            window: scanner.window,
            events_max: (self.parts.options.memory / EVENT_BYTES / 2).max(1),
            known: &gathered.known,
            bad: &bad,
            proven_from: &proven_from,
        };
        let (totals, findings) = check.run().await?;
        gathered.segments = totals;
        // What the log has shown already is not said again.
        let told = |finding: &Finding| {
            // Unless it goes back to what the log has let go of, above coverage: that only the segment has.
            let starts = gathered.log_starts.as_ref();
            let log_start = finding.partition.and_then(|partition| starts?.get(&partition).copied());
            let state = finding.partition.and_then(|partition| pinned.partitions.get(partition as usize));
            let is_answered = state.is_some_and(|state| finding.offset_end > Some(state.coverage));
            let is_below = is_answered && finding.found < finding.expected && finding.offset_start < log_start;
            !is_below && gathered.findings.iter().any(|other| is_same_place(other, finding))
        };
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
