//! Files of raw events and dead letters, written anew from the log while it still holds them.
//!
//! - [`Mender::run`] makes good what was found damaged: the file, and where compaction has sorted by entity all that share
//!   offsets with it (`group`). Their number of rows has to be what it was, or nothing is replaced: a file that had quietly
//!   lost events would be worse than a damaged one.
//! - [`Mender::rebuild`] makes the raw events of a date and log partition anew, whatever the table says of them (`rebuild`):
//!   for whoever has seen that their number is wrong.
//! - `stretch` says which rows of the log are meant, and `rewrite` puts them into files.

mod group;
mod place;
mod rebuild;
mod rewrite;
mod stretch;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::ObjectStore;
use reckon_data::clock::Names;
use reckon_data::damage::Damage;
use reckon_data::log::Log;
use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table, Tables};
use reckon_tables::Storage;

use crate::commit;
use crate::maintain::MaintainError;
use group::Group;
pub use rebuild::{Kept, Rebuilt, Why};

/// What mending works with.
#[derive(Debug)]
pub struct MenderParts {
    /// The log that the raw events came from.
    pub log: Arc<dyn Log>,
    /// The tables.
    pub tables: Arc<dyn Tables>,
    /// Where their files lie: the store rooted at the tables' folder.
    pub store: Arc<dyn ObjectStore>,
    /// Which of them are damaged.
    pub damage: Arc<dyn Damage>,
    /// Names for files and commits.
    pub names: Arc<dyn Names>,
    /// About how large a file gets, in bytes.
    pub file_bytes: u64,
}

/// Writes raw events anew.
#[derive(Debug)]
pub struct Mender {
    parts: MenderParts,
}

impl Mender {
    /// Mending with these parts.
    #[must_use]
    pub const fn new(parts: MenderParts) -> Self {
        Self { parts }
    }

    /// Writes anew what is known to be damaged and the log still holds; how many damaged files are gone now. What cannot
    /// be mended is logged and stays as it is.
    pub async fn run(&self) -> u64 {
        let mut mended = 0;
        for table in [Table::Events, Table::DeadLetters] {
            mended += self.mend_all(table).await;
        }
        mended
    }

    /// Mends the damaged files of a table, one after the other: each commit makes a version in which the next is found.
    async fn mend_all(&self, table: Table) -> u64 {
        let (mut mended, mut tried) = (0, BTreeSet::new());
        loop {
            match self.next(table, &tried).await {
                Ok(Some((snapshot, file))) => {
                    mended += u64::from(self.try_to_mend(&snapshot, &file).await);
                    tried.insert(file.path);
                }
                Ok(None) => return mended,
                Err(error) => {
                    tracing::warn!(%error, "damaged raw events are looked at again later");
                    return mended;
                }
            }
        }
    }

    async fn try_to_mend(&self, snapshot: &Snapshot, file: &DataFile) -> bool {
        let mended = self.mend(snapshot, file).await;
        match &mended {
            Ok(()) => tracing::info!(file = file.path, "a damaged file was written anew from the log"),
            Err(error) => tracing::warn!(file = file.path, %error, "a damaged file cannot be written anew"),
        }
        mended.is_ok()
    }

    /// A damaged file of the table that was not tried yet.
    async fn next(
        &self,
        table: Table,
        tried: &BTreeSet<String>,
    ) -> Result<Option<(Snapshot, DataFile)>, MaintainError> {
        let damaged: BTreeSet<String> = self.parts.damage.damaged().into_iter().map(|damaged| damaged.path).collect();
        let prefix = format!("{}/", table.name());
        if !damaged.iter().any(|path| path.strip_prefix(&prefix).is_some_and(|path| !tried.contains(path))) {
            return Ok(None);
        }
        let snapshot = self.parts.tables.snapshot(table).await?;
        let is_next = |file: &&DataFile| {
            !tried.contains(&file.path) && damaged.contains(Storage::path(table, &file.path).as_ref())
        };
        let found = snapshot.files.iter().find(is_next).cloned();
        Ok(found.map(|file| (snapshot, file)))
    }

    async fn mend(&self, snapshot: &Snapshot, damaged: &DataFile) -> Result<(), MaintainError> {
        let group = Group::around(snapshot, damaged)?;
        let add = self.rewrite(&group.stretch).await?.files;
        let (found, expected) = (rows_of(&add), rows_of(&group.files));
        if found != expected {
            return Err(MaintainError::Rows { table: snapshot.table.name(), found, expected });
        }
        self.swap(snapshot, add, group.files, Change { data: false, operation: "mend" }).await
    }

    /// Puts files in the place of others, if nobody has laid out files of the table since the snapshot.
    async fn swap(
        &self,
        snapshot: &Snapshot,
        add: Vec<DataFile>,
        remove: Vec<DataFile>,
        change: Change,
    ) -> Result<(), MaintainError> {
        let name = Transaction::Maintain(snapshot.table).to_string();
        let from = snapshot.transaction(&name);
        let commit = Commit {
            table: snapshot.table,
            steps: vec![Step { name, from, to: from + 1 }],
            add,
            remove,
            data_change: change.data,
            token: self.parts.names.fresh(),
            operation: change.operation.to_owned(),
        };
        commit::commit(&*self.parts.tables, &commit).await?;
        Ok(())
    }
}

/// What a swap is, for the table's history.
#[derive(Debug, Clone, Copy)]
struct Change {
    /// Whether rows may come or go.
    data: bool,
    operation: &'static str,
}

fn rows_of(files: &[DataFile]) -> u64 {
    files.iter().map(|file| file.rows).sum()
}
