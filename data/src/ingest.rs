//! The front door, as whoever takes requests sees it.

use async_trait::async_trait;
use bytes::Bytes;

use crate::dead::DeadLetter;
use crate::receipt::Receipt;

/// The header of `POST /v1/events` whose value, `canary.token`, lets events of Reckon's own entities in.
pub const CANARY_HEADER: &str = "reckon-canary";

/// How the events of a body are set apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// One event, or an array of events; a body of several objects is read as lines.
    #[default]
    Json,
    /// One event a line.
    Lines,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    Identity,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// A body of events.
#[derive(Debug, Clone, Default)]
pub struct Submission {
    /// The body, as received.
    pub body: Bytes,
    /// How its events are set apart.
    pub framing: Framing,
    /// How it is compressed.
    pub compression: Compression,
    /// From the `Idempotency-Key`: an event without an id gets `<key>-<index>`, so that a retry is harmless.
    pub idempotency_key: Option<String>,
    /// Where it came from, for the dead letters.
    pub source: Option<String>,
    /// Which line of the source the body's first line is: the letter of a line that is refused names it.
    pub first_line: Option<u64>,
    /// Whether entities with a reserved prefix may come this way.
    pub internal: bool,
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The queue is full: come again later. Nothing was taken.
    #[error("the queue of events is full, try again in {retry_after_seconds} s")]
    Busy {
        /// When to try again.
        retry_after_seconds: u32,
    },
    /// The body is larger than allowed. Nothing was taken, nothing was kept.
    #[error("the body has more than {limit} bytes, which is the limit; send the events in several requests")]
    TooLarge {
        /// The largest allowed.
        limit: u64,
    },
    /// The body cannot be decompressed, or holds no event at all. What could be read of it is in the dead letters.
    #[error("{message}")]
    Malformed {
        /// What is wrong, and where.
        message: String,
        /// The verdicts.
        receipt: Box<Receipt>,
    },
    /// The log's disk is full.
    #[error("the log's disk is full: nothing more is taken until there is room")]
    Full,
    /// The log failed; the events may or may not have been stored, sending them again is safe.
    #[error("the log failed, the events may or may not have been stored; sending them again is safe: {0}")]
    Unavailable(String),
}

/// The gateway.
#[async_trait]
pub trait Ingest: std::fmt::Debug + Send + Sync {
    /// Judges the events of a body and appends them; returns when all of them, refused ones too, are durable.
    ///
    /// # Errors
    /// See [`SubmitError`].
    async fn submit(&self, submission: Submission) -> Result<Receipt, SubmitError>;

    /// Appends dead letters that were found elsewhere, by an importer say; returns when they are durable.
    ///
    /// # Errors
    /// See [`SubmitError`].
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<(), SubmitError>;
}
