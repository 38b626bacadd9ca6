//! Queries, for whoever runs batch.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::extension::{SessionConfigExt as _, SessionStateExt as _};
use ballista_core::serde::protobuf::CancelJobParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use datafusion::common::{Result, exec_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::protobuf::LogicalPlanNode;
use futures::StreamExt as _;
use object_store::ObjectStore;
use reckon_batch::recompute::{Cluster, Query, repeated};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::MESSAGE_BYTES_MAX;
use crate::codec::TableCodec;
use crate::session::{add_functions, environment};

/// Rows of a part of a query: their counts take some hundred MiB at most.
const PART_ROWS: usize = 1 << 20;

/// How long a scheduler may take to stop a query.
const CANCEL_WAIT: Duration = Duration::from_secs(10);

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

/// A query on the cluster. Nobody wants its answer once this is gone, and it is stopped there.
#[derive(Debug)]
struct Job {
    scheduler: String,
    plan: Arc<dyn ExecutionPlan>,
    has_ended: bool,
}

impl Drop for Job {
    fn drop(&mut self) {
        let id = self.plan.downcast_ref::<DistributedQueryExec<LogicalPlanNode>>().and_then(|query| query.job_id());
        if let (false, Some(id), Ok(runtime)) = (self.has_ended, id, Handle::try_current()) {
            runtime.spawn(cancel(self.scheduler.clone(), id.to_string()));
        }
    }
}

/// The scheduler may be gone, and the query with it.
async fn cancel(scheduler: String, job_id: String) {
    let asked = async {
        let channel = Endpoint::new(scheduler)?.connect_timeout(CANCEL_WAIT).timeout(CANCEL_WAIT).connect().await?;
        Ok::<_, tonic::transport::Error>(SchedulerGrpcClient::new(channel))
    };
    let cancelled = match asked.await {
        Ok(mut client) => {
            client.cancel_job(CancelJobParams { job_id: job_id.clone() }).await.map_err(|e| e.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    match cancelled {
        Ok(_) => tracing::debug!(job_id, "a query on the cluster was stopped"),
        Err(error) => tracing::warn!(job_id, error, "a query on the cluster cannot be stopped, and goes on in vain"),
    }
}

/// A stream that fails when nothing comes of it for so long. What has come to its end ends `job`.
fn patient(stream: SendableRecordBatchStream, wait: Duration, job: Job) -> SendableRecordBatchStream {
    let schema = stream.schema();
    let batches = futures::stream::unfold(Some((stream, job)), move |state| async move {
        let (mut stream, mut job) = state?;
        match timeout(wait, stream.next()).await {
            Ok(Some(batch)) => Some((batch, Some((stream, job)))),
            Ok(None) => {
                job.has_ended = true;
                None
            }
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
        let frame = session.sql(&query.sql).await?;
        let context = Arc::new(frame.task_ctx());
        let plan = frame.create_physical_plan().await?;
        let job = Job { scheduler: self.scheduler.clone(), plan: Arc::clone(&plan), has_ended: false };
        Ok(patient(execute_stream(plan, context)?, self.wait, job))
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
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_says_nothing_is_waited_for_so_long() {
        let schema = Arc::new(Schema::empty());
        let batch = RecordBatch::new_empty(Arc::clone(&schema));
        let batches = futures::stream::iter([Ok(batch)]).chain(futures::stream::pending());
        let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), batches));
        let job = Job { scheduler: String::new(), plan: Arc::new(EmptyExec::new(schema)), has_ended: false };
        let mut stream = patient(stream, Duration::from_secs(60), job);
        assert!(stream.next().await.unwrap().is_ok());
        let error = stream.next().await.unwrap().unwrap_err().to_string();
        assert!(error.contains("nothing for 60 s"), "{error}");
        assert!(stream.next().await.is_none(), "it is over then");
    }
}
