//! What becomes of files whose commit did not go as it should.

use async_trait::async_trait;
use reckon_data::table::TableError;

use super::*;

/// Tables that answer a commit with a conflict which has happened: the last of several attempts, say, whose first
/// one was only late.
#[derive(Debug)]
struct Late(Arc<MemoryTables>);

#[async_trait]
impl Tables for Late {
    async fn snapshot(&self, table: Table) -> Result<Snapshot, TableError> {
        self.0.snapshot(table).await
    }

    async fn version(&self, table: Table) -> Result<u64, TableError> {
        self.0.version(table).await
    }

    async fn commit(&self, commit: Commit) -> Result<u64, TableError> {
        let table = commit.table.name();
        self.0.commit(commit).await?;
        Err(TableError::Conflict { table, reason: "somebody was quicker".to_owned() })
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
        self.0.vacuum(table, retention_micros).await
    }
}

#[tokio::test]
async fn no_file_that_was_handed_to_a_commit_is_deleted() {
    let world = World::new();
    let rows: Vec<Row> = (0..60).map(|n| (0, 1, n, 0)).collect();
    fill(&world, &rows).await;
    let mut parts = world.maintainer().parts;
    parts.tables = Arc::new(Late(Arc::clone(&world.tables)));
    let outcome = Maintainer::new(parts).compact_events(None).await.unwrap();
    assert!(matches!(outcome, Outcome::Skipped(..)), "{outcome:?}");
    assert_eq!(world.rows(Table::Events).await.len(), 60);
}
