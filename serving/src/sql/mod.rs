//! SQL over one immutable view, with DataFusion: read-only, within limits of time, memory and rows.
//!
//! ```text
//! stats = batch_counts (minute) ∪ stream runs ──group by (entity, type, minute, dimensions)──▶ metrics
//! ```
//!
//! [`engine`] runs queries on threads of their own, [`guard`] refuses what writes, [`stream`] is the stream
//! layer's runs as a table, [`stats`] the merged tables, [`functions`] the exact average and the sketches,
//! [`render`] writes answers as JSON and Arrow IPC.

pub mod engine;
pub mod functions;
pub mod guard;
pub mod render;
pub mod stats;
pub mod stream;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::prelude::SessionContext;
use reckon_data::logtime::LogTime;
use reckon_data::paths::Transaction;
use reckon_data::run::Granularity;
use reckon_data::table::{Snapshot, Table};
use reckon_data::tail::Position;
use reckon_tables::provider::PinnedTable;
use reckon_tables::schema::file_schema;

use crate::ServingError;
use crate::metrics::Question;
use crate::query::gather::StreamRuns;
use crate::query::{Serving, Window};
use crate::view::{BatchView, Given, Missing, MissingWhat, Part, Provenance, Source};

pub use engine::Engine;

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

/// What one query reads, pinned.
pub(crate) struct Pinned {
    view: Arc<BatchView>,
    stream: StreamRuns,
    events: Option<Arc<Snapshot>>,
    dead: Option<Arc<Snapshot>>,
    missing: Vec<Missing>,
}

impl Serving {
    /// Answers an SQL query over `stats`, `stats_hour`, `stats_day`, `stats_batch`, `stats_stream`, `events` and
    /// `dead_letters`.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`] of `query` when it is wrong or writes, [`ServingError::Timeout`],
    /// [`ServingError::MemoryLimit`], and when too many run already.
    pub async fn sql(&self, query: &str) -> Result<SqlAnswer, ServingError> {
        self.metrics.measure(Question::Sql, self.sql_unmeasured(query)).await
    }

    async fn sql_unmeasured(&self, query: &str) -> Result<SqlAnswer, ServingError> {
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
        let pinned = self.pin(&names).await?;
        let provenance = self.provenance_of(&pinned);
        self.register(&context, &pinned)?;
        let limits = self.engine.limits();
        let work = async move {
            let plan = context.state().statement_to_plan(statement).await.map_err(|error| limits.of_query(&error))?;
            guard::verify(&plan)?;
            let frame = context.execute_logical_plan(plan).await.map_err(|error| limits.of_query(&error))?;
            engine::collect(frame, limits).await
        };
        let (schema, batches, truncated) = self.engine.run(turn, work).await?;
        Ok(SqlAnswer { schema, batches, truncated, provenance })
    }

    /// Pins what the named tables are made of: nothing that is not asked for is loaded.
    async fn pin(&self, names: &BTreeSet<String>) -> Result<Pinned, ServingError> {
        let merged = ["stats", "stats_hour", "stats_day", "stats_stream"];
        let nothing = || StreamRuns { runs: Vec::new(), parts: Vec::new(), missing: Vec::new() };
        let (view, stream) = if merged.iter().any(|name| names.contains(*name)) {
            self.with_view(|view| async move { self.stream_runs(&view).await }).await?
        } else {
            (self.current.get(), nothing())
        };
        let events = if names.contains("events") { Some(self.snapshots.newest(Table::Events).await?) } else { None };
        let dead =
            if names.contains("dead_letters") { Some(self.snapshots.newest(Table::DeadLetters).await?) } else { None };
        let missing = missing_rollups(&view, names);
        Ok(Pinned { view, stream, events, dead, missing })
    }

    fn register(&self, context: &SessionContext, pinned: &Pinned) -> Result<(), ServingError> {
        let table = |table, snapshot: Option<&Arc<Snapshot>>| {
            let files = snapshot.map_or_else(Vec::new, |snapshot| snapshot.files.to_vec());
            self.pinned_table(table, files)
        };
        let register = |name: &str, provider| context.register_table(name, provider).map(|_| ());
        register("events", Arc::new(table(Table::Events, pinned.events.as_ref())?))?;
        register("dead_letters", Arc::new(table(Table::DeadLetters, pinned.dead.as_ref())?))?;
        let definition = &self.parts.definition;
        for (name, granularity, has_batch, has_stream) in [
            ("stats", Granularity::Minute, true, true),
            ("stats_hour", Granularity::Hour, true, true),
            ("stats_day", Granularity::Day, true, true),
            ("stats_batch", Granularity::Minute, true, false),
            ("stats_stream", Granularity::Minute, false, true),
        ] {
            let sets = pinned.view.file_sets().filter(|set| has_batch && set.granularity == granularity);
            let batch =
                self.pinned_table(Table::BatchCounts, sets.flat_map(|set| set.files.iter().cloned()).collect())?;
            let runs = if has_stream { pinned.stream.runs.clone() } else { Vec::new() };
            let stream = stream::StreamTable::new(runs, definition, granularity)?;
            let (batch, stream) = (has_batch.then_some(batch), has_stream.then_some(stream));
            register(name, stats::merged(context, definition, batch, stream)?)?;
        }
        Ok(())
    }

    pub(crate) fn pinned_table(
        &self,
        table: Table,
        files: Vec<reckon_data::table::DataFile>,
    ) -> Result<PinnedTable, ServingError> {
        Ok(PinnedTable::new(Arc::clone(&self.parts.store), table, files, file_schema(table))?)
    }

    fn provenance_of(&self, pinned: &Pinned) -> Provenance {
        let missing = pinned.stream.missing.iter().chain(&pinned.missing).cloned().collect();
        // Nobody knows which window a query is about.
        let all = Window { from: i64::MIN, to: i64::MAX };
        if !pinned.stream.parts.is_empty() || pinned.view.coverage.is_empty() {
            return self.provenance(&pinned.view, &pinned.stream.parts, missing, all, None);
        }
        // What lies in tables alone needs no tail to meet it: it goes as far as it goes.
        let standing = (0_u32..).zip(&pinned.view.coverage).map(|(partition, coverage)| standing(partition, *coverage));
        let mut provenance = self.provenance(&pinned.view, &standing.collect::<Vec<_>>(), missing, all, None);
        provenance.watermark = None;
        let log = self.parts.log;
        for at in &mut provenance.partitions {
            let archived =
                |snapshot: &Snapshot, name: Transaction| u64::try_from(snapshot.transaction(&name.to_string())).ok();
            let events =
                pinned.events.as_ref().map(|snapshot| archived(snapshot, Transaction::Archive(log, at.partition)));
            let dead = pinned.dead.as_ref().map(|snapshot| archived(snapshot, Transaction::Dead(log, at.partition)));
            if let Some(position) = events.or(dead) {
                at.position = position;
                provenance.source = Source::Events;
            }
        }
        provenance
    }
}

/// A part that reaches to `offset` and needs nothing of the stream layer.
fn standing(partition: u32, offset: u64) -> Part {
    let position =
        Position { offset, log_time: LogTime::UNSET, event_time_max: i64::MIN, sealed: offset, durable_end: offset };
    Part { partition, from: offset, given: Given::Counts { position, on_disk: Vec::new() } }
}

/// Dates that have minutes and not the roll-up that is asked for; batch writes all of them in one commit.
fn missing_rollups(view: &BatchView, names: &BTreeSet<String>) -> Vec<Missing> {
    let asked = [
        ("stats", Granularity::Minute),
        ("stats_batch", Granularity::Minute),
        ("stats_hour", Granularity::Hour),
        ("stats_day", Granularity::Day),
    ];
    let mut missing = Vec::new();
    for (name, granularity) in asked.into_iter().filter(|(name, _)| names.contains(*name)) {
        for date in view.dates.iter().filter(|(_, sets)| !sets.contains_key(&granularity)).map(|(date, _)| *date) {
            let reason = format!("it has no counts by the {granularity}, which {name} is made of");
            missing.push(Missing::date(MissingWhat::BatchCounts, reckon_data::minute::format_date(date), reason));
        }
    }
    missing
}
