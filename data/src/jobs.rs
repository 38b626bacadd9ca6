//! Runs of jobs, as whoever starts and shows them sees it; and how a batch run waits for the others.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a batch run is asked to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunRequest {
    /// Recount every date that still has its raw events, not only what changed.
    pub full: bool,
    /// Recount these dates as well (`2013-02-08`).
    pub dates: Vec<String>,
    /// Recount these dates whole from the raw events there are, even where the rows of before count more; rows that no raw
    /// event accounts for are gone then. Normally such a date is taken to have lost raw events, and is only added to. So only
    /// whoever has shown that its raw events are whole may ask for it: the audit does. A date of which retention may have
    /// removed raw events is refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replace: Vec<String>,
    /// Who is to count; absent is as the settings say.
    pub engine: Option<EngineName>,
}

/// Who counts raw events in a batch run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EngineName {
    /// DataFusion in the process that runs batch.
    #[default]
    Local,
    /// The executors of a Ballista cluster.
    Ballista,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It goes on.
    Running,
    /// It has committed.
    Succeeded,
    /// It has failed; nothing of it is visible.
    Failed,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunStatus {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: Uuid,
    /// Where it stands.
    pub state: RunState,
    /// When it began, RFC 3339.
    #[schema(format = DateTime)]
    pub started_at: String,
    /// When it ended.
    #[schema(format = DateTime)]
    pub finished_at: Option<String>,
    /// What it does now: `waiting for the counter`, `counting 2013-02-08`.
    pub step: String,
    /// Steps done.
    pub done: u64,
    /// Steps in all, as far as is known.
    pub total: u64,
    /// Events counted so far.
    pub events: u64,
    /// What it found, when it has succeeded.
    pub report: Option<serde_json::Value>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Why a run cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// One is running already.
    #[error("run {0} is still going on")]
    AlreadyRunning(Uuid),
    /// The request cannot be carried out.
    #[error("{0}")]
    Invalid(String),
}

/// Batch runs.
#[async_trait]
pub trait Jobs: std::fmt::Debug + Send + Sync {
    /// Starts a run and returns at once.
    ///
    /// # Errors
    /// See [`JobError`].
    async fn start(&self, request: RunRequest) -> Result<RunStatus, JobError>;

    /// A run of this process.
    fn get(&self, id: Uuid) -> Option<RunStatus>;

    /// The latest runs of this process, newest first.
    fn list(&self) -> Vec<RunStatus>;
}

/// An audit in a list, where its report would be too much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditSummary {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: Uuid,
    /// Where it stands.
    pub state: RunState,
    /// When it began, RFC 3339.
    #[schema(format = DateTime)]
    pub started_at: String,
    /// When it ended.
    #[schema(format = DateTime)]
    pub finished_at: Option<String>,
    /// What it does now.
    pub step: String,
    /// The dates that it was asked for; none is all.
    pub dates: Vec<String>,
    /// Whether it was asked to make good what can be made good.
    pub repair: bool,
    /// `balanced` or `findings`, when it has succeeded.
    pub verdict: Option<String>,
    /// Raw events looked at.
    pub events: Option<u64>,
    /// Findings that are errors.
    pub errors: Option<u64>,
    /// Findings that the design expects.
    pub expected: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Audits. What they are asked and what they say is JSON here: only the audit knows more of it.
#[async_trait]
pub trait Audits: std::fmt::Debug + Send + Sync {
    /// Starts an audit and returns at once.
    ///
    /// # Errors
    /// See [`JobError`].
    async fn start(&self, request: serde_json::Value) -> Result<RunStatus, JobError>;

    /// An audit of this process.
    fn get(&self, id: Uuid) -> Option<RunStatus>;

    /// The latest audits of this process, newest first.
    fn list(&self) -> Vec<AuditSummary>;

    /// The report of an audit, whoever ran it, if it is stored.
    ///
    /// # Errors
    /// A sentence, when it cannot be read.
    async fn stored(&self, id: Uuid) -> Result<Option<serde_json::Value>, String>;

    /// The report of an audit as an HTML page; of the latest if none is named.
    ///
    /// # Errors
    /// A sentence, when it cannot be read.
    async fn page(&self, id: Option<Uuid>) -> Result<Option<String>, String>;
}

/// Somebody who commits what the log holds, partition by partition: the counter, the archiver.
#[async_trait]
pub trait Follower: std::fmt::Debug + Send + Sync {
    /// Hurries, and returns when everything below `offsets` (one for each partition of the log) is committed, as far as it is
    /// this one's to do.
    ///
    /// # Errors
    /// A sentence, when it has stopped and will not get there.
    async fn reach(&self, offsets: &[u64]) -> Result<(), String>;

    /// Up to which offset each partition of the log is committed; 0 where that is another's to do.
    fn committed(&self) -> Vec<u64>;
}
