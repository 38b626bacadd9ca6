//! A log in memory: the contract and nothing else, for tests and simulations.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Log, LogError, Stored, check_sizes};
use crate::clock::Names;

/// A log that outlives the components that use it, but not the process: clones are the same log, so a
/// component can be "killed" by dropping it and "restarted" with another clone. It grows until it is trimmed.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    inner: Arc<Inner>,
    drops_by_itself: bool,
}

#[derive(Debug)]
struct Inner {
    identity: Uuid,
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    kept: Mutex<Kept>,
    /// One channel for each who watches: several waiters of one channel wake in an order that tokio draws by lot, and
    /// a simulation has to come again exactly.
    watchers: Mutex<Vec<watch::Sender<u64>>>,
}

#[derive(Debug, Default, Clone)]
struct Kept {
    start: u64,
    records: VecDeque<Bytes>,
}

impl Kept {
    fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }
}

impl MemoryLog {
    /// A new, empty log.
    #[must_use]
    pub fn new(partitions: u32, names: &dyn Names) -> Self {
        let partition = |_| Partition { kept: Mutex::default(), watchers: Mutex::default() };
        let inner = Inner { identity: names.fresh(), partitions: (0..partitions).map(partition).collect() };
        Self { inner: Arc::new(inner), drops_by_itself: false }
    }

    /// The same log, whose records may go by a retention that is not ours: whoever trims it is that retention.
    #[must_use]
    pub const fn with_own_retention(mut self) -> Self {
        self.drops_by_itself = true;
        self
    }

    /// The same log as it was when one of its partitions ended at `end` already: restored from an older copy. What is
    /// appended to one of the two is not in the other.
    #[must_use]
    pub fn restored(&self, partition: u32, end: u64) -> Self {
        let copy = |(number, of): (u32, &Partition)| {
            let Kept { start, mut records } = of.kept.lock().clone();
            if number == partition {
                records.truncate(usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX));
            }
            Partition { kept: Mutex::new(Kept { start, records }), watchers: Mutex::default() }
        };
        let partitions = (0..).zip(&self.inner.partitions).map(copy).collect();
        let inner = Inner { identity: self.inner.identity, partitions };
        Self { inner: Arc::new(inner), drops_by_itself: self.drops_by_itself }
    }

    fn partition(&self, partition: u32) -> Result<&Partition, LogError> {
        self.inner.partitions.get(partition as usize).ok_or(LogError::UnknownPartition { partition })
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn partitions(&self) -> u32 {
        u32::try_from(self.inner.partitions.len()).unwrap_or(u32::MAX)
    }

    fn identity(&self) -> Uuid {
        self.inner.identity
    }

    async fn append(&self, partition: u32, records: Vec<Bytes>) -> Result<Range<u64>, LogError> {
        let Partition { kept, watchers } = self.partition(partition)?;
        check_sizes(&records)?;
        let mut kept = kept.lock();
        let first = kept.end();
        kept.records.extend(records);
        let end = kept.end();
        watchers.lock().retain(|watcher| {
            watcher.send_if_modified(|old| std::mem::replace(old, end) != end);
            !watcher.is_closed()
        });
        Ok(first..end)
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Stored>, LogError> {
        let kept = self.partition(partition)?.kept.lock();
        let (start, end) = (kept.start, kept.end());
        if from < start {
            return Err(LogError::Trimmed { partition, offset: from, start });
        }
        if from > end {
            return Err(LogError::PastEnd { partition, offset: from, end });
        }
        let skipped = usize::try_from(from - start).unwrap_or(usize::MAX);
        let mut read: Vec<Stored> = Vec::new();
        let mut room = max_bytes;
        for (offset, bytes) in (from..).zip(kept.records.iter().skip(skipped)) {
            if !read.is_empty() && (room == 0 || bytes.len() > room) {
                break;
            }
            room = room.saturating_sub(bytes.len());
            read.push(Stored { offset, bytes: bytes.clone() });
        }
        Ok(read)
    }

    async fn extent(&self, partition: u32) -> Result<Range<u64>, LogError> {
        let kept = self.partition(partition)?.kept.lock();
        Ok(kept.start..kept.end())
    }

    fn watch_end(&self, partition: u32) -> Result<watch::Receiver<u64>, LogError> {
        let Partition { kept, watchers } = self.partition(partition)?;
        let kept = kept.lock();
        let (sender, receiver) = watch::channel(kept.end());
        watchers.lock().push(sender);
        Ok(receiver)
    }

    async fn trim(&self, partition: u32, below: u64) -> Result<(), LogError> {
        let mut kept = self.partition(partition)?.kept.lock();
        let end = kept.end();
        if below > end {
            return Err(LogError::PastEnd { partition, offset: below, end });
        }
        let gone = usize::try_from(below.saturating_sub(kept.start)).unwrap_or(usize::MAX);
        kept.records.drain(..gone);
        kept.start = kept.start.max(below);
        Ok(())
    }

    fn drops_by_itself(&self) -> bool {
        self.drops_by_itself
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;

    use futures::FutureExt;

    use super::super::conformance::{Kind, conformance};
    use super::*;
    use crate::clock::RandomNames;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_memory_log_conforms() {
        let logs: Arc<Mutex<HashMap<String, MemoryLog>>> = Arc::default();
        let open = |name: &str| {
            let mut logs = logs.lock();
            let log = logs.entry(name.to_owned()).or_insert_with(|| MemoryLog::new(3, &RandomNames)).clone();
            async move { Ok(Arc::new(log) as Arc<dyn Log>) }.boxed()
        };
        conformance(open, Kind::PLAIN).await;
    }
}
