//! Bodies of requests: each within a limit, and all that are arriving within another.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::StreamExt as _;
use reckon_data::ingest::SubmitError;
use reckon_data::problem::Problem;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::fail::{Failure, bad, busy};

/// How long a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// How much of a body that is refused is read and thrown away.
const DISCARDED_BYTES_MAX: usize = 64 << 20;
/// So many of the longest bodies of events may be arriving: by default, four times the gateway's queue.
const BODIES_MAX: usize = 32;
const KIB: usize = 1 << 10;

/// Memory for bodies that are arriving. A whole body is bounded by whoever takes it: the gateway's queue, say.
#[derive(Debug)]
pub struct Room {
    kib: Semaphore,
}

enum Arrived {
    Whole(Bytes),
    TooLarge,
    NoRoom,
}

impl Room {
    /// Room for a number of bodies of so many bytes.
    pub fn for_bodies_of(bytes: usize) -> Self {
        let kib = bytes.div_ceil(KIB).max(1).saturating_mul(BODIES_MAX);
        Self { kib: Semaphore::new(kib.min(Semaphore::MAX_PERMITS)) }
    }

    /// The whole body, unless it is longer than `limit` bytes, takes too long, or there is no room for it.
    ///
    /// # Errors
    /// The refusal.
    pub async fn collect(&self, headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Failure> {
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        match tokio::time::timeout(BODY_TIME_MAX, self.read(body, declared.unwrap_or(0), limit)).await {
            Ok(Ok(Arrived::Whole(bytes))) => Ok(bytes),
            Ok(Ok(Arrived::TooLarge)) => Err(SubmitError::TooLarge { limit: limit as u64 }.into()),
            Ok(Ok(Arrived::NoRoom)) => {
                let detail = "too many bodies are arriving; send this one again in a moment";
                Err(Failure::of(Problem::new(429, "busy", "Too many bodies are arriving", detail)))
            }
            Ok(Err(error)) => Err(bad("body", format!("the body did not arrive whole: {error}"))),
            Err(_) => Err(busy(format!("the body took longer than {} s to arrive", BODY_TIME_MAX.as_secs()))),
        }
    }

    /// Reads a body. What is refused is read as well, up to a point, and thrown away: a client that is still
    /// sending would not see the answer.
    async fn read(&self, body: Body, declared: usize, limit: usize) -> Result<Arrived, axum::Error> {
        let most = limit.saturating_add(DISCARDED_BYTES_MAX);
        let (mut stream, mut seen) = (body.into_data_stream(), 0_usize);
        let mut refused = if declared > limit {
            Some(Arrived::TooLarge)
        } else {
            (declared.div_ceil(KIB) > self.kib.available_permits()).then_some(Arrived::NoRoom)
        };
        let mut bytes = Vec::with_capacity(if refused.is_some() { 0 } else { declared });
        let mut held = None;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            seen = seen.saturating_add(chunk.len());
            if seen > most || declared > most {
                break;
            }
            if refused.is_none() {
                refused = if seen > limit {
                    Some(Arrived::TooLarge)
                } else {
                    (!self.take(&mut held, seen)).then_some(Arrived::NoRoom)
                };
            }
            if refused.is_some() {
                bytes = Vec::new();
                held = None;
            } else {
                bytes.extend_from_slice(&chunk);
            }
        }
        Ok(refused.unwrap_or_else(|| Arrived::Whole(Bytes::from(bytes))))
    }

    /// Takes what `held` lacks for so many bytes; false when that is not there. Only what has arrived takes room,
    /// so that slow senders take little.
    fn take<'a>(&'a self, held: &mut Option<SemaphorePermit<'a>>, bytes: usize) -> bool {
        let has = held.as_ref().map_or(0, SemaphorePermit::num_permits);
        let lacks = bytes.div_ceil(KIB).saturating_sub(has);
        if lacks == 0 {
            return true;
        }
        let more = u32::try_from(lacks).ok().and_then(|lacks| self.kib.try_acquire_many(lacks).ok());
        let Some(more) = more else { return false };
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        true
    }
}
