//! The start of a run: a cut for every partition, a wait until everything below is committed, and the tables pinned.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use reckon_data::log::LogError;
use reckon_data::paths::Transaction;
use reckon_data::record::encode_cut;
use reckon_data::rolled::Rolled;
use reckon_data::table::{Snapshot, Step, Table};
use uuid::Uuid;

use super::error::BatchError;
use super::plan::{Dates, by_date};
use super::report::OnProgress;
use super::span::Span;
use super::{Recompute, tell};

/// How often a cut is tried to be appended, and after how long again.
const CUT_ATTEMPTS: u32 = 3;
const CUT_AGAIN: Duration = Duration::from_secs(1);

/// The tables as a run has pinned them.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) counts: Snapshot,
    pub(super) dates: Dates,
    /// Dates before this one (days since 1970) may have lost raw events to retention.
    pub(super) closed: i64,
    /// How far `batch_counts` has been rolled up.
    pub(super) rolled: Rolled,
    /// What `batch_counts` does not know yet of records that had gone before they were archived.
    pub(super) lost: Vec<Step>,
    pub(super) span: Arc<Span>,
}

impl Recompute {
    /// Appends a cut to every partition; they lie at the offsets it returns.
    pub(super) async fn append_cuts(&self, run_id: Uuid, progress: &OnProgress<'_>) -> Result<Vec<u64>, BatchError> {
        tell(progress, "appending cuts", 0, 0, 0);
        let cut = encode_cut(run_id, self.parts.routing, self.parts.clock.now());
        let partitions = 0..self.parts.log.partitions();
        let appends = partitions.map(|partition| self.append_cut(partition, &cut));
        try_join_all(appends).await
    }

    /// Tries again while the log fails: another broker may lead the partition by now. A cut too many harms nothing.
    async fn append_cut(&self, partition: u32, cut: &Bytes) -> Result<u64, BatchError> {
        let mut attempt = 1;
        loop {
            match self.parts.log.append(partition, vec![cut.clone()]).await {
                Err(LogError::Storage(reason)) if attempt < CUT_ATTEMPTS => {
                    tracing::warn!(partition, attempt, reason, "a cut is appended again");
                    attempt += 1;
                    tokio::time::sleep(CUT_AGAIN).await;
                }
                appended => return Ok(appended?.start),
            }
        }
    }

    /// Waits until counter and archiver have committed everything below the cuts.
    pub(super) async fn wait(&self, cuts: &[u64], progress: &OnProgress<'_>) -> Result<(), BatchError> {
        tell(progress, "waiting for counter and archiver", 0, 0, 0);
        let waits = self.parts.followers.iter().map(|follower| follower.reach(cuts));
        try_join_all(waits).await.map(|_| ()).map_err(BatchError::Follower)
    }

    /// Pins both tables, when everything below the cuts is archived.
    pub(super) async fn pin(&self, cuts: Vec<u64>) -> Result<Pinned, BatchError> {
        let log = self.parts.log.identity();
        let events = self.parts.tables.snapshot(Table::Events).await?;
        let counts = self.parts.tables.snapshot(Table::BatchCounts).await?;
        let mut coverage = Vec::with_capacity(cuts.len());
        for (partition, cut) in (0_u32..).zip(&cuts) {
            let archived = events.transaction(&Transaction::Archive(log, partition).to_string());
            if u64::try_from(archived).is_ok_and(|archived| archived < *cut) || archived < 0 {
                return Err(BatchError::NotArchived { partition, archived, cut: *cut });
            }
            let covered = counts.transaction(&Transaction::Batch(log, partition).to_string());
            let covered = u64::try_from(covered).ok().filter(|covered| covered <= cut);
            coverage.push(covered.ok_or_else(|| {
                BatchError::Broken(format!("the coverage of partition {partition} is no offset below the cut at {cut}"))
            })?);
        }
        let lost = carried_over(log, 0..self.parts.log.partitions(), &events, &counts);
        let closed = events.transaction(&Transaction::Closed.to_string());
        let dates = Dates { events: by_date(&events.files)?, counts: by_date(&counts.files)? };
        let rolled = Rolled::of(&counts);
        Ok(Pinned { counts, dates, closed, rolled, lost, span: Arc::new(Span { coverage, cuts }) })
    }
}

/// Steps that tell `batch_counts` what `events` says of records that had gone before they were archived: the counts lack
/// them from this run on.
fn carried_over(log: Uuid, partitions: Range<u32>, events: &Snapshot, counts: &Snapshot) -> Vec<Step> {
    let names = partitions.flat_map(|p| [Transaction::Lost(log, p), Transaction::LostTo(log, p)]);
    let steps = names.map(|name| {
        let name = name.to_string();
        Step { from: counts.transaction(&name), to: events.transaction(&name), name }
    });
    steps.filter(|step| step.from < step.to).collect()
}
