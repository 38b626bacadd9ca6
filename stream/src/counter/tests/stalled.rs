//! A record that cannot be read, until it can.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use reckon_data::jobs::Follower;
use reckon_data::log::memory::MemoryLog;
use reckon_data::log::{Log, LogError, Stored};
use reckon_data::tail::Tails;
use tokio::sync::watch;
use uuid::Uuid;

use super::world::{World, settings, view};
use crate::counter::testing::Entry;
use crate::counter::{Counter, CounterParts};

/// A log of which some records of partition 0 are not what was written: damage that the log finds, and damage that only
/// shows when the record is decoded.
#[derive(Debug)]
struct Damaged {
    log: MemoryLog,
    found: Mutex<Option<u64>>,
    hidden: Mutex<Option<u64>>,
}

#[async_trait]
impl Log for Damaged {
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
        if partition == 0 && *self.found.lock() == Some(from) {
            return Err(LogError::Corrupt { partition, offset: from, reason: "a bit".to_owned() });
        }
        let mut read = self.log.read(partition, from, 0).await?;
        if partition == 0 && *self.hidden.lock() == Some(from) {
            read[0].bytes = read[0].bytes.slice(1..);
        }
        Ok(read)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_goes_on_when_its_record_can_be_read_again() {
    let world = World::new(2);
    let log = Damaged { log: world.log.clone(), found: Mutex::new(Some(1)), hidden: Mutex::new(Some(2)) };
    let log = Arc::new(log);
    let parts = CounterParts { log: Arc::clone(&log) as Arc<dyn Log>, ..world.parts(settings()) };
    let counter = Counter::start(parts).await.unwrap();
    for partition in 0..2 {
        for number in 0..4 {
            world.append(partition, 0, Entry::Events(vec![view("a", number), view("b", number)])).await;
        }
        world.append(partition, 1, Entry::Cut).await;
    }
    world.until(|| counter.position(0).is_err()).await;
    world.until(|| counter.position(1).unwrap().offset == 5).await;
    let reached = tokio::time::timeout(Duration::from_secs(20), counter.reach(&[4, 4])).await.expect("nobody hangs");
    assert!(reached.unwrap_err().contains("offset 1"));
    *log.found.lock() = None;
    world.until(|| counter.position(0).is_err_and(|error| error.to_string().contains("offset 2"))).await;
    assert!(counter.stats().partitions[0].stalled.is_some());
    *log.hidden.lock() = None;
    world.until(|| counter.position(0).is_ok_and(|position| position.offset == 5)).await;
    world.check(&counter, &[0, 0]).await;
    counter.reach(&[4, 4]).await.unwrap();
    counter.stop().await;
    world.check_sealed().await;
}
