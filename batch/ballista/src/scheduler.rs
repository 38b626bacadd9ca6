//! The scheduler: takes queries, and shares out their parts.

use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::error::BallistaError;
use ballista_scheduler::cluster::BallistaCluster as State;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use object_store::ObjectStore;
use tokio::net::TcpListener;

use crate::codec::{FunctionCodec, TableCodec};
use crate::session::state;
use crate::{EXECUTOR_DEAD_SECONDS, KEPT_SECONDS, MESSAGE_BYTES_MAX, REMEMBERED_SECONDS};

/// How long a query waits for an executor when the last one has gone, seconds.
const NO_EXECUTORS_SECONDS: u64 = 60;

/// Runs a scheduler until its task is dropped. Executors reach it, and it them, without a password: the network has to be
/// one's own.
///
/// # Errors
/// When it cannot start, or the network fails.
pub async fn serve(listener: TcpListener, host: String, store: Arc<dyn ObjectStore>) -> Result<(), BallistaError> {
    let codec = Arc::new(TableCodec::new(Arc::clone(&store)));
    let config = SchedulerConfig {
        external_host: host,
        bind_port: listener.local_addr()?.port(),
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        executor_timeout_seconds: EXECUTOR_DEAD_SECONDS,
        expire_dead_executor_interval_seconds: EXECUTOR_DEAD_SECONDS / 5,
        no_executors_grace_period_seconds: NO_EXECUTORS_SECONDS,
        finished_job_data_clean_up_interval_seconds: KEPT_SECONDS,
        finished_job_state_clean_up_interval_seconds: REMEMBERED_SECONDS,
        grpc_server_max_decoding_message_size: MESSAGE_BYTES_MAX,
        grpc_server_max_encoding_message_size: MESSAGE_BYTES_MAX,
        grpc_client_max_message_size: MESSAGE_BYTES_MAX,
        override_session_builder: Some(Arc::new(move |config| state(config, &store))),
        override_logical_codec: Some(codec),
        override_physical_codec: Some(Arc::new(FunctionCodec::default())),
        ..SchedulerConfig::default()
    };
    let state = State::new_from_config(&config).await?;
    let scheduler = create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(state, Arc::new(config)).await?;
    start_grpc_service_with_listener(listener, scheduler).await
}
