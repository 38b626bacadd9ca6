//! SQL over one immutable view, with DataFusion: read-only, within limits of time, memory and rows.
//!
//! ```text
//! stats = batch_counts (minute) ∪ stream runs ──group by (entity, type, minute, dimensions)──▶ metrics
//!         └ rows of batch in minutes that the stream has nothing of are not grouped
//! ```
//!
//! A text goes through [`guard`], which refuses what writes and what is too large to be planned ([`size`], `readings`); `pin` pins
//! what it names, `dress` makes tables of that, `ready` ends with a plan. [`engine`] runs plans on threads of their
//! own; [`streamed`] gives their rows as they come, [`render`] as JSON and Arrow IPC.
//!
//! [`stream`] is the stream layer's runs as a table (what it no longer holds in memory is read from `stream_counts`),
//! [`stats`] the merged tables, `parts` what is known of the rows that they are made of, [`gone`] the dates that are rolled
//! up; [`collapse`] adds them up in one step, `split` takes rows that are alone out of their groupings. [`held`] counts what
//! windows hold, [`functions`] has what counts need and SQL has not, [`catalogue`] adds PostgreSQL's for clients that look
//! for it, [`reserved`] leaves Reckon's own entities out, [`entities`] is what is known of the others, [`samples`] is the
//! process's own metrics. `ahead` makes batches of such tables as they are read.

mod ahead;
mod around;
pub mod catalogue;
pub mod collapse;
mod dress;
mod dropped;
pub mod engine;
pub mod entities;
pub mod functions;
pub mod gone;
pub mod guard;
pub mod held;
mod parts;
mod pin;
mod readings;
mod ready;
pub mod render;
pub mod reserved;
pub mod samples;
pub mod size;
mod split;
pub mod stats;
pub mod stream;
pub mod streamed;
mod turn;
mod types;
mod unspilled;

#[cfg(test)]
mod tests;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::ServingError;
use crate::metrics::Question;
use crate::query::{AsOf, Serving};
use crate::view::Provenance;

pub use engine::Engine;
pub use render::Form;
pub use samples::Samples;
pub use streamed::{SqlPrepared, SqlStream};

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
        let turn = self.engine.turn().await?;
        let ready = Box::pin(self.ready(query, &[], options)).await?;
        let (mut provenance, gone, limits) = (ready.provenance.clone(), ready.gone.clone(), self.engine.limits());
        let work = async move {
            let (context, plan) = ready.plan(limits).await?;
            let plan = ready::bind(plan, Vec::new(), limits)?;
            let frame = context.execute_logical_plan(plan).await.map_err(|error| limits.of_query(&error))?;
            let (schema, batches, truncated) = engine::collect(frame, limits).await?;
            gone.add_to(&mut provenance);
            finish(SqlAnswer { schema, batches, truncated, provenance }, limits.answer_bytes())
        };
        self.engine.run(turn, work).await
    }
}
