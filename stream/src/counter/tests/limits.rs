//! A counter under memory pressure, and with a store that fails.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use bytesize::ByteSize;
use reckon_data::config::Counting;
use reckon_data::jobs::Follower;
use reckon_data::log::memory::MemoryLog;
use reckon_data::log::{Log, LogError, Stored};
use reckon_data::table::{Commit, Snapshot, Table, TableError, Tables};
use reckon_data::tail::Tails;
use tokio::sync::watch;
use uuid::Uuid;

use super::world::{MINUTE, World, settings, view};
use crate::counter::load::load;
use crate::counter::recover::recover;
use crate::counter::shared::Shared;
use crate::counter::testing::{Entry, Sample};
use crate::counter::{Counter, CounterParts};

fn minute_of_views(minute: i64) -> Entry {
    let samples: Vec<Sample> = (0..300).map(|n| view(&format!("{}-{n}", minute % 7), n)).collect();
    Entry::Events(samples)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_memory_is_read_from_disk() {
    let world = World::new(1);
    let tight = Counting { memory: ByteSize::kib(100), ..settings() };
    let counter = world.start(tight.clone()).await;
    for minute in 0..40 {
        world.append(0, minute * MINUTE, minute_of_views(minute)).await;
    }
    world.caught_up(&counter).await;
    world.until(|| counter.stats().partitions[0].history.on_disk > 0).await;
    world.check(&counter, &[0]).await;
    counter.stop().await;

    let counter = world.start(tight).await;
    world.caught_up(&counter).await;
    world.check(&counter, &[0]).await;
    counter.stop().await;

    let counter = world.start(settings()).await;
    world.caught_up(&counter).await;
    world.until(|| counter.stats().partitions[0].history.on_disk == 0).await;
    world.check(&counter, &[0]).await;
    assert!(counter.tail(0, 0).await.unwrap().on_disk.is_empty());
    counter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loading_stops_in_the_middle_of_a_file_when_memory_is_full() {
    let world = World::new(1);
    let counter = world.start(settings()).await;
    for minute in 0..40 {
        world.append(0, minute * MINUTE, minute_of_views(minute)).await;
    }
    let cut = world.append(0, 40 * MINUTE, Entry::Cut).await;
    counter.reach(&[cut]).await.unwrap();
    counter.stop().await;
    assert_eq!(world.tables.snapshot(Table::StreamCounts).await.unwrap().files.len(), 1);

    let parts = world.parts(Counting { memory: ByteSize::kib(100), ..settings() });
    let recovered = recover(&parts).await.unwrap();
    let shared = Arc::new(Shared::new(parts, recovered.partitions).unwrap());
    load(Arc::clone(&shared), recovered.segments).await;
    let memory = shared.partitions[0].state.lock().history.memory();
    assert!(memory.pieces > 0 && memory.on_disk > 0, "{memory:?}");
    assert!(memory.sealed <= shared.memory_max(), "{memory:?}");
}

/// Tables whose next commits fail, after having succeeded or before.
#[derive(Debug)]
struct Failing {
    inner: Arc<dyn Tables>,
    before: AtomicUsize,
    after: AtomicUsize,
}

impl Failing {
    fn takes_one(from: &AtomicUsize) -> bool {
        from.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

#[async_trait]
impl Tables for Failing {
    async fn snapshot(&self, table: Table) -> Result<Snapshot, TableError> {
        self.inner.snapshot(table).await
    }

    async fn version(&self, table: Table) -> Result<u64, TableError> {
        self.inner.version(table).await
    }

    async fn commit(&self, mut commit: Commit) -> Result<u64, TableError> {
        let failed = || TableError::Storage { table: commit.table.name(), reason: "no space".to_owned() };
        let error = failed();
        if Self::takes_one(&self.before) {
            return Err(error);
        }
        if Self::takes_one(&self.after) {
            // Not even the token is left, so that only the file can tell.
            commit.token = Uuid::from_u128(3);
            self.inner.commit(commit).await?;
            return Err(error);
        }
        self.inner.commit(commit).await
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
        self.inner.vacuum(table, retention_micros).await
    }
}

fn failing_tables(world: &World, before: usize, after: usize) -> Arc<Failing> {
    let inner = Arc::clone(&world.tables) as Arc<dyn Tables>;
    Arc::new(Failing { inner, before: before.into(), after: after.into() })
}

async fn failing(world: &World, before: usize, after: usize) -> Arc<Counter> {
    let tables = failing_tables(world, before, after);
    Counter::start(CounterParts { tables, ..world.parts(settings()) }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_does_not_hold_up_a_stop() {
    let world = World::new(1);
    let tables = failing_tables(&world, 1_000, 0);
    let parts = CounterParts { tables: Arc::clone(&tables) as Arc<dyn Tables>, ..world.parts(settings()) };
    let counter = Counter::start(parts).await.unwrap();
    world.append(0, 0, minute_of_views(1)).await;
    let cut = world.append(0, 1, Entry::Cut).await;
    let waiting = tokio::spawn({
        let counter = Arc::clone(&counter);
        async move { counter.reach(&[cut]).await }
    });
    // After the fifth failure it pauses for 1.6 s.
    world.until(|| tables.before.load(Ordering::SeqCst) == 995).await;
    let begun = Instant::now();
    counter.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(waiting.await.unwrap().is_err());
}

/// A log whose reads panic.
#[derive(Debug)]
struct Panicking(MemoryLog);

#[async_trait]
impl Log for Panicking {
    fn partitions(&self) -> u32 {
        self.0.partitions()
    }

    fn identity(&self) -> Uuid {
        self.0.identity()
    }

    async fn append(&self, partition: u32, records: Vec<Bytes>) -> Result<Range<u64>, LogError> {
        self.0.append(partition, records).await
    }

    async fn read(&self, _: u32, _: u64, _: usize) -> Result<Vec<Stored>, LogError> {
        panic!("as it should")
    }

    async fn extent(&self, partition: u32) -> Result<Range<u64>, LogError> {
        self.0.extent(partition).await
    }

    fn watch_end(&self, partition: u32) -> Result<watch::Receiver<u64>, LogError> {
        self.0.watch_end(partition)
    }

    async fn trim(&self, partition: u32, below: u64) -> Result<(), LogError> {
        self.0.trim(partition, below).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_panics_halts_the_counter() {
    let world = World::new(1);
    let log = Arc::new(Panicking(world.log.clone()));
    let counter = Counter::start(CounterParts { log, ..world.parts(settings()) }).await.unwrap();
    let cut = world.append(0, 0, Entry::Cut).await;
    let reached = tokio::time::timeout(Duration::from_secs(20), counter.reach(&[cut + 1])).await.unwrap();
    assert!(reached.unwrap_err().contains("panicked"));
    assert!(counter.stats().halted.is_some());
    assert!(counter.position(0).is_err());
    counter.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_is_tried_again() {
    for (before, after) in [(2, 0), (0, 1), (1, 1)] {
        let world = World::new(1);
        let counter = failing(&world, before, after).await;
        world.append(0, 0, minute_of_views(1)).await;
        let cut = world.append(0, 1, Entry::Cut).await;
        counter.reach(&[cut]).await.unwrap();
        world.check(&counter, &[0]).await;
        assert_eq!(world.summaries().await.len(), 1, "sealed once, with {before} and {after} errors");
        counter.stop().await;
        world.check_sealed().await;
    }
}
