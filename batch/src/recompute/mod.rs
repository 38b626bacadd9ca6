//! The recompute: exact counts from the raw events.
//!
//! ```text
//! cut ──▶ wait ──▶ pin ──▶ plan ──▶ recount the dates ──▶ one commit
//! ```
//!
//! - [`pin`] appends a cut to every partition and waits until counter and archiver have committed everything
//!   below; then it pins both tables. A cut whose run dies later harms nothing.
//! - [`plan`] finds the dates that have new events and says how each is recounted.
//! - [`date`] recounts one: [`repeats`] finds the hashes that occur twice, [`scope`] words the queries,
//!   [`sorter`] and [`rank`] make sorted runs of what they return, [`spill`] holds those, [`merge`] and [`fold`]
//!   merge them and make hours and days of the minutes, [`output`] writes the files.
//! - [`commit`] makes sure that no file was swept meanwhile, replaces the dates' files, moves the coverage of
//!   all partitions, and carries over from `events` what had gone before it was archived, in one transaction.
//! - [`cluster`] is who counts raw events when it is not this process, and [`elsewhere`] how.
//! - [`engine`] has the threads and the memory, [`span`] the offsets, [`functions`] what SQL lacks.
//!
//! Invariants: R-2 (coverage lies at cuts, and everything below is counted once), R-5.

mod cluster;
mod commit;
mod date;
mod elsewhere;
mod engine;
mod error;
mod fold;
mod functions;
mod merge;
mod output;
mod pin;
mod plan;
mod rank;
mod repeats;
mod report;
mod scope;
mod sorter;
mod span;
mod spill;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use reckon_data::clock::{Clock, Names};
use reckon_data::config::Batch as Settings;
use reckon_data::damage::{Damage, Damaged};
use reckon_data::definition::Definition;
use reckon_data::jobs::{EngineName, Follower, RunRequest};
use reckon_data::log::Log;
use reckon_data::minute::{date_of, format_date, parse_date};
use reckon_data::offload::offload;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table, Tables};
use reckon_tables::Storage;
use uuid::Uuid;

pub use cluster::{Cluster, Query};
use date::{DateJob, Recounted};
use engine::{Engine, Threads};
pub use error::BatchError;
pub use functions::{all as query_functions, distinct_users, read_function, repeated, write_function};
pub use output::layout;
use pin::Pinned;
use plan::{Asked, Choice, DatePlan, finest_files, finest_of_whole};
pub use repeats::Repeated;
pub use report::{DateReport, Mode, OnProgress, Progress, RunReport};
use scope::Scope;
use span::Span;
use spill::SpillDir;

/// What a recompute is made of.
#[derive(Debug)]
pub struct RecomputeParts {
    /// The log, for the cuts.
    pub log: Arc<dyn Log>,
    /// The tables.
    pub tables: Arc<dyn Tables>,
    /// Where their files lie, rooted at the tables' folder.
    pub store: Arc<dyn ObjectStore>,
    /// Which of them are damaged: dates with such counts are recounted.
    pub damage: Arc<dyn Damage>,
    /// A folder of this machine for temporary files.
    pub spill_dir: PathBuf,
    /// What is counted.
    pub definition: Arc<Definition>,
    /// The routing version, for the cuts.
    pub routing: u16,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Names of files and commits.
    pub names: Arc<dyn Names>,
    /// The settings.
    pub settings: Settings,
    /// Machines that count raw events, if there are any.
    pub cluster: Option<Arc<dyn Cluster>>,
    /// Who must have committed everything below the cuts: the counter, the archiver.
    pub followers: Vec<Arc<dyn Follower>>,
}

/// Recounts from raw events. One run at a time; a second one at the same time fails at its commit.
#[derive(Debug)]
pub struct Recompute {
    parts: RecomputeParts,
    threads: Threads,
}

impl Recompute {
    /// A recompute with a thread for each core.
    ///
    /// # Errors
    /// When threads cannot be had.
    pub fn new(parts: RecomputeParts) -> Result<Self, BatchError> {
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        Self::with_threads(parts, cores)
    }

    /// A recompute with so many threads, at least one.
    ///
    /// # Errors
    /// When threads cannot be had.
    pub fn with_threads(parts: RecomputeParts, threads: usize) -> Result<Self, BatchError> {
        let threads = Threads::start(threads.max(1)).map_err(|error| BatchError::Stopped(error.to_string()))?;
        Ok(Self { parts, threads })
    }

    /// A recompute that computes on the one thread of the runtime it is run on, as a simulation needs it.
    #[must_use]
    pub const fn on_one_thread(parts: RecomputeParts) -> Self {
        Self { parts, threads: Threads::none() }
    }

    /// Runs once, from the cut to the commit. When it fails nothing of it is visible; what it wrote is left to
    /// vacuum.
    ///
    /// # Errors
    /// See [`BatchError`]. [`reckon_data::table::TableError::Fenced`] and
    /// [`reckon_data::table::TableError::Conflict`] mean that somebody else has committed meanwhile.
    pub async fn run(
        &self,
        request: &RunRequest,
        run_id: Uuid,
        progress: &OnProgress<'_>,
    ) -> Result<RunReport, BatchError> {
        self.try_run(request, run_id, progress).await.map_err(BatchError::or_missing_file)
    }

    async fn try_run(
        &self,
        request: &RunRequest,
        run_id: Uuid,
        progress: &OnProgress<'_>,
    ) -> Result<RunReport, BatchError> {
        let requested = Requested::of(request)?;
        let (engine_name, cluster) = self.cluster(request)?;
        let mut phases = Phases::default();
        let cuts = self.append_cuts(run_id, progress).await?;
        self.wait(&cuts, progress).await?;
        phases.end("wait");
        let pinned = self.pin(cuts).await?;
        requested.check(pinned.closed)?;
        let spill = Arc::new(self.spill_dir(run_id).await?);
        let memory = usize::try_from(self.parts.settings.memory.as_u64()).unwrap_or(usize::MAX);
        let engine = Engine::new(&self.threads, memory, spill.path().to_owned())?;
        let mut jobs = self.plan(&engine, &pinned, &requested, &spill, progress).await?;
        jobs.iter_mut().for_each(|job| job.recount.cluster.clone_from(&cluster));
        phases.end("plan");
        let done = self.recount(&engine, jobs, progress).await?;
        phases.end("count");
        tell(progress, "committing", 0, 0, 0);
        let version = self.commit(run_id, &pinned, &done).await?;
        phases.end("commit");
        let report = report(run_id, &pinned.span, version, &done, phases.seconds, engine.memory_peak());
        Ok(RunReport { engine: engine_name, ..report })
    }

    /// Who is to count.
    fn cluster(&self, request: &RunRequest) -> Result<(EngineName, Option<Arc<dyn Cluster>>), BatchError> {
        match request.engine.unwrap_or(self.parts.settings.engine) {
            EngineName::Local => Ok((EngineName::Local, None)),
            EngineName::Ballista if self.parts.cluster.is_some() => {
                Ok((EngineName::Ballista, self.parts.cluster.clone()))
            }
            EngineName::Ballista => {
                let text = "no scheduler is named: --batch-scheduler http://HOST:PORT does, here or where the server is started";
                Err(BatchError::Invalid(text.to_owned()))
            }
        }
    }

    async fn spill_dir(&self, run_id: Uuid) -> Result<SpillDir, BatchError> {
        let parent = self.parts.spill_dir.clone();
        let created = offload(move || SpillDir::create(&parent, run_id)).await;
        created.map_err(|error| BatchError::Stopped(error.to_string()))?
    }

    async fn plan(
        &self,
        engine: &Engine,
        pinned: &Pinned,
        requested: &Requested,
        spill: &Arc<SpillDir>,
        progress: &OnProgress<'_>,
    ) -> Result<Vec<Job>, BatchError> {
        let today = date_of(self.parts.clock.now());
        let damaged: BTreeSet<String> = self.parts.damage.damaged().into_iter().map(|damaged| damaged.path).collect();
        let is_damaged = |file: &DataFile| damaged.contains(Storage::path(Table::BatchCounts, &file.path).as_ref());
        let dates = pinned.dates.with(&requested.replace);
        let (total, mut jobs) = (dates.len() as u64, Vec::new());
        for (done, (date, (events, before))) in (0..).zip(dates) {
            tell(progress, &format!("looking at {}", format_date(date)), done, total, 0);
            let plan = DatePlan { store: &self.parts.store, span: &pinned.span, events, counts: before };
            let asked = Asked {
                always: requested.full || requested.dates.contains(&date),
                replace: requested.replace.contains(&date),
                damaged: before.iter().any(is_damaged),
                recent: date >= today - 1,
                closed: i64::from(date) < pinned.closed,
                definition: self.parts.definition.version(),
            };
            match plan.choose(engine, asked).await {
                Ok(Some(choice)) => {
                    let finest = finest_of_whole(date, before, pinned.rolled);
                    jobs.push(Job { mending: plan.is_mending(asked), ..self.job(date, &plan, choice, spill, finest) });
                }
                Ok(None) => {}
                Err(error) if plan.is_mending(asked) => cannot_mend(date, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(jobs)
    }

    /// `whole` is the finest granularity of the date's rows when it is counted whole.
    fn job(&self, date: i32, plan: &DatePlan<'_>, choice: Choice, spill: &Arc<SpillDir>, whole: Granularity) -> Job {
        let (finest, existing) = match choice.mode {
            Mode::Full => (whole, Vec::new()),
            Mode::Entities | Mode::Closed => finest_files(plan.counts),
        };
        let recount = DateJob {
            date,
            source: plan.source(choice.scope),
            existing,
            finest,
            definition: Arc::clone(&self.parts.definition),
            names: Arc::clone(&self.parts.names),
            spill: Arc::clone(spill),
            cluster: None,
        };
        Job {
            recount,
            mode: choice.mode,
            counted_before: choice.counted_before,
            before: plan.counts.to_vec(),
            whole,
            beside: false,
            mending: false,
        }
    }

    /// Small dates side by side, each large one with all threads.
    async fn recount(
        &self,
        engine: &Engine,
        jobs: Vec<Job>,
        progress: &OnProgress<'_>,
    ) -> Result<Vec<Done>, BatchError> {
        let total = jobs.iter().map(|job| job.recount.steps(engine)).sum();
        let (steps, events) = (AtomicU64::new(0), AtomicU64::new(0));
        let (small, large): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| job.recount.rows() <= engine.chunk_rows as u64);
        let run = |job: Job| {
            let (steps, events) = (&steps, &events);
            async move {
                let text = format!("counting {}", format_date(job.recount.date));
                let step = |read: u64| {
                    let events = events.fetch_add(read, Ordering::Relaxed) + read;
                    tell(progress, &text, steps.fetch_add(1, Ordering::Relaxed) + 1, total, events);
                };
                let (date, mending) = (job.recount.date, job.mending);
                match job.run(engine, &step).await {
                    Err(error) if mending => {
                        cannot_mend(date, &error);
                        Ok(None)
                    }
                    done => done.map(Some),
                }
            }
        };
        let (there, here): (Vec<Job>, Vec<Job>) = small.into_iter().partition(|job| job.recount.is_elsewhere());
        let mut done: Vec<Done> = Vec::new();
        for jobs in [here, there] {
            let at_once = jobs.first().map_or(1, |job| job.recount.at_once(engine));
            let some: Vec<Option<Done>> =
                futures::stream::iter(jobs).map(run).buffer_unordered(at_once).try_collect().await?;
            done.extend(some.into_iter().flatten());
        }
        for job in large {
            done.extend(run(job).await?);
        }
        done.sort_by_key(|done| done.date);
        Ok(done)
    }
}

/// Nothing of the date is new: its damaged rows stay, and those who ask for them are told.
fn cannot_mend(date: i32, error: &BatchError) {
    tracing::warn!(date = format_date(date), error = error.in_full(), "damaged counts cannot be counted anew");
}

/// A date to be recounted.
struct Job {
    recount: DateJob,
    mode: Mode,
    counted_before: u64,
    /// All its files of before.
    before: Vec<DataFile>,
    /// The finest granularity of its rows when it is counted whole.
    whole: Granularity,
    /// Its rows come beside those of before.
    beside: bool,
    /// It is recounted for no other reason than that some of them are damaged.
    mending: bool,
}

/// A date that was recounted.
struct Done {
    date: i32,
    mode: Mode,
    raw_missing: bool,
    recounted: Recounted,
    before: Vec<DataFile>,
    /// Its rows come beside those of before, which have to be as they were.
    beside: bool,
}

impl Job {
    async fn run(mut self, engine: &Engine, step: &(dyn Fn(u64) + Send + Sync)) -> Result<Done, BatchError> {
        let mut recounted = match self.recount.run(engine, step).await {
            Err(error) if Damaged::cause(&error).is_some() => self.without_before(engine, error).await?,
            recounted => recounted?,
        };
        let raw_missing = recounted.counted < self.counted_before;
        if raw_missing && self.mode != Mode::Closed {
            let (date, before) = (format_date(self.recount.date), self.counted_before);
            tracing::warn!(date, before, found = recounted.counted, "raw events are missing: the date is closed");
            self.mode = Mode::Closed;
            self.recount.source.scope = Scope::New;
            (self.recount.finest, self.recount.existing) = finest_files(&self.before);
            recounted = match self.recount.run(engine, &|_| {}).await {
                Err(error) if Damaged::cause(&error).is_some() => self.without_before(engine, error).await?,
                recounted => recounted?,
            };
        }
        let Self { recount: DateJob { date, .. }, mode, before, beside, .. } = self;
        Ok(Done { date, mode, raw_missing, recounted, before, beside })
    }

    /// Recounts without the rows of before, if it may be they that are damaged: all of the date; or, if it is closed,
    /// what is new of it, whose rows come beside those of before. These cannot be had again, and stay where they are.
    async fn without_before(&mut self, engine: &Engine, error: BatchError) -> Result<Recounted, BatchError> {
        if self.recount.existing.is_empty() {
            return Err(error);
        }
        let date = format_date(self.recount.date);
        tracing::warn!(date, error = error.in_full(), mode = ?self.mode, "rows of before cannot be built on");
        self.recount.existing = Vec::new();
        if self.mode == Mode::Closed {
            self.before = Vec::new();
            self.beside = true;
        } else {
            self.mode = Mode::Full;
            self.recount.source.scope = Scope::All;
            self.recount.finest = self.whole;
        }
        self.recount.run(engine, &|_| {}).await
    }
}

#[derive(Debug)]
struct Phases {
    since: Instant,
    seconds: BTreeMap<String, f64>,
}

impl Default for Phases {
    fn default() -> Self {
        Self { since: Instant::now(), seconds: BTreeMap::new() }
    }
}

impl Phases {
    fn end(&mut self, phase: &str) {
        self.seconds.insert(phase.to_owned(), self.since.elapsed().as_secs_f64());
        self.since = Instant::now();
    }
}

/// Which dates a request asks for.
#[derive(Debug)]
struct Requested {
    /// All that have raw events.
    full: bool,
    dates: BTreeSet<i32>,
    /// Whole, whatever their rows of before count.
    replace: BTreeSet<i32>,
}

impl Requested {
    fn of(request: &RunRequest) -> Result<Self, BatchError> {
        let parse = |text: &String| {
            parse_date(text).ok_or_else(|| BatchError::Invalid(format!("{text:?} is no date: write it as 2013-02-08")))
        };
        let dates = |texts: &[String]| texts.iter().map(parse).collect::<Result<BTreeSet<i32>, BatchError>>();
        Ok(Self { full: request.full, dates: dates(&request.dates)?, replace: dates(&request.replace)? })
    }

    /// Refuses to replace a date before `closed`: its rows may be the only record of events that retention has removed.
    fn check(&self, closed: i64) -> Result<(), BatchError> {
        let Some(date) = self.replace.iter().find(|date| i64::from(**date) < closed) else { return Ok(()) };
        Err(BatchError::Invalid(format!(
            "{} cannot be replaced: retention may have removed raw events of it, and its rows are the only record of those",
            format_date(*date)
        )))
    }
}

fn tell(progress: &OnProgress<'_>, step: &str, done: u64, total: u64, events: u64) {
    progress(Progress { step: step.to_owned(), done, total, events });
}

fn report(
    id: Uuid,
    span: &Span,
    version: u64,
    done: &[Done],
    seconds: BTreeMap<String, f64>,
    memory_peak: u64,
) -> RunReport {
    let rows = |done: &Done| done.recounted.files.iter().map(|file| file.rows).sum::<u64>();
    let dates: Vec<DateReport> = done
        .iter()
        .map(|done| DateReport {
            date: format_date(done.date),
            mode: done.mode,
            events: done.recounted.events,
            duplicates: done.recounted.duplicates,
            counted: done.recounted.counted,
            rows: rows(done),
            raw_missing: done.raw_missing,
        })
        .collect();
    RunReport {
        id,
        engine: EngineName::Local,
        cuts: span.cuts.clone(),
        coverage_before: span.coverage.clone(),
        version,
        events: dates.iter().map(|date| date.events).sum(),
        duplicates: dates.iter().map(|date| date.duplicates).sum(),
        rows: dates.iter().map(|date| date.rows).sum(),
        dates,
        seconds,
        memory_peak,
    }
}
