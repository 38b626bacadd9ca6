//! `reckon serve`: answers questions from the tables and from the tails of all who count; batch runs.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use reckon_audit::alert::IsMine;
use reckon_audit::canary::Record;
use reckon_batch::runs::AfterRun;
use reckon_batch::schedule::{Schedule, run_on_schedule};
use reckon_data::clock::Clock;
use reckon_data::config::Settings;
use reckon_data::damage::Damage as _;
use reckon_data::lease::{Keeper, Member};
use reckon_data::log::Log as _;
use reckon_data::tail::Tails;
use reckon_flight::Remote;
use reckon_serving::Serving;
use reckon_serving::rest::{self, Health, MetricsText, PartReadiness, Readiness, RestParts};

use tokio::sync::watch;

use super::archive::Turn;
use super::leased::work;
use super::process::{LEASES, Process, end_of};
use super::recount::followers;
use crate::alerts;
use crate::doors::{Doors, say};
use crate::node::{Audited, Base, Nest, batch_then_audit, dashboard, metrics, record, start_audit};

/// The role of the process that runs batch when it is time, in the leases.
const BATCH: &str = "batch";

/// Answer questions.
#[derive(Debug, Args)]
pub struct Serve {}

impl Serve {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let schedule = Schedule::parse(&settings.batch.schedule)?;
        let doors = Doors::listen(&settings.serving).await?;
        let audit_schedule = Schedule::parse(&settings.audit.schedule)?;
        let process = Process::open(settings, "serve").await?;
        let base = Arc::clone(&process.base);
        let alerts = alerts::open(&base.settings, &base.clock, &base.names)?;
        let partitions = base.mended.partitions();
        let leases = base.storage.beside(LEASES)?;
        let (log, definition) = (base.mended.identity(), Arc::clone(&base.definition));
        let tails = Remote::start(Arc::clone(&leases), log, definition, partitions).await;
        let serving = base.serving(Arc::clone(&tails) as _).await?;
        let mender = Arc::new(base.mender());
        let runs = base.runs(followers(&base), &mender, Some(refresh_after(&serving)))?;
        let stop = process.stopping();
        let turn = Arc::new(Turn::default());
        let me = Member { id: base.names.fresh(), address: String::new() };
        let turns = work(Keeper::shared(leases, BATCH, me, 1), Arc::clone(&turn) as _, stop.clone());
        let turns = process.spawn("taking turns", turns);
        let whose = Arc::clone(&turn);
        let is_mine: IsMine = Arc::new(move || whose.is_mine());
        let canary = start_canary(&process, partitions)?;
        let audited =
            Audited { serving: Some(Arc::clone(&serving)), runs: Arc::clone(&runs), mender, canary: canary.clone() };
        let audits = audited.runs(&base);
        if let Some(schedule) = schedule {
            let after = base.settings.audit.after_batch.then(|| Arc::clone(&audits));
            let runs = Arc::clone(&runs);
            let run = move || batch_then_audit(Arc::clone(&runs), after.clone());
            tokio::spawn(in_turn(schedule, Arc::clone(&base.clock), stop.clone(), Arc::clone(&turn), run));
        }
        if let Some(schedule) = audit_schedule {
            let audits = Arc::clone(&audits);
            let run = move || start_audit(Arc::clone(&audits));
            tokio::spawn(in_turn(schedule, Arc::clone(&base.clock), stop, turn, run));
        }
        let status = Status { base: Arc::clone(&base), serving: Arc::clone(&serving), tails, canary };
        let parts = RestParts {
            serving: Some(Arc::clone(&serving)),
            jobs: Some(runs as _),
            audits: Some(audits as _),
            page: dashboard(),
            listens: doors.listens()?,
            ..base.rest_parts(alerts::health(Arc::new(status), alerts.as_ref()))
        };
        let (routes, samples) = rest::open(parts);
        let doors = doors.open(&serving, &samples, &process.stopping())?;
        let lines = doors.lines();
        let alerts = alerts::start(alerts, &routes, &is_mine, &process.url()?);
        let end = async move {
            doors.end().await;
            alerts::stop(alerts).await;
            serving.stop();
            end_of(turns).await;
        };
        say(&lines);
        process.run_routes("serve", routes, end).await
    }
}

/// Runs a job at its times, when it is this process's turn.
async fn in_turn<Job, Run>(
    schedule: Schedule,
    clock: Arc<dyn Clock>,
    stop: watch::Receiver<bool>,
    turn: Arc<Turn>,
    job: Job,
) where
    Job: Fn() -> Run + Send + Sync,
    Run: Future<Output = ()> + Send,
{
    let run = || {
        let job = turn.is_mine().then(&job);
        async move {
            if let Some(job) = job {
                job.await;
            }
        }
    };
    run_on_schedule(&schedule, clock.as_ref(), stop, run).await;
}

/// Starts the canary if the settings say where its events go, for this process takes none; what it sees.
fn start_canary(process: &Process, partitions: u32) -> Result<Option<Arc<Record>>> {
    let base = &process.base;
    if base.settings.canary.target.is_empty() {
        return Ok(None);
    }
    let Some(record) = record(&base.settings) else { return Ok(None) };
    if base.settings.canary.token.is_empty() {
        bail!(
            "canary.target is set and canary.token is not: gateways let in a canary that has the token of their settings"
        );
    }
    let nest = Nest {
        settings: &base.settings.canary,
        commit_every: base.settings.archive.commit_every,
        partitions,
        token: &base.canary_token,
        clock: &base.clock,
        names: &base.names,
        record: &record,
    };
    process.spawn("the canary", nest.canary(&process.url()?)?.run(process.stopping()));
    Ok(Some(record))
}

/// Answers come from a run at once. The tables are maintained by those who archive.
fn refresh_after(serving: &Arc<Serving>) -> AfterRun {
    let serving = Arc::clone(serving);
    Arc::new(move |_| {
        let serving = Arc::clone(&serving);
        Box::pin(async move {
            if let Err(error) = serving.refresh().await {
                tracing::warn!(%error, "the new batch version is looked for again");
            }
        })
    })
}

struct Status {
    base: Arc<Base>,
    serving: Arc<Serving>,
    tails: Arc<Remote>,
    canary: Option<Arc<Record>>,
}

impl Status {
    /// Records that are not counted yet, as far as those who count say where they stand.
    fn lag(&self) -> u64 {
        let positions = (0..self.tails.partitions()).filter_map(|partition| self.tails.position(partition).ok());
        positions.map(|position| position.durable_end.saturating_sub(position.offset)).sum()
    }

    /// Partitions that nobody answers for.
    fn silent(&self) -> Vec<u32> {
        (0..self.tails.partitions()).filter(|partition| self.tails.position(*partition).is_err()).collect()
    }
}

impl Health for Status {
    fn ready(&self) -> Readiness {
        // It answers whoever counts: answers name what they lack. So it stays ready, or nobody would answer at all.
        let silent = self.silent();
        let reasons =
            (!silent.is_empty()).then(|| format!("answers lack partitions that nobody counts now: {silent:?}"));
        let damaged = self.base.storage.damaged().into_iter().map(|file| file.to_string()).collect();
        let parts = vec![PartReadiness::new("counters", reasons.clone())];
        let reasons = reasons.into_iter().collect();
        Readiness { ready: true, lag_records: self.lag(), reasons, parts, damaged, ..Readiness::default() }
    }

    fn metrics(&self, into: &mut MetricsText) {
        into.single(
            "reckon_index_bytes",
            "gauge",
            "Memory of the index over batch counts.",
            self.serving.index_bytes(),
        );
        let silent = self.silent().len();
        into.single("reckon_partitions_silent", "gauge", "Partitions that nobody answers for.", silent);
        if let Some(canary) = &self.canary {
            metrics::canary(&canary.stats(), into);
        }
        metrics::common(&self.base.delta, &*self.base.mended, into);
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Status").field("serving", &self.serving).finish_non_exhaustive()
    }
}
