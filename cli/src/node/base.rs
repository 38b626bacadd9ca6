//! What every part of a process is made with, and how each is made.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use reckon_ballista::BallistaCluster;
use reckon_batch::archive::{Archiver, ArchiverParts};
use reckon_batch::maintain::MaintainerParts;
use reckon_batch::mend::{Mender, MenderParts};
use reckon_batch::recompute::{Cluster, Recompute, RecomputeParts};
use reckon_batch::runs::{AfterRun, BatchRuns};
use reckon_data::clock::{Clock, Names};
use reckon_data::config::{Batch, Settings};
use reckon_data::definition::Definition;
use reckon_data::jobs::Follower;
use reckon_data::log::Log;
use reckon_data::table::Tables;
use reckon_data::tail::Tails;
use reckon_serving::entities::{Entities, EntitiesParts, Rules};
use reckon_serving::query::NamedFilters;
use reckon_serving::rest::{Health, Listens, RestParts};
use reckon_serving::{Serving, ServingParts};
use reckon_stream::counter::{Counter, CounterParts};
use reckon_stream::gateway::{Gateway, GatewayParts};
use reckon_tables::{DeltaTables, ImportTable, MendedLog, Storage};

use super::canary;
use super::home::{claim, open_log};

/// The folder of the data directory in which named filters lie.
const FILTERS: &str = "filters";
/// The folder of what is known of entities, in the data directory.
const ENTITIES_FOLDER: &str = "entities";
/// The folder of this machine's store that follows it: another one, for both may lie in the same place.
const REPLICA_FOLDER: [&str; 2] = ["replica", "entities"];

/// What every part is made with.
pub struct Base {
    pub settings: Settings,
    pub definition: Arc<Definition>,
    pub clock: Arc<dyn Clock>,
    pub names: Arc<dyn Names>,
    pub mended: Arc<MendedLog>,
    pub delta: DeltaTables,
    pub tables: Arc<dyn Tables>,
    pub storage: Storage,
    pub scratch: PathBuf,
    /// The folder of this machine for the records of entities.
    pub entities: PathBuf,
    /// What lets the canary's events in.
    pub canary_token: Arc<str>,
}

impl Base {
    pub async fn open(settings: Settings, dir: &Path, clock: Arc<dyn Clock>, names: Arc<dyn Names>) -> Result<Self> {
        let definition = Arc::new(settings.definition()?);
        let scratch = dir.join("scratch");
        empty_scratch(&scratch).with_context(|| format!("{} cannot be emptied", scratch.display()))?;
        let storage = Storage::open_with_cold(&settings.data_dir, &settings.retention.cold_url).await?;
        let delta = DeltaTables::new(storage.clone(), Arc::clone(&clock))?;
        let tables: Arc<dyn Tables> = Arc::new(delta.clone());
        let log = open_log(&settings, dir, &storage, &clock, names.as_ref()).await?;
        claim(&storage, &*tables, log.identity()).await?;
        let mended = Arc::new(MendedLog::new(log, Arc::clone(&tables), storage.store()));
        let canary_token = canary::token(&settings, names.as_ref());
        let entities = REPLICA_FOLDER.iter().fold(dir.to_owned(), |dir, name| dir.join(name));
        Ok(Self { definition, clock, names, mended, delta, tables, storage, scratch, entities, canary_token, settings })
    }

    pub fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.mended) as Arc<dyn Log>
    }

    pub fn gateway(&self) -> Result<Arc<Gateway>> {
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

    pub async fn counter(&self, partitions: BTreeSet<u32>) -> Result<Arc<Counter>> {
        let parts = CounterParts {
            log: self.log(),
            partitions,
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

    pub async fn archiver(&self, partitions: BTreeSet<u32>) -> Result<Arc<Archiver>> {
        let parts = ArchiverParts {
            log: self.log(),
            partitions,
            tables: Arc::clone(&self.tables),
            store: self.storage.store(),
            clock: Arc::clone(&self.clock),
            names: Arc::clone(&self.names),
            settings: self.settings.archive.clone(),
        };
        Archiver::start(parts).await.context("the archiver cannot start")
    }

    pub async fn serving(&self, tails: Arc<dyn Tails>) -> Result<Arc<Serving>> {
        let parts = ServingParts {
            tables: Arc::clone(&self.tables),
            store: self.storage.store(),
            tails,
            log: self.mended.identity(),
            definition: Arc::clone(&self.definition),
            settings: self.settings.serving.clone(),
            stream: self.settings.stream.clone(),
            clock: Arc::clone(&self.clock),
        };
        let serving = Serving::start(parts).await.context("the serving layer cannot start")?;
        serving.follow_log(self.log());
        let filters = self.storage.beside(FILTERS).context("the folder of named filters cannot be opened")?;
        let filters = NamedFilters::open(filters).await.context("the named filters cannot be read")?;
        serving.name_filters(Arc::new(filters));
        serving.know_entities(self.entities().await.context("the records of entities cannot be opened")?);
        Ok(serving)
    }

    /// What is known of entities.
    async fn entities(&self) -> Result<Arc<Entities>> {
        let parts = EntitiesParts {
            dir: self.entities.clone(),
            store: self.storage.beside(ENTITIES_FOLDER)?,
            rules: Rules {
                entity_id_bytes: self.settings.limits()?.entity_id_bytes,
                reserved_prefixes: self.definition.reserved_prefixes.clone(),
            },
            clock: Arc::clone(&self.clock),
            names: Arc::clone(&self.names),
        };
        Ok(Entities::start(parts).await?)
    }

    pub fn maintainer_parts(&self) -> MaintainerParts {
        MaintainerParts {
            tables: Arc::clone(&self.tables),
            store: self.storage.store(),
            cold: self.storage.cold().cloned(),
            clock: Arc::clone(&self.clock),
            names: Arc::clone(&self.names),
            log: self.mended.identity(),
            partitions: self.mended.partitions(),
            archive: self.settings.archive.clone(),
            retention: self.settings.retention.clone(),
            compact: self.settings.batch.compact,
            // It runs beside everything else and nobody waits for it: it may spill sooner than a batch run.
            memory: usize::try_from(self.settings.batch.memory.as_u64() / 4).unwrap_or(usize::MAX),
            spill_dir: Some(self.scratch.clone()),
        }
    }

    pub fn mender(&self) -> Mender {
        Mender::new(MenderParts {
            log: self.log(),
            tables: Arc::clone(&self.tables),
            store: self.storage.store(),
            damage: Arc::new(self.storage.clone()),
            names: Arc::clone(&self.names),
            file_bytes: self.settings.archive.file_size.as_u64(),
        })
    }

    pub fn runs(
        &self,
        followers: Vec<Arc<dyn Follower>>,
        mender: &Arc<Mender>,
        after: Option<AfterRun>,
    ) -> Result<Arc<BatchRuns>> {
        let recompute = Recompute::new(RecomputeParts {
            cluster: self.cluster(),
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
        let (clock, names) = (Arc::clone(&self.clock), Arc::clone(&self.names));
        Ok(Arc::new(BatchRuns::new(recompute, clock, names, Some(Arc::clone(mender)), after)))
    }

    /// The machines that count raw events, if the settings name their scheduler.
    fn cluster(&self) -> Option<Arc<dyn Cluster>> {
        let Batch { scheduler, scheduler_wait, scheduler_queries, .. } = &self.settings.batch;
        let cluster = || BallistaCluster::new(scheduler, self.storage.store(), *scheduler_wait, *scheduler_queries);
        (!scheduler.is_empty()).then(|| Arc::new(cluster()) as _)
    }

    pub fn imports(&self) -> Arc<ImportTable> {
        let (tables, store) = (Arc::clone(&self.tables), self.storage.store());
        Arc::new(ImportTable::new(tables, store, Arc::clone(&self.clock), Arc::clone(&self.names)))
    }

    /// What REST stands on, without any part.
    pub fn rest_parts(&self, health: Arc<dyn Health>) -> RestParts {
        RestParts {
            serving: None,
            ingest: None,
            jobs: None,
            audits: None,
            imports: None,
            replay: None,
            health,
            body_bytes_max: usize::try_from(self.settings.gateway.body_max.as_u64()).unwrap_or(usize::MAX),
            clock: Arc::clone(&self.clock),
            canary_token: Some(Arc::clone(&self.canary_token)),
            page: None,
            listens: Listens::default(),
        }
    }

    /// All partitions of the log.
    pub fn all(&self) -> BTreeSet<u32> {
        (0..self.mended.partitions()).collect()
    }
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
}
