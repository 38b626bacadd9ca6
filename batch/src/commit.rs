//! A commit, tried again while the store fails.

use reckon_data::table::{Commit, TableError, Tables};

/// Commits tried while the store fails.
const ATTEMPTS: u32 = 3;

/// Commits, and returns the version that it made.
///
/// # Errors
/// What the last attempt said; after [`TableError::Storage`] it may have happened all the same.
pub(crate) async fn commit(tables: &dyn Tables, commit: &Commit) -> Result<u64, TableError> {
    let mut attempt = 1;
    loop {
        match tables.commit(commit.clone()).await {
            // The same token: should an earlier attempt have succeeded after all, this one says so.
            Err(TableError::Storage { reason, .. }) if attempt < ATTEMPTS => {
                tracing::warn!(table = commit.table.name(), reason, "a commit failed and is tried again");
                attempt += 1;
            }
            settled => return settled,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Tables whose next commits happen and are then said to have failed.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use reckon_data::table::{Commit, Snapshot, Table, TableError, Tables};

    #[derive(Debug)]
    pub(crate) struct Forgetful {
        pub(crate) inner: Arc<dyn Tables>,
        pub(crate) failures: AtomicU32,
    }

    #[async_trait]
    impl Tables for Forgetful {
        async fn snapshot(&self, table: Table) -> Result<Snapshot, TableError> {
            self.inner.snapshot(table).await
        }

        async fn version(&self, table: Table) -> Result<u64, TableError> {
            self.inner.version(table).await
        }

        async fn commit(&self, commit: Commit) -> Result<u64, TableError> {
            let table = commit.table.name();
            let version = self.inner.commit(commit).await?;
            let less = |left: u32| left.checked_sub(1);
            match self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
                Ok(_) => Err(TableError::Storage { table, reason: "the connection broke".to_owned() }),
                Err(_) => Ok(version),
            }
        }

        async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
            self.inner.vacuum(table, retention_micros).await
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use reckon_data::clock::ManualClock;
    use reckon_data::table::{Step, Table};
    use reckon_tables::MemoryTables;

    use super::testing::Forgetful;
    use super::*;

    #[tokio::test]
    async fn a_commit_that_had_happened_is_found_again_and_one_that_keeps_failing_is_told() {
        let tables =
            Forgetful { inner: Arc::new(MemoryTables::new(Arc::new(ManualClock::at(0)))), failures: AtomicU32::new(2) };
        let one = |from: i64, token| Commit {
            table: Table::Imports,
            steps: vec![Step { name: "imports".to_owned(), from, to: from + 1 }],
            add: Vec::new(),
            remove: Vec::new(),
            data_change: true,
            token: uuid::Uuid::from_u128(token),
            operation: "test".to_owned(),
        };
        assert_eq!(commit(&tables, &one(0, 1)).await.unwrap(), 1);
        assert_eq!(tables.version(Table::Imports).await.unwrap(), 1);
        tables.failures.store(ATTEMPTS, std::sync::atomic::Ordering::SeqCst);
        assert!(matches!(commit(&tables, &one(1, 2)).await, Err(TableError::Storage { .. })));
        assert!(matches!(commit(&tables, &one(0, 3)).await, Err(TableError::Fenced { .. })));
    }
}
