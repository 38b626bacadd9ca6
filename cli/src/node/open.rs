//! Putting a node together, and taking it apart.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use reckon_audit::canary::Canary;
use reckon_audit::runs::AuditRuns;
use reckon_batch::archive::Archiver;
use reckon_batch::lock::DirLock;
use reckon_batch::maintain::Maintainer;
use reckon_batch::mend::Mender;
use reckon_batch::runs::BatchRuns;
use reckon_data::clock::{Clock, Names};
use reckon_data::config::Settings;
use reckon_data::jobs::Follower;
use reckon_data::log::Log as _;
use reckon_serving::Serving;
use reckon_serving::replay::Replayer;
use reckon_serving::rest::{Listens, RestParts};
use reckon_stream::counter::Counter;
use reckon_stream::gateway::Gateway;
use reckon_tables::{ImportTable, is_local, local_folder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::audits::Audited;
use super::background;
use super::base::Base;
use super::canary::{self, Nest};
use super::dashboard::dashboard;
use super::home::local_dir;
use super::status::NodeStatus;

/// The roles that listen to others.
const SERVERS: [&str; 2] = ["up", "demo"];
/// The role of a process that recounts and does nothing else.
const BATCH: &str = "batch";
/// The role of a process that audits and does nothing else.
const AUDIT: &str = "audit";
/// Memory for what it answers a few questions from.
const AUDIT_INDEX_BYTES: u64 = 256 << 20;
/// Memory for the counts of segments in such a process: they are sealed and let go.
const BATCH_STREAM_BYTES: u64 = 64 << 20;

/// How long the archiver may take to end.
pub const STOP_ARCHIVER_MAX: Duration = Duration::from_secs(4);

/// Every role in one process.
pub struct Node {
    /// Its settings.
    pub settings: Settings,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    names: Arc<dyn Names>,
    canary_token: Arc<str>,
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// The counter.
    pub counter: Arc<Counter>,
    /// The archiver.
    pub archiver: Arc<Archiver>,
    /// The serving layer.
    pub serving: Arc<Serving>,
    /// Batch runs.
    pub runs: Arc<BatchRuns>,
    /// Audits.
    pub audits: Arc<AuditRuns>,
    /// The table of imports.
    pub imports: Arc<ImportTable>,
    /// How it is.
    pub status: Arc<NodeStatus>,
    pub(super) maintainer: Arc<Maintainer>,
    pub(super) mender: Arc<Mender>,
    replayer: Arc<Replayer>,
    stopping: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    _locks: Vec<DirLock>,
}

impl Node {
    /// Opens a data folder for `role` and starts every part; nothing is taken from outside yet.
    ///
    /// # Errors
    /// When the folder is in use, or what lies in it cannot be used; the error says what to do.
    pub async fn open(settings: Settings, role: &str, clock: Arc<dyn Clock>, names: Arc<dyn Names>) -> Result<Self> {
        let dir = local_dir(&settings)?;
        let mut locks = vec![DirLock::acquire(&dir, role)?];
        if is_local(&settings.data_dir) && local_folder(&settings.data_dir)? != dir {
            locks.push(DirLock::acquire(&local_folder(&settings.data_dir)?, role)?);
        }
        let base = Base::open(for_role(settings, role), &dir, clock, names).await?;
        let counter = base.counter(base.all()).await?;
        let archiver = base.archiver(base.all()).await?;
        let gateway = base.gateway()?;
        let serving = base.serving(Arc::clone(&counter) as _).await?;
        let maintainer = Arc::new(Maintainer::new(base.maintainer_parts()));
        let mender = Arc::new(base.mender());
        let after = background::after_run(Arc::clone(&serving), Arc::clone(&maintainer), Arc::clone(&mender));
        let followers: Vec<Arc<dyn Follower>> = vec![Arc::clone(&counter) as _, Arc::clone(&archiver) as _];
        let runs = base.runs(followers, &mender, Some(after))?;
        let imports = base.imports();
        let status = Arc::new(NodeStatus {
            log: Arc::clone(&base.mended),
            gateway: Arc::clone(&gateway),
            counter: Arc::clone(&counter),
            archiver: Arc::clone(&archiver),
            serving: Arc::clone(&serving),
            storage: base.storage.clone(),
            tables: base.delta.clone(),
            canary: SERVERS.contains(&role).then(|| canary::record(&base.settings)).flatten(),
        });
        let audited = Audited {
            serving: Some(Arc::clone(&serving)),
            runs: Arc::clone(&runs),
            mender: Arc::clone(&mender),
            canary: status.canary.clone(),
        };
        let audits = audited.runs(&base);
        let replayer = Arc::new(Replayer {
            serving: Arc::clone(&serving),
            ingest: Arc::clone(&gateway) as _,
            imports: Arc::clone(&imports) as _,
            limits: base.settings.limits()?,
            definition: Arc::clone(&base.definition),
            clock: Arc::clone(&base.clock),
        });
        Ok(Self {
            settings: base.settings,
            clock: base.clock,
            names: base.names,
            canary_token: base.canary_token,
            gateway,
            counter,
            archiver,
            serving,
            runs,
            audits,
            imports,
            status,
            maintainer,
            mender,
            replayer,
            stopping: watch::channel(false).0,
            tasks: Vec::new(),
            _locks: locks,
        })
    }

    /// Starts what goes on by itself: scheduled batch runs, maintenance, trimming the log.
    ///
    /// # Errors
    /// When the schedule is none.
    pub fn start_background(&mut self) -> Result<()> {
        self.tasks = background::start(self, &self.stopping.subscribe())?;
        Ok(())
    }

    /// What the REST routes stand on.
    #[must_use]
    pub fn rest_parts(&self) -> RestParts {
        RestParts {
            serving: Some(Arc::clone(&self.serving)),
            ingest: Some(Arc::clone(&self.gateway) as _),
            jobs: Some(Arc::clone(&self.runs) as _),
            audits: Some(Arc::clone(&self.audits) as _),
            imports: Some(Arc::clone(&self.imports) as _),
            replay: Some(Arc::clone(&self.replayer) as _),
            health: Arc::clone(&self.status) as _,
            body_bytes_max: usize::try_from(self.settings.gateway.body_max.as_u64()).unwrap_or(usize::MAX),
            clock: Arc::clone(&self.clock),
            canary_token: Some(Arc::clone(&self.canary_token)),
            page: dashboard(),
            listens: Listens::default(),
        }
    }

    /// The canary, where the node is a server that has one; `url` is where it listens.
    ///
    /// # Errors
    /// When the settings name no address to send to.
    pub fn canary(&self, url: &str) -> Result<Option<Canary>> {
        let Some(record) = &self.status.canary else { return Ok(None) };
        let nest = Nest {
            settings: &self.settings.canary,
            commit_every: self.settings.archive.commit_every,
            partitions: self.status.log.partitions(),
            token: &self.canary_token,
            clock: &self.clock,
            names: &self.names,
            record,
        };
        nest.canary(url).map(Some)
    }

    /// Waits until everything in the log is counted.
    ///
    /// # Errors
    /// When the counter has stopped.
    pub async fn wait_counted(&self) -> Result<()> {
        while self.status.lag_records() > 0 {
            if let Some(reason) = self.status.trouble() {
                return Err(anyhow!(reason));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Waits until everything in the log is archived.
    ///
    /// # Errors
    /// When the archiver has stopped.
    pub async fn settle(&self) -> Result<()> {
        let log = &self.status.log;
        let mut ends = Vec::new();
        for partition in 0..log.partitions() {
            ends.push(log.extent(partition).await?.end);
        }
        self.archiver.reach(&ends).await.map_err(anyhow::Error::msg)
    }

    /// Stops everything: what was taken is sealed and archived as far as that is quickly done; the log has the rest.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        self.gateway.stop().await;
        for task in self.tasks.drain(..) {
            task.abort();
        }
        let archiver = async {
            match tokio::time::timeout(STOP_ARCHIVER_MAX, self.archiver.stop()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the archiver had stopped"),
                Err(_) => tracing::info!("the archiver goes on from its last commit next time"),
            }
        };
        tokio::join!(self.counter.stop(), archiver);
        self.serving.stop();
        if let Err(error) = self.status.log.close().await {
            tracing::warn!(%error, "the log was not closed in order; it is recovered next time");
        }
    }
}

/// The settings for what a role does: a batch run of its own answers no questions, so it neither holds counts for
/// them nor loads those that a server would.
fn for_role(mut settings: Settings, role: &str) -> Settings {
    if role == BATCH || role == AUDIT {
        let index = if role == AUDIT { AUDIT_INDEX_BYTES } else { 0 };
        settings.serving.index_memory.0 = settings.serving.index_memory.0.min(index);
        settings.stream.memory.0 = settings.stream.memory.0.min(BATCH_STREAM_BYTES);
    }
    settings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_batch_process_holds_no_counts() {
        let settings = for_role(Settings::default(), BATCH);
        assert_eq!((settings.serving.index_memory.0, settings.stream.memory.0), (0, BATCH_STREAM_BYTES));
        assert_eq!(for_role(Settings::default(), "up"), Settings::default());
    }
}
