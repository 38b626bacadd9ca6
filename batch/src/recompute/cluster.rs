//! Queries over raw events on other machines.

use std::fmt::Debug;

use async_trait::async_trait;
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use reckon_tables::provider::PinnedTable;

/// Machines that run queries. They read the files of tables from the object store themselves, and know the functions
/// [`super::query_functions`] and [`super::distinct_users`].
#[async_trait]
pub trait Cluster: Debug + Send + Sync {
    /// What `sql` finds in `events`, which is the table of that name.
    ///
    /// # Errors
    /// When nobody runs it, or it fails.
    async fn query(&self, sql: &str, events: PinnedTable) -> Result<SendableRecordBatchStream>;
}
