//! Answers as of an older version of batch: what batch had counted then, and nothing of the stream.
//!
//! ```text
//! as_of ─history─▶ version ─▶ its files and coverage ─▶ index ─▶ answer, which says that it is not live
//! ```
//!
//! Such a view lies beside the live one. They share the index: it holds runs by the files that they are made of, and
//! files never change.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use reckon_data::filter::Filter;
use reckon_data::kept::Needs;
use reckon_data::metric::Function;
use reckon_data::minute::{MICROS_PER_MINUTE, format_time};
use reckon_data::offload::offload;
use reckon_data::run::{DimCondition, EntitySums, Selection};
use reckon_data::table::{Snapshot, Table, TableError, Version};

use super::Serving;
use super::as_of::AsOf;
use super::gather::{exact, exact_sum};
use super::leaders;
use super::stats::stats_answer;
use super::top::{check_n, top_selection};
use super::types::{CountAnswer, CountQuery, StatsAnswer, StatsQuery, TopAnswer, TopEntity, TopQuery, Window};
use crate::ServingError;
use crate::metrics::Question;
use crate::view::{AsOfVersion, BatchView, Part, Provenance, State};

/// Older versions that are held.
const VIEWS: usize = 32;
/// They are held so long: then their files are looked for once more, for vacuum may have taken them.
const HELD_MICROS: i64 = MICROS_PER_MINUTE;
/// So many versions are looked through first, and each time that is not enough, so many times as many.
const VERSIONS: usize = 64;
const VERSIONS_FACTOR: usize = 8;

/// An older version of batch, by itself.
#[derive(Debug)]
pub(crate) struct Past {
    /// Its counts and their coverage, without any stream.
    pub(crate) view: Arc<BatchView>,
    /// Which one it is.
    pub(crate) version: AsOfVersion,
}

/// Older versions of batch that were asked for lately.
#[derive(Debug)]
pub(crate) struct PastViews {
    views: Cache<u64, Held>,
    told: Mutex<Option<Told>>,
}

#[derive(Debug, Clone)]
struct Held {
    past: Arc<Past>,
    read_at: i64,
}

/// What the table's log tells, as of its newest version.
#[derive(Debug, Clone)]
struct Told {
    newest: u64,
    limit: usize,
    versions: Arc<Vec<Version>>,
}

impl Default for PastViews {
    fn default() -> Self {
        Self { views: Cache::new(VIEWS), told: Mutex::new(None) }
    }
}

impl Serving {
    /// As [`Serving::count`], of an older version of batch.
    ///
    /// # Errors
    /// As there, and [`ServingError::BadRequest`] of `as_of` when there is no such version, or no longer, or the
    /// question is none that counts answer.
    pub async fn count_as_of(&self, query: &CountQuery, as_of: AsOf) -> Result<CountAnswer, ServingError> {
        self.metrics.measure(Question::Count, self.count_past(query, as_of)).await
    }

    async fn count_past(&self, query: &CountQuery, as_of: AsOf) -> Result<CountAnswer, ServingError> {
        let window = Window::around(query.from, query.to)?;
        let conditions = self.past_conditions(query.filter.as_ref())?;
        let mut selection = Selection::all_of(&query.entity);
        selection.event_type = query.event_type.as_deref();
        selection.minutes = window.minutes();
        selection.conditions = Cow::Borrowed(&conditions);
        let past = self.past(as_of).await?;
        self.check_past(&past.view, window, &Needs::of(query.filter.as_ref(), &[]))?;
        let total = self.batch_sums(&past.view, &selection, Function::Count).await?.total();
        let count = exact(total.count)?;
        let provenance = self.past_provenance(&past, window, count).with_late(total.late);
        Ok(CountAnswer { count, batch: count, stream: 0, window, provenance })
    }

    /// As [`Serving::stats`], of an older version of batch.
    ///
    /// # Errors
    /// As [`Serving::count_as_of`].
    pub async fn stats_as_of(&self, query: &StatsQuery, as_of: AsOf) -> Result<StatsAnswer, ServingError> {
        self.metrics.measure(Question::Stats, self.stats_past(query, as_of)).await
    }

    async fn stats_past(&self, query: &StatsQuery, as_of: AsOf) -> Result<StatsAnswer, ServingError> {
        let window = Window::around(query.from, query.to)?;
        self.check_function(query.function)?;
        let conditions = self.past_conditions(query.filter.as_ref())?;
        let mut selection = Selection::all_of(&query.entity);
        selection.event_type = query.event_type.as_deref();
        selection.minutes = window.minutes();
        selection.step = Some(query.step.minutes());
        selection.conditions = Cow::Borrowed(&conditions);
        let past = self.past(as_of).await?;
        self.check_past(&past.view, window, &Needs::of(query.filter.as_ref(), &[query.function]))?;
        let sums = self.batch_sums(&past.view, &selection, query.function).await?;
        let provenance = self.past_provenance(&past, window, exact(sums.total().count)?);
        stats_answer(query, window, &sums, provenance)
    }

    /// As [`Serving::top`], of an older version of batch.
    ///
    /// # Errors
    /// As [`Serving::count_as_of`].
    pub async fn top_as_of(&self, query: &TopQuery, as_of: AsOf) -> Result<TopAnswer, ServingError> {
        self.metrics.measure(Question::Top, self.top_past(query, as_of)).await
    }

    async fn top_past(&self, query: &TopQuery, as_of: AsOf) -> Result<TopAnswer, ServingError> {
        let window = Window::around(query.from, query.to)?;
        check_n(query)?;
        let top = top_selection(self, query, window, self.past_conditions(query.filter.as_ref())?);
        let past = self.past(as_of).await?;
        self.check_past(&past.view, window, &Needs::of(query.filter.as_ref(), &[]))?;
        let _turn = self.top_turns.acquire().await.map_err(ServingError::internal)?;
        let n = query.n;
        let runs = self.index.runs(&past.view, &top.minutes).await?;
        let led = match runs {
            Some(runs) => leaders::list(runs.into_iter().map(leaders::Part::of_batch).collect(), &top, n).await?,
            None => None,
        };
        let listed = match led {
            Some(found) => found.into_iter().map(|leader| (leader.entity, leader.count)).collect(),
            None => {
                let sums = self.index.top(&past.view, &top, EntitySums::new()).await?;
                offload(move || sums.top(n)).await.map_err(ServingError::internal)?
            }
        };
        let entities = listed.into_iter().map(|(entity_id, count)| Ok(TopEntity { entity_id, count: exact(count)? }));
        let entities = entities.collect::<Result<Vec<_>, ServingError>>()?;
        let total = entities.iter().try_fold(0, |sum, entity| exact_sum(sum, entity.count))?;
        let provenance = self.past_provenance(&past, window, total);
        Ok(TopAnswer { entities, window, provenance })
    }

    pub(super) fn past_conditions(&self, filter: Option<&Filter>) -> Result<Vec<DimCondition>, ServingError> {
        let raw =
            "the filter names a column that is no dimension: it is answered from raw events, which have no version";
        self.conditions(filter).ok_or_else(|| ServingError::bad("as_of", raw))
    }

    /// Refuses a question that an older version does not hold the answer to.
    pub(super) fn check_past(&self, view: &BatchView, window: Window, needs: &Needs) -> Result<(), ServingError> {
        if self.holds(view, window, needs) {
            return Ok(());
        }
        let message =
            "that version was counted by a definition that lacks what is asked for, and raw events have no version";
        Err(ServingError::bad("as_of", message))
    }

    /// Where an answer from an older version comes from: it is whole as far as that version goes, and goes no further.
    pub(super) fn past_provenance(&self, past: &Past, window: Window, count: u64) -> Provenance {
        let coverage = (0_u32..).zip(&past.view.coverage);
        let parts: Vec<Part> = coverage.map(|(partition, at)| Part::standing(partition, *at)).collect();
        let asked = self.parts.clock.now();
        let mut provenance = self.provenance(&past.view, asked, &parts, Vec::new(), window, Some((count, 0)));
        provenance.watermark = None;
        provenance.state = State::Provisional;
        provenance.as_of = Some(past.version);
        provenance
    }

    /// An older version of batch.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`] of `as_of` when there is none, or no longer.
    pub(crate) async fn past(&self, as_of: AsOf) -> Result<Arc<Past>, ServingError> {
        let version = self.version_at(as_of).await?;
        self.past_at(version).await
    }

    pub(crate) async fn past_at(&self, version: AsOfVersion) -> Result<Arc<Past>, ServingError> {
        let now = self.parts.clock.now();
        let fresh = |held: &Held| (0..HELD_MICROS).contains(&now.saturating_sub(held.read_at));
        if let Some(held) = self.older.views.get(&version.version).filter(fresh) {
            return Ok(held.past);
        }
        let batch = self.parts.tables.snapshot_at(Table::BatchCounts, version.version).await.map_err(refused)?;
        let view = BatchView::new(&batch, Arc::new(no_stream()), self.parts.log, self.parts.tails.partitions())?;
        let past = Arc::new(Past { view: Arc::new(view), version });
        self.older.views.insert(version.version, Held { past: Arc::clone(&past), read_at: now });
        Ok(past)
    }

    /// The version that is meant. Whether its files are still there nobody has looked for yet.
    async fn version_at(&self, as_of: AsOf) -> Result<AsOfVersion, ServingError> {
        match as_of {
            AsOf::Version(version) => self.version_of(version).await,
            AsOf::Time(micros) => self.version_by(micros).await,
        }
    }

    async fn version_of(&self, version: u64) -> Result<AsOfVersion, ServingError> {
        let newest = self.parts.tables.version(Table::BatchCounts).await?;
        if version > newest {
            let message = format!("there is no version {version} of batch_counts yet: the newest is {newest}");
            return Err(ServingError::bad("as_of", message));
        }
        // Without an entry the table may have it all the same.
        let told = self.parts.tables.entry(Table::BatchCounts, version).await?;
        Ok(AsOfVersion { version, committed_at: told.map(|told| told.committed_at) })
    }

    /// The newest version that was committed at a time or before.
    async fn version_by(&self, micros: i64) -> Result<AsOfVersion, ServingError> {
        let mut limit = VERSIONS;
        loop {
            let versions = self.versions(limit).await?;
            if let Some(found) = versions.iter().find(|version| version.committed_at <= micros) {
                return Ok(AsOfVersion { version: found.version, committed_at: Some(found.committed_at) });
            }
            if versions.len() < limit {
                return Err(untold(micros, versions.last()));
            }
            limit = limit.saturating_mul(VERSIONS_FACTOR);
        }
    }

    /// The newest versions of `batch_counts`, the newest first: at least `limit`, or all that its log tells of.
    pub(crate) async fn versions(&self, limit: usize) -> Result<Arc<Vec<Version>>, ServingError> {
        let newest = self.parts.tables.version(Table::BatchCounts).await?;
        let told = self.older.told.lock().clone();
        if let Some(told) = told.filter(|told| told.newest == newest && told.limit >= limit) {
            return Ok(told.versions);
        }
        let versions = Arc::new(self.parts.tables.history(Table::BatchCounts, limit).await?);
        *self.older.told.lock() = Some(Told { newest, limit, versions: Arc::clone(&versions) });
        Ok(versions)
    }
}

/// What is said of a time before all versions that the table's log tells of; `oldest` is the last of them.
fn untold(micros: i64, oldest: Option<&Version>) -> ServingError {
    let Some(oldest) = oldest else {
        return ServingError::unavailable("the log of batch_counts tells of no version");
    };
    let (time, number) = (format_time(micros), oldest.version);
    let message = format!(
        "no version that was committed by {time} is still there: the oldest one told of is {number}, of {}",
        format_time(oldest.committed_at)
    );
    ServingError::bad("as_of", message)
}

fn refused(error: TableError) -> ServingError {
    match error {
        TableError::NoVersion { .. } => ServingError::bad("as_of", error.to_string()),
        other => other.into(),
    }
}

/// What an older version needs of the stream: nothing.
fn no_stream() -> Snapshot {
    Snapshot { table: Table::StreamCounts, version: 0, files: Arc::default(), transactions: BTreeMap::new() }
}

#[cfg(test)]
mod tests;
