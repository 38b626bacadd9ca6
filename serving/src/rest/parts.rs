//! What the routes stand on.

use std::sync::Arc;

use async_trait::async_trait;
use reckon_data::clock::Clock;
use reckon_data::imports::Imports;
use reckon_data::ingest::Ingest;
use reckon_data::jobs::{Audits, Jobs};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::listens::Listens;
use super::metrics::MetricsText;
use super::page::Page;
use crate::Serving;

/// What the routes stand on; what is none has no routes.
#[derive(Debug, Clone)]
pub struct RestParts {
    /// Questions.
    pub serving: Option<Arc<Serving>>,
    /// Events.
    pub ingest: Option<Arc<dyn Ingest>>,
    /// Batch runs.
    pub jobs: Option<Arc<dyn Jobs>>,
    /// Audits.
    pub audits: Option<Arc<dyn Audits>>,
    /// Imported files.
    pub imports: Option<Arc<dyn Imports>>,
    /// Replay of dead letters.
    pub replay: Option<Arc<dyn Replay>>,
    /// How the process is.
    pub health: Arc<dyn Health>,
    /// Longest body of events, bytes, as received and decompressed alike.
    pub body_bytes_max: usize,
    /// The clock that windows end at.
    pub clock: Arc<dyn Clock>,
    /// Who knows it may send events of Reckon's own entities ([`CANARY_HEADER`](reckon_data::ingest::CANARY_HEADER));
    /// nobody may when none.
    pub canary_token: Option<Arc<str>>,
    /// The dashboard, at `/`.
    pub page: Option<Arc<dyn Page>>,
    /// What the process listens at besides REST.
    pub listens: Listens,
}

/// How the process is.
pub trait Health: std::fmt::Debug + Send + Sync {
    /// Whether it can do its work, and what is in the way.
    fn ready(&self) -> Readiness;

    /// Writes what it counts.
    fn metrics(&self, into: &mut MetricsText);
}

/// Whether a process can do its work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether it can.
    pub ready: bool,
    /// Records in the log that are not counted yet.
    pub lag_records: u64,
    /// Everything counted since the process started.
    pub totals: Totals,
    /// Why it cannot, or what answers lack.
    pub reasons: Vec<String>,
    /// Its parts, each with what is in its way. A process may be ready although one of them is not: it answers all the
    /// same, and answers say what they lack.
    #[serde(default)]
    pub parts: Vec<PartReadiness>,
    /// Data files that are not what was written. What does not need them is answered all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}

/// Whether a part of a process can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartReadiness {
    /// Which part: gateway, counter, archiver, counters (of other processes), serving, entities.
    #[schema(example = "counter")]
    pub part: String,
    /// Whether it can.
    pub ready: bool,
    /// Why it cannot; null when it can.
    pub reason: Option<String>,
}

impl PartReadiness {
    /// A part, which is ready when nothing is in its way.
    #[must_use]
    pub fn new(part: &str, reason: Option<String>) -> Self {
        Self { part: part.to_owned(), ready: reason.is_none(), reason }
    }

    /// A part that some reasons are in the way of.
    #[must_use]
    pub fn with_all(part: &str, reasons: &[String]) -> Self {
        Self::new(part, (!reasons.is_empty()).then(|| reasons.join("; ")))
    }
}

/// Everything counted since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Valid events.
    pub accepted: u64,
    /// Of them, counted.
    pub counted: u64,
    /// Of them, dropped as duplicates.
    pub duplicate: u64,
    /// Refused events.
    pub dead: u64,
}

/// Which dead letters are replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayRequest {
    /// With this reason only.
    pub reason: Option<String>,
    /// At most so many; all when none.
    #[schema(format = "uint64")]
    pub limit: Option<u64>,
}

/// What a replay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplayReport {
    /// Letters whose event was taken now.
    pub accepted: u64,
    /// Letters that are refused still; they stay where they are.
    pub refused: u64,
    /// Letters that were replayed before.
    pub skipped: u64,
}

/// Replays dead letters, each at most once.
#[async_trait]
pub trait Replay: std::fmt::Debug + Send + Sync {
    /// Replays them, and returns when what was taken is durable.
    ///
    /// # Errors
    /// A sentence.
    async fn replay(&self, request: ReplayRequest) -> Result<ReplayReport, String>;
}
