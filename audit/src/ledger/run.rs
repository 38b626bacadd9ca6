//! One run of the ledger, from the pinned tables to the report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::{HashMap, HashSet};
use object_store::ObjectStore;
use reckon_data::clock::Clock;
use reckon_data::definition::Definition;
use reckon_data::log::Log;
use reckon_data::loss::Loss;
use reckon_data::minute::{format_date, format_time};
use reckon_data::run::Granularity;
use reckon_data::table::Tables;
use uuid::Uuid;

use super::conclude::{Concluded, bad_file, conclude, unnamed};
use super::datecheck::{DateCheck, DateChecked};
use super::explain::Known;
use super::held::{ByPlace, EVENT_BYTES, Reading, cell_start, of_log_cell};
use super::horizon::{Delays, horizon};
use super::logcheck::{self, LogCells, LogScope};
use super::pin::Pinned;
use super::place::Place;
use super::raw::Counting;
use super::rawcheck::{against_log, by_index, overlapping, wrong_hashes};
use super::scan::{FileHashes, Scanner};
use super::segments::Segments;
use super::served::{self, Answers, Reach};
use super::streamcheck::StreamCheck;
use crate::error::AuditError;
use crate::finding::{Class, Finding, Repair};
use crate::report::model::{
    AuditRequest, DateTotals, FINDINGS_MAX, Horizon, HourTotals, Report, SegmentTotals, ServedTotals, Stage,
    Thresholds, Verdict,
};

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
    parts: LedgerParts,
}

/// What a run has gathered.
#[derive(Debug, Default)]
struct Gathered {
    dates: Vec<DateChecked>,
    findings: Vec<Finding>,
    known: Known,
    hashes: FileHashes,
    seconds: BTreeMap<String, f64>,
    log_events: Option<u64>,
    log_raw: u64,
    whole_log: bool,
    segments: SegmentTotals,
    served: ServedTotals,
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

    fn report(
        &self,
        request: &AuditRequest,
        run_id: Uuid,
        started: i64,
        pinned: &Pinned,
        mut gathered: Gathered,
    ) -> Report {
        let options = &self.parts.options;
        gathered.findings.sort_by_key(|finding| finding.class.is_expected());
        let mut findings_total: BTreeMap<String, u64> = BTreeMap::new();
        for finding in &gathered.findings {
            *findings_total.entry(finding.class.name().to_owned()).or_default() += 1;
        }
        let is_balanced = gathered.findings.iter().all(|finding| finding.class.is_expected());
        let stages = stages(&gathered);
        let horizon = all_delays(&gathered.dates, u64::from(options.window_minutes));
        gathered.findings.truncate(FINDINGS_MAX);
        Report {
            run_id,
            started_at: format_time(started),
            finished_at: format_time(self.parts.clock.now()),
            verdict: if is_balanced { Verdict::Balanced } else { Verdict::Findings },
            request: request.clone(),
            code_version: options.code_version.clone(),
            definition: self.parts.definition.version(),
            configuration: options.configuration.clone(),
            log: pinned.log,
            partitions: pinned.partitions.clone(),
            tables: pinned.tables(),
            files_hash: gathered.hashes.all(),
            thresholds: Thresholds {
                difference_max: 0,
                served_entities: if self.parts.answers.is_some() { options.served_entities as u64 } else { 0 },
                rows_compared: rows_compared(&gathered.dates),
                memory: options.memory,
            },
            stages,
            hours: gathered.dates.iter().flat_map(|date| date.hours.iter().cloned()).collect::<Vec<HourTotals>>(),
            dates: gathered.dates.into_iter().map(|date| date.totals).collect::<Vec<DateTotals>>(),
            whole_log: gathered.whole_log,
            segments: gathered.segments,
            served: gathered.served,
            horizon,
            findings: gathered.findings,
            findings_total,
            repair: None,
            seconds: gathered.seconds,
            memory_peak: crate::memory::peak(),
            previous: None,
        }
    }
}

/// Whether a wrong count is the reason for a wrong answer.
fn explains(cause: &Finding, answer: &Finding) -> bool {
    let same_entity = cause.entity_id.is_none() || cause.entity_id == answer.entity_id;
    // Of several dates, or of none in particular.
    let same_date =
        cause.date.as_deref().is_none_or(|dates| dates.split(' ').any(|date| answer.date.as_deref() == Some(date)));
    // What is about no date and no entity in particular explains nothing, unless it is about what answers are made of.
    let of_all = matches!(cause.class, Class::StaleCoverage) || cause.table == "stream_counts";
    let of_some = cause.date.is_some() || cause.entity_id.is_some() || of_all;
    let of_tables = cause.table != "served" && cause.table != "log" && of_some;
    of_tables && !cause.class.is_expected() && same_entity && same_date
}

/// Whether two findings are about the same raw events, by their places.
fn is_same_place(told: &Finding, finding: &Finding) -> bool {
    let range = |finding: &Finding| Some((finding.offset_start?, finding.offset_end?));
    let meet = range(told).zip(range(finding)).is_some_and(|((a, b), (c, d))| a < d && c < b);
    let both = told.table == "events" && finding.table == "events";
    both && !told.class.is_expected() && told.partition == finding.partition && meet
}

/// Where raw events are missing of which nobody knows what they were, counts that were made before hold as many more: that
/// is the same difference.
fn leave_out_what_raw_lacks(findings: &mut Vec<Finding>) {
    let is_missing = |finding: &&Finding| {
        let fewer = matches!(finding.class, Class::Lost | Class::OffsetHole);
        fewer && finding.table == "events" && finding.event_ids.is_empty()
    };
    let is_more = |finding: &Finding| {
        let of_a_row = finding.entity_id.is_some() && finding.events > 0;
        finding.class == Class::ExtraRows && finding.table == "batch_counts" && of_a_row
    };
    let add = |sum: u64, finding: &Finding| sum.saturating_add(finding.events);
    let missing = findings.iter().filter(is_missing).fold(0, add);
    let more = findings.iter().filter(|finding| is_more(finding)).fold(0, add);
    // Exactly as many: what is missing for good explains nothing else.
    if more == missing {
        findings.retain(|finding| !is_more(finding));
    }
}

fn unreadable_record(partition: u32, (offset, reason): &(u64, String)) -> Finding {
    let mut finding = Finding::new(Class::CorruptFile, "log", format!("a record of the log cannot be read: {reason}"));
    (finding.partition, finding.offset_start, finding.offset_end) = (Some(partition), Some(*offset), Some(offset + 1));
    finding.repair = Repair::NotNeeded;
    "it is made anew from the raw events when it is needed; reckon log set-aside gives it up"
        .clone_into(&mut finding.action);
    finding
}

/// A difference that the design expects.
fn expected(class: Class, date: i32, total: u64, ids: Vec<String>) -> Finding {
    let (table, text, action) = match class {
        Class::LateNotRecounted => (
            "batch_counts",
            "late events that the stream has counted and batch has not yet",
            "the next batch run counts them",
        ),
        Class::DuplicatePastWindow => (
            "stream_counts",
            "repeats that came after the dedup window, and count in the stream",
            "the next batch run drops them; the horizon says which window would have",
        ),
        _ => (
            "events",
            "repeats of an event with another minute, dimension or value: the first copy counts",
            "ask who sends one event id with different contents",
        ),
    };
    let mut finding = Finding::new(class, table, text.to_owned());
    finding.date = Some(format_date(date));
    finding.events = total;
    finding.event_ids = ids;
    action.clone_into(&mut finding.action);
    finding
}

fn rows_compared(dates: &[DateChecked]) -> f64 {
    let (mut rows, mut compared) = (0.0, 0.0);
    for date in dates {
        rows += date.totals.raw as f64;
        compared += date.totals.raw as f64 * f64::from(date.compared.count_ones()) / 64.0;
    }
    if rows > 0.0 { compared / rows } else { 1.0 }
}

fn all_delays(dates: &[DateChecked], window: u64) -> Horizon {
    let mut delays = Delays::default();
    dates.iter().for_each(|date| delays.merge(&date.reduced.delays));
    let peak = dates.iter().map(|date| date.reduced.peak).max().unwrap_or(0);
    horizon(&delays, window, peak)
}

fn stages(gathered: &Gathered) -> Vec<Stage> {
    let sum = |of: &dyn Fn(&DateTotals) -> u64| {
        gathered.dates.iter().fold(0_u64, |sum, date| sum.wrapping_add(of(&date.totals)))
    };
    let wrong: HashMap<&str, u64> = gathered.findings.iter().filter(|finding| !finding.class.is_expected()).fold(
        HashMap::new(),
        |mut tables, finding| {
            *tables.entry(finding.table.as_str()).or_default() += 1;
            tables
        },
    );
    let agree = |table: &str| !wrong.contains_key(table);
    let of_granularity = |granularity: Granularity| {
        let is = |finding: &&Finding| {
            finding.table == "batch_counts"
                && !finding.class.is_expected()
                && finding.granularity.as_deref().is_none_or(|found| found == granularity.name())
        };
        gathered.findings.iter().find(is).is_none()
    };
    let stage = |stage: &str, title: &str, expected: u64, found: u64, fingerprints_agree: bool| Stage {
        stage: stage.to_owned(),
        title: title.to_owned(),
        expected,
        found,
        fingerprints_agree,
    };
    let (raw, repeats) = (sum(&|date| date.raw), sum(&|date| date.repeats));
    let open: u64 = sum(&|date| if date.closed { 0 } else { date.expected });
    let of = |level: &dyn Fn(&DateTotals) -> u64| sum(&|date| if date.closed { 0 } else { level(date) });
    let mut stages = Vec::new();
    if let Some(events) = gathered.log_events {
        let title = "raw events of the records that the log still holds";
        stages.push(stage("log", title, events, gathered.log_raw, agree("events")));
    }
    let distinct = sum(&|date| date.expected) + sum(&|date| date.uncovered);
    stages.push(stage("raw_distinct", "raw events less repeats", raw - repeats, distinct, agree("events")));
    let segments = &gathered.segments;
    let due = segments.accepted.saturating_sub(segments.duplicate);
    stages.push(stage("stream", "segments that are still kept", due, segments.counted, agree("stream_counts")));
    for (name, title, granularity, found) in [
        ("batch_minute", "batch, per minute", Granularity::Minute, of(&|date| date.minute)),
        ("batch_hour", "batch, per hour", Granularity::Hour, of(&|date| date.hour)),
        ("batch_day", "batch, per day", Granularity::Day, of(&|date| date.day)),
    ] {
        stages.push(stage(name, title, open, found, of_granularity(granularity)));
    }
    let served = &gathered.served;
    let due = served.asked - served.incomplete;
    stages.push(stage("served", "answers that were asked for and right", due, served.equal, agree("served")));
    stages
}
