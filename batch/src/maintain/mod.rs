//! Maintenance of the tables: few, large, sorted files, and nothing older than it is kept.
//!
//! [`plan`] decides from what the tables say of their files; `rewrite` sorts and writes; `rollup` proves that coarser
//! counts stand for finer ones before these go; `cold` moves old raw events to a colder store; `jobs` commits, every
//! time with a step on `maintain/<table>`, so that of two who plan from one version one wins; [`trim`] says how far the
//! log may go. [`Maintainer::run`] does all of it, after a batch run or every now and then. A job that fails leaves the
//! table as it was and does not keep the others from running.

mod cold;
mod error;
mod jobs;
pub mod plan;
mod report;
mod rewrite;
mod rollup;
#[cfg(test)]
mod tests;
pub mod trim;

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use parking_lot::Mutex;
use reckon_data::clock::{Clock, Names};
use reckon_data::config;
use reckon_data::table::{Table, Tables};
use reckon_tables::ColdStore;
use uuid::Uuid;

pub use error::MaintainError;
use plan::{CoverageHistory, RollUp};
pub use report::{MaintainReport, Moved, Rewritten, RolledUp};
use rewrite::Means;
pub use trim::{Safe, trim_log, trim_point};

/// What maintenance works with.
#[derive(Debug, Clone)]
pub struct MaintainerParts {
    /// The tables.
    pub tables: Arc<dyn Tables>,
    /// Where their files lie: the store rooted at the tables' folder.
    pub store: Arc<dyn ObjectStore>,
    /// Where older raw events move to, if anywhere.
    pub cold: Option<ColdStore>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Names for files and commits.
    pub names: Arc<dyn Names>,
    /// The log's identity, whose transactions say what is sealed and covered.
    pub log: Uuid,
    /// Its partitions.
    pub partitions: u32,
    /// The size of files.
    pub archive: config::Archive,
    /// How long things are kept.
    pub retention: config::Retention,
    /// Whether small files are put together.
    pub compact: bool,
    /// Bytes of memory for a sort; what is more is spilled.
    pub memory: usize,
    /// Where it is spilled; the system's folder for temporary files if none.
    pub spill_dir: Option<PathBuf>,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It did this, perhaps nothing.
    Done(T),
    /// It did this much, then somebody else's commit got in its way.
    Skipped(T, String),
}

/// Does the maintenance of the tables. One at a time does it; a second one is told so by its commits.
#[derive(Debug)]
pub struct Maintainer {
    parts: MaintainerParts,
    means: Means,
    history: Mutex<CoverageHistory>,
    /// Dates that cannot be rolled up as they are: they are not read again before they change.
    refused: Mutex<Vec<RollUp>>,
    running: tokio::sync::Mutex<()>,
}

impl Maintainer {
    /// Maintenance with these parts.
    #[must_use]
    pub fn new(parts: MaintainerParts) -> Self {
        let means = Means {
            store: Arc::clone(&parts.store),
            names: Arc::clone(&parts.names),
            memory: parts.memory,
            spill_dir: parts.spill_dir.clone(),
        };
        let (history, refused) = (Mutex::default(), Mutex::default());
        Self { parts, means, history, refused, running: tokio::sync::Mutex::new(()) }
    }

    /// All of it: expired and covered files go, small ones are put together, and what no table refers to
    /// any more is deleted. Of two calls the second waits for the first.
    pub async fn run(&self) -> MaintainReport {
        let _turn = self.running.lock().await;
        let mut report = MaintainReport::default();
        let mut note = Notes { skipped: Vec::new(), failed: Vec::new() };
        // What goes needs not be put together first.
        report.expired_event_files = note.of("expire events", self.expire_events().await);
        report.expired_dead_files = note.of("expire dead letters", self.expire_dead_letters().await);
        report.covered_files = note.of("drop covered segments", self.drop_covered().await);
        report.rolled_up = note.of("roll up counts", Box::pin(self.roll_up()).await);
        if self.parts.compact {
            report.events = note.of("compact events", self.compact_events(None).await);
            report.stream_counts = note.of("compact stream counts", self.compact_stream_counts().await);
        }
        // Last, what is left as it is.
        report.moved_to_cold = note.of("move to the colder store", Box::pin(self.move_to_cold()).await);
        let retention = i64::try_from(self.parts.retention.removed_files.as_micros()).unwrap_or(i64::MAX);
        for table in Table::ALL {
            let deleted = self.parts.tables.vacuum(table, retention).await;
            report.deleted += note.of("vacuum", deleted.map(Outcome::Done).map_err(MaintainError::from));
        }
        report.skipped = note.skipped;
        report.failed = note.failed;
        report
    }
}

/// What did not go as planned.
struct Notes {
    skipped: Vec<String>,
    failed: Vec<String>,
}

impl Notes {
    fn of<T: Default>(&mut self, job: &str, outcome: Result<Outcome<T>, MaintainError>) -> T {
        match outcome {
            Ok(Outcome::Done(done)) => done,
            Ok(Outcome::Skipped(done, why)) => {
                tracing::info!(job, why, "maintenance was left for the next time");
                self.skipped.push(format!("{job}: {why}"));
                done
            }
            Err(error) => {
                tracing::warn!(job, %error, "maintenance failed and is tried again the next time");
                self.failed.push(format!("{job}: {error}"));
                T::default()
            }
        }
    }
}
