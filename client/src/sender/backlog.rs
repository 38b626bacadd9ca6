//! What is not acknowledged yet, and what is to be done next: no I/O here.
//!
//! ```text
//!        push          full, or old and       the oldest            answered
//!  ───▶ open batch ───▶ could be sent ───▶ queued ───▶ sending ────────────▶ done
//!                                          │    ▲        │
//!                  no room: the newest     │    └────────┘ no server takes it
//!                  no server: the oldest   ▼
//!                                       writing ───▶ in the spill ───▶ reading ──▶ done
//!                                                         ▲               │
//!                                                         └───────────────┘ no server takes it
//! ```
//!
//! When no server takes a batch, the sender is *down*: what is queued goes to the spill if there is one, and one batch
//! after another is tried, with a pause between them, until one is answered: the next after the one that failed last, so
//! that one that is never taken does not stand in the way of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use reckon_data::clock::Names;
use tokio::time::Instant;
use uuid::Uuid;

use super::error::SendError;
use super::options::Limits;
use super::shelf::Shelf;
use super::spill::file_bytes;
use crate::batch::Batch;

/// A batch that gets no more events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    /// An event a line.
    pub(super) body: Bytes,
    pub(super) events: u64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Send a batch.
    Send(Uuid, Sealed),
    /// Read a batch back from the spill, and send it.
    SendBack(Uuid),
    /// Set a batch down in the spill.
    Spill(Uuid, Sealed),
}

/// How scarce memory is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pressure {
    /// Bytes free.
    pub(super) free: usize,
    /// Events that wait for room.
    pub(super) waiting: usize,
}

/// What is not acknowledged yet.
#[derive(Debug)]
pub(super) struct Backlog {
    limits: Limits,
    names: Arc<dyn Names>,
    open: Batch,
    opened_at: Option<Instant>,
    /// By name, which is by age.
    queued: BTreeMap<Uuid, Sealed>,
    sending: BTreeSet<Uuid>,
    shelf: Shelf,
    is_down: bool,
    /// The batch that no server took last.
    failed: Option<Uuid>,
    /// Nothing is sent before, because no server took the last batch.
    rests_until: Option<Instant>,
    /// Bytes in memory, without those read back.
    held: usize,
    /// How often a batch could neither be sent nor set down.
    troubles: u64,
    /// Why, the last time.
    trouble: String,
    /// What was refused as a whole and not said yet.
    lost: Option<SendError>,
}

impl Backlog {
    /// Nothing but the files that an earlier sender left.
    pub(super) fn new(limits: Limits, names: Arc<dyn Names>, left: BTreeMap<Uuid, u64>) -> Self {
        Self {
            limits,
            names,
            open: Batch::new(limits.batch),
            opened_at: None,
            queued: BTreeMap::new(),
            sending: BTreeSet::new(),
            shelf: Shelf::new(&limits, left),
            is_down: false,
            failed: None,
            rests_until: None,
            held: 0,
            troubles: 0,
            trouble: String::new(),
            lost: None,
        }
    }

    /// Bytes in memory, without those read back.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Bytes of files in the spill.
    pub(super) const fn spill_bytes(&self) -> u64 {
        self.shelf.bytes()
    }

    /// Adds an event, a line without its line break; returns whether there may be something new to do.
    pub(super) fn push(&mut self, line: &[u8], now: Instant) -> bool {
        let bytes = line.len() + 1;
        let mut is_news = self.open.bytes() + bytes > self.limits.batch && self.seal();
        if self.open.is_empty() {
            self.opened_at = Some(now);
            is_news = true;
        }
        self.open.push(line);
        self.held += bytes;
        if self.open.is_full() {
            self.seal();
            is_news = true;
        }
        is_news
    }

    /// Closes the open batch; returns whether it held anything.
    pub(super) fn seal(&mut self) -> bool {
        self.opened_at = None;
        if self.open.is_empty() {
            return false;
        }
        let events = self.open.events();
        let sealed = Sealed { body: self.open.take(), events };
        self.queued.insert(self.names.fresh(), sealed);
        true
    }

    /// What is to be done next; it is noted as begun.
    pub(super) fn next(&mut self, now: Instant, pressure: Pressure) -> Option<Step> {
        let is_tight = pressure.waiting > 0 || pressure.free < self.limits.batch;
        if let Some(step) = self.next_spill(now, is_tight).or_else(|| self.next_send(now)) {
            return Some(step);
        }
        // A batch that cannot be sent yet may as well grow.
        let is_due = pressure.waiting > 0 || self.due_at().is_some_and(|at| at <= now);
        if is_due && self.has_slot(now) && self.seal() { self.next_send(now) } else { None }
    }

    /// When there may be something to do although nothing has happened.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let times = [self.due_at(), self.rests_until, self.shelf.rests_until()];
        times.into_iter().flatten().filter(|at| *at > now).min()
    }

    fn due_at(&self) -> Option<Instant> {
        self.opened_at.and_then(|at| at.checked_add(self.limits.linger))
    }

    fn next_spill(&mut self, now: Instant, is_tight: bool) -> Option<Step> {
        if self.shelf.writing().is_some() || !(self.is_down || is_tight) {
            return None;
        }
        // When servers are only slow, the oldest stay where they are: they are sent next.
        let chosen = if self.is_down { self.queued.first_key_value() } else { self.queued.last_key_value() };
        let (id, bytes) = chosen.map(|(id, sealed)| (*id, file_bytes(&sealed.body)))?;
        if !self.shelf.takes(bytes, now) {
            return None;
        }
        let sealed = self.queued.remove(&id)?;
        self.shelf.begin_write(id, bytes);
        Some(Step::Spill(id, sealed))
    }

    fn next_send(&mut self, now: Instant) -> Option<Step> {
        if !self.has_slot(now) {
            return None;
        }
        let after_failed = self.failed.filter(|_| self.is_down).and_then(|id| self.oldest(Bound::Excluded(id)));
        let (id, is_spilled) = after_failed.or_else(|| self.oldest(Bound::Unbounded))?;
        if is_spilled {
            self.shelf.begin_read(id);
            return Some(Step::SendBack(id));
        }
        let sealed = self.queued.remove(&id)?;
        self.sending.insert(id);
        Some(Step::Send(id, sealed))
    }

    /// The oldest batch younger than `after` that waits to be sent, and whether it lies in the spill.
    fn oldest(&self, after: Bound<Uuid>) -> Option<(Uuid, bool)> {
        let queued = self.queued.range((after, Bound::Unbounded)).next().map(|(id, _)| (*id, false));
        let spilled = self.shelf.oldest(after).map(|id| (id, true));
        queued.into_iter().chain(spilled).min()
    }

    /// Whether a batch may be sent.
    fn has_slot(&self, now: Instant) -> bool {
        let most = if self.is_down { 1 } else { self.limits.in_flight };
        self.sending.len() + self.shelf.reading() < most && self.rests_until.is_none_or(|until| until <= now)
    }

    /// A server has judged a batch; returns the bytes that are free now.
    pub(super) fn answered(&mut self, id: Uuid, sealed: &Sealed) -> usize {
        self.sending.remove(&id);
        self.came_up();
        self.free(sealed)
    }

    /// A server has judged a batch of the spill, whose file may still be there.
    pub(super) fn answered_back(&mut self, id: Uuid, is_gone: bool) {
        if is_gone {
            self.shelf.gone(id);
        } else {
            self.shelf.left_behind(id);
        }
        self.came_up();
    }

    /// No server takes a batch for now; none is asked before `until`.
    pub(super) fn not_taken(&mut self, id: Uuid, sealed: Sealed, now: Instant, until: Instant, reason: &str) {
        self.sending.remove(&id);
        self.queued.insert(id, sealed);
        self.went_down(id, now, until, reason);
    }

    /// No server takes a batch of the spill for now, or it cannot be read for now; nothing is sent before `until`.
    pub(super) fn not_taken_back(&mut self, id: Uuid, now: Instant, until: Instant, reason: &str) {
        self.shelf.put_back(id);
        self.went_down(id, now, until, reason);
    }

    /// A batch is in the spill; returns the bytes that are free now.
    pub(super) fn spilled(&mut self, sealed: &Sealed) -> usize {
        self.shelf.written();
        self.free(sealed)
    }

    /// A batch could not be set down; none is before `until`.
    pub(super) fn not_spilled(&mut self, id: Uuid, sealed: Sealed, until: Instant, reason: &str) {
        self.queued.insert(id, sealed);
        self.shelf.not_written(until);
        self.note_trouble(reason);
    }

    /// A file of the spill is no batch any more, or gone.
    pub(super) fn gone(&mut self, id: Uuid) {
        self.shelf.gone(id);
    }

    /// A batch was refused as a whole.
    pub(super) fn lost(&mut self, more: u64, reason: &str) {
        self.lost = Some(match self.lost.take() {
            Some(SendError::Refused { events, reason }) => SendError::Refused { events: events + more, reason },
            _ => SendError::Refused { events: more, reason: reason.to_owned() },
        });
    }

    /// What was refused as a whole and not said yet.
    pub(super) fn take_lost(&mut self) -> Option<SendError> {
        self.lost.take()
    }

    fn came_up(&mut self) {
        self.is_down = false;
        self.failed = None;
        self.rests_until = None;
    }

    fn went_down(&mut self, id: Uuid, now: Instant, until: Instant, reason: &str) {
        self.is_down = true;
        self.failed = Some(id);
        self.rests_until = Some(until);
        let next = self.queued.values().next().map(|sealed| file_bytes(&sealed.body));
        if next.is_some_and(|bytes| !self.shelf.takes(bytes, now)) {
            self.note_trouble(reason);
        }
    }

    fn note_trouble(&mut self, reason: &str) {
        self.troubles += 1;
        reason.clone_into(&mut self.trouble);
    }

    fn free(&mut self, sealed: &Sealed) -> usize {
        self.held -= sealed.body.len();
        sealed.body.len()
    }

    /// Where things stand now.
    pub(super) fn mark(&self) -> Mark {
        Mark { newest: self.unsettled().max(), troubles: self.troubles }
    }

    /// What became of all that was there at `mark`: none when some of it is neither judged nor set down yet and nothing
    /// has failed since.
    pub(super) fn verdict(&mut self, mark: Mark) -> Option<Result<(), SendError>> {
        if mark.newest.is_none_or(|newest| self.unsettled().all(|id| id > newest)) {
            return Some(self.take_lost().map_or(Ok(()), Err));
        }
        (self.troubles > mark.troubles).then(|| Err(SendError::Failing { reason: self.trouble.clone() }))
    }

    /// Batches that are in memory only.
    fn unsettled(&self) -> impl Iterator<Item = Uuid> {
        self.queued.keys().chain(&self.sending).copied().chain(self.shelf.writing())
    }
}

/// A point in time, for [`Backlog::verdict`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    newest: Option<Uuid>,
    troubles: u64,
}
