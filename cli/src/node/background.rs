//! What a node does by itself: batch on a schedule, maintenance, trimming the log.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use reckon_batch::maintain::{Maintainer, Safe, trim_log};
use reckon_batch::mend::Mender;
use reckon_batch::runs::{AfterRun, BatchRuns};
use reckon_batch::schedule::{Schedule, run_every, run_on_schedule};
use reckon_data::jobs::{Follower as _, JobError, Jobs as _, RunRequest};
use reckon_data::log::Log as _;
use reckon_serving::Serving;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::audits::{batch_then_audit, start_audit};
use super::open::Node;

/// How often it is looked whether the log can be trimmed, and whether too many segments wait for batch.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// How often maintenance runs beside batch runs: a server whose batch runs nightly still makes a file a minute.
pub const MAINTAIN_EVERY: Duration = Duration::from_secs(600);

/// Starts everything; each task ends when `stop` turns true.
pub fn start(node: &Node, stop: &watch::Receiver<bool>) -> Result<Vec<JoinHandle<()>>> {
    let mut tasks = vec![maintenance(node, stop.clone())];
    if node.status.log.trims() {
        tasks.push(trimming(node, stop.clone()));
    }
    if let Some(schedule) = Schedule::parse(&node.settings.batch.schedule)? {
        let (runs, clock, stop) = (Arc::clone(&node.runs), Arc::clone(&node.clock), stop.clone());
        let audits = node.settings.audit.after_batch.then(|| Arc::clone(&node.audits));
        tasks.push(tokio::spawn(async move {
            let run = || batch_then_audit(Arc::clone(&runs), audits.clone());
            run_on_schedule(&schedule, clock.as_ref(), stop, run).await;
        }));
    }
    if let Some(schedule) = Schedule::parse(&node.settings.audit.schedule)? {
        let (audits, clock, stop) = (Arc::clone(&node.audits), Arc::clone(&node.clock), stop.clone());
        tasks.push(tokio::spawn(async move {
            run_on_schedule(&schedule, clock.as_ref(), stop, || start_audit(Arc::clone(&audits))).await;
        }));
    }
    if node.settings.batch.segments_max > 0 {
        tasks.push(pressure(node, stop.clone()));
    }
    Ok(tasks)
}

/// Starts a batch run, and says so in the log.
async fn start_run(runs: Arc<BatchRuns>) {
    match runs.start(RunRequest::default()).await {
        Ok(run) => tracing::info!(run = %run.id, "batch run"),
        Err(JobError::AlreadyRunning(run)) => tracing::warn!(%run, "the batch run before is still going on"),
        Err(error) => tracing::error!(%error, "batch run"),
    }
}

/// After a run answers come from it at once; then the tables are maintained. Both are part of the run.
pub fn after_run(serving: Arc<Serving>, maintainer: Arc<Maintainer>, mender: Arc<Mender>) -> AfterRun {
    Arc::new(move |_| {
        let (serving, maintainer, mender) = (Arc::clone(&serving), Arc::clone(&maintainer), Arc::clone(&mender));
        Box::pin(async move {
            if let Err(error) = serving.refresh().await {
                tracing::warn!(%error, "the new batch version is looked for again");
            }
            maintain(&maintainer, &mender).await;
        })
    })
}

/// Mends what is damaged, then maintains the tables.
pub async fn maintain(maintainer: &Maintainer, mender: &Mender) {
    // First: what is damaged cannot be put together with anything.
    mender.run().await;
    let report = maintainer.run().await;
    for failure in &report.failed {
        tracing::warn!(failure, "maintenance");
    }
}

/// Not while a batch run goes on: what it has written is not committed yet, and is swept if that takes too long.
/// The run maintains the tables when it is over.
fn maintenance(node: &Node, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    let (maintainer, mender) = (Arc::clone(&node.maintainer), Arc::clone(&node.mender));
    let runs = Arc::clone(&node.runs);
    tokio::spawn(async move {
        run_every(MAINTAIN_EVERY, stop, || {
            let (maintainer, mender, runs) = (Arc::clone(&maintainer), Arc::clone(&mender), Arc::clone(&runs));
            async move {
                if !runs.is_running() {
                    maintain(&maintainer, &mender).await;
                }
            }
        })
        .await;
    })
}

/// Not of a log that removes records by itself: to plan it, records have to be read.
fn trimming(node: &Node, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    let (log, counter, archiver) =
        (Arc::clone(&node.status.log), Arc::clone(&node.counter), Arc::clone(&node.archiver));
    let (clock, keep) = (Arc::clone(&node.clock), node.settings.log.keep);
    tokio::spawn(async move {
        run_every(LOOK_EVERY, stop, || async {
            let archived = archiver.committed();
            let safe: Vec<Safe> = (0..log.partitions())
                .zip(archived)
                .map(|(partition, archived)| Safe {
                    refill_offset: counter.refill_offset(partition).unwrap_or(0),
                    archived,
                })
                .collect();
            if let Err(error) = trim_log(log.as_ref(), &safe, keep, clock.as_ref()).await {
                tracing::warn!(%error, "the log is trimmed next time");
            }
        })
        .await;
    })
}

/// Runs batch when too many segments lie above coverage, so that what queries have to read stays bounded.
fn pressure(node: &Node, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    let (runs, counter, most) = (Arc::clone(&node.runs), Arc::clone(&node.counter), node.settings.batch.segments_max);
    tokio::spawn(async move {
        run_every(LOOK_EVERY, stop, || {
            let held = |p: &reckon_stream::counter::PartitionStats| (p.history.pieces + p.history.on_disk) as u64;
            let (runs, segments) = (Arc::clone(&runs), counter.stats().partitions.iter().map(held).sum::<u64>());
            async move {
                if segments > most {
                    start_run(runs).await;
                }
            }
        })
        .await;
    })
}
