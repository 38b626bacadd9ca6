//! The archiver's task: round after round, until it is stopped or cannot go on.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::{join_all, pending, try_join_all};
use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, DataFile, Step, Table, TableError};

use super::error::ArchiveError;
use super::lane::Lane;
use super::open::Archived;
use super::round::Round;
use super::shared::Shared;

/// Waits between attempts while storage fails: doubled from the first to the last.
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_LAST: Duration = Duration::from_secs(15);

/// The archiver's task.
#[derive(Debug)]
pub(super) struct Driver {
    shared: Arc<Shared>,
    archived: Vec<Archived>,
}

impl Driver {
    pub(super) const fn new(shared: Arc<Shared>, archived: Vec<Archived>) -> Self {
        Self { shared, archived }
    }

    /// Runs until it is stopped or cannot go on in any partition, and says which.
    pub(super) async fn run(mut self) {
        let ending = self.rounds().await;
        if let Err(error) = &ending {
            tracing::error!(%error, "the archiver has stopped");
        }
        self.shared.ending.send_replace(Some(ending.map_err(Arc::new)));
    }

    async fn rounds(&mut self) -> Result<(), ArchiveError> {
        let mut wait = WAIT_FIRST;
        loop {
            // Before the round: what came until then is committed by it.
            let last = self.shared.stopping();
            match self.round().await {
                Ok(()) if last => return Ok(()),
                Ok(()) => wait = WAIT_FIRST,
                Err(error) if error.is_transient() && !self.shared.stopping() => {
                    tracing::warn!(%error, wait_ms = wait.as_millis(), "archiving failed and is tried again");
                    self.shared.counters.retries.fetch_add(1, Ordering::Relaxed);
                    self.pause(wait).await;
                    wait = (wait * 2).min(WAIT_LAST);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn pause(&self, wait: Duration) {
        let mut stop = self.shared.stop.subscribe();
        if *stop.borrow_and_update() {
            return;
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => {}
        }
    }

    /// One round. After an error nothing of it is committed, or the whole of it in one table.
    async fn round(&mut self) -> Result<(), ArchiveError> {
        let partitions = self.shared.partitions.iter().copied().zip(&self.archived);
        let mut lanes: Vec<Lane> =
            (0..).zip(partitions).map(|(at, (partition, archived))| Lane::new(at, partition, *archived)).collect();
        let gathered = match gather(&self.shared, &mut lanes).await {
            Ok(()) => self.finish(&mut lanes).await,
            Err(error) => Err(error),
        };
        match gathered {
            Ok(files) => {
                let next: Vec<u64> = lanes.iter().map(Lane::next).collect();
                self.commit(&next, files).await?;
                let append_time = lanes.iter().map(Lane::append_time).max().unwrap_or_default();
                self.shared.counters.append_time.fetch_max(append_time, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                join_all(lanes.into_iter().map(Lane::abandon)).await;
                Err(error)
            }
        }
    }

    async fn finish(&self, lanes: &mut [Lane]) -> Result<Vec<(Table, DataFile)>, ArchiveError> {
        let files = try_join_all(lanes.iter_mut().map(|lane| lane.finish(&self.shared))).await?;
        Ok(files.into_iter().flatten().collect())
    }

    async fn commit(&mut self, next: &[u64], files: Vec<(Table, DataFile)>) -> Result<(), ArchiveError> {
        let identity = self.shared.log.identity();
        let after: Vec<Archived> =
            self.archived.iter().zip(next).map(|(archived, next)| archived.after(*next)).collect();
        for table in [Table::Events, Table::DeadLetters] {
            let mut steps = Vec::new();
            for (&partition, (old, new)) in self.shared.partitions.iter().zip(self.archived.iter().zip(&after)) {
                let (transaction, from, to) = match table {
                    Table::DeadLetters => (Transaction::Dead(identity, partition), old.dead, new.dead),
                    _ => (Transaction::Archive(identity, partition), old.events, new.events),
                };
                if from != to {
                    steps.push(Step { name: transaction.to_string(), from: version(from)?, to: version(to)? });
                }
            }
            let add: Vec<DataFile> =
                files.iter().filter(|(of, _)| *of == table).map(|(_, file)| file.clone()).collect();
            if !steps.is_empty() {
                self.store(table, steps, add).await?;
            }
            // One table may be committed and the other fail: each goes on from where it is.
            for (old, new) in self.archived.iter_mut().zip(&after) {
                match table {
                    Table::DeadLetters => old.dead = new.dead,
                    _ => old.events = new.events,
                }
            }
        }
        self.shared.committed.send_replace(self.archived.iter().map(|archived| archived.both()).collect());
        Ok(())
    }

    /// Commits, again and again while the store fails: the files are there already, and the token tells a
    /// commit that had succeeded after all.
    async fn store(&self, table: Table, steps: Vec<Step>, add: Vec<DataFile>) -> Result<(), ArchiveError> {
        let counters = &self.shared.counters;
        let commit = Commit {
            table,
            steps,
            add,
            remove: Vec::new(),
            data_change: true,
            token: self.shared.names.fresh(),
            operation: "archive".to_owned(),
        };
        let mut wait = WAIT_FIRST;
        loop {
            let begun = Instant::now();
            let done = self.shared.tables.commit(commit.clone()).await;
            counters.commit.add(begun.elapsed());
            match done {
                Ok(_) => break,
                Err(error @ TableError::Storage { .. }) if !self.shared.stopping() => {
                    tracing::warn!(%error, wait_ms = wait.as_millis(), "a commit failed and is tried again");
                    counters.retries.fetch_add(1, Ordering::Relaxed);
                    self.pause(wait).await;
                    wait = (wait * 2).min(WAIT_LAST);
                }
                Err(error) => return Err(error.into()),
            }
        }
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.files.fetch_add(commit.add.len() as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(commit.add.iter().map(|file| file.bytes).sum(), Ordering::Relaxed);
        let rows = if table == Table::Events { &counters.events } else { &counters.dead_letters };
        rows.fetch_add(commit.add.iter().map(|file| file.rows).sum(), Ordering::Relaxed);
        Ok(())
    }
}

/// Lets all partitions gather until the round closes or one fails.
async fn gather(shared: &Shared, lanes: &mut [Lane]) -> Result<(), ArchiveError> {
    let round = Round::new(lanes.iter().map(Lane::next));
    let gathering = pin!(try_join_all(lanes.iter_mut().map(|lane| lane.gather(shared, &round))));
    let closing = async {
        round.close_when_due(shared).await;
        pending::<()>().await;
    };
    tokio::select! {
        biased;
        gathered = gathering => gathered.map(|_| ()),
        () = closing => Ok(()),
    }
}

/// An offset as a transaction's version.
pub(super) fn version(offset: u64) -> Result<i64, ArchiveError> {
    i64::try_from(offset).map_err(|_| ArchiveError::Thread(format!("offset {offset} is past any log's end")))
}
