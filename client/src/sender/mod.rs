//! Events of an application, one after another, in batches to the servers.
//!
//! ```text
//!   send ──▶ room ──▶ backlog ──steps──▶ driver ──▶ deliver ──▶ Client ──▶ servers
//!  (waits)  (bytes)   (pure)  ◀──done──            │
//!                                                  └──────────▶ spill (files)
//! ```
//!
//! [`backlog`] and [`state`] decide what is to be done and note what came of it; [`driver`] and [`deliver`] do it.

mod backlog;
mod deliver;
mod driver;
mod error;
mod options;
mod shared;
mod shelf;
mod spill;
mod state;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reckon_data::clock::RandomNames;
use tokio::sync::{Mutex, TryAcquireError};
use tokio::task::JoinHandle;

pub use error::SendError;
pub use options::{SenderOptions, SpillOptions};
pub use spill::SpillError;
pub use stats::{Refusal, Stats};

use backlog::Backlog;
use driver::Driver;
use options::Limits;
use shared::Shared;
use spill::Spill;
use state::State;

use crate::client::Client;

/// Sends events of an application: takes one after another, gathers them into batches, and keeps each until a server
/// has judged it.
///
/// - A batch goes off when it has [`batch_bytes`](SenderOptions::batch_bytes), or when its first event has waited for
///   [`linger`](SenderOptions::linger); while all that may be on their way are, it grows.
/// - Its `Idempotency-Key` is a UUID that stays the same however often, through whichever server and by whichever
///   process it is sent, so that its events count once, also those without an id.
/// - What is not acknowledged is kept within [`buffer_bytes`](SenderOptions::buffer_bytes). When that is full,
///   [`send`](Self::send) waits, and [`try_send`](Self::try_send) says [`Full`](SendError::Full). With a
///   [`spill`](SenderOptions::spill), batches for which there is no room, or which no server takes after all the
///   client's attempts, go to files instead, until those have as many bytes as they may. The oldest are sent first
///   when a server takes them, also those that an earlier sender left behind.
/// - Events are never dropped silently: a batch that no server takes is tried without end, and what a server refuses
///   is counted in [`stats`](Self::stats). Only a gateway refuses: an answer that is none of its verdicts, from a
///   proxy say, is waited out. It keeps refused events in its dead letters, except when it refuses a batch as a whole,
///   which [`flush`](Self::flush) says.
///
/// What is only in memory is lost when the process ends, or the sender is dropped: [`close`](Self::close) it before.
pub struct Sender {
    shared: Arc<Shared>,
    bytes_max: usize,
    driver: Mutex<Option<JoinHandle<()>>>,
}

impl Sender {
    /// Starts a sender, and sends what an earlier one left in the spill. Called in a Tokio runtime, which it panics
    /// without; it waits for the disk a moment when there is a spill.
    ///
    /// # Errors
    /// When the spill's folder is in use, or cannot be.
    pub fn start(client: impl Into<Arc<Client>>, options: SenderOptions) -> Result<Self, SpillError> {
        let limits = Limits::of(&options);
        let (spill, left) = match &options.spill {
            Some(spill) => {
                let (spill, left) = Spill::open(&spill.dir)?;
                (Some(Arc::new(spill)), left)
            }
            None => (None, BTreeMap::new()),
        };
        let state = State::new(Backlog::new(limits, Arc::new(RandomNames), left));
        let shared = Arc::new(Shared::new(client.into(), options.source, options.timeout, state, limits.room));
        let driver = tokio::spawn(Driver::new(Arc::clone(&shared), spill).run());
        Ok(Self { shared, bytes_max: limits.room, driver: Mutex::new(Some(driver)) })
    }

    /// Sends an event, JSON on one line; white space around it is cut off. Waits until there is room for it, and
    /// returns before it is acknowledged. A call that is given up while it waits has sent nothing.
    ///
    /// # Errors
    /// [`SendError::BadEvent`], [`SendError::TooLarge`], [`SendError::Closed`].
    pub async fn send(&self, json: &[u8]) -> Result<(), SendError> {
        let (line, bytes) = self.line(json)?;
        let permit = match self.shared.room.try_acquire_many(bytes) {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits) => self.shared.wait_for_room(bytes).await?,
            Err(TryAcquireError::Closed) => return Err(SendError::Closed),
        };
        self.shared.push(line, permit)
    }

    /// Sends an event if there is room for it now.
    ///
    /// # Errors
    /// [`SendError::Full`], and those of [`Sender::send`].
    pub fn try_send(&self, json: &[u8]) -> Result<(), SendError> {
        let (line, bytes) = self.line(json)?;
        let permit = self.shared.room.try_acquire_many(bytes).map_err(|error| match error {
            TryAcquireError::NoPermits => SendError::Full,
            TryAcquireError::Closed => SendError::Closed,
        })?;
        self.shared.push(line, permit)
    }

    /// An event as it stands in a batch, without the line break, and how much room it takes with it.
    fn line<'a>(&self, json: &'a [u8]) -> Result<(&'a [u8], u32), SendError> {
        let line = json.trim_ascii();
        if line.is_empty() {
            return Err(SendError::BadEvent { reason: "this one is empty" });
        }
        if line.contains(&b'\n') {
            return Err(SendError::BadEvent { reason: "this one has a line break in it" });
        }
        let bytes = line.len() + 1;
        let room = u32::try_from(bytes).ok().filter(|_| bytes <= self.bytes_max);
        Ok((line, room.ok_or(SendError::TooLarge { bytes, bytes_max: self.bytes_max })?))
    }

    /// Waits until all that was sent before is judged by a server or set down in the spill.
    ///
    /// # Errors
    /// [`SendError::Failing`] when a batch can be neither sent nor set down for now: it is kept and tried again, and
    /// `flush` may be called again. [`SendError::Refused`] when batches were refused as a whole; each is said once.
    /// [`SendError::Closed`] when the sender ended before.
    pub async fn flush(&self) -> Result<(), SendError> {
        let mark = {
            let mut state = self.shared.state.lock();
            state.backlog.seal();
            state.backlog.mark()
        };
        self.shared.work.notify_one();
        loop {
            // Made before the question is asked: what happens in between is not missed.
            let settled = self.shared.settled.notified();
            let verdict = self.shared.state.lock().verdict(mark);
            if let Some(verdict) = verdict {
                return verdict;
            }
            settled.await;
        }
    }

    /// Takes no more events, waits until all are judged by a server or set down in the spill, and ends. What is in the
    /// spill then, the next sender sends: it may be started when this has returned.
    ///
    /// # Errors
    /// Those of [`Sender::flush`]. After [`SendError::Failing`] the sender takes no more events and goes on trying:
    /// close it again to wait on, or drop it to give up what is left.
    pub async fn close(&self) -> Result<(), SendError> {
        self.shared.state.lock().close();
        self.shared.room.close();
        let flushed = self.flush().await;
        if matches!(flushed, Err(SendError::Failing { .. })) {
            return flushed;
        }
        self.shared.stop();
        let mut driver = self.driver.lock().await;
        if let Some(ending) = driver.as_mut() {
            // Whether it ended well, `flush` has said.
            let _ = ending.await;
            *driver = None;
        }
        drop(driver);
        // What was under way meanwhile may have been refused.
        let late = self.shared.state.lock().backlog.take_lost();
        match (flushed, late) {
            (Err(SendError::Refused { events, reason }), Some(SendError::Refused { events: more, .. })) => {
                Err(SendError::Refused { events: events + more, reason })
            }
            (Ok(()), Some(late)) => Err(late),
            (flushed, _) => flushed,
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.shared.state.lock().stats();
        stats.retried += self.shared.retried.load(Ordering::Relaxed);
        stats
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("urls", &self.shared.client.urls()).finish_non_exhaustive()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
