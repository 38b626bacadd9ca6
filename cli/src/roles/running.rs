//! The work of a process on single partitions: what goes on, and what cannot begin.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use parking_lot::RwLock;

/// Something that works on each partition that is this process's.
pub struct Running<T> {
    running: RwLock<BTreeMap<u32, Arc<T>>>,
    troubles: RwLock<BTreeMap<u32, String>>,
}

impl<T> Running<T> {
    /// Begins with a partition, unless it is worked on. Why it could not, [`Running::troubles`] says until it can.
    pub async fn begin(&self, partition: u32, starting: impl Future<Output = Result<Arc<T>>>) {
        if self.running.read().contains_key(&partition) {
            return;
        }
        match starting.await {
            Ok(started) => {
                tracing::info!(partition, "the work on a partition begins");
                self.troubles.write().remove(&partition);
                self.running.write().insert(partition, started);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(partition, error, "the work on a partition cannot begin, it is tried again");
                self.troubles.write().insert(partition, error);
            }
        }
    }

    /// What worked on a partition, to be ended.
    pub fn take(&self, partition: u32) -> Option<Arc<T>> {
        self.troubles.write().remove(&partition);
        self.running.write().remove(&partition)
    }

    /// What works on a partition.
    pub fn get(&self, partition: u32) -> Option<Arc<T>> {
        self.running.read().get(&partition).cloned()
    }

    /// All that works, with its partition.
    pub fn all(&self) -> Vec<(u32, Arc<T>)> {
        self.running.read().iter().map(|(partition, running)| (*partition, Arc::clone(running))).collect()
    }

    /// The partitions whose work has ended by itself.
    pub fn ended(&self, has_ended: impl Fn(&T) -> bool) -> BTreeSet<u32> {
        self.all().into_iter().filter(|(_, running)| has_ended(running)).map(|(partition, _)| partition).collect()
    }

    /// What stands in the way of partitions that cannot begin.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.read().iter().map(|(partition, error)| format!("partition {partition}: {error}")).collect()
    }
}

impl<T> Default for Running<T> {
    fn default() -> Self {
        Self { running: RwLock::default(), troubles: RwLock::default() }
    }
}

impl<T> fmt::Debug for Running<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("partitions", &self.running.read().keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[tokio::test]
    async fn what_stands_in_the_way_is_said_until_it_does_not() {
        let running = Running::<u8>::default();
        running.begin(3, async { Err(anyhow!("no log").context("the counter cannot start")) }).await;
        assert_eq!(running.troubles(), ["partition 3: the counter cannot start: no log"]);
        running.begin(3, async { Ok(Arc::new(1)) }).await;
        running.begin(3, async { Ok(Arc::new(2)) }).await;
        assert!(running.troubles().is_empty());
        assert_eq!(running.all(), [(3, Arc::new(1))], "it is begun with once");
        assert_eq!(running.take(3), Some(Arc::new(1)));
    }
}
