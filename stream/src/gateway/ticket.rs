//! A request on its way: what is known of its answer so far.
//!
//! The worker and every round with events of the request hold the ticket; the last to let go of it
//! answers. So a request may spread over several rounds, and is answered when all of them are durable.

use std::sync::Arc;

use parking_lot::Mutex;
use reckon_data::event::Reason;
use reckon_data::ingest::SubmitError;
use reckon_data::log::LogError;
use reckon_data::receipt::{Places, Receipt, RefusedEvent};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Refused events that a receipt names.
const ERRORS_MAX: usize = 1_000;

pub(super) type Answer = Result<Receipt, SubmitError>;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Ticket {
    progress: Mutex<Progress>,
    reply: oneshot::Sender<Answer>,
    /// The request's share of the queue, given back with the answer.
    room: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Progress {
    /// Set when the last of its events was judged.
    verdict: Option<Verdict>,
    places: Vec<Places>,
    failure: Option<Failure>,
}

/// What became of a request's events, apart from where they lie.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// Events, taken or refused, that could be read as JSON.
    pub(super) readable: u64,
    pub(super) errors: Vec<RefusedEvent>,
    /// Set when the request as a whole is refused: what is wrong with it.
    pub(super) malformed: Option<String>,
    /// Set when the body is too large after all.
    pub(super) too_large: Option<u64>,
}

impl Verdict {
    pub(super) fn refuse(&mut self, refused: RefusedEvent) {
        self.refused += 1;
        self.readable += u64::from(refused.reason != Reason::Malformed);
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(refused);
        }
    }
}

/// Why events of a round are not durable.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    Full,
    Unavailable(String),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full => Self::Full,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl Ticket {
    pub(super) fn new(reply: oneshot::Sender<Answer>, room: OwnedSemaphorePermit) -> Self {
        Self { progress: Mutex::default(), reply, room }
    }

    /// The worker is through with the request.
    pub(super) fn judged(&self, verdict: Verdict) {
        self.progress.lock().verdict = Some(verdict);
    }

    /// Events of it are durable there.
    pub(super) fn placed(&self, places: impl Iterator<Item = Places>) {
        self.progress.lock().places.extend(places);
    }

    /// Events of it are not durable, or may not be.
    pub(super) fn failed(&self, failure: Failure) {
        let mut progress = self.progress.lock();
        // An outcome that is unknown outweighs one that is known.
        if !matches!(progress.failure, Some(Failure::Unavailable(_))) {
            progress.failure = Some(failure);
        }
    }

    /// Lets go of the ticket; the last one to do so answers.
    pub(super) fn release(ticket: Arc<Self>) {
        if let Some(Self { progress, reply, room }) = Arc::into_inner(ticket) {
            let answer = progress.into_inner().answer();
            drop(room);
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
    }
}

impl Progress {
    fn answer(mut self) -> Answer {
        match self.failure {
            Some(Failure::Full) => return Err(SubmitError::Full),
            Some(Failure::Unavailable(why)) => return Err(SubmitError::Unavailable(why)),
            None => {}
        }
        // Without a verdict the worker failed half way: some events may be durable, not all are.
        let verdict =
            self.verdict.ok_or_else(|| SubmitError::Unavailable("the events could not be judged".to_owned()))?;
        if let Some(limit) = verdict.too_large {
            return Err(SubmitError::TooLarge { limit });
        }
        self.places.sort_unstable_by_key(|place| (place.partition, place.offset, place.first_index));
        let Verdict { accepted, refused, errors, .. } = verdict;
        let receipt = Receipt { accepted, refused, places: self.places, errors };
        match verdict.malformed {
            Some(message) => Err(SubmitError::Malformed { message, receipt: Box::new(receipt) }),
            None => Ok(receipt),
        }
    }
}
