//! The one commit of a run.

use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, Step, Table};
use uuid::Uuid;

use super::error::BatchError;
use super::{Done, Pinned, Recompute};

impl Recompute {
    /// Replaces the dates' files and moves the coverage of all partitions to the cuts, in one transaction.
    /// Returns the version it made.
    pub(super) async fn commit(&self, run_id: Uuid, pinned: &Pinned, done: &[Done]) -> Result<u64, BatchError> {
        let commit = Commit {
            table: Table::BatchCounts,
            steps: self.steps(pinned)?,
            add: done.iter().flat_map(|done| done.recounted.files.iter().cloned()).collect(),
            remove: done.iter().flat_map(|done| done.before.iter().cloned()).collect(),
            data_change: true,
            token: self.parts.names.fresh(),
            operation: format!("recompute {run_id}"),
        };
        Ok(self.parts.tables.commit(commit).await?)
    }

    fn steps(&self, pinned: &Pinned) -> Result<Vec<Step>, BatchError> {
        let log = self.parts.log.identity();
        let signed = |offset: u64| {
            i64::try_from(offset).map_err(|_| BatchError::Broken(format!("offset {offset} is out of range")))
        };
        (0_u32..)
            .zip(&pinned.span.cuts)
            .map(|(partition, cut)| {
                let name = Transaction::Batch(log, partition).to_string();
                let from = pinned.counts.transaction(&name);
                Ok(Step { name, from, to: signed(*cut)? })
            })
            .collect()
    }
}
