//! The counter: from the log to minute counts, sealed segments and the tail.
//!
//! ```text
//! log ─▶ follow ─▶ PartitionCounter ─▶ finished segments ─▶ History ─▶ keep: runs, folding, memory
//!                  (dedup, open counts)                       │
//!                                                             └─▶ seal ─▶ one file, one commit ─▶ stream_counts
//! ```
//!
//! The core is pure: [`dedup`], [`open`], [`counts`], [`partition`], [`history`]. Around it are tasks: `follow`
//! reads a partition's log and counts it, `seal` makes finished segments durable, which is the
//! checkpoint too, `keep` keeps memory in order, `load` brings back what lay in memory before a restart.
//! [`Counter`] starts them and answers for them.

mod api;
pub mod counts;
pub mod dedup;
mod error;
mod file;
mod follow;
pub mod history;
mod keep;
mod load;
pub mod open;
pub mod partition;
mod recover;
mod retry;
mod seal;
mod shared;
mod stats;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use parking_lot::Mutex;
use reckon_data::clock::{Clock, Names};
use reckon_data::config::{Counting, Retention};
use reckon_data::definition::Definition;
use reckon_data::log::Log;
use reckon_data::table::Tables;
use tokio::task::JoinHandle;

pub use error::CounterError;
pub use file::{stream_schema, write_options};
pub use stats::{CounterStats, PartitionStats};

use recover::recover;
use shared::Shared;

/// How long sealing may take when the counter stops.
const LAST_SEAL: Duration = Duration::from_secs(8);

/// What a counter works with.
#[derive(Debug, Clone)]
pub struct CounterParts {
    /// The log to count.
    pub log: Arc<dyn Log>,
    /// Which of its partitions; others count the rest.
    pub partitions: BTreeSet<u32>,
    /// Commits.
    pub tables: Arc<dyn Tables>,
    /// Where the tables' files lie.
    pub store: Arc<dyn ObjectStore>,
    /// What is counted.
    pub definition: Arc<Definition>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// File names and commit tokens.
    pub names: Arc<dyn Names>,
    /// How it counts.
    pub settings: Counting,
    /// How long what batch has counted stays readable.
    pub retention: Retention,
}

/// Counts partitions of a log. Stop it, or drop it, which is as if it were killed: what was not sealed
/// is counted again after the next start.
pub struct Counter {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    sealer: Mutex<Option<JoinHandle<()>>>,
}

impl Counter {
    /// Starts where the last seal ended. Returns when that is known; the dedup set is refilled afterwards.
    ///
    /// # Errors
    /// See [`CounterError`]. An error that names the log calls for a decision, not for another try.
    pub async fn start(parts: CounterParts) -> Result<Arc<Self>, CounterError> {
        let recovered = recover(&parts).await?;
        let shared = Arc::new(Shared::new(parts, recovered.partitions)?);
        let mut tasks: Vec<JoinHandle<()>> =
            (0..shared.partitions.len()).map(|at| tokio::spawn(follow::follow(Arc::clone(&shared), at))).collect();
        tasks.push(tokio::spawn(keep::keep(Arc::clone(&shared))));
        tasks.push(tokio::spawn(load::load(Arc::clone(&shared), recovered.segments)));
        let sealer = tokio::spawn(seal::seal_on(Arc::clone(&shared)));
        Ok(Arc::new(Self { shared, tasks: Mutex::new(tasks), sealer: Mutex::new(Some(sealer)) }))
    }

    /// Stops reading, seals the segments that have ended, and returns; within seconds, even if they cannot be
    /// sealed: the log still has them.
    pub async fn stop(&self) {
        self.shared.stop();
        let sealer = self.sealer.lock().take();
        let tasks: Vec<JoinHandle<()>> = self.tasks.lock().drain(..).collect();
        for task in tasks {
            // A task that panicked has nothing left to wait for.
            task.await.ok();
        }
        if let Some(mut sealer) = sealer {
            let last = async {
                (&mut sealer).await.ok();
                seal::seal_last(&self.shared).await;
            };
            if tokio::time::timeout(LAST_SEAL, last).await.is_err() {
                sealer.abort();
                tracing::warn!("the last segments could not be sealed in time, they will be counted again");
            }
        }
        self.shared.halt("it was stopped");
    }

    /// Below this offset the partition's log is not needed for a restart any more.
    #[must_use]
    pub fn refill_offset(&self, partition: u32) -> Option<u64> {
        let partition = self.shared.of(partition)?;
        Some(partition.state.lock().history.refill_offset())
    }

    /// How it does.
    #[must_use]
    pub fn stats(&self) -> CounterStats {
        CounterStats::of(&self.shared)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.shared.stop();
        let tasks = self.tasks.get_mut().drain(..).chain(self.sealer.get_mut().take());
        tasks.for_each(|task| task.abort());
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").field("partitions", &self.shared.partitions.len()).finish_non_exhaustive()
    }
}
