//! The writer: one thread that gathers waiting appends into commits and numbers their records.
//!
//! ```text
//! append ─▶┐
//! append ─▶┤ queue ─▶ writer: all that waits ─▶ one batch, one sync ─▶ ends move ─▶ answers
//! append ─▶┘
//! ```

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::super::LogError;
use super::errors::{Failure, io_failed};
use super::mark::Mark;
use super::options::Options;
use super::store::{Placed, Store};
use super::value;

/// Records of one append that wait for their commit.
pub(super) struct Append {
    pub(super) partition: u32,
    /// Made by [`value::envelope`].
    pub(super) values: Vec<BytesMut>,
    pub(super) done: oneshot::Sender<Result<Range<u64>, LogError>>,
    /// The append's share of the queue's bytes.
    pub(super) room: OwnedSemaphorePermit,
}

impl Append {
    fn bytes(&self) -> usize {
        self.values.iter().map(BytesMut::len).sum()
    }
}

/// What the writer tells everybody.
#[derive(Debug)]
pub(super) struct Shared {
    /// The durable end of each partition.
    pub(super) ends: Vec<watch::Sender<u64>>,
    /// Set once, when the outcome of a commit is unknown: no offset may be given after it.
    pub(super) poison: OnceLock<String>,
}

/// The thread's own state.
pub(super) struct Writer {
    store: Arc<Store>,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Append>,
    mark: Mark,
    commit_bytes_max: usize,
    commit_appends_max: usize,
    /// The next offset of each partition.
    next: Vec<u64>,
}

impl Writer {
    pub(super) fn new(
        store: Arc<Store>,
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Append>,
        mark: Mark,
        options: &Options,
    ) -> Self {
        let next = shared.ends.iter().map(|end| *end.borrow()).collect();
        let (commit_bytes_max, commit_appends_max) = (options.commit_bytes_max, options.commit_appends_max);
        Self { store, shared, queue, mark, commit_bytes_max, commit_appends_max, next }
    }

    /// Works until the queue is closed and empty, then syncs all files.
    pub(super) fn run(mut self) -> Result<(), LogError> {
        let mut held_over = None;
        while let Some(first) = held_over.take().or_else(|| self.queue.blocking_recv()) {
            let group;
            (group, held_over) = self.gather(first);
            self.answer(group);
        }
        if let Some(why) = self.shared.poison.get() {
            return Err(LogError::Storage(why.clone()));
        }
        self.mark.sync().map_err(|e| io_failed("syncing the high-water mark", &e))?;
        self.store.sync()
    }

    /// Everything that waits, up to the limits, and the one append that went over them.
    fn gather(&mut self, first: Append) -> (Vec<Append>, Option<Append>) {
        let mut bytes = first.bytes();
        let mut group = vec![first];
        while group.len() < self.commit_appends_max {
            let Ok(append) = self.queue.try_recv() else { break };
            bytes += append.bytes();
            if bytes > self.commit_bytes_max {
                return (group, Some(append));
            }
            group.push(append);
        }
        (group, None)
    }

    /// Commits a group and tells each caller what became of it.
    fn answer(&mut self, group: Vec<Append>) {
        let mut values = Vec::new();
        let mut callers = Vec::with_capacity(group.len());
        let mut next = self.next.clone();
        for Append { partition, values: of_append, done, room } in group {
            let Some(end) = next.get_mut(partition as usize) else { continue };
            let start = *end;
            for value in of_append {
                values.push(Placed { partition, offset: *end, value: value::place(value, partition, *end) });
                *end += 1;
            }
            callers.push((start..*end, done, room));
        }
        let outcome = self.commit(values).map(|()| self.publish(next));
        for (offsets, done, room) in callers {
            // A caller that is gone does not care.
            let _ = done.send(outcome.clone().map(|()| offsets).map_err(LogError::from));
            drop(room);
        }
    }

    fn commit(&self, values: Vec<Placed>) -> Result<(), Failure> {
        if let Some(why) = self.shared.poison.get() {
            return Err(Failure::Storage(why.clone()));
        }
        let bytes = values.iter().map(|placed| placed.value.len()).sum();
        let outcome = match self.store.make_room(bytes) {
            // Nothing was written yet, so there is nothing unknown: appends may go on once there is room.
            Err(Failure::Full) => return Err(Failure::Full),
            Err(failure) => Err(failure),
            Ok(()) => self.store.commit(values).map_err(Failure::in_commit),
        };
        outcome.inspect_err(|failure| self.poison(failure))
    }

    fn poison(&self, failure: &Failure) {
        let reason = match failure {
            Failure::Full => "the disk was full",
            Failure::Storage(what) => what.as_str(),
        };
        let why = format!("a commit failed ({reason}); nothing can be appended until the log is opened anew");
        tracing::error!(reason, "the log takes no more appends");
        let _ = self.shared.poison.set(why);
    }

    /// Moves the durable ends, then the mark, which must not be ahead of them.
    fn publish(&mut self, next: Vec<u64>) {
        for (end, next) in self.shared.ends.iter().zip(&next) {
            end.send_if_modified(|end| std::mem::replace(end, *next) != *next);
        }
        if let Err(error) = self.mark.write(&next) {
            tracing::warn!(%error, "the log's high-water mark could not be written");
        }
        self.next = next;
    }
}
