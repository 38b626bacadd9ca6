//! A process with every role, over the models: what `reckon up` is, without the command line.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use reckon_batch::archive::{Archiver, ArchiverParts};
use reckon_batch::maintain::{MaintainReport, Maintainer, MaintainerParts, Safe, trim_log};
use reckon_batch::mend::{Mender, MenderParts};
use reckon_batch::recompute::{Recompute, RecomputeParts};
use reckon_data::clock::{Clock, Names};
use reckon_data::config::Settings;
use reckon_data::damage::{Damage as _, Damaged};
use reckon_data::definition::Definition;
use reckon_data::jobs::{Follower, RunRequest};
use reckon_data::log::Log;
use reckon_data::log::memory::MemoryLog;
use reckon_data::table::{Table, Tables};
use reckon_serving::replay::Replayer;
use reckon_serving::rest::{Replay as _, ReplayReport, ReplayRequest};
use reckon_serving::{Serving, ServingParts};
use reckon_stream::counter::{Counter, CounterParts, PartitionStats};
use reckon_stream::gateway::{Gateway, GatewayParts};
use reckon_tables::{CheckedStore, ImportTable, MemoryTables, MendedLog, Storage};
use tokio::sync::Mutex;

use crate::faults::Io;
use crate::io::{FAULT, FaultyLog, FaultyStore, FaultyTables, FileSums, Flipped, History};
use crate::shelf::Shelf;

/// What maintenance says of files that lost rows on the way, and of panics.
const DEFECTS: [&str; 2] = ["rows and should hold", "a thread of maintenance ended"];

/// What outlives every process.
#[derive(Debug, Clone)]
pub struct Durable {
    /// The log.
    pub log: MemoryLog,
    /// All of it, trimmed or not.
    pub history: History,
    /// The tables.
    pub tables: Arc<MemoryTables>,
    /// Their files.
    pub store: Arc<InMemory>,
    /// The checksums of those.
    pub sums: FileSums,
    /// What lies in the store, and what lay there.
    pub shelf: Shelf,
    /// What has become of the log on its disk.
    pub flipped: Flipped,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Names; they differ from process to process because they are counted on.
    pub names: Arc<dyn Names>,
    /// The settings.
    pub settings: Settings,
    /// A folder for temporary files.
    pub scratch: PathBuf,
}

/// A process. Dropped, it is gone; [`Io::kill`] first, so that nothing it still does has an effect.
pub struct Node {
    /// Its I/O.
    pub io: Io,
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// The counter.
    pub counter: Arc<Counter>,
    /// The archiver.
    pub archiver: Arc<Archiver>,
    /// The serving layer.
    pub serving: Arc<Serving>,
    recompute: Recompute,
    /// Held by a batch run.
    running: Mutex<()>,
    maintainer: Maintainer,
    mender: Mender,
    replayer: Replayer,
    log: Arc<dyn Log>,
    files: CheckedStore,
    durable: Durable,
}

impl Node {
    /// Starts a process.
    ///
    /// # Errors
    /// What the parts say.
    pub async fn start(durable: &Durable, io: Io) -> Result<Self> {
        let definition = Arc::new(durable.settings.definition()?);
        let log: Arc<dyn Log> = Arc::new(FaultyLog {
            log: durable.log.clone(),
            history: Arc::clone(&durable.history),
            flipped: Arc::clone(&durable.flipped),
            io: io.clone(),
        });
        let (store, shelf) = (Arc::clone(&durable.store), durable.shelf.clone());
        let files = CheckedStore::new(Arc::new(FaultyStore { store, shelf: shelf.clone(), io: io.clone() }));
        let tables: Arc<dyn Tables> = Arc::new(FaultyTables {
            tables: Arc::clone(&durable.tables),
            sums: Arc::clone(&durable.sums),
            files: files.clone(),
            shelf,
            io: io.clone(),
        });
        let store: Arc<dyn ObjectStore> = Arc::new(files.clone());
        let log: Arc<dyn Log> = Arc::new(MendedLog::new(log, Arc::clone(&tables), Arc::clone(&store)));
        let base = Base { durable, definition, log, tables, store, files };
        let counter = base.counter().await?;
        let archiver = base.archiver().await?;
        let serving = base.serving(&counter).await?;
        let gateway = base.gateway()?;
        Ok(Self {
            replayer: base.replayer(&serving, &gateway)?,
            gateway,
            recompute: base.recompute(&counter, &archiver),
            running: Mutex::new(()),
            maintainer: Maintainer::new(base.maintainer()),
            mender: base.mender(),
            io,
            counter,
            archiver,
            serving,
            log: base.log,
            files: base.files,
            durable: durable.clone(),
        })
    }

    /// A batch run, after the one that goes on.
    ///
    /// # Errors
    /// What it says, and when raw events are missing.
    pub async fn batch(&self, full: bool) -> Result<()> {
        let _running = self.running.lock().await;
        let request = RunRequest { full, ..RunRequest::default() };
        let run = || async { self.recompute.run(&request, self.durable.names.fresh(), &|_| {}).await };
        let report = match run().await {
            Err(error) if Damaged::cause(&error).is_some() && self.mender.run().await > 0 => run().await?,
            ran => ran?,
        };
        if let Some(date) = report.dates.iter().find(|date| date.raw_missing) {
            bail!("raw events of {} are missing", date.date);
        }
        // As after every run: it is looked for again if this fails.
        let _ = self.serving.refresh().await;
        Ok(())
    }

    /// Maintenance, never beside a batch run of the same process. What fails is tried again the next time.
    ///
    /// # Errors
    /// When something is wrong that no fault explains.
    pub async fn maintain(&self) -> Result<MaintainReport> {
        let Ok(_running) = self.running.try_lock() else { return Ok(MaintainReport::default()) };
        self.mender.run().await;
        let report = self.maintainer.run().await;
        // Whatever struck, coarser counts are what finer ones make, or cannot be read.
        if let Some(wrong) = report.skipped.iter().find(|skipped| skipped.contains("are not what those by")) {
            bail!("R-6: {wrong}");
        }
        match report.failed.iter().find(|failed| DEFECTS.iter().any(|defect| failed.contains(defect))) {
            Some(defect) => bail!("{defect}"),
            None => Ok(report),
        }
    }

    /// An operator replays dead letters.
    ///
    /// # Errors
    /// What the operator is told.
    pub async fn replay(&self, request: ReplayRequest) -> Result<ReplayReport, String> {
        self.replayer.replay(request).await
    }

    /// Files that were found damaged.
    #[must_use]
    pub fn damaged(&self) -> Vec<Damaged> {
        self.files.damaged()
    }

    /// Reads every file of a table; whether none is damaged. What is, is known from then on.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn is_whole(&self, table: Table) -> Result<bool> {
        let snapshot = self.durable.tables.snapshot(table).await?;
        let mut whole = true;
        for file in snapshot.files.iter() {
            let path = Storage::path(table, &file.path);
            if let Some(sums) = self.durable.sums.lock().get(&path) {
                self.files.know(path.clone(), sums.clone());
            }
            let read = async { self.files.get(&path).await?.bytes().await };
            whole &= read.await.is_ok();
        }
        Ok(whole)
    }

    /// Trims the log as far as it is safe; whether that was done.
    pub async fn trim(&self) -> bool {
        let archived = self.archiver.committed();
        let safe: Vec<Safe> = (0..self.log.partitions())
            .zip(archived)
            .map(|(partition, archived)| Safe {
                refill_offset: self.counter.refill_offset(partition).unwrap_or(0),
                archived,
            })
            .collect();
        trim_log(&*self.log, &safe, self.durable.settings.log.keep, &*self.durable.clock).await.is_ok()
    }

    /// Why it cannot go on, if it cannot.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let stats = self.counter.stats();
        let counter = stats.halted.clone().or_else(|| stats.partitions.iter().find_map(failure_of));
        let archiver = self.archiver.failure().or_else(|| self.archiver.stuck().first().cloned());
        counter.or_else(|| archiver.map(|error| error.to_string()))
    }
}

/// Why a partition cannot go on. One that stands still because the log has failed often in a row tries again by itself.
fn failure_of(partition: &PartitionStats) -> Option<String> {
    let tries_again = |reason: &&String| reason.contains(FAULT);
    partition.failed.clone().or_else(|| partition.stalled.as_ref().filter(|reason| !tries_again(reason)).cloned())
}

struct Base<'a> {
    durable: &'a Durable,
    definition: Arc<Definition>,
    log: Arc<dyn Log>,
    tables: Arc<dyn Tables>,
    store: Arc<dyn ObjectStore>,
    files: CheckedStore,
}

impl Base<'_> {
    fn mender(&self) -> Mender {
        Mender::new(MenderParts {
            log: Arc::clone(&self.log),
            tables: Arc::clone(&self.tables),
            store: Arc::clone(&self.store),
            damage: Arc::new(self.files.clone()),
            names: Arc::clone(&self.durable.names),
            file_bytes: self.durable.settings.archive.file_size.as_u64(),
        })
    }

    fn replayer(&self, serving: &Arc<Serving>, gateway: &Arc<Gateway>) -> Result<Replayer> {
        let Durable { clock, names, settings, .. } = self.durable;
        let (tables, store) = (Arc::clone(&self.tables), Arc::clone(&self.store));
        Ok(Replayer {
            serving: Arc::clone(serving),
            ingest: Arc::clone(gateway) as _,
            imports: Arc::new(ImportTable::new(tables, store, Arc::clone(clock), Arc::clone(names))),
            limits: settings.limits()?,
            definition: Arc::clone(&self.definition),
            clock: Arc::clone(clock),
        })
    }

    fn gateway(&self) -> Result<Arc<Gateway>> {
        let Durable { clock, names, settings, .. } = self.durable;
        Ok(Gateway::on_one_thread(GatewayParts {
            log: Arc::clone(&self.log),
            router: settings.router(),
            definition: Arc::clone(&self.definition),
            limits: settings.limits()?,
            clock: Arc::clone(clock),
            names: Arc::clone(names),
            settings: settings.gateway.clone(),
        }))
    }

    async fn counter(&self) -> Result<Arc<Counter>> {
        let Durable { clock, names, settings, .. } = self.durable;
        let parts = CounterParts {
            log: Arc::clone(&self.log),
            partitions: (0..self.log.partitions()).collect(),
            tables: Arc::clone(&self.tables),
            store: Arc::clone(&self.store),
            definition: Arc::clone(&self.definition),
            clock: Arc::clone(clock),
            names: Arc::clone(names),
            settings: settings.stream.clone(),
            retention: settings.retention.clone(),
        };
        Counter::start(parts).await.context("the counter")
    }

    async fn archiver(&self) -> Result<Arc<Archiver>> {
        let Durable { clock, names, settings, .. } = self.durable;
        let parts = ArchiverParts {
            log: Arc::clone(&self.log),
            partitions: (0..self.log.partitions()).collect(),
            tables: Arc::clone(&self.tables),
            store: Arc::clone(&self.store),
            clock: Arc::clone(clock),
            names: Arc::clone(names),
            settings: settings.archive.clone(),
        };
        Archiver::start(parts).await.context("the archiver")
    }

    async fn serving(&self, counter: &Arc<Counter>) -> Result<Arc<Serving>> {
        let Durable { clock, settings, .. } = self.durable;
        let parts = ServingParts {
            tables: Arc::clone(&self.tables),
            store: Arc::clone(&self.store),
            tails: Arc::clone(counter) as _,
            log: self.log.identity(),
            definition: Arc::clone(&self.definition),
            settings: settings.serving.clone(),
            stream: settings.stream.clone(),
            clock: Arc::clone(clock),
        };
        Serving::start(parts).await.context("serving")
    }

    fn recompute(&self, counter: &Arc<Counter>, archiver: &Arc<Archiver>) -> Recompute {
        let Durable { clock, names, settings, scratch, .. } = self.durable;
        let followers: Vec<Arc<dyn Follower>> = vec![Arc::clone(counter) as _, Arc::clone(archiver) as _];
        Recompute::on_one_thread(RecomputeParts {
            cluster: None,
            damage: Arc::new(self.files.clone()),
            log: Arc::clone(&self.log),
            tables: Arc::clone(&self.tables),
            store: Arc::clone(&self.store),
            spill_dir: scratch.clone(),
            definition: Arc::clone(&self.definition),
            routing: settings.router().version(),
            clock: Arc::clone(clock),
            names: Arc::clone(names),
            settings: settings.batch.clone(),
            followers,
        })
    }

    fn maintainer(&self) -> MaintainerParts {
        let Durable { clock, names, settings, scratch, .. } = self.durable;
        MaintainerParts {
            tables: Arc::clone(&self.tables),
            store: Arc::clone(&self.store),
            cold: None,
            clock: Arc::clone(clock),
            names: Arc::clone(names),
            log: self.log.identity(),
            partitions: self.log.partitions(),
            archive: settings.archive.clone(),
            retention: settings.retention.clone(),
            compact: settings.batch.compact,
            memory: 64 << 20,
            spill_dir: Some(scratch.clone()),
        }
    }
}
