//! What every role's process does: listen, say how it is, and end when it is asked to.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use reckon_batch::lock::DirLock;
use reckon_data::clock::{RandomNames, SystemClock};
use reckon_data::config::Settings;
use reckon_data::log::Log as _;
use reckon_serving::rest::{self, RestParts};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::doors::say;
use crate::node::{Base, is_embedded, local_dir};
use crate::telemetry::traced;

/// The folder of leases in the data directory.
pub const LEASES: &str = "lease";

/// Waits for a task of [`Process::spawn`].
pub async fn end_of(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(%error, "a task has panicked");
    }
}

/// A process of one role.
pub struct Process {
    pub base: Arc<Base>,
    listener: TcpListener,
    stop: watch::Sender<bool>,
    failed: Arc<Notify>,
    _lock: DirLock,
}

impl Process {
    /// Opens what a role works with.
    ///
    /// # Errors
    /// What stands in its way.
    pub async fn open(settings: Settings, role: &str) -> Result<Self> {
        if is_embedded(&settings) {
            bail!(
                "reckon {role} works on a log that other processes have too: --log-url names a topic of Fluvio; `reckon up` does everything \
                 in one process, with a log of its own"
            );
        }
        let dir = local_dir(&settings)?;
        let lock = DirLock::acquire(&dir, role)?;
        let listen = settings.listen.clone();
        let listener = TcpListener::bind(&listen)
            .await
            .with_context(|| format!("{listen} cannot be listened on; --listen ADDR:PORT takes another"))?;
        let base = Base::open(settings, &dir, Arc::new(SystemClock), Arc::new(RandomNames)).await?;
        Ok(Self {
            base: Arc::new(base),
            listener,
            stop: watch::Sender::new(false),
            failed: Arc::default(),
            _lock: lock,
        })
    }

    /// Starts what goes on until the process ends. When it ends before, the process ends, too, with an error: half a process would
    /// hold leases and do nothing.
    pub fn spawn(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let (failed, stop) = (Arc::clone(&self.failed), self.stop.subscribe());
        tokio::spawn(async move {
            let ended = tokio::spawn(task).await;
            if !*stop.borrow() {
                tracing::error!(what, panicked = ended.is_err(), "a part of the process has ended");
                failed.notify_one();
            }
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn url(&self) -> Result<String> {
        Ok(format!("http://{}", self.listener.local_addr()?))
    }

    /// Turns true when the process ends.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Serves until SIGTERM or SIGINT; `end` is what there is to do then.
    ///
    /// # Errors
    /// When it cannot listen for signals.
    pub async fn run(self, role: &str, parts: RestParts, end: impl Future<Output = ()>) -> Result<()> {
        self.run_routes(role, rest::router(parts), end).await
    }

    /// As [`Process::run`], with routes that are there already.
    ///
    /// # Errors
    /// As there.
    pub async fn run_routes(self, role: &str, routes: Router, end: impl Future<Output = ()>) -> Result<()> {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        say(&[format!("reckon {role} listens at http://{}", self.listener.local_addr()?)]);
        let serving = tokio::spawn(rest::serve(self.listener, traced(routes), self.stop.subscribe()));
        let has_failed = tokio::select! {
            _ = term.recv() => false,
            _ = int.recv() => false,
            () = self.failed.notified() => true,
        };
        tracing::info!("stopping");
        self.stop.send_replace(true);
        // Requests under way end, within the grace that serving gives them.
        let _ = serving.await;
        end.await;
        if let Err(error) = self.base.mended.close().await {
            tracing::warn!(%error, "the log was not closed in order");
        }
        if has_failed {
            bail!("a part of the process has ended by itself, see above");
        }
        Ok(())
    }
}
