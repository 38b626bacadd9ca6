//! SQL over one immutable view, with DataFusion: read-only, within limits of time, memory and rows.
//!
//! ```text
//! stats = batch_counts (minute) ∪ stream runs ──group by (entity, type, minute, dimensions)──▶ metrics
//! ```
//!
//! [`engine`] runs queries on threads of their own, [`guard`] refuses what writes, [`stream`] is the stream
//! layer's runs as a table (what it no longer holds in memory is read from `stream_counts`), [`stats`] the merged tables, [`collapse`] adds them up in one step, [`functions`] the exact
//! average and the sketches, [`gone`] the dates that are rolled up, [`reserved`] leaves Reckon's own entities out, [`samples`] the process's own metrics,
//! [`render`] writes answers as JSON and Arrow IPC.

pub mod collapse;
pub mod engine;
pub mod functions;
pub mod gone;
pub mod guard;
pub mod render;
pub mod reserved;
pub mod samples;
pub mod stats;
pub mod stream;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::prelude::SessionContext;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Snapshot, Table};
use reckon_tables::provider::PinnedTable;
use reckon_tables::schema::file_schema;

use crate::ServingError;
use crate::index::segments::Chunk;
use crate::metrics::Question;
use crate::query::gather::StreamRuns;
use crate::query::{Archived, AsOf, Serving, Window};
use crate::view::{AsOfVersion, BatchView, Missing, Part, Provenance, Source};

pub use engine::Engine;
pub use render::Form;
pub use samples::Samples;

use gone::{GoneTable, Noted};
use reserved::Hidden;

/// The answer to a query.
#[derive(Debug, Clone)]
pub struct SqlAnswer {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: Vec<RecordBatch>,
    /// Whether there were more rows than an answer may have.
    pub truncated: bool,
    /// Where it comes from; nobody can tell its batch and stream parts.
    pub provenance: Provenance,
}

impl SqlAnswer {
    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Longest text of a query, in bytes.
pub const QUERY_BYTES_MAX: usize = 1 << 20;

/// Tables that no older version of batch goes with.
const UNVERSIONED: [&str; 5] = ["events", "dead_letters", "audit_runs", "audit_findings", samples::METRICS];
/// Tables of events: what is lost or missing of these is missing from an answer that reads one of them.
const OF_EVENTS: [&str; 7] =
    ["stats", "stats_hour", "stats_day", "stats_batch", "stats_stream", "events", "dead_letters"];

/// What one query reads, pinned.
pub(crate) struct Pinned {
    view: Arc<BatchView>,
    stream: StreamRuns,
    events: Option<Arc<Snapshot>>,
    dead: Option<Arc<Snapshot>>,
    audit_runs: Option<Arc<Snapshot>>,
    audit_findings: Option<Arc<Snapshot>>,
    /// How far the raw tables go, if one of them is read.
    archived: Vec<Archived>,
    missing: Vec<Missing>,
    /// Dates that the query could have had rows of, and that its tables have none of; known once it is planned.
    gone: Noted,
    /// The older version that it is, if one was asked for.
    as_of: Option<AsOfVersion>,
    /// Whether it reads any of [`OF_EVENTS`].
    of_events: bool,
}

/// What goes with a query.
#[derive(Clone, Copy, Default)]
pub struct SqlOptions<'a> {
    /// An older version of batch, instead of what is counted now.
    pub as_of: Option<AsOf>,
    /// What the table `metrics` shows.
    pub samples: Option<&'a dyn Samples>,
}

impl Serving {
    /// Answers an SQL query over `stats`, `stats_hour`, `stats_day`, `stats_batch`, `stats_stream`, `events`,
    /// `dead_letters`, `audit_runs` and `audit_findings`. The table `metrics` is empty: see [`Serving::sql_as`].
    /// Entities that are Reckon's own are left out unless the query names them ([`reserved`]).
    ///
    /// # Errors
    /// [`ServingError::BadRequest`] of `query` when it is wrong or writes, [`ServingError::Timeout`],
    /// [`ServingError::MemoryLimit`], and when too many run already.
    pub async fn sql(&self, query: &str) -> Result<SqlAnswer, ServingError> {
        self.metrics.measure(Question::Sql, self.ask(query, SqlOptions::default(), |answer, _| Ok(answer))).await
    }

    /// As [`Serving::sql`], the answer as it is sent: also made on the threads and within the limits of queries. The
    /// table `metrics` has what `samples` says ([`samples`]). Of an older version of batch `stats` and its kin hold what
    /// batch had counted then, `stats_stream` is empty, and all other tables, which have no version that would fit, are
    /// refused.
    ///
    /// # Errors
    /// As there, [`ServingError::BadRequest`] of `as_of`, and [`ServingError::MemoryLimit`] when the answer is too long.
    pub async fn sql_as(&self, query: &str, options: SqlOptions<'_>, form: Form) -> Result<Vec<u8>, ServingError> {
        let render = move |answer: SqlAnswer, most| answer.render(form, most);
        self.metrics.measure(Question::Sql, self.ask(query, options, render)).await
    }

    /// As [`Serving::sql`], of an older version of batch.
    #[cfg(test)]
    pub(crate) async fn sql_as_of(&self, query: &str, as_of: AsOf) -> Result<SqlAnswer, ServingError> {
        let options = SqlOptions { as_of: Some(as_of), ..SqlOptions::default() };
        self.ask(query, options, |answer, _| Ok(answer)).await
    }

    /// Answers a query; `finish` is told how many bytes an answer may have.
    async fn ask<T: Send + 'static>(
        &self,
        query: &str,
        options: SqlOptions<'_>,
        finish: impl FnOnce(SqlAnswer, usize) -> Result<T, ServingError> + Send + 'static,
    ) -> Result<T, ServingError> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(ServingError::bad(
                "query",
                format!("it has {} bytes, the limit is {QUERY_BYTES_MAX}", query.len()),
            ));
        }
        let turn = self.engine.turn().await?;
        let context = self.engine.context()?;
        let statement = guard::parse(&context, query)?;
        let names = guard::tables(&context, &statement)?;
        let SqlOptions { as_of, samples } = options;
        let pinned = match as_of {
            None => self.pin(&names).await?,
            Some(as_of) => self.pin_past(&names, as_of).await?,
        };
        let (mut provenance, gone) = (self.provenance_of(&pinned), pinned.gone.clone());
        let hidden = Hidden::from(&self.parts.definition, &statement);
        self.register(&context, &pinned, &hidden)?;
        let samples = samples.filter(|_| names.contains(samples::METRICS)).map(|samples| samples.text());
        context.register_table(samples::METRICS, samples::table(&samples.unwrap_or_default())?)?;
        let limits = self.engine.limits();
        let work = async move {
            let plan = context.state().statement_to_plan(statement).await.map_err(|error| limits.of_query(&error))?;
            guard::verify(&plan)?;
            let frame = context.execute_logical_plan(plan).await.map_err(|error| limits.of_query(&error))?;
            let (schema, batches, truncated) = engine::collect(frame, limits).await?;
            gone.add_to(&mut provenance);
            finish(SqlAnswer { schema, batches, truncated, provenance }, limits.answer_bytes())
        };
        self.engine.run(turn, work).await
    }

    /// Pins what the named tables are made of: nothing that is not asked for is loaded.
    async fn pin(&self, names: &BTreeSet<String>) -> Result<Pinned, ServingError> {
        let merged = ["stats", "stats_hour", "stats_day", "stats_stream"];
        let (view, stream) = if merged.iter().any(|name| names.contains(*name)) {
            self.with_view(|view| async move { self.stream_runs(&view).await }).await?
        } else {
            (self.current.get(), StreamRuns::default())
        };
        // A run is written after its findings: whoever sees it sees them.
        let audit_runs = self.newest_if_named(Table::AuditRuns, names).await?;
        let audit_findings = self.newest_if_named(Table::AuditFindings, names).await?;
        let mut pinned = Pinned {
            view,
            stream,
            events: None,
            dead: None,
            audit_runs,
            audit_findings,
            archived: Vec::new(),
            missing: Vec::new(),
            gone: Noted::default(),
            as_of: None,
            of_events: OF_EVENTS.iter().any(|name| names.contains(*name)),
        };
        if names.contains("events") || names.contains("dead_letters") {
            let events = self.snapshots.newest(Table::Events).await?;
            let dead = self.snapshots.newest(Table::DeadLetters).await?;
            pinned.archived = self.archived(&events, &dead);
            pinned.missing.extend(pinned.view.lost_of(&events, self.parts.log));
            pinned.events = names.contains("events").then_some(events);
            pinned.dead = names.contains("dead_letters").then_some(dead);
        }
        Ok(pinned)
    }

    async fn newest_if_named(
        &self,
        table: Table,
        names: &BTreeSet<String>,
    ) -> Result<Option<Arc<Snapshot>>, ServingError> {
        if names.contains(table.name()) { self.snapshots.newest(table).await.map(Some) } else { Ok(None) }
    }

    /// Pins an older version of batch, and nothing else.
    async fn pin_past(&self, names: &BTreeSet<String>, as_of: AsOf) -> Result<Pinned, ServingError> {
        if let Some(name) = UNVERSIONED.into_iter().find(|name| names.contains(*name)) {
            let message =
                format!("{name} is not kept as it was: leave as_of out, or ask stats, stats_hour or stats_day");
            return Err(ServingError::bad("as_of", message));
        }
        let past = self.past(as_of).await?;
        let (view, as_of) = (Arc::clone(&past.view), Some(past.version));
        let stream = StreamRuns { asked: self.parts.clock.now(), ..StreamRuns::default() };
        Ok(Pinned {
            view,
            stream,
            events: None,
            dead: None,
            audit_runs: None,
            audit_findings: None,
            archived: Vec::new(),
            missing: Vec::new(),
            gone: Noted::default(),
            as_of,
            of_events: true,
        })
    }

    /// Makes the tables; without the entities that are `hidden`.
    fn register(&self, context: &SessionContext, pinned: &Pinned, hidden: &Hidden) -> Result<(), ServingError> {
        let table = |table, snapshot: Option<&Arc<Snapshot>>| {
            let files = snapshot.map_or_else(Vec::new, |snapshot| snapshot.files.to_vec());
            self.pinned_table(table, files)
        };
        let register = |name: &str, provider| context.register_table(name, provider).map(|_| ());
        if pinned.as_of.is_none() {
            let events = table(Table::Events, pinned.events.as_ref())?;
            register("events", hidden.rows_of(context, &events)?.into_view())?;
            register("dead_letters", Arc::new(table(Table::DeadLetters, pinned.dead.as_ref())?))?;
            register("audit_runs", Arc::new(table(Table::AuditRuns, pinned.audit_runs.as_ref())?))?;
            register("audit_findings", Arc::new(table(Table::AuditFindings, pinned.audit_findings.as_ref())?))?;
        }
        let definition = &self.parts.definition;
        for (name, granularity, has_batch, has_stream) in [
            ("stats", Granularity::Minute, true, true),
            ("stats_hour", Granularity::Hour, true, true),
            ("stats_day", Granularity::Day, true, true),
            ("stats_batch", Granularity::Minute, true, false),
            ("stats_stream", Granularity::Minute, false, true),
        ] {
            let mut rows = Vec::new();
            if has_batch {
                let sets = pinned.view.file_sets().filter(|set| set.granularity == granularity);
                let files = sets.flat_map(|set| set.files.iter().cloned()).collect();
                rows.push(stats::Rows::Batch(self.pinned_table(Table::BatchCounts, files)?));
                let gone = GoneTable::of(&pinned.view, (name, granularity), &self.parts.store, &pinned.gone)?;
                rows.extend(gone.map(stats::Rows::Gone));
            }
            if has_stream {
                let runs = pinned.stream.runs.clone();
                rows.push(stats::Rows::Runs(stream::StreamTable::new(runs, definition, granularity)?));
                rows.extend(self.sealed(&pinned.stream.on_disk, granularity)?);
            }
            register(name, stats::merged(context, definition, rows, hidden)?)?;
        }
        Ok(())
    }

    /// What of the stream lies in `stream_counts`: a table for each version of it, for in another one a segment
    /// may lie in other files.
    fn sealed(&self, chunks: &[Chunk], granularity: Granularity) -> Result<Vec<stats::Rows>, ServingError> {
        let mut versions: BTreeMap<u64, Vec<&Chunk>> = BTreeMap::new();
        chunks.iter().for_each(|chunk| versions.entry(chunk.version).or_default().push(chunk));
        let table = |chunks: Vec<&Chunk>| {
            let files: BTreeMap<&str, &DataFile> =
                chunks.iter().flat_map(|chunk| &chunk.files).map(|file| (file.path.as_str(), file)).collect();
            let table = self.pinned_table(Table::StreamCounts, files.into_values().cloned().collect())?;
            Ok(stats::Rows::Sealed { table, filter: stats::within(&chunks), granularity })
        };
        versions.into_values().map(table).collect()
    }

    pub(crate) fn pinned_table(&self, table: Table, files: Vec<DataFile>) -> Result<PinnedTable, ServingError> {
        Ok(PinnedTable::new(Arc::clone(&self.parts.store), table, files, file_schema(table))?)
    }

    fn provenance_of(&self, pinned: &Pinned) -> Provenance {
        let mut provenance = self.provenance_of_events(pinned);
        if !pinned.of_events {
            // What audits and metrics say lacks nothing when events are lost.
            provenance.missing.clear();
            provenance.complete = true;
        }
        provenance
    }

    fn provenance_of_events(&self, pinned: &Pinned) -> Provenance {
        let missing = pinned.stream.missing.iter().chain(&pinned.missing).cloned().collect();
        // Nobody knows which window a query is about.
        let all = Window { from: i64::MIN, to: i64::MAX };
        let asked = pinned.stream.asked;
        if !pinned.stream.parts.is_empty() || pinned.view.coverage.is_empty() {
            let counts = self.provenance(&pinned.view, asked, &pinned.stream.parts, missing, all, None);
            return Provenance { archived: pinned.archived.clone(), ..counts };
        }
        // What lies in tables alone needs no tail to meet it: it goes as far as it goes.
        let standing = (0_u32..).zip(&pinned.view.coverage).map(|(partition, at)| Part::standing(partition, *at));
        let mut provenance = self.provenance(&pinned.view, asked, &standing.collect::<Vec<_>>(), missing, all, None);
        provenance.watermark = None;
        provenance.as_of = pinned.as_of;
        for (at, archived) in provenance.partitions.iter_mut().zip(&pinned.archived) {
            at.position = Some(if pinned.events.is_some() { archived.events } else { archived.dead_letters });
            provenance.source = Source::Events;
        }
        provenance.archived.clone_from(&pinned.archived);
        provenance
    }
}
