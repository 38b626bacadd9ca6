//! `reckon cluster`: machines that count raw events for batch runs.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use reckon_ballista::{executor, scheduler};
use reckon_batch::lock::DirLock;
use reckon_data::config::Settings;
use reckon_tables::Storage;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::node::local_dir;

/// The folder of an executor, in the local folder.
const EXECUTOR: &str = "executor";

/// A cluster of Ballista. Nobody is asked for a password: the network has to be one's own.
#[derive(Debug, Args)]
pub struct Cluster {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The scheduler: takes the queries of batch runs and shares out their parts. One is enough.
    Scheduler(Scheduler),
    /// An executor: runs parts of queries, reading raw events from the object store. Any number of them.
    Executor(Executor),
}

#[derive(Debug, Args)]
struct Scheduler {
    /// Address and port to listen on.
    #[arg(long, env = "RECKON_CLUSTER_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:50050")]
    cluster_listen: SocketAddr,
    /// The host at which executors and clients reach it; without it, the address it listens on.
    #[arg(long, env = "RECKON_CLUSTER_HOST", value_name = "HOST")]
    cluster_host: Option<String>,
}

#[derive(Debug, Args)]
struct Executor {
    /// Address and port to listen on.
    #[arg(long, env = "RECKON_CLUSTER_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:50051")]
    cluster_listen: SocketAddr,
    /// The host at which others reach it; without it, the address it listens on.
    #[arg(long, env = "RECKON_CLUSTER_HOST", value_name = "HOST")]
    cluster_host: Option<String>,
    /// The scheduler, http://host:50050.
    #[arg(long, env = "RECKON_SCHEDULER", value_name = "URL", default_value = "http://127.0.0.1:50050")]
    scheduler: String,
    /// Parts of queries that run at once; 0 is one a core.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    threads: usize,
}

fn host(host: Option<String>, listen: SocketAddr) -> Result<String> {
    if host.is_none() && listen.ip().is_unspecified() {
        bail!("others cannot reach {listen}: --cluster-host HOST says where they reach this process");
    }
    Ok(host.unwrap_or_else(|| listen.ip().to_string()))
}

impl Cluster {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When it cannot start, or the network fails.
    pub async fn run(self, settings: Settings) -> Result<()> {
        let store = Storage::open_with_cold(&settings.data_dir, &settings.retention.cold_url).await?.store();
        match self.role {
            Role::Scheduler(Scheduler { cluster_listen, cluster_host }) => {
                let host = host(cluster_host, cluster_listen)?;
                let listener = TcpListener::bind(cluster_listen).await.with_context(|| {
                    format!("{cluster_listen} cannot be listened on; --cluster-listen takes another")
                })?;
                println!("reckon cluster scheduler listens at http://{}", listener.local_addr()?);
                let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
                tokio::select! {
                    served = scheduler::serve(listener, host, store) => Ok(served?),
                    _ = term.recv() => Ok(()),
                    _ = int.recv() => Ok(()),
                }
            }
            Role::Executor(Executor { cluster_listen, cluster_host, scheduler, threads }) => {
                let host = host(cluster_host, cluster_listen)?;
                let dir = local_dir(&settings)?.join(EXECUTOR);
                let _lock = DirLock::acquire(&dir, "cluster executor")?;
                println!("reckon cluster executor listens at {cluster_listen}, for {scheduler}");
                let options = executor::Options {
                    listen: cluster_listen,
                    host,
                    scheduler,
                    dir,
                    threads,
                    memory: settings.batch.memory.as_u64(),
                    store,
                };
                Ok(executor::run(options).await?)
            }
        }
    }
}
