//! Batch runs as jobs: one at a time, the latest remembered.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use reckon_data::clock::{Clock, Names};
use reckon_data::damage::Damaged;
use reckon_data::jobs::{JobError, Jobs, RunRequest, RunState, RunStatus};
use reckon_data::minute::{format_time, parse_date};
use uuid::Uuid;

use crate::mend::Mender;
use crate::recompute::{BatchError, OnProgress, Progress, Recompute, RunReport};

/// Runs that are remembered.
const KEPT: usize = 50;

/// What is done after every run that has succeeded: tell the counter of the coverage, tidy up.
pub type AfterRun = Arc<dyn Fn(RunReport) -> BoxFuture<'static, ()> + Send + Sync>;

/// Batch runs of this process. Clones are the same.
#[derive(Clone)]
pub struct BatchRuns(Arc<Inner>);

struct Inner {
    recompute: Recompute,
    clock: Arc<dyn Clock>,
    names: Arc<dyn Names>,
    mender: Option<Arc<Mender>>,
    after: Option<AfterRun>,
    /// Newest first.
    runs: Mutex<VecDeque<RunStatus>>,
}

impl fmt::Debug for BatchRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchRuns").field("runs", &self.0.runs).finish_non_exhaustive()
    }
}

impl BatchRuns {
    /// Runs of `recompute`; `mender` makes good what a run cannot count from, `after` is awaited after each that has
    /// succeeded.
    #[must_use]
    pub fn new(
        recompute: Recompute,
        clock: Arc<dyn Clock>,
        names: Arc<dyn Names>,
        mender: Option<Arc<Mender>>,
        after: Option<AfterRun>,
    ) -> Self {
        Self(Arc::new(Inner { recompute, clock, names, mender, after, runs: Mutex::default() }))
    }

    /// Whether a run goes on, or what comes after one.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.runs.lock().iter().any(|run| run.state == RunState::Running)
    }

    /// Runs once and returns when it, and what comes after it, is over. `progress` is told as well as the status.
    ///
    /// # Errors
    /// [`JobError`] when it cannot be started; [`BatchError`] inside when it failed.
    pub async fn run_to_end(
        &self,
        request: &RunRequest,
        progress: &OnProgress<'_>,
    ) -> Result<Result<RunReport, BatchError>, JobError> {
        let status = self.0.begin(request)?;
        Ok(self.0.run(status.id, request, progress).await)
    }
}

impl Inner {
    /// Enters a new run, unless one is going on.
    fn begin(&self, request: &RunRequest) -> Result<RunStatus, JobError> {
        if let Some(date) = request.dates.iter().chain(&request.replace).find(|date| parse_date(date).is_none()) {
            return Err(JobError::Invalid(format!("{date:?} is no date: write it as 2013-02-08")));
        }
        let mut runs = self.runs.lock();
        if let Some(running) = runs.iter().find(|run| run.state == RunState::Running) {
            return Err(JobError::AlreadyRunning(running.id));
        }
        let status = RunStatus {
            id: self.names.fresh(),
            state: RunState::Running,
            started_at: format_time(self.clock.now()),
            finished_at: None,
            step: "starting".to_owned(),
            done: 0,
            total: 0,
            events: 0,
            report: None,
            error: None,
        };
        runs.push_front(status.clone());
        runs.truncate(KEPT);
        Ok(status)
    }

    async fn run(&self, id: Uuid, request: &RunRequest, progress: &OnProgress<'_>) -> Result<RunReport, BatchError> {
        // Whoever drops or panics in the middle leaves a failed run behind, not one that runs for ever.
        let unfinished = Unfinished { inner: self, id };
        let on_progress = |at: Progress| {
            self.update(id, |run| {
                run.step.clone_from(&at.step);
                (run.done, run.total, run.events) = (at.done, at.total, at.events);
            });
            progress(at);
        };
        let result = self.recompute(id, request, &on_progress).await;
        if let (Ok(report), Some(after)) = (&result, &self.after) {
            let value = serde_json::to_value(report).ok();
            self.update(id, |run| {
                "tidying up".clone_into(&mut run.step);
                run.report = value;
            });
            // The counts are committed: nothing that follows makes the run a failure.
            if std::panic::AssertUnwindSafe(after(report.clone())).catch_unwind().await.is_err() {
                tracing::error!(%id, "what follows a batch run has panicked");
            }
        }
        self.finish(id, &result);
        std::mem::forget(unfinished);
        result
    }

    /// Recounts; once more if raw events were damaged and could be made good.
    async fn recompute(
        &self,
        id: Uuid,
        request: &RunRequest,
        progress: &OnProgress<'_>,
    ) -> Result<RunReport, BatchError> {
        let result = self.recompute.run(request, id, progress).await;
        let is_damaged = result.as_ref().is_err_and(|error| Damaged::cause(error).is_some());
        match &self.mender {
            Some(mender) if is_damaged && mender.run().await > 0 => self.recompute.run(request, id, progress).await,
            _ => result,
        }
    }

    fn finish(&self, id: Uuid, result: &Result<RunReport, BatchError>) {
        let finished_at = Some(format_time(self.clock.now()));
        match result {
            Ok(report) => {
                tracing::info!(%id, dates = report.dates.len(), events = report.events, rows = report.rows, "batch run");
                let report = serde_json::to_value(report).ok();
                self.update(id, |run| {
                    run.state = RunState::Succeeded;
                    "done".clone_into(&mut run.step);
                    (run.report, run.finished_at) = (report, finished_at);
                });
            }
            Err(error) => {
                let error = error.in_full();
                tracing::error!(%id, error, "batch run failed");
                self.update(id, |run| {
                    run.state = RunState::Failed;
                    (run.error, run.finished_at) = (Some(error), finished_at);
                });
            }
        }
    }

    fn update(&self, id: Uuid, change: impl FnOnce(&mut RunStatus)) {
        if let Some(run) = self.runs.lock().iter_mut().find(|run| run.id == id) {
            change(run);
        }
    }
}

struct Unfinished<'a> {
    inner: &'a Inner,
    id: Uuid,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let finished_at = Some(format_time(self.inner.clock.now()));
        self.inner.update(self.id, |run| {
            run.finished_at = finished_at;
            if run.report.is_some() {
                run.state = RunState::Succeeded;
            } else {
                run.state = RunState::Failed;
                run.error = Some("it was given up".to_owned());
            }
        });
    }
}

#[async_trait]
impl Jobs for BatchRuns {
    async fn start(&self, request: RunRequest) -> Result<RunStatus, JobError> {
        let status = self.0.begin(&request)?;
        let (inner, id) = (Arc::clone(&self.0), status.id);
        tokio::spawn(async move {
            // The status says how it ended.
            let _ = inner.run(id, &request, &|_| {}).await;
        });
        Ok(status)
    }

    fn get(&self, id: Uuid) -> Option<RunStatus> {
        self.0.runs.lock().iter().find(|run| run.id == id).cloned()
    }

    fn list(&self) -> Vec<RunStatus> {
        self.0.runs.lock().iter().cloned().collect()
    }
}
