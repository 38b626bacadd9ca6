//! The embedded log: [`Log`] on the fjall storage crate, in one folder of one process.
//!
//! One keyspace a partition, the offset as its key and the record as its value, values apart from keys.
//! - [`options`]: limits and sizes.
//! - `home`: the folder, its lock, and how a log is made and opened.
//! - `meta`: format, identity, partitions, trim points.
//! - `store`: reading, committing, trimming; everything that blocks.
//! - `writer`: the thread that gathers appends into commits.
//! - `value`: a record with its checksum.
//! - `mark`: the ends that were durable once, against a journal that lost some.
//! - `remains`, `raw`, `aside`: what is left of a record that cannot be read, and what stands in its place.
//! - `errors`: what the crate's errors mean.
//!
//! `docs/adr/0001-log-storage-crate.md` says why this crate and these settings.

mod aside;
mod errors;
mod home;
mod mark;
mod meta;
pub mod options;
mod raw;
mod remains;
mod store;
#[cfg(test)]
mod tests;
mod value;
mod writer;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use super::{Log, LogError, Stored, check_sizes};
use crate::clock::Names;
use errors::io_failed;
use mark::Mark;
pub use options::Options;
pub use remains::Remains;
use store::Store;
use writer::{Append, Shared, Writer};

/// Bytes an append counts in the queue beside its records.
const APPEND_BYTES: usize = 128;

type WriterThread = JoinHandle<Result<(), LogError>>;

/// A log in a folder of this machine. Close it, or drop it, to let another process have it.
pub struct EmbeddedLog {
    store: Arc<Store>,
    shared: Arc<Shared>,
    queue_room: Arc<Semaphore>,
    queue_bytes_max: u32,
    queue: Mutex<Option<mpsc::Sender<Append>>>,
    writer: Mutex<Option<WriterThread>>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or makes one there. Blocks while the journal is read, up to seconds.
    ///
    /// # Errors
    /// [`LogError::Mismatch`] when the log has another number of partitions or a newer format, or an option is
    /// out of its range; [`LogError::Corrupt`] when records that were durable once are missing;
    /// [`LogError::Storage`] when another process has it open, or its files cannot be read.
    pub fn open(dir: &Path, options: Options, names: &dyn Names) -> Result<Self, LogError> {
        options.check()?;
        let (store, ends) = Store::open(dir, &options, || names.fresh())?;
        let mark_failed = |error| io_failed("the log's high-water mark", &error);
        let (mut mark, marked) = Mark::open(&dir.join("ends"), store.identity()).map_err(mark_failed)?;
        check_ends(&ends, marked.as_deref())?;
        mark.write(&ends).map_err(mark_failed)?;

        let store = Arc::new(store);
        let ends = ends.into_iter().map(watch::Sender::new).collect();
        let shared = Arc::new(Shared { ends, poison: OnceLock::new() });
        let (queue, waiting) = mpsc::channel(options.queue_appends_max);
        let writer = Writer::new(Arc::clone(&store), Arc::clone(&shared), waiting, mark, &options);
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| io_failed("starting the log's writer", &e))?;
        let queue_bytes_max = u32::try_from(options.queue_bytes_max).unwrap_or(u32::MAX);
        Ok(Self {
            store,
            shared,
            queue_room: Arc::new(Semaphore::new(queue_bytes_max as usize)),
            queue_bytes_max,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Closes the queue; the writer ends when it is empty.
    fn stop(&self) -> Option<WriterThread> {
        self.queue_room.close();
        self.queue.lock().take();
        self.writer.lock().take()
    }

    /// The durable end of a partition, as a sender to look at.
    fn end(&self, partition: u32) -> Result<&watch::Sender<u64>, LogError> {
        self.shared.ends.get(partition as usize).ok_or(LogError::UnknownPartition { partition })
    }

    /// Waits for room in the queue and puts an append there.
    async fn enqueue(
        &self,
        partition: u32,
        records: Vec<Bytes>,
    ) -> Result<oneshot::Receiver<Result<Range<u64>, LogError>>, LogError> {
        let bytes = records.iter().fold(APPEND_BYTES, |sum, record| sum + value::HEAD_BYTES + record.len());
        // A larger one takes the whole queue for itself.
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.queue_bytes_max);
        let room = Arc::clone(&self.queue_room).acquire_many_owned(share).await.map_err(|_| closed())?;
        let queue = self.queue.lock().clone().ok_or_else(closed)?;
        let (done, answer) = oneshot::channel();
        // Checksums are made here, by many callers, to leave the one writer its time.
        let values = records.iter().map(value::envelope).collect();
        drop(records);
        queue.send(Append { partition, values, done, room }).await.map_err(|_| writer_gone())?;
        Ok(answer)
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    fn partitions(&self) -> u32 {
        u32::try_from(self.shared.ends.len()).unwrap_or(u32::MAX)
    }

    fn identity(&self) -> Uuid {
        self.store.identity()
    }

    async fn append(&self, partition: u32, records: Vec<Bytes>) -> Result<Range<u64>, LogError> {
        let end = self.end(partition)?;
        check_sizes(&records)?;
        if let Some(why) = self.shared.poison.get() {
            return Err(LogError::Storage(why.clone()));
        }
        if records.is_empty() {
            let end = *end.borrow();
            return Ok(end..end);
        }
        let answer = self.enqueue(partition, records).await?;
        answer.await.unwrap_or_else(|_| Err(writer_gone()))
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Stored>, LogError> {
        let end = *self.end(partition)?.borrow();
        let start = self.store.trim_point(partition).unwrap_or(0);
        if from < start {
            return Err(LogError::Trimmed { partition, offset: from, start });
        }
        if from > end {
            return Err(LogError::PastEnd { partition, offset: from, end });
        }
        if from == end {
            return Ok(Vec::new());
        }
        // The crate panics when its index points to a value that is not there: then the first record alone says whether
        // it is that one.
        let mut stopped = None;
        for room in [max_bytes, 0] {
            let store = Arc::clone(&self.store);
            match tokio::task::spawn_blocking(move || store.read(partition, from, end, room)).await {
                Ok(read) => return read,
                Err(error) if error.is_panic() => stopped = Some(error),
                Err(error) => return Err(LogError::Storage(format!("reading stopped: {error}"))),
            }
        }
        let reason = stopped.map_or_else(String::new, |error| format!("reading stopped: {error}"));
        Err(LogError::Corrupt { partition, offset: from, reason })
    }

    async fn extent(&self, partition: u32) -> Result<Range<u64>, LogError> {
        // The start first: a trim never passes the end that follows.
        let start = self.store.trim_point(partition).ok_or(LogError::UnknownPartition { partition })?;
        Ok(start..*self.end(partition)?.borrow())
    }

    fn watch_end(&self, partition: u32) -> Result<watch::Receiver<u64>, LogError> {
        Ok(self.end(partition)?.subscribe())
    }

    async fn trim(&self, partition: u32, below: u64) -> Result<(), LogError> {
        let end = *self.end(partition)?.borrow();
        if below > end {
            return Err(LogError::PastEnd { partition, offset: below, end });
        }
        let store = Arc::clone(&self.store);
        let trimming = tokio::task::spawn_blocking(move || store.trim(partition, below));
        trimming.await.unwrap_or_else(|stopped| Err(LogError::Storage(format!("trimming stopped: {stopped}"))))
    }

    /// Takes no more appends, commits those that wait, and syncs all files. Reading stays possible; the folder
    /// is free for another process when the log is dropped.
    async fn close(&self) -> Result<(), LogError> {
        let Some(thread) = self.stop() else { return Ok(()) };
        tokio::task::spawn_blocking(|| join(thread)).await.unwrap_or_else(|_| Err(writer_gone()))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        let Some(thread) = self.stop() else { return };
        if let Err(error) = join(thread) {
            tracing::warn!(%error, "the log was not closed cleanly");
        }
    }
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog")
            .field("identity", &self.store.identity())
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// The log must reach at least as far as the mark says it once did.
fn check_ends(ends: &[u64], marked: Option<&[u64]>) -> Result<(), LogError> {
    for ((partition, end), marked) in (0..).zip(ends).zip(marked.unwrap_or_default()) {
        if end < marked {
            return Err(LogError::Corrupt {
                partition,
                offset: *end,
                reason: format!("records up to {marked} were durable, and are missing: the journal is damaged"),
            });
        }
    }
    Ok(())
}

fn join(thread: WriterThread) -> Result<(), LogError> {
    thread.join().unwrap_or_else(|_| Err(writer_gone()))
}

fn closed() -> LogError {
    LogError::Storage("the log is closed".to_owned())
}

fn writer_gone() -> LogError {
    LogError::Storage("the log's writer has stopped; the log must be opened anew".to_owned())
}
