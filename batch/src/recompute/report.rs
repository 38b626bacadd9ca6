//! What a batch run says while it goes on and when it is over.

use std::collections::BTreeMap;

use reckon_data::jobs::EngineName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far a run has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What it does now.
    pub step: String,
    /// Parts done.
    pub done: u64,
    /// Parts in all, as far as is known.
    pub total: u64,
    /// Events read so far.
    pub events: u64,
}

/// Who is told.
pub type OnProgress<'a> = dyn Fn(Progress) + Send + Sync + 'a;

/// How a date was recounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All of it, from its raw events.
    Full,
    /// The entities that new events concern, from their raw events; other rows stay as they are.
    Entities,
    /// Raw events are gone: the new ones were added to the rows there are.
    Closed,
}

/// A date that was recounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DateReport {
    /// The date, `2013-02-08`.
    pub date: String,
    /// How.
    pub mode: Mode,
    /// Raw events read.
    pub events: u64,
    /// Of them, repeats of a key.
    pub duplicates: u64,
    /// Events counted in the date's rows, all together.
    pub counted: u64,
    /// Rows written: minutes, hours and days.
    pub rows: u64,
    /// Set when a recount found fewer events than were counted before: some raw events are gone, so the
    /// date was treated as closed instead.
    pub raw_missing: bool,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The run.
    pub id: Uuid,
    /// Who counted raw events.
    pub engine: EngineName,
    /// Where its cuts lie, and so the coverage now, one offset a partition.
    pub cuts: Vec<u64>,
    /// The coverage before.
    pub coverage_before: Vec<u64>,
    /// The version of `batch_counts` that it made.
    pub version: u64,
    /// The dates recounted.
    pub dates: Vec<DateReport>,
    /// Raw events read.
    pub events: u64,
    /// Repeats dropped.
    pub duplicates: u64,
    /// Rows written.
    pub rows: u64,
    /// Seconds a phase took: `wait`, `plan`, `count`, `commit`.
    pub seconds: BTreeMap<String, f64>,
    /// Most memory that was in use for counting, as far as it is accounted for; bytes.
    pub memory_peak: u64,
}
