//! Counting the raw events of a date on other machines.
//!
//! It goes as it does here (see [`super::date`]), each step a query: which hashes repeat, then chunk by chunk the events whose
//! hash nobody else has, then the first of each key of the others. A chunk is one task, which sends its counts here and nothing
//! to other tasks; only repeats go from machine to machine, and one that dies takes few chunks with it. All events of a small date are
//! looked at as if they were repeats, for one query is quicker than three.
//!
//! Results come over the network, and one that ends early would look like repeats, or hide them: how many events were looked
//! at, and how many were counted, is held to a count of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};
use reckon_data::invariant::SAME_ROWS;
use reckon_data::minute::format_date;
use reckon_tables::provider::Piece;

use super::cluster::{Cluster, Query};
use super::date::{Counted, DateJob};
use super::engine::{CHUNK_ROWS, Engine, Task};
use super::error::BatchError;
use super::repeats::{Repeated, gather};
use super::scope::{READ, counts_sql, read_firsts_sql, repeats_sql, rows_sql};
use super::sorter::Sorter;
use super::spill::SortedRun;

/// Parts of a query at most.
const PARTS_MAX: usize = 512;
/// How often other machines are asked the same.
const ATTEMPTS: u32 = 3;
/// After how long: a scheduler that is started again has to be there.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A date that is counted on other machines.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere<'a> {
    /// The date.
    pub job: &'a DateJob,
    /// Where results are sorted.
    pub engine: &'a Engine,
    /// Who counts.
    pub cluster: &'a Arc<dyn Cluster>,
}

/// Counts of some events.
struct Part {
    runs: Vec<SortedRun>,
    /// Events with the keys that were counted.
    read: u64,
}

impl Elsewhere<'_> {
    /// How many steps [`Elsewhere::count`] reports.
    pub fn steps(&self) -> u64 {
        3 + if self.is_small() { 0 } else { self.chunks().len() as u64 }
    }

    /// Counts the date. `step` is called after every step with the events read in it.
    ///
    /// # Errors
    /// When the cluster fails, and does so again and again, or numbers don't add up.
    pub async fn count(&self, step: &(dyn Fn(u64) + Send + Sync)) -> Result<Counted, BatchError> {
        let rows = self.rows().await?;
        step(0);
        let repeated = if self.is_small() { None } else { Some(self.repeats(rows).await?) };
        step(0);
        let mut parts = match &repeated {
            Some(repeated) => self.unique(repeated, step).await?,
            None => Vec::new(),
        };
        let mut last = 0;
        if repeated.as_ref().is_none_or(|repeated| !repeated.is_empty()) {
            let firsts = self.firsts(repeated).await?;
            last = firsts.read;
            parts.push(firsts);
        }
        self.hold(parts.iter().map(|part| part.read).sum(), rows, "counted")?;
        step(last);
        Ok(Counted { rows, runs: parts.into_iter().flat_map(|part| part.runs).collect() })
    }

    fn is_small(&self) -> bool {
        self.job.rows() <= self.engine.chunk_rows as u64
    }

    fn chunks(&self) -> Vec<Vec<Piece>> {
        self.job.source.chunks(self.cluster.part_rows())
    }

    async fn rows(&self) -> Result<u64, BatchError> {
        let query = self.whole(|filters| rows_sql(&self.job.source.span, filters), &[], None)?;
        self.ask(&query, number).await
    }

    /// The hashes that repeat. One that was not found would be counted as often as it occurs.
    async fn repeats(&self, rows: u64) -> Result<Arc<Repeated>, BatchError> {
        let query = self.whole(repeats_sql, &[], None)?;
        let found = self.ask(&query, gather).await?;
        self.hold(found.rows, rows, "looked at")?;
        Ok(found.repeated)
    }

    fn hold(&self, read: u64, rows: u64, what: &str) -> Result<(), BatchError> {
        if SAME_ROWS.holds(read == rows) {
            return Ok(());
        }
        let date = format_date(self.job.date);
        Err(BatchError::Broken(format!("{date}: the cluster has {what} {read} of {rows} events")))
    }

    /// Counts of the events whose hash nobody else has.
    async fn unique(
        &self,
        repeated: &Arc<Repeated>,
        step: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Vec<Part>, BatchError> {
        let sorter = self.sorter();
        let parts = self.chunks().into_iter().map(|pieces| {
            let sorter = sorter.clone();
            async move {
                let query = self.chunk(pieces, repeated)?;
                let sort = move |counts| {
                    let sorter = sorter.clone();
                    async move { sorter.sort(counts).await }
                };
                let runs = self.ask(&query, sort).await?;
                let read = runs.iter().map(|run| run.events).sum();
                step(read);
                Ok::<_, BatchError>(Part { runs, read })
            }
        });
        futures::stream::iter(parts).buffer_unordered(self.cluster.queries_at_once().max(1)).try_collect().await
    }

    fn chunk(&self, pieces: Vec<Piece>, repeated: &Arc<Repeated>) -> Result<Query, BatchError> {
        let mut filters = self.job.source.filters(&pieces);
        if !repeated.is_empty() {
            filters.push("NOT repeated(key_hash)".to_owned());
        }
        let sql = counts_sql(&self.job.definition, &filters);
        let repeated = Some(Arc::clone(repeated)).filter(|repeated| !repeated.is_empty());
        Ok(Query { sql, events: self.job.source.table(pieces)?, repeated, parts: 1 })
    }

    /// Counts of the events that come first with their key, of those whose hash is not alone; of all where nobody has
    /// looked which those are.
    async fn firsts(&self, repeated: Option<Arc<Repeated>>) -> Result<Part, BatchError> {
        let more: &[&str] = if repeated.is_some() { &["repeated(key_hash)"] } else { &[] };
        let query = self.whole(|filters| read_firsts_sql(&self.job.definition, filters), more, repeated)?;
        let sorter = self.sorter();
        let sort = move |counts| {
            let sorter = sorter.clone();
            async move {
                let read = Arc::new(AtomicU64::new(0));
                let runs = sorter.sort(adding_up(counts, Arc::clone(&read))).await?;
                Ok(Part { runs, read: read.load(Ordering::Relaxed) })
            }
        };
        self.ask(&query, sort).await
    }

    /// A query over all events of the scope.
    fn whole(
        &self,
        sql: impl FnOnce(&[String]) -> String,
        more: &[&str],
        repeated: Option<Arc<Repeated>>,
    ) -> Result<Query, BatchError> {
        let pieces: Vec<Piece> = self.job.source.relevant().into_iter().map(Piece::from).collect();
        let mut filters = self.job.source.filters(&pieces);
        filters.extend(more.iter().map(|filter| (*filter).to_owned()));
        let events = self.job.source.table(pieces)?;
        let parts = usize::try_from(events.rows()).unwrap_or(usize::MAX).div_ceil(self.cluster.part_rows().max(1));
        let parts = parts.clamp(1, PARTS_MAX);
        Ok(Query { sql: sql(&filters), events, repeated, parts })
    }

    /// Runs are sorted for all queries at once, in the memory that all threads have.
    fn sorter(&self) -> Sorter {
        let rows = self.engine.chunk_rows * self.engine.parallel / self.cluster.queries_at_once().max(1);
        let rows = rows.clamp(*CHUNK_ROWS.start(), *CHUNK_ROWS.end());
        Sorter { rows, ..self.job.sorter(self.engine, true) }
    }

    /// What `take` makes of the answer. Asks again when the cluster fails: a machine that ends while others read its results
    /// takes these with it.
    async fn ask<T, F>(
        &self,
        query: &Query,
        take: impl Fn(SendableRecordBatchStream) -> F + Clone + Send + Sync + 'static,
    ) -> Result<T, BatchError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BatchError>> + Send + 'static,
    {
        let mut attempt = 1;
        loop {
            let (cluster, query, take) = (Arc::clone(self.cluster), query.clone(), take.clone());
            let answer: Task<T> = self.engine.spawn(async move { take(cluster.query(query).await?).await });
            match answer.await {
                Err(error @ BatchError::Query(_)) if attempt < ATTEMPTS => {
                    tracing::warn!(attempt, error = error.in_full(), "the cluster is asked again");
                    attempt += 1;
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                answer => return answer,
            }
        }
    }
}

/// The same stream; what its column [`READ`] says is added up.
fn adding_up(counts: SendableRecordBatchStream, read: Arc<AtomicU64>) -> SendableRecordBatchStream {
    let schema = counts.schema();
    let counts = counts.inspect_ok(move |batch| {
        let column = batch.column_by_name(READ).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let sum: i64 = column.map_or(0, |column| column.iter().flatten().sum());
        read.fetch_add(sum.cast_unsigned(), Ordering::Relaxed);
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, counts))
}

/// The one number that a query returns.
async fn number(mut stream: SendableRecordBatchStream) -> Result<u64, BatchError> {
    let mut sum = 0;
    while let Some(batch) = stream.next().await {
        sum += batch?.column(0).as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
    }
    u64::try_from(sum).map_err(|_| BatchError::Broken(format!("a date has {sum} events")))
}
