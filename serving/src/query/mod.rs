//! The questions that REST, SQL and the command line share, and their answers.
//!
//! [`types`] are questions and answers; [`gather`] asks the stream layer for the complement of a batch view
//! and starts again with a newer view when that is gone; [`count`], [`stats`] and [`top`] are answered from
//! index and tails, [`events`] (filters on columns that are no dimension), [`locate`] and [`dead`] from the
//! tables by SQL of our own. [`live`] is what live views follow, [`graves`] dead letters at a glance. [`many`] answers several functions
//! of many entities at once, and the period before, from one view, [`ranked`] lists entities by any function, [`named`] are filters that
//! were added while Reckon was running, and [`cache`] keeps sums of batch. [`past`] answers as of an older version of batch, [`why`] says how a count came about,
//! [`stages`] follows a copy of an event through the layers. [`sealed`] tells by which definitions the newest segments were
//! counted.

mod as_of;
mod asks;
mod cache;
mod change;
mod count;
mod dead;
mod events;
pub(crate) mod gather;
mod graves;
mod leaders;
mod live;
mod locate;
mod many;
mod many_raw;
pub mod named;
mod past;
mod ranked;
mod rows;
mod sealed;
mod stages;
mod stats;
mod status;
mod top;
mod top_channels;
pub mod types;
pub mod why;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use object_store::ObjectStore;
use reckon_data::clock::Clock;
use reckon_data::config::{Counting, Serving as Settings};
use reckon_data::definition::Definition;
use reckon_data::filter::Filter;
use reckon_data::kept::{Needs, Versions};
use reckon_data::log::Log;
use reckon_data::metric::Function;
use reckon_data::run::{DimCondition, Dimension, Selection, StepSums};
use reckon_data::table::Tables;
use reckon_data::tail::Tails;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::ServingError;
use crate::entities::Entities;
use crate::index::Index;
use crate::index::load::{Columns, Files};
use crate::index::segments::Segments;
use crate::index::warm::next_hour;
use crate::metrics::Metrics;
use crate::sql::Engine;
use crate::sql::catalogue::Catalogue;
use crate::view::{BatchView, Current, Patience, Snapshots};

pub use as_of::AsOf;
pub use change::Change;
pub use dead::{DeadLetterRow, DeadLettersAnswer, DeadLettersQuery, Place};
pub use graves::{Graves, Newest, Reason};
pub use live::{Behind, PartsAnswer, PartsPoint, PartsQuery};
pub use many::{ManyAnswer, ManyEntity, ManyPoint, ManyQuery, Values};
pub use named::{NamedFilter, NamedFilters};
pub use ranked::{RankedAnswer, RankedEntity, RankedQuery};
pub use stages::{BatchStage, GatewayStage, Kept, LogStage, RawStage, SegmentRange, Stages, StreamStage, Streamed};
pub use status::{PartitionStatus, Status};
pub use top_channels::{ChannelCount, TopChannelsAnswer};
pub use types::{
    Archived, CountAnswer, CountQuery, EventCopy, LocateAnswer, StatsAnswer, StatsPoint, StatsQuery, Step, TopAnswer,
    TopEntity, TopQuery, Verdict, Window,
};
pub use why::{WhyAnswer, WhyQuery};

/// How often a new batch version is looked for.
const REFRESH_EVERY: Duration = Duration::from_millis(500);
/// Every so many times also names of filters: every ten seconds.
const NAMES_EVERY: u32 = 20;

/// What the serving layer is made of.
#[derive(Debug, Clone)]
pub struct ServingParts {
    /// The tables.
    pub tables: Arc<dyn Tables>,
    /// Where their files lie, rooted at the tables' folder ([`reckon_tables::Storage::store`]).
    pub store: Arc<dyn ObjectStore>,
    /// The stream layer.
    pub tails: Arc<dyn Tails>,
    /// The log's identity.
    pub log: Uuid,
    /// What is counted.
    pub definition: Arc<Definition>,
    /// The serving layer's settings.
    pub settings: Settings,
    /// The counter's, for lateness and idleness.
    pub stream: Counting,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// The serving layer.
#[derive(Debug)]
pub struct Serving {
    pub(crate) parts: ServingParts,
    pub(crate) current: Current,
    pub(crate) snapshots: Snapshots,
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) engine: Engine,
    /// What PostgreSQL's clients are told of the tables.
    pub(crate) catalogue: Catalogue,
    pub(crate) metrics: Metrics,
    /// Sums of batch that were added up before.
    pub(crate) sums: cache::SumCache,
    /// What definitions of older counts kept.
    versions: Versions,
    /// Filters that were added while Reckon was running.
    named: OnceLock<Arc<NamedFilters>>,
    /// Older versions of batch.
    pub(crate) older: past::PastViews,
    /// The log, where this process has it.
    events_log: OnceLock<Arc<dyn Log>>,
    /// What is known of entities, where this process has that.
    entities: OnceLock<Arc<Entities>>,
    /// Top lists at once: each may hold a count for every entity.
    pub(crate) top_turns: Semaphore,
    watcher: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl Serving {
    /// Opens the tables and watches them for new batch versions until [`Serving::stop`], or until it is dropped.
    ///
    /// # Errors
    /// When the tables cannot be read, or a setting cannot be met.
    pub async fn start(parts: ServingParts) -> Result<Arc<Self>, ServingError> {
        let current = Current::open(Arc::clone(&parts.tables), Arc::clone(&parts.tails), parts.log).await?;
        let files = Files::new(Arc::clone(&parts.store), parts.definition.dimensions.clone().into());
        let serving = Arc::new(Self {
            current,
            snapshots: Snapshots::new(Arc::clone(&parts.tables)),
            index: Index::new(files, parts.settings.index_memory.as_u64())?,
            segments: Segments::default(),
            engine: Engine::new(&parts.settings)?,
            catalogue: Catalogue::default(),
            metrics: Metrics::default(),
            sums: cache::SumCache::new(parts.settings.cache_memory.as_u64())?,
            versions: Versions::new(parts.definition.lateness_micros()),
            named: OnceLock::new(),
            older: past::PastViews::default(),
            events_log: OnceLock::new(),
            entities: OnceLock::new(),
            top_turns: Semaphore::new(parts.settings.queries.max(1)),
            watcher: parking_lot::Mutex::new(None),
            parts,
        });
        let watched = Arc::downgrade(&serving);
        *serving.watcher.lock() = Some(tokio::spawn(watch(watched)));
        Ok(serving)
    }

    /// Stops watching the tables; questions are still answered, from the view as it is.
    pub fn stop(&self) {
        if let Some(watcher) = self.watcher.lock().take() {
            watcher.abort();
        }
        if let Some(entities) = self.entities.get() {
            entities.stop();
        }
    }

    /// Says which log the events come from: [`Serving::locate`] tells then whether it still holds them. Once is enough.
    pub fn follow_log(&self, log: Arc<dyn Log>) {
        // A second one would be the same.
        let _ = self.events_log.set(log);
    }

    /// Gives it what is known of entities: top lists, SQL and REST have it from then on. Once is enough.
    pub fn know_entities(&self, entities: Arc<Entities>) {
        // A second one would be the same.
        let _ = self.entities.set(entities);
    }

    /// What is known of entities; none where this process has nothing of that.
    #[must_use]
    pub fn entities(&self) -> Option<&Arc<Entities>> {
        self.entities.get()
    }

    /// Looks for a new batch version now, after a run say, and returns when answers come from it.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn refresh(&self) -> Result<(), ServingError> {
        let before = self.current.get().version;
        let now = self.parts.clock.now();
        let warm = |view: Arc<BatchView>| async move { self.index.warm(&view, Some(&self.current.get()), now).await };
        let view = self.current.refresh(warm).await?;
        if view.version != before {
            self.index.forget(&view);
        }
        Ok(())
    }

    /// As [`Serving::refresh`], at once: the index is loaded as questions come.
    pub(crate) async fn refresh_now(&self) -> Result<Arc<BatchView>, ServingError> {
        self.current.refresh(|_| async {}).await
    }

    /// What is counted.
    #[must_use]
    pub fn definition(&self) -> &Arc<Definition> {
        &self.parts.definition
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    /// Counters of questions and their times.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Bytes that the index holds.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        self.index.memory_bytes()
    }

    /// Says where filters are that were added while Reckon was running. Once is enough.
    pub fn name_filters(&self, named: Arc<NamedFilters>) {
        // A second one would be the same.
        let _ = self.named.set(named);
    }

    /// Filters that were added while Reckon was running, where this process can name some.
    #[must_use]
    pub fn named(&self) -> Option<&Arc<NamedFilters>> {
        self.named.get()
    }

    /// Sums of batch that were found in the cache, that were not, and bytes that it holds.
    #[must_use]
    pub fn cache_counts(&self) -> (u64, u64, u64) {
        self.sums.counts()
    }

    /// The filter that a request means: a filter's id from the configuration, one that was added, or `column:value`.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`] of `filter` when it is neither.
    pub fn filter(&self, text: &str) -> Result<Filter, ServingError> {
        if let Some(filter) = self.parts.definition.filters.get(text) {
            return Ok(filter.clone());
        }
        if let Some(filter) = self.named.get().and_then(|named| named.get(text)) {
            return Ok(filter);
        }
        if !text.contains(':') {
            return Err(ServingError::bad(
                "filter",
                format!("{text:?} is no filter's id and no column:value; GET /v1/filters lists the filters"),
            ));
        }
        Filter::column_value(text).map_err(|error| ServingError::bad("filter", error.to_string()))
    }

    /// The conditions that a filter is on the dimensions; none when one of its columns is no dimension.
    pub(crate) fn conditions(&self, filter: Option<&Filter>) -> Option<Vec<DimCondition>> {
        let conditions = filter.map_or(&[][..], |filter| &filter.conditions);
        let condition = |condition: &reckon_data::filter::Condition| {
            let index = self.parts.definition.dimension_index(condition.column)?;
            let accepted = condition.accepted.iter().map(|value| value.as_deref().map(Arc::from)).collect();
            Some(DimCondition { index, accepted, negated: false })
        };
        conditions.iter().map(condition).collect()
    }

    /// Adds what batch has counted of `selection`; values only when `function` needs them.
    pub(crate) async fn batch_sums(
        &self,
        view: &BatchView,
        selection: &Selection<'_>,
        function: Function,
    ) -> Result<StepSums, ServingError> {
        let columns = if function == Function::Count { Columns::Counts } else { Columns::All };
        let add_up = async {
            let mut sums = StepSums::new();
            Box::pin(self.index.sum(view, selection, columns, &mut sums)).await?;
            Ok(sums)
        };
        self.sums.get_or(view, selection, columns, add_up).await
    }

    /// Whether the counts that a view has of a window hold what a question needs. Those that another definition made may
    /// not have a dimension or an aggregate at all: added up, they would be too small and look whole.
    pub(crate) fn holds(&self, view: &BatchView, window: Window, needs: &Needs) -> bool {
        let own = self.parts.definition.version();
        let held = || view.definitions_within(window.dates());
        needs.is_nothing() || held().iter().all(|version| *version == own || self.versions.answers(*version, needs))
    }

    /// Whether counts of this version have no dimension but those that are kept now.
    pub(crate) fn keeps_all_of(&self, version: u64) -> bool {
        let own = &self.parts.definition;
        let is_kept = |dimension: &Dimension| own.dimensions.contains(dimension);
        version == own.version() || self.versions.kept(version).is_some_and(|kept| kept.dimensions.iter().all(is_kept))
    }

    pub(crate) const fn patience(&self) -> Patience {
        Patience { lateness: self.parts.stream.lateness, idle: self.parts.stream.idle }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Serving {
    async fn refresh_names(&self) {
        if let Some(named) = self.named()
            && let Err(error) = named.refresh().await
        {
            tracing::debug!(%error, "looking for new names of filters");
        }
    }
}

/// Loads what is asked for most, and then looks for new versions; older dates are loaded beside that, for it may take long.
async fn watch(serving: Weak<Serving>) {
    if let Some(serving) = serving.upgrade() {
        serving.index.warm(&serving.current.get(), None, serving.parts.clock.now()).await;
    }
    tokio::join!(Box::pin(look(serving.clone())), Box::pin(warm_older(serving)));
}

async fn look(serving: Weak<Serving>) {
    let (mut failing, mut fetched, mut rounds) = (false, None, 0_u32);
    loop {
        tokio::time::sleep(REFRESH_EVERY).await;
        let Some(serving) = serving.upgrade() else { return };
        let failed = serving.refresh().await.err();
        if let Some(error) = failed.as_ref().filter(|_| !failing) {
            tracing::warn!(%error, "looking for a new batch version");
        }
        failing = failed.is_some();
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(NAMES_EVERY) {
            serving.refresh_names().await;
        }
        let now = serving.parts.clock.now();
        if fetched.replace(next_hour(now)) != Some(next_hour(now)) {
            serving.index.prefetch(&serving.current.get(), now).await;
        }
    }
}

async fn warm_older(serving: Weak<Serving>) {
    let mut warmed = None;
    loop {
        tokio::time::sleep(REFRESH_EVERY).await;
        let Some(serving) = serving.upgrade() else { return };
        let view = serving.current.get();
        if warmed.replace(view.version) != Some(view.version) {
            serving.index.warm_older(&view).await;
        }
    }
}

#[cfg(test)]
mod tests;
