//! Queries, for whoever runs batch.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ballista_core::extension::{SessionConfigExt as _, SessionStateExt as _};
use datafusion::common::{Result, exec_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt as _;
use object_store::ObjectStore;
use reckon_batch::recompute::{Cluster, Query, repeated};
use tokio::time::timeout;

use crate::MESSAGE_BYTES_MAX;
use crate::codec::TableCodec;
use crate::session::{add_functions, environment};

/// Rows of a part of a query: their counts take some hundred MiB at most.
const PART_ROWS: usize = 1 << 20;

/// The cluster behind a scheduler.
#[derive(Debug)]
pub struct BallistaCluster {
    scheduler: String,
    store: Arc<dyn ObjectStore>,
    wait: Duration,
    at_once: u16,
}

impl BallistaCluster {
    /// The cluster of the scheduler at `url`, `http://host:50050`; files lie in `store`, rooted at the tables' folder. A query
    /// that returns nothing for as long as `wait` has failed. It has threads for `at_once` queries.
    #[must_use]
    pub fn new(url: &str, store: Arc<dyn ObjectStore>, wait: Duration, at_once: u16) -> Self {
        Self { scheduler: url.trim_end_matches('/').to_owned(), store, wait, at_once }
    }

    fn session(&self, parts: usize) -> Result<SessionContext> {
        let config = SessionConfig::new_with_ballista()
            .with_target_partitions(parts)
            .with_ballista_logical_extension_codec(Arc::new(TableCodec::new(Arc::clone(&self.store))))
            .with_ballista_grpc_client_max_message_size(MESSAGE_BYTES_MAX as usize)
            .with_ballista_job_name("batch");
        let env = environment(&self.store, None)?;
        let state =
            SessionStateBuilder::new().with_default_features().with_config(config).with_runtime_env(env).build();
        let session = SessionContext::new_with_state(state.upgrade_for_ballista(self.scheduler.clone())?);
        add_functions(&session);
        Ok(session)
    }
}

/// A stream that fails when nothing comes of it for so long.
fn patient(stream: SendableRecordBatchStream, wait: Duration) -> SendableRecordBatchStream {
    let schema = stream.schema();
    let batches = futures::stream::unfold(Some(stream), move |stream| async move {
        let mut stream = stream?;
        match timeout(wait, stream.next()).await {
            Ok(next) => next.map(|batch| (batch, Some(stream))),
            Err(_) => {
                let seconds = wait.as_secs();
                Some((exec_err!("the cluster has sent nothing for {seconds} s (batch.scheduler_wait)"), None))
            }
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

#[async_trait]
impl Cluster for BallistaCluster {
    async fn query(&self, query: Query) -> Result<SendableRecordBatchStream> {
        let session = self.session(query.parts)?;
        session.register_table("events", Arc::new(query.events.without_views()))?;
        if let Some(hashes) = query.repeated {
            session.register_udf(repeated(hashes));
        }
        let stream = session.sql(&query.sql).await?.execute_stream().await?;
        Ok(patient(stream, self.wait))
    }

    fn queries_at_once(&self) -> usize {
        self.at_once.into()
    }

    fn part_rows(&self) -> usize {
        PART_ROWS
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use datafusion::arrow::array::RecordBatch;
    use datafusion::arrow::datatypes::Schema;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_says_nothing_is_waited_for_so_long() {
        let schema = Arc::new(Schema::empty());
        let batch = RecordBatch::new_empty(Arc::clone(&schema));
        let batches = futures::stream::iter([Ok(batch)]).chain(futures::stream::pending());
        let stream = Box::pin(RecordBatchStreamAdapter::new(schema, batches));
        let mut stream = patient(stream, Duration::from_secs(60));
        assert!(stream.next().await.unwrap().is_ok());
        let error = stream.next().await.unwrap().unwrap_err().to_string();
        assert!(error.contains("nothing for 60 s"), "{error}");
        assert!(stream.next().await.is_none(), "it is over then");
    }
}
