//! What a sender and its driver share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use super::backlog::Pressure;
use super::error::SendError;
use super::state::State;
use crate::client::Client;

/// What a sender and its driver share.
pub(super) struct Shared {
    pub(super) client: Arc<Client>,
    pub(super) source: Option<String>,
    /// The longest that a request may take.
    pub(super) timeout: Duration,
    pub(super) state: Mutex<State>,
    /// A permit for every byte that there is room for.
    pub(super) room: Semaphore,
    /// Events that wait for room.
    waiting: AtomicUsize,
    /// Requests that the client made again.
    pub(super) retried: AtomicU64,
    /// Tells the driver that there may be something to do.
    pub(super) work: Notify,
    /// Tells those who wait for a verdict that there may be one.
    pub(super) settled: Notify,
    /// Whether the driver should end.
    stopping: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(
        client: Arc<Client>,
        source: Option<String>,
        timeout: Duration,
        state: State,
        room: usize,
    ) -> Self {
        Self {
            client,
            source,
            timeout,
            state: Mutex::new(state),
            room: Semaphore::new(room),
            waiting: AtomicUsize::new(0),
            retried: AtomicU64::new(0),
            work: Notify::new(),
            settled: Notify::new(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Adds an event, a line for which there is room.
    ///
    /// # Errors
    /// [`SendError::Closed`].
    pub(super) fn push(&self, line: &[u8], permit: SemaphorePermit<'_>) -> Result<(), SendError> {
        let is_news = self.state.lock().push(line, Instant::now())?;
        // It is given back when the event is acknowledged or set down.
        permit.forget();
        if is_news {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Waits until there is room for so many bytes.
    ///
    /// # Errors
    /// [`SendError::Closed`].
    pub(super) async fn wait_for_room(&self, bytes: u32) -> Result<SemaphorePermit<'_>, SendError> {
        let _waiting = Waiting::new(&self.waiting);
        self.work.notify_one();
        self.room.acquire_many(bytes).await.map_err(|_| SendError::Closed)
    }

    pub(super) fn pressure(&self) -> Pressure {
        Pressure { free: self.room.available_permits(), waiting: self.waiting.load(Ordering::Relaxed) }
    }

    /// Tells the driver to end.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
        self.work.notify_one();
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until the driver should end.
    pub(super) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The other end is in `self`, so that it cannot be gone.
        let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
    }
}

/// Counts one who waits, for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
