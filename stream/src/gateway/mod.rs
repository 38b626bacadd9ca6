//! The gateway: judges events, routes them, appends them to the log, and answers once they are durable.
//!
//! ```text
//! submit ─▶ queue (bounded in bytes) ─▶ worker threads ─▶ round of records ─▶ log ─▶ receipts
//!            full: Busy                  inflate, split,   a few in flight
//!                                        judge, gather
//! ```
//! - `queue`: bodies that wait.
//! - `inflate`, `framing`: from a body to the JSON of its events.
//! - `judge`: from JSON to a valid event, or a refusal.
//! - `gather`: from events to records, and where each request's events came to lie.
//! - `worker`: the threads that do all that, many bodies at once under load.
//! - `round`: the appends of one round, and the answers that wait for them.
//! - `ticket`: a request on its way.
//! - [`stats`]: what came in, and what each stage cost.
//!
//! Nothing is acknowledged before it is durable (R-3), refused events included (R-8). An event without
//! an id is named after the request's idempotency key and its index; without a key it gets a fresh name,
//! and then *a retry of it counts twice*.

mod framing;
mod gather;
mod inflate;
mod judge;
mod queue;
mod round;
pub mod stats;
#[cfg(test)]
mod tests;
mod ticket;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::Mutex;
use reckon_data::clock::{Clock, Names};
use reckon_data::config;
use reckon_data::dead::DeadLetter;
use reckon_data::definition::Definition;
use reckon_data::event::Limits;
use reckon_data::ingest::{Ingest, Submission, SubmitError};
use reckon_data::log::{Log, RECORD_BYTES_MAX};
use reckon_data::partition::Router;
use reckon_data::receipt::Receipt;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use judge::Judge;
use queue::{Job, Queue, Work};
use stats::{GatewayStats, Snapshot, add};
use ticket::Ticket;
use worker::Worker;

/// Bytes a request counts in the queue beside its body.
const REQUEST_BYTES: usize = 512;
/// Rounds that may be in flight beside the one each worker gathers; the log commits them as one group.
const ROUNDS_BESIDE: usize = 4;
/// Least and most bytes of a round.
const ROUND_BYTES: (usize, usize) = (2 << 20, 16 << 20);
/// When to come again after [`SubmitError::Busy`].
const RETRY_AFTER_SECONDS: u32 = 1;

/// What a gateway works with.
#[derive(Debug)]
pub struct GatewayParts {
    /// Where records go.
    pub log: Arc<dyn Log>,
    /// Which partition an event goes to; over as many partitions as the log has.
    pub router: Router,
    /// Whose prefixes are reserved.
    pub definition: Arc<Definition>,
    /// The limits on events.
    pub limits: Limits,
    /// The append times.
    pub clock: Arc<dyn Clock>,
    /// Ids for events that came without, and without an idempotency key.
    pub names: Arc<dyn Names>,
    /// Sizes.
    pub settings: config::Gateway,
}

/// The gateway. [`Gateway::stop`] finishes what it holds; dropping it does so too, but doesn't wait.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    queue_bytes: usize,
    body_bytes_max: usize,
    workers: Mutex<Vec<JoinHandle<()>>>,
    /// Without threads: whoever submits does the work.
    own: Option<Mutex<Worker>>,
    rounds: u32,
}

/// What gateway and workers share.
#[derive(Debug)]
struct Shared {
    log: Arc<dyn Log>,
    router: Router,
    judge: Judge,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    queue: Queue,
    /// Room for bodies, in bytes.
    room: Arc<Semaphore>,
    /// Room for rounds.
    rounds: Arc<Semaphore>,
    round_bytes: usize,
    body_bytes_max: usize,
    stats: GatewayStats,
}

impl Gateway {
    /// Starts the workers.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which waits for the log.
    #[must_use]
    pub fn start(parts: GatewayParts) -> Arc<Self> {
        Self::with(parts, false)
    }

    /// A gateway that works on the one thread of the runtime it is used on, as a simulation needs it. It cannot wait in
    /// the middle of a body: bodies are to be smaller than a round, which has 2 MiB or more.
    ///
    /// # Panics
    /// As [`Gateway::start`].
    #[must_use]
    pub fn on_one_thread(parts: GatewayParts) -> Arc<Self> {
        Self::with(parts, true)
    }

    fn with(parts: GatewayParts, one_thread: bool) -> Arc<Self> {
        let GatewayParts { log, router, definition, limits, clock, names, settings } = parts;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = if settings.workers == 0 { cores } else { settings.workers };
        // The semaphore counts in u32; the settings keep both far below.
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX).min(1 << 31);
        let (queue_bytes, body_bytes_max) = (bytes(settings.queue.as_u64()).max(1), bytes(settings.body_max.as_u64()));
        let rounds = workers.saturating_add(ROUNDS_BESIDE).min(1 << 16);
        let shared = Arc::new(Shared {
            round_bytes: RECORD_BYTES_MAX
                .saturating_mul(router.partitions() as usize)
                .clamp(ROUND_BYTES.0, ROUND_BYTES.1),
            log,
            router,
            judge: Judge { limits, definition, names },
            clock,
            runtime: Handle::current(),
            queue: Queue::default(),
            room: Arc::new(Semaphore::new(queue_bytes)),
            rounds: Arc::new(Semaphore::new(rounds)),
            body_bytes_max,
            stats: GatewayStats::default(),
        });
        let own = one_thread.then(|| Mutex::new(Worker::new(Arc::clone(&shared))));
        let threads = if one_thread { 0 } else { workers };
        let workers = Mutex::new((0..threads).map_while(|number| spawn(number, &shared)).collect());
        Arc::new(Self { shared, queue_bytes, body_bytes_max, workers, own, rounds: rounds as u32 })
    }

    /// Takes nothing more, and returns when everything it had taken is answered.
    pub async fn stop(&self) {
        self.shared.queue.close();
        let workers = std::mem::take(&mut *self.workers.lock());
        let joined = tokio::task::spawn_blocking(move || workers.into_iter().all(|worker| worker.join().is_ok())).await;
        if !matches!(joined, Ok(true)) {
            tracing::error!("a worker of the gateway had failed");
        }
        // Only rounds in flight hold any now; the permits go back at once, so stopping twice is harmless.
        let _ = self.shared.rounds.acquire_many(self.rounds).await;
    }

    /// What came in so far, and what it cost.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        let in_use = self.queue_bytes.saturating_sub(self.shared.room.available_permits());
        self.shared.stats.snapshot(in_use as u64)
    }

    /// Takes room for `bytes`, hands the work to the workers, and waits for the answer.
    async fn enqueue(&self, work: Work, bytes: usize) -> Result<Receipt, SubmitError> {
        add(&self.shared.stats.requests, 1);
        // What is larger than the queue takes all of it.
        let share = bytes.saturating_add(REQUEST_BYTES).min(self.queue_bytes) as u32;
        let Ok(room) = Arc::clone(&self.shared.room).try_acquire_many_owned(share) else {
            add(&self.shared.stats.busy, 1);
            return Err(SubmitError::Busy { retry_after_seconds: RETRY_AFTER_SECONDS });
        };
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::new(reply, room));
        if !self.shared.queue.push(Job { work, ticket }) {
            return Err(SubmitError::Unavailable("the gateway has been stopped, nothing was taken".to_owned()));
        }
        if let Some(worker) = &self.own
            && let Ok(room) = Arc::clone(&self.shared.rounds).acquire_owned().await
        {
            worker.lock().turn_with(room);
        }
        answer.await.unwrap_or_else(|_| Err(SubmitError::Unavailable("the gateway gave no answer".to_owned())))
    }
}

#[async_trait]
impl Ingest for Gateway {
    async fn submit(&self, submission: Submission) -> Result<Receipt, SubmitError> {
        let bytes = submission.body.len();
        if bytes > self.body_bytes_max {
            add(&self.shared.stats.requests, 1);
            return Err(SubmitError::TooLarge { limit: self.body_bytes_max as u64 });
        }
        self.enqueue(Work::Body(submission), bytes).await
    }

    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<(), SubmitError> {
        if letters.is_empty() {
            return Ok(());
        }
        let bytes = letters.iter().map(DeadLetter::size).sum();
        self.enqueue(Work::Letters(letters), bytes).await.map(|_| ())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

fn spawn(number: usize, shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let worker = Worker::new(Arc::clone(shared));
    match std::thread::Builder::new().name(format!("gateway-{number}")).spawn(move || worker.run()) {
        Ok(thread) => Some(thread),
        Err(error) => {
            tracing::error!(number, %error, "a worker of the gateway could not be started");
            if number == 0 {
                shared.queue.close();
            }
            None
        }
    }
}
