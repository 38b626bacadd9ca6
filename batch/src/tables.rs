//! Waiting for counters and archivers of other processes: what they have committed stands in the tables.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use reckon_data::jobs::Follower;
use reckon_data::paths::Transaction;
use reckon_data::table::{Snapshot, Table, TableError, Tables};
use tokio::time::Instant;
use uuid::Uuid;

/// How often the tables are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Nothing has moved for so long: whoever should commit does not.
const STILL_MAX: Duration = Duration::from_secs(300);

/// Somebody elsewhere who commits what the log holds.
#[derive(Debug)]
pub struct Committed {
    tables: Arc<dyn Tables>,
    log: Uuid,
    partitions: u32,
    who: Who,
    known: Mutex<Vec<u64>>,
}

/// Who commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The counters, with their seals.
    Counters,
    /// The archivers.
    Archivers,
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Self::Counters => "counters",
            Self::Archivers => "archivers",
        }
    }
}

impl Committed {
    /// Those who work on a log elsewhere.
    #[must_use]
    pub fn new(tables: Arc<dyn Tables>, log: Uuid, partitions: u32, who: Who) -> Self {
        Self { tables, log, partitions, who, known: Mutex::new(vec![0; partitions as usize]) }
    }

    async fn look(&self) -> Result<Vec<u64>, TableError> {
        let committed = match self.who {
            Who::Counters => {
                let stream = self.tables.snapshot(Table::StreamCounts).await?;
                self.each(|partition| at(&stream, Transaction::Stream(self.log, partition)))
            }
            Who::Archivers => {
                let events = self.tables.snapshot(Table::Events).await?;
                let dead = self.tables.snapshot(Table::DeadLetters).await?;
                self.each(|partition| {
                    at(&events, Transaction::Archive(self.log, partition))
                        .min(at(&dead, Transaction::Dead(self.log, partition)))
                })
            }
        };
        self.known.lock().clone_from(&committed);
        Ok(committed)
    }

    fn each(&self, of: impl Fn(u32) -> u64) -> Vec<u64> {
        (0..self.partitions).map(of).collect()
    }
}

fn at(snapshot: &Snapshot, transaction: Transaction) -> u64 {
    u64::try_from(snapshot.transaction(&transaction.to_string())).unwrap_or(0)
}

#[async_trait]
impl Follower for Committed {
    async fn reach(&self, offsets: &[u64]) -> Result<(), String> {
        if offsets.len() != self.partitions as usize {
            return Err(format!("{} offsets for {} partitions", offsets.len(), self.partitions));
        }
        let mut before = Vec::new();
        let mut moved = Instant::now();
        loop {
            // Only as far as somebody waits: that other partitions go on says nothing.
            let looked = self.look().await;
            match looked.map(|now| now.iter().zip(offsets).map(|(now, offset)| *now.min(offset)).collect::<Vec<u64>>())
            {
                Ok(now) if now.iter().zip(offsets).all(|(now, offset)| now >= offset) => return Ok(()),
                Ok(now) if now != before => (before, moved) = (now, Instant::now()),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "what is committed is looked for again"),
            }
            if moved.elapsed() > STILL_MAX {
                let waiting: Vec<usize> = (0..)
                    .zip(before.iter().zip(offsets))
                    .filter(|(_, (now, offset))| now < offset)
                    .map(|(p, _)| p)
                    .collect();
                let who = self.who.name();
                return Err(format!(
                    "the {who} have committed nothing for {} s, and partitions {waiting:?} are waited for: does one run for each?",
                    STILL_MAX.as_secs()
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn committed(&self) -> Vec<u64> {
        self.known.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use reckon_data::clock::{ManualClock, Names as _, RandomNames};
    use reckon_data::table::{Commit, Step};
    use reckon_tables::memory::MemoryTables;

    use super::*;

    async fn commit(tables: &dyn Tables, table: Table, transaction: Transaction, to: i64) {
        let step = Step { name: transaction.to_string(), from: 0, to };
        let commit = Commit {
            table,
            steps: vec![step],
            add: Vec::new(),
            remove: Vec::new(),
            data_change: true,
            token: RandomNames.fresh(),
            operation: "test".to_owned(),
        };
        tables.commit(commit).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn commits_of_others_are_waited_for_and_not_for_ever() {
        let tables: Arc<dyn Tables> = Arc::new(MemoryTables::new(Arc::new(ManualClock::at(0))));
        let log = Uuid::from_u128(7);
        let archivers = Committed::new(Arc::clone(&tables), log, 2, Who::Archivers);
        let waiting = archivers.reach(&[3, 0]);
        let committing = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            commit(&*tables, Table::Events, Transaction::Archive(log, 0), 3).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(archivers.committed(), [0, 0], "the dead letters are waited for too");
            commit(&*tables, Table::DeadLetters, Transaction::Dead(log, 0), 4).await;
        };
        let (reached, ()) = tokio::join!(waiting, committing);
        reached.unwrap();
        assert_eq!(archivers.committed(), [3, 0]);
        let counters = Committed::new(Arc::clone(&tables), log, 2, Who::Counters);
        let error = counters.reach(&[0, 1]).await.unwrap_err();
        assert!(error.contains("counters") && error.contains("[1]"), "{error}");
    }
}
