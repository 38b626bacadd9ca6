//! The recount of one date.
//!
//! ```text
//! key_hash ──▶ hashes that repeat                                     repeats.rs
//!                    │
//! events ──others────┼──▶ chunks, grouped ──▶ sorted runs ┐           scope.rs, sorter.rs
//!        ──repeated──┴──▶ first of each key ──▶ sorted runs ├─merge──▶ minute, hour, day files    fold.rs
//! rows of before (entities, closed) ───────▶ sorted runs ┘
//! ```
//!
//! With a [`Cluster`] other machines do the upper half, and what they return is sorted into runs here: elsewhere.rs.
//!
//! Chunks are counted side by side, each on one thread, and only runs on the disk grow with the date. All
//! that is added up here is added in any order with the same result, and rows are written in the order of
//! their columns, so the same raw events make the same rows (R-5).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use reckon_data::clock::Names;
use reckon_data::definition::Definition;
use reckon_data::invariant::{EXACT_MERGE, SAME_ROWS};
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table};
use reckon_tables::provider::{Piece, PinnedTable};
use reckon_tables::schema::file_schema;

use super::cluster::Cluster;
use super::elsewhere::Elsewhere;
use super::engine::Engine;
use super::error::BatchError;
use super::fold::{Folded, fold};
use super::functions;
use super::merge::{Entities, split};
use super::output::Target;
use super::repeats::{Found, find};
use super::scope::{Scope, Source, counts_sql, existing_sql, firsts_sql, hashes_sql};
use super::sorter::Sorter;
use super::spill::{SortedRun, SpillDir};

/// Rows from which on the merge is shared out among the threads.
const SHARED_MERGE_ROWS: u64 = 256 * 1024;

/// A date to be recounted.
#[derive(Debug)]
pub struct DateJob {
    /// The date, days since 1970.
    pub date: i32,
    /// Its raw events.
    pub source: Source,
    /// The files of before whose rows are kept or added to: those of the finest granularity that the date has.
    pub existing: Vec<DataFile>,
    /// The finest granularity that is written.
    pub finest: Granularity,
    /// What is counted.
    pub definition: Arc<Definition>,
    /// Names for files.
    pub names: Arc<dyn Names>,
    /// The run's temporary files.
    pub spill: Arc<SpillDir>,
    /// Who counts the raw events; none is this engine.
    pub cluster: Option<Arc<dyn Cluster>>,
}

/// Raw events, counted.
#[derive(Debug)]
pub struct Counted {
    /// How many were read.
    pub rows: u64,
    /// Their counts.
    pub runs: Vec<SortedRun>,
}

/// What a date has come to.
#[derive(Debug, Default)]
pub struct Recounted {
    /// Its files, stored but not committed.
    pub files: Vec<DataFile>,
    /// Events read.
    pub events: u64,
    /// Repeats among them.
    pub duplicates: u64,
    /// Events that all rows of a granularity count together.
    pub counted: u64,
}

impl DateJob {
    /// Events that the date's files hold, as far as they may be read.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.source.relevant().iter().map(|file| file.rows).sum()
    }

    /// Whether it has neither raw events nor rows to keep: nothing is left of it.
    fn is_empty(&self) -> bool {
        self.existing.is_empty() && self.source.relevant().is_empty()
    }

    /// How many steps [`DateJob::run`] reports.
    #[must_use]
    pub fn steps(&self, engine: &Engine) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let counting = match self.elsewhere(engine) {
            Some(elsewhere) => elsewhere.steps(),
            None => self.source.chunks(engine.chunk_rows).len() as u64 + 1,
        };
        counting + 2
    }

    /// Counts the date and writes its files. `step` is called after every step with the events read in it.
    ///
    /// # Errors
    /// When something cannot be read or written, or numbers don't add up.
    pub async fn run(&self, engine: &Engine, step: &(dyn Fn(u64) + Send + Sync)) -> Result<Recounted, BatchError> {
        if self.is_empty() {
            return Ok(Recounted::default());
        }
        let Counted { rows, mut runs } = match self.elsewhere(engine) {
            Some(elsewhere) => elsewhere.count(step).await?,
            None => self.count_here(engine, step).await?,
        };
        step(0);
        let counted: u64 = runs.iter().map(|run| run.events).sum();
        if !self.existing.is_empty() {
            runs.extend(self.kept(engine).await?);
        }
        let folded = self.fold(engine, runs).await?;
        step(0);
        let duplicates = rows
            .checked_sub(counted)
            .ok_or_else(|| BatchError::Broken(format!("{counted} of {rows} events were counted")))?;
        Ok(Recounted { files: folded.files, events: rows, duplicates, counted: folded.events })
    }

    /// Whether other machines count it.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.cluster.is_some() && !matches!(self.source.scope, Scope::Entities(_))
    }

    /// How many dates like it may be counted side by side.
    #[must_use]
    pub fn at_once(&self, engine: &Engine) -> usize {
        self.elsewhere(engine).map_or(engine.parallel, |elsewhere| elsewhere.cluster.queries_at_once()).max(1)
    }

    /// The events of a few entities are quickly found here, and their names would have to go with the query.
    fn elsewhere<'a>(&'a self, engine: &'a Engine) -> Option<Elsewhere<'a>> {
        let cluster = self.cluster.as_ref().filter(|_| self.is_elsewhere())?;
        Some(Elsewhere { job: self, engine, cluster })
    }

    async fn count_here(&self, engine: &Engine, step: &(dyn Fn(u64) + Send + Sync)) -> Result<Counted, BatchError> {
        let found = self.find_repeats(engine).await?;
        step(0);
        let mut runs = self.unique(engine, &found, step).await?;
        let unique: u64 = runs.iter().map(|run| run.events).sum();
        if let Some(repeated) = found.repeated.rows()
            && !SAME_ROWS.holds(unique + repeated == found.rows)
        {
            let (date, rows) = (self.date, found.rows);
            return Err(BatchError::Broken(format!("date {date}: {unique} + {repeated} events were read, not {rows}")));
        }
        if !found.repeated.is_empty() {
            runs.extend(self.firsts(engine, &found).await?);
        }
        Ok(Counted { rows: found.rows, runs })
    }

    async fn find_repeats(&self, engine: &Engine) -> Result<Found, BatchError> {
        let pieces: Vec<Piece> = self.source.relevant().into_iter().map(Piece::from).collect();
        let session = engine.session(engine.parallel, true);
        let sql = hashes_sql(&self.source.filters(&pieces));
        self.source.register(&session, pieces, None)?;
        find(engine, &session, &sql, self.rows()).await
    }

    /// Runs of the events whose hash nobody else has.
    async fn unique(
        &self,
        engine: &Engine,
        found: &Found,
        step: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Vec<SortedRun>, BatchError> {
        let chunks = self.source.chunks(engine.chunk_rows);
        let sorter = self.sorter(engine, chunks.len() > 1);
        // Decoding late pays where few rows are left.
        let decode_late = matches!(self.source.scope, Scope::Entities(_));
        let read = AtomicU64::new(0);
        let tasks = chunks.into_iter().map(|pieces| {
            let (engine, source, sorter) = (engine.clone(), self.source.clone(), sorter.clone());
            let (definition, repeated) = (Arc::clone(&self.definition), Arc::clone(&found.repeated));
            let task = engine.clone().spawn(async move {
                let mut filters = source.filters(&pieces);
                if !repeated.is_empty() {
                    filters.push("NOT repeated(key_hash)".to_owned());
                }
                let session = engine.session(1, decode_late);
                source.register(&session, pieces, Some(&repeated))?;
                let counts = session.sql(&counts_sql(&definition, &filters)).await?;
                sorter.sort(counts.execute_stream().await?).await
            });
            let read = &read;
            async move {
                let runs = task.await?;
                let events = runs.iter().map(|run| run.events).sum();
                read.fetch_add(events, Ordering::Relaxed);
                step(events);
                Ok::<_, BatchError>(runs)
            }
        });
        let runs: Vec<Vec<SortedRun>> =
            futures::stream::iter(tasks).buffered(engine.parallel.max(1)).try_collect().await?;
        Ok(runs.into_iter().flatten().collect())
    }

    /// Runs of the events that are the first with their key, of those whose hash is not alone.
    async fn firsts(&self, engine: &Engine, found: &Found) -> Result<Vec<SortedRun>, BatchError> {
        let pieces: Vec<Piece> = self.source.relevant().into_iter().map(Piece::from).collect();
        let session = engine.session(engine.parallel, true);
        let mut filters = self.source.filters(&pieces);
        filters.push("repeated(key_hash)".to_owned());
        self.source.register(&session, pieces, Some(&found.repeated))?;
        let sql = firsts_sql(&self.definition, &filters);
        let spilled = found.repeated.rows().is_none_or(|rows| rows > engine.chunk_rows as u64);
        let sorter = self.sorter(engine, spilled);
        let _turn = engine.sorting.acquire().await.map_err(|error| BatchError::Stopped(error.to_string()))?;
        engine.spawn(async move { sorter.sort(session.sql(&sql).await?.execute_stream().await?).await }).await
    }

    /// Runs of the rows of before that stay, or are added to.
    async fn kept(&self, engine: &Engine) -> Result<Vec<SortedRun>, BatchError> {
        let rows: u64 = self.existing.iter().map(|file| file.rows).sum();
        let session = engine.session(1, false);
        let store = Arc::clone(&self.source.store);
        let schema = file_schema(Table::BatchCounts);
        let table = PinnedTable::new(store, Table::BatchCounts, self.existing.clone(), schema)?;
        session.register_table("counts", Arc::new(table))?;
        session.register_udf(functions::minute_of());
        if let Scope::Entities(entities) = &self.source.scope {
            session.register_udf(functions::touched(Arc::clone(entities)));
        }
        let sql = existing_sql(&self.source.scope);
        let sorter = self.sorter(engine, rows > engine.chunk_rows as u64);
        engine.spawn(async move { sorter.sort(session.sql(&sql).await?.execute_stream().await?).await }).await
    }

    async fn fold(&self, engine: &Engine, runs: Vec<SortedRun>) -> Result<Folded, BatchError> {
        let rows: u64 = runs.iter().map(|run| run.rows).sum();
        let events: u64 = runs.iter().map(|run| run.events).sum();
        let ranges = if rows < SHARED_MERGE_ROWS {
            vec![Entities::default()]
        } else {
            split(&runs, engine.parallel, &self.definition.reserved_prefixes)
        };
        let (runs, definition) = (Arc::new(runs), self.definition.version());
        let tasks = ranges.into_iter().map(|range| {
            let (store, names) = (Arc::clone(&self.source.store), Arc::clone(&self.names));
            let target = Target { store, names, date: self.date, finest: self.finest };
            let runs = Arc::clone(&runs);
            engine.spawn_busy(async move { Box::pin(fold(&runs, range, &target, definition)).await })
        });
        let mut all = Folded::default();
        for part in try_join_all(tasks).await? {
            all.files.extend(part.files);
            all.events += part.events;
        }
        if !EXACT_MERGE.holds(all.events == events) {
            let found = all.events;
            return Err(BatchError::Broken(format!("the merge has {found} events where its runs have {events}")));
        }
        Ok(all)
    }

    /// Makes runs of counts, on the disk or in memory.
    pub fn sorter(&self, engine: &Engine, spilled: bool) -> Sorter {
        let dir = spilled.then(|| Arc::clone(&self.spill));
        Sorter { rows: engine.chunk_rows, dir, definition: self.definition.version() }
    }
}
