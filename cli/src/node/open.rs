//! Putting a node together, and taking it apart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use reckon_batch::archive::{Archiver, ArchiverParts};
use reckon_batch::lock::DirLock;
use reckon_batch::maintain::{Maintainer, MaintainerParts};
use reckon_batch::mend::{Mender, MenderParts};
use reckon_batch::recompute::{Recompute, RecomputeParts};
use reckon_batch::runs::BatchRuns;
use reckon_data::clock::{Clock, Names};
use reckon_data::config::Settings;
use reckon_data::definition::Definition;
use reckon_data::jobs::Follower;
use reckon_data::log::Log;
use reckon_data::log::embedded::{EmbeddedLog, Options};
use reckon_data::table::Tables;
use reckon_serving::replay::Replayer;
use reckon_serving::rest::RestParts;
use reckon_serving::{Serving, ServingParts};
use reckon_stream::counter::{Counter, CounterParts};
use reckon_stream::gateway::{Gateway, GatewayParts};
use reckon_tables::{DeltaTables, ImportTable, MendedLog, Storage, local_folder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::background;
use super::status::NodeStatus;

/// The role of a process that recounts and does nothing else.
const BATCH: &str = "batch";
/// Memory for the counts of segments in such a process: they are sealed and let go.
const BATCH_STREAM_BYTES: u64 = 64 << 20;

/// How long the archiver may take to end.
const STOP_ARCHIVER_MAX: Duration = Duration::from_secs(4);

/// Every role in one process.
pub struct Node {
    /// Its settings.
    pub settings: Settings,
    /// The clock.
    pub clock: Arc<dyn Clock>,
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
    /// The table of imports.
    pub imports: Arc<ImportTable>,
    /// How it is.
    pub status: Arc<NodeStatus>,
    pub(super) maintainer: Arc<Maintainer>,
    pub(super) mender: Arc<Mender>,
    log: Arc<EmbeddedLog>,
    replayer: Arc<Replayer>,
    stopping: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    _lock: DirLock,
}

/// What every part is made with.
struct Base {
    settings: Settings,
    definition: Arc<Definition>,
    clock: Arc<dyn Clock>,
    names: Arc<dyn Names>,
    log: Arc<EmbeddedLog>,
    mended: Arc<MendedLog>,
    delta: DeltaTables,
    tables: Arc<dyn Tables>,
    storage: Storage,
    scratch: PathBuf,
}

impl Node {
    /// Opens a data folder for `role` and starts every part; nothing is taken from outside yet.
    ///
    /// # Errors
    /// When the folder is in use, or what lies in it cannot be used; the error says what to do.
    pub async fn open(settings: Settings, role: &str, clock: Arc<dyn Clock>, names: Arc<dyn Names>) -> Result<Self> {
        let dir = local_folder(&settings.data_dir)?;
        let lock = DirLock::acquire(&dir, role)?;
        let base = Base::open(for_role(settings, role), &dir, clock, names)?;
        let counter = base.counter().await?;
        let archiver = base.archiver().await?;
        let gateway = base.gateway()?;
        let serving = base.serving(&counter).await?;
        let maintainer = Arc::new(Maintainer::new(base.maintainer_parts()));
        let mender = Arc::new(base.mender());
        let runs = base.runs(&counter, &archiver, &serving, &maintainer, &mender)?;
        let store = base.storage.store();
        let imports = Arc::new(ImportTable::new(
            Arc::clone(&base.tables),
            store,
            Arc::clone(&base.clock),
            Arc::clone(&base.names),
        ));
        let status = Arc::new(NodeStatus {
            log: Arc::clone(&base.mended),
            gateway: Arc::clone(&gateway),
            counter: Arc::clone(&counter),
            archiver: Arc::clone(&archiver),
            serving: Arc::clone(&serving),
            storage: base.storage.clone(),
            tables: base.delta.clone(),
        });
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
            log: base.log,
            gateway,
            counter,
            archiver,
            serving,
            runs,
            imports,
            status,
            maintainer,
            mender,
            replayer,
            stopping: watch::channel(false).0,
            tasks: Vec::new(),
            _lock: lock,
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
            imports: Some(Arc::clone(&self.imports) as _),
            replay: Some(Arc::clone(&self.replayer) as _),
            health: Arc::clone(&self.status) as _,
            body_bytes_max: usize::try_from(self.settings.gateway.body_max.as_u64()).unwrap_or(usize::MAX),
            clock: Arc::clone(&self.clock),
        }
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
        if let Err(error) = self.log.close().await {
            tracing::warn!(%error, "the log was not closed in order; it is recovered next time");
        }
    }
}

impl Base {
    fn open(settings: Settings, dir: &Path, clock: Arc<dyn Clock>, names: Arc<dyn Names>) -> Result<Self> {
        let definition = Arc::new(settings.definition()?);
        let log = EmbeddedLog::open(&dir.join("log"), log_options(&settings), names.as_ref())
            .with_context(|| format!("the log in {} cannot be opened", dir.display()))?;
        let scratch = dir.join("scratch");
        empty_scratch(&scratch).with_context(|| format!("{} cannot be emptied", scratch.display()))?;
        let storage = Storage::open(&settings.data_dir)?;
        let delta = DeltaTables::new(storage.clone(), Arc::clone(&clock))?;
        let tables: Arc<dyn Tables> = Arc::new(delta.clone());
        let log = Arc::new(log);
        let mended = MendedLog::new(Arc::clone(&log) as Arc<dyn Log>, Arc::clone(&tables), storage.store());
        let mended = Arc::new(mended);
        Ok(Self { definition, clock, names, log, mended, delta, tables, storage, scratch, settings })
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.mended) as Arc<dyn Log>
    }

    fn gateway(&self) -> Result<Arc<Gateway>> {
        Ok(Gateway::start(GatewayParts {
            log: self.log(),
            router: self.settings.router(),
            definition: Arc::clone(&self.definition),
            limits: self.settings.limits()?,
            clock: Arc::clone(&self.clock),
            names: Arc::clone(&self.names),
            settings: self.settings.gateway.clone(),
        }))
    }

    async fn counter(&self) -> Result<Arc<Counter>> {
        let parts = CounterParts {
            log: self.log(),
            tables: Arc::clone(&self.tables),
            store: self.storage.store(),
            definition: Arc::clone(&self.definition),
            clock: Arc::clone(&self.clock),
            names: Arc::clone(&self.names),
            settings: self.settings.stream.clone(),
            retention: self.settings.retention.clone(),
        };
        Counter::start(parts).await.context("the counter cannot start")
    }

    async fn archiver(&self) -> Result<Arc<Archiver>> {
        let parts = ArchiverParts {
            log: self.log(),
            tables: Arc::clone(&self.tables),
            store: self.storage.store(),
            clock: Arc::clone(&self.clock),
            names: Arc::clone(&self.names),
            settings: self.settings.archive.clone(),
        };
        Archiver::start(parts).await.context("the archiver cannot start")
    }

    async fn serving(&self, counter: &Arc<Counter>) -> Result<Arc<Serving>> {
        let parts = ServingParts {
            tables: Arc::clone(&self.tables),
            store: self.storage.store(),
            tails: Arc::clone(counter) as _,
            log: self.log.identity(),
            definition: Arc::clone(&self.definition),
            settings: self.settings.serving.clone(),
            stream: self.settings.stream.clone(),
            clock: Arc::clone(&self.clock),
        };
        Serving::start(parts).await.context("the serving layer cannot start")
    }

    fn maintainer_parts(&self) -> MaintainerParts {
        MaintainerParts {
            tables: Arc::clone(&self.tables),
            store: self.storage.store(),
            clock: Arc::clone(&self.clock),
            names: Arc::clone(&self.names),
            log: self.log.identity(),
            partitions: self.log.partitions(),
            archive: self.settings.archive.clone(),
            retention: self.settings.retention.clone(),
            compact: self.settings.batch.compact,
            // It runs beside everything else and nobody waits for it: it may spill sooner than a batch run.
            memory: usize::try_from(self.settings.batch.memory.as_u64() / 4).unwrap_or(usize::MAX),
            spill_dir: Some(self.scratch.clone()),
        }
    }

    fn mender(&self) -> Mender {
        Mender::new(MenderParts {
            log: self.log(),
            tables: Arc::clone(&self.tables),
            store: self.storage.store(),
            damage: Arc::new(self.storage.clone()),
            names: Arc::clone(&self.names),
            file_bytes: self.settings.archive.file_size.as_u64(),
        })
    }

    fn runs(
        &self,
        counter: &Arc<Counter>,
        archiver: &Arc<Archiver>,
        serving: &Arc<Serving>,
        maintainer: &Arc<Maintainer>,
        mender: &Arc<Mender>,
    ) -> Result<Arc<BatchRuns>> {
        let followers: Vec<Arc<dyn Follower>> = vec![Arc::clone(counter) as _, Arc::clone(archiver) as _];
        let recompute = Recompute::new(RecomputeParts {
            damage: Arc::new(self.storage.clone()),
            log: self.log(),
            tables: Arc::clone(&self.tables),
            store: self.storage.store(),
            spill_dir: self.scratch.clone(),
            definition: Arc::clone(&self.definition),
            routing: self.settings.router().version(),
            clock: Arc::clone(&self.clock),
            names: Arc::clone(&self.names),
            settings: self.settings.batch.clone(),
            followers,
        })?;
        let hook = background::after_run(Arc::clone(serving), Arc::clone(maintainer), Arc::clone(mender));
        let (clock, names) = (Arc::clone(&self.clock), Arc::clone(&self.names));
        Ok(Arc::new(BatchRuns::new(recompute, clock, names, Some(Arc::clone(mender)), Some(hook))))
    }
}

/// The settings for what a role does: a batch run of its own answers no questions, so it neither holds counts for
/// them nor loads those that a server would.
fn for_role(mut settings: Settings, role: &str) -> Settings {
    if role == BATCH {
        settings.serving.index_memory.0 = 0;
        settings.stream.memory.0 = settings.stream.memory.0.min(BATCH_STREAM_BYTES);
    }
    settings
}

/// Removes what processes that were killed have left in the folder for temporary files. Only who holds the lock
/// may do so.
fn empty_scratch(scratch: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(scratch)?;
    for entry in std::fs::read_dir(scratch)? {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        if is_folder { std::fs::remove_dir_all(entry.path())? } else { std::fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// How the settings want the embedded log. Its share of memory: half for what waits to be written, the rest for what
/// was read.
#[must_use]
pub fn log_options(settings: &Settings) -> Options {
    let memory = settings.log.memory.as_u64();
    let defaults = Options::default();
    Options {
        partitions: settings.log.partitions,
        write_buffer_bytes: (memory / 2).max(defaults.memtable_bytes * 2),
        cache_bytes: memory / 4,
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_killed_processes_left_behind_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("scratch");
        empty_scratch(&scratch).unwrap();
        std::fs::create_dir_all(scratch.join("datafusion-x/y")).unwrap();
        std::fs::write(scratch.join("datafusion-x/y/spilled"), "rows").unwrap();
        std::fs::write(scratch.join("file"), "rows").unwrap();
        empty_scratch(&scratch).unwrap();
        assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
    }

    #[test]
    fn a_batch_process_holds_no_counts() {
        let settings = for_role(Settings::default(), BATCH);
        assert_eq!((settings.serving.index_memory.0, settings.stream.memory.0), (0, BATCH_STREAM_BYTES));
        assert_eq!(for_role(Settings::default(), "up"), Settings::default());
    }
}
