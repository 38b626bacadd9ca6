//! A log with damaged records, for tests.

use std::collections::BTreeSet;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use reckon_data::log::memory::MemoryLog;
use reckon_data::log::{Log, LogError, Stored};
use tokio::sync::watch;
use uuid::Uuid;

/// A log of which some records cannot be read.
#[derive(Debug)]
pub(crate) struct Scratched {
    log: MemoryLog,
    /// Those.
    pub(crate) records: Mutex<BTreeSet<(u32, u64)>>,
}

impl Scratched {
    /// The log, with nothing wrong yet.
    pub(crate) fn new(log: MemoryLog) -> Self {
        Self { log, records: Mutex::default() }
    }
}

#[async_trait]
impl Log for Scratched {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn identity(&self) -> Uuid {
        self.log.identity()
    }

    async fn append(&self, partition: u32, records: Vec<Bytes>) -> Result<Range<u64>, LogError> {
        self.log.append(partition, records).await
    }

    async fn read(&self, partition: u32, from: u64, _: usize) -> Result<Vec<Stored>, LogError> {
        if self.records.lock().contains(&(partition, from)) {
            return Err(LogError::Corrupt { partition, offset: from, reason: "scratched".to_owned() });
        }
        self.log.read(partition, from, 0).await
    }

    async fn extent(&self, partition: u32) -> Result<Range<u64>, LogError> {
        self.log.extent(partition).await
    }

    fn watch_end(&self, partition: u32) -> Result<watch::Receiver<u64>, LogError> {
        self.log.watch_end(partition)
    }

    async fn trim(&self, partition: u32, below: u64) -> Result<(), LogError> {
        self.log.trim(partition, below).await
    }
}
