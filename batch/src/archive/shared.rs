//! What the archiver's task and its handle share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use object_store::ObjectStore;
use reckon_data::clock::Names;
use reckon_data::log::Log;
use reckon_data::table::Tables;
use tokio::sync::{Semaphore, watch};

use super::error::ArchiveError;
use super::fault::Fault;
use super::stats::Counters;

/// Partitions that decode and encode at the same time: the counter and the gateway need their share.
const ENCODERS_MAX: usize = 2;

/// How the archiver ended.
pub(super) type Ending = Option<Result<(), Arc<ArchiveError>>>;

/// What the archiver's task and its handle share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Arc<dyn Log>,
    /// Those that are archived here. What follows is one a partition, in their order.
    pub(super) partitions: BTreeSet<u32>,
    pub(super) tables: Arc<dyn Tables>,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) names: Arc<dyn Names>,
    pub(super) commit_every: Duration,
    pub(super) file_bytes: usize,
    pub(super) encoders: Arc<Semaphore>,
    pub(super) counters: Counters,
    /// Offsets that somebody waits for.
    pub(super) wanted: watch::Sender<Vec<u64>>,
    /// Offsets committed to both tables.
    pub(super) committed: watch::Sender<Vec<u64>>,
    /// Partitions whose next record cannot be read; the others go on.
    pub(super) faults: watch::Sender<BTreeMap<u32, Fault>>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) ending: watch::Sender<Ending>,
}

impl Shared {
    pub(super) fn new(parts: super::ArchiverParts, committed: Vec<u64>) -> Self {
        Self {
            log: parts.log,
            partitions: parts.partitions,
            tables: parts.tables,
            store: parts.store,
            names: parts.names,
            commit_every: parts.settings.commit_every,
            file_bytes: usize::try_from(parts.settings.file_size.as_u64()).unwrap_or(usize::MAX),
            encoders: Arc::new(Semaphore::new(ENCODERS_MAX)),
            counters: Counters::default(),
            wanted: watch::Sender::new(vec![0; committed.len()]),
            committed: watch::Sender::new(committed),
            faults: watch::Sender::default(),
            stop: watch::Sender::new(false),
            ending: watch::Sender::new(None),
        }
    }

    /// Those of the offsets, one for each partition of the log, that are of partitions archived here.
    pub(super) fn own(&self, offsets: &[u64]) -> Vec<u64> {
        self.partitions.iter().map(|partition| offsets.get(*partition as usize).copied().unwrap_or(0)).collect()
    }

    pub(super) fn committed(&self) -> Vec<u64> {
        self.committed.borrow().clone()
    }

    /// A partition's record at `next` cannot be read: it is tried again later.
    pub(super) fn rest(&self, partition: u32, next: u64, error: ArchiveError) {
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
        self.faults.send_modify(|faults| {
            let before = faults.get(&partition).filter(|fault| fault.next == next);
            let fault = Fault::after(before, next, error);
            // Once a record: it may stay so for long.
            if before.is_none() {
                tracing::error!(partition, error = %fault.error, "archiving of a partition has stopped, and is tried again");
            }
            faults.insert(partition, fault);
        });
    }

    /// A partition goes on.
    pub(super) fn go_on(&self, partition: u32) {
        self.faults.send_if_modified(|faults| {
            let rested = faults.remove(&partition).is_some();
            if rested {
                tracing::info!(partition, "archiving of a partition goes on");
            }
            rested
        });
    }

    pub(super) fn stopping(&self) -> bool {
        *self.stop.borrow()
    }
}
