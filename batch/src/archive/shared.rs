//! What the archiver's task and its handle share.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use reckon_data::clock::Names;
use reckon_data::log::Log;
use reckon_data::table::Tables;
use tokio::sync::{Semaphore, watch};

use super::error::ArchiveError;
use super::stats::Counters;

/// Partitions that decode and encode at the same time: the counter and the gateway need their share.
const ENCODERS_MAX: usize = 2;

/// How the archiver ended.
pub(super) type Ending = Option<Result<(), Arc<ArchiveError>>>;

/// What the archiver's task and its handle share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Arc<dyn Log>,
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
    pub(super) stop: watch::Sender<bool>,
    pub(super) ending: watch::Sender<Ending>,
}

impl Shared {
    pub(super) fn new(parts: super::ArchiverParts, committed: Vec<u64>) -> Self {
        Self {
            log: parts.log,
            tables: parts.tables,
            store: parts.store,
            names: parts.names,
            commit_every: parts.settings.commit_every,
            file_bytes: usize::try_from(parts.settings.file_size.as_u64()).unwrap_or(usize::MAX),
            encoders: Arc::new(Semaphore::new(ENCODERS_MAX)),
            counters: Counters::default(),
            wanted: watch::Sender::new(vec![0; committed.len()]),
            committed: watch::Sender::new(committed),
            stop: watch::Sender::new(false),
            ending: watch::Sender::new(None),
        }
    }

    pub(super) fn committed(&self) -> Vec<u64> {
        self.committed.borrow().clone()
    }

    pub(super) fn stopping(&self) -> bool {
        *self.stop.borrow()
    }
}
