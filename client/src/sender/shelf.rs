//! What lies in the spill: bookkeeping, no I/O.

use std::collections::BTreeMap;
use std::ops::Bound;

use tokio::time::Instant;
use uuid::Uuid;

use super::options::Limits;

/// What lies in the spill: the bytes of each file.
#[derive(Debug)]
pub(super) struct Shelf {
    /// None without a spill.
    bytes_max: Option<u64>,
    read_back_max: u64,
    /// Of all of them.
    bytes: u64,
    there: BTreeMap<Uuid, u64>,
    /// On their way to a server.
    reading: BTreeMap<Uuid, u64>,
    /// One at a time, so that the oldest is there first.
    writing: Option<(Uuid, u64)>,
    /// Nothing is written before, because writing failed.
    rests_until: Option<Instant>,
}

impl Shelf {
    /// The shelf with the files that an earlier sender left.
    pub(super) fn new(limits: &Limits, left: BTreeMap<Uuid, u64>) -> Self {
        Self {
            bytes_max: limits.spill,
            read_back_max: limits.read_back,
            bytes: left.values().sum(),
            there: left,
            reading: BTreeMap::new(),
            writing: None,
            rests_until: None,
        }
    }

    /// Whether there is a place for a file of so many bytes now.
    pub(super) fn takes(&self, bytes: u64, now: Instant) -> bool {
        self.bytes_max.is_some_and(|most| self.bytes.saturating_add(bytes) <= most)
            && self.rests_until.is_none_or(|until| until <= now)
    }

    /// Bytes of all files.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many are on their way.
    pub(super) fn reading(&self) -> usize {
        self.reading.len()
    }

    /// The one that is being written.
    pub(super) fn writing(&self) -> Option<Uuid> {
        self.writing.map(|(id, _)| id)
    }

    /// Until when nothing is written.
    pub(super) const fn rests_until(&self) -> Option<Instant> {
        self.rests_until
    }

    /// The oldest younger than `after` that is not on its way, if there is memory to read it: for one there always is.
    pub(super) fn oldest(&self, after: Bound<Uuid>) -> Option<Uuid> {
        let (id, bytes) = self.there.range((after, Bound::Unbounded)).next()?;
        let read: u64 = self.reading.values().sum();
        (self.reading.is_empty() || read + bytes <= self.read_back_max).then_some(*id)
    }

    /// A file is being written.
    pub(super) fn begin_write(&mut self, id: Uuid, bytes: u64) {
        self.bytes += bytes;
        self.writing = Some((id, bytes));
    }

    /// It is written.
    pub(super) fn written(&mut self) {
        if let Some((id, bytes)) = self.writing.take() {
            self.there.insert(id, bytes);
        }
    }

    /// It could not be written; none is before `until`.
    pub(super) fn not_written(&mut self, until: Instant) {
        if let Some((_, bytes)) = self.writing.take() {
            self.bytes -= bytes;
        }
        self.rests_until = Some(until);
    }

    /// A file is read and sent.
    pub(super) fn begin_read(&mut self, id: Uuid) {
        if let Some(bytes) = self.there.remove(&id) {
            self.reading.insert(id, bytes);
        }
    }

    /// It was sent in vain.
    pub(super) fn put_back(&mut self, id: Uuid) {
        if let Some(bytes) = self.reading.remove(&id) {
            self.there.insert(id, bytes);
        }
    }

    /// It was sent, and is there all the same: nobody sends it again, and its bytes count.
    pub(super) fn left_behind(&mut self, id: Uuid) {
        self.reading.remove(&id);
    }

    /// It is done with.
    pub(super) fn gone(&mut self, id: Uuid) {
        if let Some(bytes) = self.reading.remove(&id) {
            self.bytes -= bytes;
        }
    }
}
