//! Audits as jobs: one at a time, the latest remembered.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use reckon_data::clock::{Clock, Names};
use reckon_data::jobs::{AuditSummary, Audits, JobError, RunState, RunStatus};
use reckon_data::minute::{format_time, parse_date};
use serde_json::Value;
use uuid::Uuid;

use crate::auditor::{AuditFailure, Auditor};
use crate::ledger::{OnProgress, Progress};
use crate::report::model::{AuditRequest, Report, RunSummary};
use crate::report::page;
use crate::store::StoreError;

/// Audits that are remembered.
const KEPT: usize = 20;
/// Runs on the trend of a page, up to its own.
pub const TREND_RUNS: usize = 60;

/// Audits of this process. Clones are the same.
#[derive(Clone)]
pub struct AuditRuns(Arc<Inner>);

struct Inner {
    auditor: Auditor,
    clock: Arc<dyn Clock>,
    names: Arc<dyn Names>,
    /// Newest first.
    runs: Mutex<VecDeque<Run>>,
}

#[derive(Debug)]
struct Run {
    request: AuditRequest,
    status: RunStatus,
    /// Of its report, when it has succeeded.
    summary: Option<RunSummary>,
}

impl Run {
    fn in_list(&self) -> AuditSummary {
        let Self { request, status, summary } = self;
        AuditSummary {
            id: status.id,
            state: status.state,
            started_at: status.started_at.clone(),
            finished_at: status.finished_at.clone(),
            step: status.step.clone(),
            dates: request.dates.clone(),
            repair: request.repair,
            verdict: summary.as_ref().map(|summary| summary.verdict.name().to_owned()),
            events: summary.as_ref().map(|summary| summary.events),
            errors: summary.as_ref().map(|summary| summary.errors),
            expected: summary.as_ref().map(|summary| summary.expected),
            error: status.error.clone(),
        }
    }
}

impl fmt::Debug for AuditRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditRuns").field("runs", &self.0.runs).finish_non_exhaustive()
    }
}

impl AuditRuns {
    /// Audits by `auditor`.
    #[must_use]
    pub fn new(auditor: Auditor, clock: Arc<dyn Clock>, names: Arc<dyn Names>) -> Self {
        Self(Arc::new(Inner { auditor, clock, names, runs: Mutex::default() }))
    }

    /// Audits once and returns when it is over. `progress` is told as well as the status.
    ///
    /// # Errors
    /// [`JobError`] when it cannot be started; [`AuditFailure`] inside when it could not be done.
    pub async fn run_to_end(
        &self,
        request: &AuditRequest,
        progress: &OnProgress<'_>,
    ) -> Result<Result<Report, AuditFailure>, JobError> {
        let status = self.0.begin(request)?;
        Ok(self.0.run(status.id, request, progress).await)
    }

    /// The page of a stored report; of the latest if none is named. None when there is no such report.
    ///
    /// # Errors
    /// When reports cannot be read, or one is not what was written.
    pub async fn page_of(&self, id: Option<Uuid>) -> Result<Option<String>, String> {
        let store = &self.0.auditor.store;
        let failed = |error: StoreError| error.to_string();
        let report = match id {
            Some(id) => store.get(id).await.map_err(failed)?,
            None => store.latest().await.map_err(failed)?,
        };
        let Some(report) = report else { return Ok(None) };
        let trend = store.trend(TREND_RUNS, Some(report.run_id)).await.map_err(failed)?;
        let hash = store.hash_of(report.run_id).await.map_err(failed)?.unwrap_or_default();
        page(&report, &hash, &trend).map(Some).map_err(|error| error.to_string())
    }
}

impl Inner {
    /// Enters a new run, unless one is going on.
    fn begin(&self, request: &AuditRequest) -> Result<RunStatus, JobError> {
        if let Some(date) = request.dates.iter().find(|date| parse_date(date).is_none()) {
            return Err(JobError::Invalid(format!("{date:?} is no date: write it as 2013-02-08")));
        }
        let mut runs = self.runs.lock();
        if let Some(running) = runs.iter().find(|run| run.status.state == RunState::Running) {
            return Err(JobError::AlreadyRunning(running.status.id));
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
        runs.push_front(Run { request: request.clone(), status: status.clone(), summary: None });
        runs.truncate(KEPT);
        Ok(status)
    }

    async fn run(&self, id: Uuid, request: &AuditRequest, progress: &OnProgress<'_>) -> Result<Report, AuditFailure> {
        // Whoever drops or panics in the middle leaves a failed run behind, not one that runs for ever.
        let unfinished = Unfinished { inner: self, id };
        let on_progress = |at: Progress| {
            self.update(id, |Run { status, .. }| {
                status.step.clone_from(&at.step);
                (status.done, status.total, status.events) = (at.done, at.total, at.events);
            });
            progress(at);
        };
        let result = self.auditor.run(request, id, &on_progress).await;
        std::mem::forget(unfinished);
        self.finish(id, &result);
        result
    }

    fn finish(&self, id: Uuid, result: &Result<Report, AuditFailure>) {
        let finished_at = Some(format_time(self.clock.now()));
        match result {
            Ok(report) => {
                let (errors, expected) = (report.errors(), report.expected());
                tracing::info!(%id, verdict = ?report.verdict, errors, expected, events = report.events(), "audit");
                for finding in report.findings.iter().filter(|finding| !finding.class.is_expected()).take(10) {
                    tracing::error!(class = %finding.class, table = finding.table, date = finding.date, entity = finding.entity_id,
                        explanation = finding.explanation, "audit finding");
                }
                let (summary, report) = (report.summary(), serde_json::to_value(report).ok());
                self.update(id, |run| {
                    run.summary = Some(summary);
                    run.status.state = RunState::Succeeded;
                    "done".clone_into(&mut run.status.step);
                    (run.status.report, run.status.finished_at) = (report, finished_at);
                });
            }
            Err(error) => {
                let error = in_full(error);
                tracing::error!(%id, error, "the audit could not be done");
                self.update(id, |Run { status, .. }| {
                    status.state = RunState::Failed;
                    (status.error, status.finished_at) = (Some(error), finished_at);
                });
            }
        }
    }

    fn update(&self, id: Uuid, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.runs.lock().iter_mut().find(|run| run.status.id == id) {
            change(run);
        }
    }
}

/// An error and what it comes from.
fn in_full(error: &AuditFailure) -> String {
    let (mut text, mut next) = (error.to_string(), std::error::Error::source(error));
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

struct Unfinished<'a> {
    inner: &'a Inner,
    id: Uuid,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let finished_at = Some(format_time(self.inner.clock.now()));
        self.inner.update(self.id, |Run { status, .. }| {
            status.state = RunState::Failed;
            (status.error, status.finished_at) = (Some("it was given up".to_owned()), finished_at);
        });
    }
}

#[async_trait]
impl Audits for AuditRuns {
    async fn start(&self, request: Value) -> Result<RunStatus, JobError> {
        let request: AuditRequest =
            serde_json::from_value(request).map_err(|error| JobError::Invalid(error.to_string()))?;
        let status = self.0.begin(&request)?;
        let (inner, id) = (Arc::clone(&self.0), status.id);
        tokio::spawn(async move {
            // The status says how it ended.
            let _ = Box::pin(inner.run(id, &request, &|_| {})).await;
        });
        Ok(status)
    }

    fn get(&self, id: Uuid) -> Option<RunStatus> {
        self.0.runs.lock().iter().find(|run| run.status.id == id).map(|run| run.status.clone())
    }

    fn list(&self) -> Vec<AuditSummary> {
        self.0.runs.lock().iter().map(Run::in_list).collect()
    }

    async fn stored(&self, id: Uuid) -> Result<Option<Value>, String> {
        let report = self.0.auditor.store.get(id).await.map_err(|error| error.to_string())?;
        report.map(|report| serde_json::to_value(report).map_err(|error| error.to_string())).transpose()
    }

    async fn page(&self, id: Option<Uuid>) -> Result<Option<String>, String> {
        self.page_of(id).await
    }
}
