//! The archiver: from the log to the tables `events` and `dead_letters`, exactly once.
//!
//! ```text
//! log partition 0 ──▶ Lane: read ▶ Open: decode, split by date, encode ▶ Upload ──┐
//! log partition 1 ──▶ …                                                           ├─▶ one commit a table
//! ```
//!
//! A *round* ends every few seconds, or sooner when files are large or somebody waits: the files are
//! finished, made durable and committed with a step for each partition from where it stood to where it
//! stands. Nothing else is remembered: after a crash, or when storage fails in the middle of a round, reading
//! begins again where the tables say, and what was stored without a commit is swept by vacuum. `events` and
//! `dead_letters` have a position each; reading begins at the smaller one.
//!
//! A partition whose next record cannot be read rests and is tried again (`fault`), while the others go on; whoever
//! waits for it is told. When another archiver has committed, all ends.
//!
//! Where the log has dropped, by a retention of its own, what was not archived yet, the next archiver writes down how much that
//! was and goes on behind it (`gap`).
//!
//! [`properties`] says how files are encoded; `rows`, `open` and `encoder` are plain code; `lane`, `round`
//! and `driver` do the waiting.

mod driver;
pub(crate) mod encoder;
mod error;
mod fault;
#[cfg(test)]
mod faults;
mod gap;
mod lane;
mod open;
pub mod properties;
mod round;
pub(crate) mod rows;
mod shared;
mod stats;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::ObjectStore;
use reckon_data::clock::{Clock, Names};
use reckon_data::config;
use reckon_data::jobs::Follower;
use reckon_data::log::Log;
use reckon_data::paths::Transaction;
use reckon_data::table::{Snapshot, Table, Tables};
use tokio::task::AbortHandle;
use uuid::Uuid;

use driver::Driver;
pub use error::ArchiveError;
use fault::Fault;
use gap::Gap;
use open::Archived;
use shared::{Ending, Shared};
pub use stats::ArchiveStats;

/// What an archiver is made of.
#[derive(Debug, Clone)]
pub struct ArchiverParts {
    /// Where events come from.
    pub log: Arc<dyn Log>,
    /// Which of its partitions; others archive the rest.
    pub partitions: BTreeSet<u32>,
    /// Where commits go.
    pub tables: Arc<dyn Tables>,
    /// Where files go: the store rooted at the tables' folder.
    pub store: Arc<dyn ObjectStore>,
    /// The time of day, for how far it lags.
    pub clock: Arc<dyn Clock>,
    /// Names for files and commits.
    pub names: Arc<dyn Names>,
    /// When to commit.
    pub settings: config::Archive,
}

/// Copies partitions of the log to `events` and `dead_letters`. Dropped without [`Archiver::stop`] it ends at once, and the
/// next one goes on from the last commit.
#[derive(Debug)]
pub struct Archiver {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    task: AbortHandle,
}

impl Archiver {
    /// Starts archiving from where the tables say it has come.
    ///
    /// # Errors
    /// [`ArchiveError::Trimmed`] when the log no longer holds the next record and does not drop records by itself,
    /// [`ArchiveError::LogBehind`] when it ends before it, [`ArchiveError::OtherLog`] when it is not the one that was
    /// archived, and what the tables or the log say.
    pub async fn start(parts: ArchiverParts) -> Result<Arc<Self>, ArchiveError> {
        let archived = positions(&parts).await?;
        let clock = Arc::clone(&parts.clock);
        let shared = Arc::new(Shared::new(parts, archived.iter().map(|archived| archived.both()).collect()));
        let (driver, watched) = (Driver::new(Arc::clone(&shared), archived), Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // Whoever waits for the archiver must not wait for ever.
            if AssertUnwindSafe(driver.run()).catch_unwind().await.is_err() {
                tracing::error!("the archiver's task has panicked");
                let error = ArchiveError::Thread("its task has panicked".to_owned());
                watched.ending.send_replace(Some(Err(Arc::new(error))));
            }
        });
        let task = task.abort_handle();
        Ok(Arc::new(Self { shared, clock, task }))
    }

    /// Commits what has been read and ends.
    ///
    /// # Errors
    /// Why it could not commit, or had stopped before.
    pub async fn stop(&self) -> Result<(), Arc<ArchiveError>> {
        self.shared.stop.send_replace(true);
        self.finished().await
    }

    /// Waits until the archiver ends, be it stopped or unable to go on.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub async fn finished(&self) -> Result<(), Arc<ArchiveError>> {
        let mut ending = self.shared.ending.subscribe();
        match ending.wait_for(Option::is_some).await {
            Ok(ending) => ending.clone().unwrap_or(Ok(())),
            Err(_) => Err(Arc::new(ArchiveError::Thread("its task is gone".to_owned()))),
        }
    }

    /// Why it cannot go on; none while it runs, and after it was stopped.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<ArchiveError>> {
        self.shared.ending.borrow().as_ref().and_then(|ending| ending.as_ref().err().cloned())
    }

    /// Why partitions are not archived any further while the others are, each once; they are tried again now and then.
    #[must_use]
    pub fn stuck(&self) -> Vec<Arc<ArchiveError>> {
        let faults = self.shared.faults.borrow();
        faults.values().filter(|fault| fault.is_lasting()).map(|fault| Arc::clone(&fault.error)).collect()
    }

    /// Whether the log has dropped, by itself, a record that is still to be archived. This one cannot go on in that partition:
    /// it only reads. The next one that is started can.
    #[must_use]
    pub fn has_met_a_gap(&self) -> bool {
        let faults = self.shared.faults.borrow();
        let mut errors = faults.values().map(|fault| &*fault.error);
        self.shared.log.drops_by_itself() && errors.any(|error| matches!(error, ArchiveError::Trimmed { .. }))
    }

    /// What it has done since it started.
    #[must_use]
    pub fn stats(&self) -> ArchiveStats {
        let lag = self.shared.partitions.iter().copied().zip(self.shared.committed()).map(|(partition, committed)| {
            let end = self.shared.log.watch_end(partition).map_or(committed, |end| *end.borrow());
            end.saturating_sub(committed)
        });
        self.shared.counters.show(lag.sum())
    }

    /// How old the newest committed record is, in microseconds, if records wait to be committed; 0 if none does.
    #[must_use]
    pub fn lag_micros(&self) -> i64 {
        let stats = self.stats();
        if stats.lag_records == 0 || stats.append_time == 0 { 0 } else { (self.clock.now() - stats.append_time).max(0) }
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl Follower for Archiver {
    async fn reach(&self, offsets: &[u64]) -> Result<(), String> {
        let mut committed = self.shared.committed.subscribe();
        let partitions = self.shared.log.partitions() as usize;
        if offsets.len() != partitions {
            return Err(format!("the log has {partitions} partitions, not {}", offsets.len()));
        }
        let own = self.shared.own(offsets);
        self.shared.wanted.send_modify(|wanted| {
            for (wanted, offset) in wanted.iter_mut().zip(&own) {
                *wanted = (*wanted).max(*offset);
            }
        });
        let mut ending = self.shared.ending.subscribe();
        let mut faults = self.shared.faults.subscribe();
        tokio::select! {
            biased;
            reached = committed.wait_for(|now| now.iter().zip(&own).all(|(now, offset)| now >= offset)) => {
                reached.map(|_| ()).map_err(|_| "the archiver is gone".to_owned())
            }
            stuck = faults.wait_for(|faults| first_below(faults, offsets).is_some()) => {
                let error = stuck.ok().and_then(|faults| first_below(&faults, offsets));
                Err(error.map_or_else(|| "the archiver is gone".to_owned(), |error| format!("not all is archived: {error}")))
            }
            ended = ending.wait_for(Option::is_some) => Err(ended.map_or_else(|_| "the archiver is gone".to_owned(), |e| why(&e))),
        }
    }

    fn committed(&self) -> Vec<u64> {
        let mut all = vec![0; self.shared.log.partitions() as usize];
        for (partition, committed) in self.shared.partitions.iter().zip(self.shared.committed()) {
            if let Some(slot) = all.get_mut(*partition as usize) {
                *slot = committed;
            }
        }
        all
    }
}

/// Why a partition will not get to its offset unless somebody does something. A fault whose time is over is being tried again.
fn first_below(faults: &BTreeMap<u32, Fault>, offsets: &[u64]) -> Option<Arc<ArchiveError>> {
    let now = tokio::time::Instant::now();
    let is_below = |(partition, fault): &(&u32, &Fault)| {
        fault.is_lasting()
            && fault.until > now
            && offsets.get(**partition as usize).is_some_and(|offset| fault.next < *offset)
    };
    faults.iter().find(is_below).map(|(_, fault)| Arc::clone(&fault.error))
}

fn why(ending: &Ending) -> String {
    match ending {
        Some(Err(error)) => format!("the archiver has stopped: {error}"),
        _ => "the archiver was stopped".to_owned(),
    }
}

/// Whatever was archived must have come from this log: archiving another one from its start would count its events
/// beside those of the first.
fn same_log(events: &Snapshot, log: Uuid) -> Result<(), ArchiveError> {
    match events.other_log("archive", log) {
        Some(other) => Err(ArchiveError::OtherLog { archived: other.to_owned(), log }),
        None => Ok(()),
    }
}

/// Up to where each partition is archived; checked against what the log holds, and behind what it has dropped by itself.
async fn positions(parts: &ArchiverParts) -> Result<Vec<Archived>, ArchiveError> {
    let identity = parts.log.identity();
    let events = parts.tables.snapshot(Table::Events).await?;
    let dead = parts.tables.snapshot(Table::DeadLetters).await?;
    same_log(&events, identity)?;
    let at = |snapshot: &Snapshot, transaction: Transaction| {
        u64::try_from(snapshot.transaction(&transaction.to_string())).unwrap_or(0)
    };
    let (mut positions, mut gaps) = (Vec::new(), Vec::new());
    for partition in parts.partitions.iter().copied() {
        let archived = Archived {
            events: at(&events, Transaction::Archive(identity, partition)),
            dead: at(&dead, Transaction::Dead(identity, partition)),
        };
        let extent = parts.log.extent(partition).await.map_err(ArchiveError::Log)?;
        let next = archived.both();
        let is_gap = next < extent.start;
        if is_gap && !parts.log.drops_by_itself() {
            return Err(ArchiveError::Trimmed { partition, archived: next, start: extent.start });
        }
        if archived.events.max(archived.dead) > extent.end {
            let archived = archived.events.max(archived.dead);
            return Err(ArchiveError::LogBehind { partition, archived, end: extent.end });
        }
        if is_gap {
            gaps.push(Gap { partition, archived, start: extent.start });
        }
        positions.push(if is_gap { archived.after(extent.start) } else { archived });
    }
    gap::go_on_behind(parts, &gaps, &events, &dead).await?;
    Ok(positions)
}
