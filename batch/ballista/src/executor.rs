//! An executor: runs parts of queries.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::error::BallistaError;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use object_store::ObjectStore;
use url::Url;

use crate::codec::FunctionCodec;
use crate::session::{environment, registry};
use crate::{HEARTBEAT_SECONDS, KEPT_SECONDS, MESSAGE_BYTES_MAX};

/// How long a scheduler that does not answer is waited for at the start, seconds.
const CONNECT_SECONDS: u16 = 60;
/// How often old results are looked for, seconds.
const CLEAN_EVERY_SECONDS: u64 = 300;

/// What an executor is started with.
#[derive(Debug)]
pub struct Options {
    /// Where it listens for those who fetch results.
    pub listen: SocketAddr,
    /// The host at which others reach it.
    pub host: String,
    /// The scheduler, `http://host:50050`.
    pub scheduler: String,
    /// The folder of this machine for results and for what does not fit in memory.
    pub dir: PathBuf,
    /// Parts of queries that run at once.
    pub threads: usize,
    /// Memory for them all, bytes.
    pub memory: u64,
    /// Where files lie, rooted at the tables' folder.
    pub store: Arc<dyn ObjectStore>,
}

/// Runs an executor until SIGTERM or SIGINT.
///
/// # Errors
/// When the scheduler cannot be reached, or the network fails.
pub async fn run(options: Options) -> Result<(), BallistaError> {
    let Options { listen, host, scheduler, dir, threads, memory, store } = options;
    let wrong =
        || BallistaError::Configuration(format!("{scheduler:?} is no address of a scheduler: http://host:50050"));
    let url = Url::parse(&scheduler).map_err(|_| wrong())?;
    let (Some(scheduler_host), Some(scheduler_port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(wrong());
    };
    let spill = dir.join("spill");
    std::fs::create_dir_all(&spill)?;
    let config = ExecutorProcessConfig {
        bind_host: listen.ip().to_string(),
        external_host: Some(host),
        port: listen.port(),
        scheduler_host: scheduler_host.to_owned(),
        scheduler_port,
        scheduler_connect_timeout_seconds: CONNECT_SECONDS,
        vcores: threads,
        task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
        work_dir: Some(dir.join("results").display().to_string()),
        job_data_ttl_seconds: KEPT_SECONDS,
        job_data_clean_up_interval_seconds: CLEAN_EVERY_SECONDS,
        grpc_max_decoding_message_size: MESSAGE_BYTES_MAX,
        grpc_max_encoding_message_size: MESSAGE_BYTES_MAX,
        executor_heartbeat_interval_seconds: HEARTBEAT_SECONDS,
        memory_pool_size: Some(memory),
        override_physical_codec: Some(Arc::new(FunctionCodec::default())),
        override_function_registry: Some(Arc::new(registry())),
        override_runtime_producer: Some(Arc::new(move |_| environment(&store, Some(spill.clone())))),
        ..ExecutorProcessConfig::default()
    };
    std::fs::create_dir_all(dir.join("results"))?;
    start_executor_process(Arc::new(config)).await
}
