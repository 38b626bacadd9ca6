//! Runs held in memory, each loaded once however many ask for it.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use reckon_data::run::Run;

use super::load::Columns;
use crate::ServingError;

/// What a run in memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunKey {
    /// All rows of a file set, by the hash of its paths, with these columns.
    Set(u128, Columns),
    /// Those of one hour, in hours since 1970.
    Hour(u128, Columns, i64),
    /// A sealed segment: partition, start, end.
    Segment(u32, u64, u64),
}

/// Runs within a limit of memory.
#[derive(Debug)]
pub struct RunCache {
    runs: Cache<RunKey, Arc<Run>, Bytes>,
    memory: u64,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<RunKey, Arc<Run>> for Bytes {
    fn weight(&self, _: &RunKey, run: &Arc<Run>) -> u64 {
        run.memory_bytes() as u64
    }
}

/// Runs that are expected to fit.
const ITEMS: usize = 1_024;

impl RunCache {
    /// Up to `memory` bytes.
    ///
    /// # Errors
    /// Never with these options.
    pub fn new(memory: u64) -> Result<Self, ServingError> {
        // One shard: a run may take a good part of all memory, and a shard admits nothing larger than itself.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(ITEMS)
            .weight_capacity(memory.max(1))
            .build()
            .map_err(|error| ServingError::internal(format!("{error:?}")))?;
        let runs = Cache::with_options(
            options,
            Bytes,
            DefaultHashBuilder::default(),
            quick_cache::sync::DefaultLifecycle::default(),
        );
        Ok(Self { runs, memory })
    }

    /// The limit in bytes.
    #[must_use]
    pub const fn memory(&self) -> u64 {
        self.memory
    }

    /// Bytes held.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.runs.weight()
    }

    /// A run, if it is there.
    #[must_use]
    pub fn get(&self, key: RunKey) -> Option<Arc<Run>> {
        self.runs.get(&key)
    }

    /// Whether a run is there; that does not count as a use.
    #[must_use]
    pub fn holds(&self, key: RunKey) -> bool {
        self.runs.contains_key(&key)
    }

    /// A run; loaded by one of all who ask for it.
    ///
    /// # Errors
    /// Those of `load`; the next who asks loads again.
    pub async fn get_or_load(
        &self,
        key: RunKey,
        load: impl Future<Output = Result<Arc<Run>, ServingError>>,
    ) -> Result<Arc<Run>, ServingError> {
        self.runs.get_or_insert_async(&key, load).await
    }

    /// Puts a run there.
    pub fn put(&self, key: RunKey, run: Arc<Run>) {
        self.runs.insert(key, run);
    }

    /// Drops the runs that `keep` says no to.
    pub fn retain(&self, keep: impl Fn(&RunKey) -> bool) {
        self.runs.retain(|key, _| keep(key));
    }
}
