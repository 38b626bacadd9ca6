//! Queries over raw events on other machines.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use reckon_tables::provider::PinnedTable;

use super::repeats::Repeated;

/// A query for other machines.
#[derive(Debug, Clone)]
pub struct Query {
    /// What is asked.
    pub sql: String,
    /// Its table `events`.
    pub events: PinnedTable,
    /// What its function `repeated` knows, if it calls it (see [`super::repeated`]).
    pub repeated: Option<Arc<Repeated>>,
    /// In how many parts it is computed, side by side where it can be.
    pub parts: usize,
}

/// Machines that run queries. They read the files of tables from the object store themselves, and know the functions
/// [`super::query_functions`] and [`super::distinct_users`].
#[async_trait]
pub trait Cluster: Debug + Send + Sync {
    /// What the query finds.
    ///
    /// # Errors
    /// When nobody runs it, or it fails.
    async fn query(&self, query: Query) -> Result<SendableRecordBatchStream>;

    /// How many queries it can run at once.
    fn queries_at_once(&self) -> usize;

    /// Rows of a part of a query, about: few enough for their counts to fit in a machine's memory, enough to be worth one.
    fn part_rows(&self) -> usize;
}
