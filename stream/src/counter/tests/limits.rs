//! A counter under memory pressure, and with a store that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytesize::ByteSize;
use reckon_data::config::Counting;
use reckon_data::jobs::Follower;
use reckon_data::table::{Commit, Snapshot, Table, TableError, Tables};
use reckon_data::tail::Tails;

use super::world::{MINUTE, World, settings, view};
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
            commit.token = uuid::Uuid::from_u128(3);
            self.inner.commit(commit).await?;
            return Err(error);
        }
        self.inner.commit(commit).await
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
        self.inner.vacuum(table, retention_micros).await
    }
}

async fn failing(world: &World, before: usize, after: usize) -> Arc<Counter> {
    let inner = Arc::clone(&world.tables) as Arc<dyn Tables>;
    let tables = Arc::new(Failing { inner, before: before.into(), after: after.into() });
    Counter::start(CounterParts { tables, ..world.parts(settings()) }).await.unwrap()
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
