//! The one commit of a run.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use reckon_data::files::FileError;
use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, DataFile, Step, Table};
use reckon_tables::Storage;
use uuid::Uuid;

use super::error::BatchError;
use super::{Done, Pinned, Recompute};
use crate::commit;

/// Files looked for at once.
const LOOKS: usize = 16;

impl Recompute {
    /// Replaces the dates' files, moves the coverage of all partitions to the cuts, and writes down what had gone before it was
    /// archived, in one transaction.
    /// Returns the version it made.
    pub(super) async fn commit(&self, run_id: Uuid, pinned: &Pinned, done: &[Done]) -> Result<u64, BatchError> {
        let commit = Commit {
            table: Table::BatchCounts,
            steps: self.steps(pinned, done)?,
            add: done.iter().flat_map(|done| done.recounted.files.iter().cloned()).collect(),
            remove: done.iter().flat_map(|done| done.before.iter().cloned()).collect(),
            data_change: true,
            token: self.parts.names.fresh(),
            operation: format!("recompute {run_id}"),
        };
        self.all_there(&commit.add).await?;
        Ok(commit::commit(&*self.parts.tables, &commit).await?)
    }

    /// A run may take longer than files that no table refers to are kept: what vacuum has swept meanwhile must not
    /// be committed.
    async fn all_there(&self, files: &[DataFile]) -> Result<(), BatchError> {
        let looks: Vec<_> = files.iter().map(|file| there(Arc::clone(&self.parts.store), file.clone())).collect();
        futures::stream::iter(looks).buffer_unordered(LOOKS).try_collect().await
    }

    fn steps(&self, pinned: &Pinned, done: &[Done]) -> Result<Vec<Step>, BatchError> {
        let log = self.parts.log.identity();
        let signed = |offset: u64| {
            i64::try_from(offset).map_err(|_| BatchError::Broken(format!("offset {offset} is out of range")))
        };
        let coverage = (0_u32..).zip(&pinned.span.cuts).map(|(partition, cut)| {
            let name = Transaction::Batch(log, partition).to_string();
            let from = pinned.counts.transaction(&name);
            Ok::<_, BatchError>(Step { name, from, to: signed(*cut)? })
        });
        // Rows beside rows that maintenance has rolled up meanwhile would be all that their granularity has.
        let beside = done.iter().any(|done| done.beside).then(|| {
            let name = Transaction::Maintain(Table::BatchCounts).to_string();
            let at = pinned.counts.transaction(&name);
            Ok(Step { name, from: at, to: at })
        });
        coverage.chain(pinned.lost.iter().cloned().map(Ok)).chain(beside).collect()
    }
}

async fn there(store: Arc<dyn ObjectStore>, file: DataFile) -> Result<(), BatchError> {
    let DataFile { path, bytes, .. } = file;
    match store.head(&Storage::path(Table::BatchCounts, &path)).await {
        Ok(found) if found.size == bytes => Ok(()),
        Ok(found) => {
            Err(BatchError::Broken(format!("{path} was written with {bytes} bytes and has {} now", found.size)))
        }
        Err(object_store::Error::NotFound { .. }) => Err(BatchError::Broken(format!(
            "{path} was deleted while the run went on: let retention.removed_files be longer than a run"
        ))),
        Err(error) => Err(BatchError::File(FileError::Store { path, source: Box::new(error) })),
    }
}
