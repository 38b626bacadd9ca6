//! How a count came about: the question and the answer.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::check::Check;
use crate::query::Verdict;
use crate::times::as_time;
use crate::view::Provenance;

/// How the counts of an entity and a minute came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyQuery {
    /// What is counted.
    pub entity: String,
    /// The minute, since 1970.
    pub minute: i64,
    /// One event type; all when none.
    pub event_type: Option<String>,
}

/// The answer to a [`WhyQuery`].
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WhyAnswer {
    /// What is counted.
    pub entity_id: String,
    /// When the minute begins, microseconds.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    pub minute: i64,
    /// The type that was asked for.
    pub event_type: Option<String>,
    /// Of every type and combination of dimensions, at most [`WhyAnswer::COUNTS_MAX`].
    pub counts: Vec<WhyCount>,
    /// How many of those there are.
    pub counts_total: u64,
    /// The raw events, by type.
    pub events: Vec<WhyEvents>,
    /// Whether the raw events are what was counted.
    pub check: Check,
    /// What each version of batch that is still there counted, the newest first, at most [`WhyAnswer::VERSIONS_MAX`].
    pub history: Vec<WhyVersion>,
    /// Where it comes from; version and coverage of the batch part stand here.
    pub provenance: Provenance,
}

impl WhyAnswer {
    /// Most counts of an answer.
    pub const COUNTS_MAX: usize = 1_000;
    /// Most raw events of a type.
    pub const EVENTS_MAX: usize = 20;
    /// Most versions.
    pub const VERSIONS_MAX: usize = 20;
}

/// A count: of one type and one combination of dimensions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct WhyCount {
    /// What happened.
    pub event_type: String,
    /// The value of each dimension.
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub dimensions: BTreeMap<&'static str, Option<String>>,
    /// How often, now.
    pub count: u64,
    /// The rows of `batch_counts`: one, unless it was counted in parts.
    pub batch: Vec<WhyRow>,
    /// What the stream adds.
    pub stream: Vec<WhyPiece>,
    /// How many distinct raw events there are.
    pub raw_distinct: u64,
}

/// A row of `batch_counts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WhyRow {
    /// Events counted.
    pub count: u64,
    /// Wrapping sum of their key hashes, in hexadecimal.
    pub fingerprint: String,
    /// Late ones among them.
    pub late: u64,
    /// The definition version that they were counted with, in hexadecimal.
    pub definition: String,
    /// The file that the row lies in.
    pub file: String,
}

/// What a segment, or the tail, adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WhyPiece {
    /// Log partition.
    pub partition: u32,
    /// First offset.
    pub start: u64,
    /// Offset after the last.
    pub end: u64,
    /// Whether it is a sealed segment of `stream_counts`, or what is counted in memory past the last one.
    pub sealed: bool,
    /// Events counted.
    pub count: u64,
    /// Wrapping sum of their key hashes, in hexadecimal.
    pub fingerprint: String,
    /// Late ones among them.
    pub late: u64,
}

/// The raw events of a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct WhyEvents {
    /// What happened.
    pub event_type: String,
    /// How many there are, repeats included.
    pub total: u64,
    /// How many of them are the first of their key.
    pub distinct: u64,
    /// The first of them in the order of the log, at most [`WhyAnswer::EVENTS_MAX`].
    pub listed: Vec<WhyEvent>,
}

/// A raw event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WhyEvent {
    /// Its id.
    pub event_id: String,
    /// Whether it is the first of its key, or repeats one, of another minute perhaps.
    pub verdict: Verdict,
    /// Log partition.
    pub partition: u32,
    /// Record.
    pub offset: u64,
    /// Index in the record.
    pub index: u32,
    /// When the gateway appended it, microseconds.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    pub received_at: i64,
    /// When it happened, microseconds.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    pub event_time: i64,
    /// Whether batch has counted (or dropped) it.
    pub covered: bool,
}

/// What a version of batch counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WhyVersion {
    /// The version of `batch_counts`.
    pub version: u64,
    /// When it was committed, microseconds.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    pub committed_at: i64,
    /// What made it.
    pub operation: String,
    /// Its count of the minute: of all types and dimensions that were asked for.
    pub count: u64,
    /// Wrapping sum of the key hashes, in hexadecimal.
    pub fingerprint: String,
}
