//! Answers whose rows come as they are made: all of them or an error, in bounded memory and time.
//!
//! ```text
//! plan ─▶ rows ──channel of a few batches──▶ next()          on the engine's threads, within a turn
//!          │ full: the query waits, its clock stands          dropped: the query ends
//!          └ the reader's clock runs
//! ```
//!
//! Work may take [`Limits::time`] in all, and wait for its reader `READER_FACTOR` times as long in all. While it waits its turn
//! is lent to others ([`Turn`]).

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::SqlOptions;
use super::engine::{Limits, Work};
use super::ready::{Ready, bind, parameters_of};
use super::turn::Turn;
use crate::ServingError;
use crate::metrics::Question;
use crate::query::{AsOf, Serving};
use crate::view::Provenance;

/// Batches made ahead of the reader.
const AHEAD: usize = 2;
/// A query may wait for its reader so many times as long as it may work.
const READER_FACTOR: u32 = 10;

/// A query that was planned and not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlPrepared {
    /// The columns of its answer. A column that is a parameter and nothing else has the type null.
    pub schema: SchemaRef,
    /// The types of its parameters, `$1` first; none where the query does not say.
    pub parameters: Vec<Option<DataType>>,
}

/// The rows of a query as they are made. Dropping it ends the query.
#[derive(Debug)]
pub struct SqlStream {
    /// The columns of all batches.
    pub schema: SchemaRef,
    /// Where the answer comes from.
    pub provenance: Provenance,
    batches: mpsc::Receiver<RecordBatch>,
    work: Option<Work<()>>,
}

impl SqlStream {
    /// The next rows, never none of them; none when all were read. After an error there is nothing more.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, ServingError>> {
        if let Some(batch) = self.batches.recv().await {
            return Some(Ok(batch));
        }
        // Nothing more comes: the work says whether that is all of it. It stays here until it has said so, or a
        // reader that gives up waiting and asks again would take a part for the whole.
        let ended = self.work.as_mut()?.end().await;
        self.work = None;
        ended.err().map(Err)
    }
}

impl Serving {
    /// Plans a query and does not run it; nothing is read. Of an older version of batch with `as_of`.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`] of `query` and of `as_of`, [`ServingError::Timeout`], and when too many are planned.
    pub async fn sql_prepare(&self, query: &str, as_of: Option<AsOf>) -> Result<SqlPrepared, ServingError> {
        let turn = self.engine.planning_turn().await?;
        let (ready, limits) = (self.ready_to_plan(query, as_of)?, self.engine.limits());
        let work = async move {
            let (_, plan) = ready.plan(limits).await?;
            let schema = Arc::new(Schema::clone(plan.schema().as_arrow()));
            Ok(SqlPrepared { schema, parameters: parameters_of(&plan, limits)? })
        };
        self.engine.run(turn, work).await
    }

    /// Answers a query as [`Serving::sql`] does, with `parameters` in the place of `$1`, `$2` and so on, and with all rows
    /// however many there are: `serving.rows_max` says nothing here. A parameter's text counts as a string of the query
    /// for [`super::reserved`].
    ///
    /// # Errors
    /// As [`Serving::sql_as`], and [`ServingError::BadRequest`] of `parameters`.
    pub async fn sql_stream(
        &self,
        query: &str,
        parameters: Vec<ScalarValue>,
        options: SqlOptions<'_>,
    ) -> Result<SqlStream, ServingError> {
        self.metrics.measure(Question::Sql, Box::pin(self.open(query, parameters, options))).await
    }

    async fn open(
        &self,
        query: &str,
        parameters: Vec<ScalarValue>,
        options: SqlOptions<'_>,
    ) -> Result<SqlStream, ServingError> {
        let turn = self.engine.turn().await?;
        let limits = self.engine.limits();
        let ready = self.ready(query, &parameters, options).await?;
        let (mut provenance, gone) = (ready.provenance.clone(), ready.gone.clone());
        let (sender, batches) = mpsc::channel(AHEAD);
        let (tell, told) = oneshot::channel();
        let turn = self.engine.lendable(turn);
        let mut work = self.engine.start(async move {
            let begin = Instant::now();
            let opening = timeout(limits.time, Box::pin(rows_of(ready, parameters, limits)));
            let (schema, rows) = opening.await.map_err(|_| limits.too_long())??;
            if tell.send(Arc::clone(&schema)).is_err() {
                // Nobody waits for it any more.
                return Ok(());
            }
            let clocks = Clocks { work: limits.time.saturating_sub(begin.elapsed()), ..Clocks::of(limits) };
            send_all(rows, &schema, sender, turn, clocks, limits).await
        });
        // Planning does not stop for a clock: this one goes on while it runs.
        match timeout(limits.time, told).await {
            Ok(Ok(schema)) => {
                gone.add_to(&mut provenance);
                Ok(SqlStream { schema, provenance, batches, work: Some(work) })
            }
            Ok(Err(_)) => Err(work.end().await.err().unwrap_or_else(|| ServingError::internal("it ended unasked"))),
            Err(_) => Err(limits.too_long()),
        }
    }
}

/// Plans a query and starts it.
async fn rows_of(
    ready: Ready,
    parameters: Vec<ScalarValue>,
    limits: Limits,
) -> Result<(SchemaRef, SendableRecordBatchStream), ServingError> {
    let (context, plan) = ready.plan(limits).await?;
    let plan = bind(plan, parameters, limits)?;
    let frame = context.execute_logical_plan(plan).await.map_err(|error| limits.of_query(&error))?;
    let schema = Arc::new(Schema::clone(frame.schema().as_arrow()));
    let rows = frame.execute_stream().await.map_err(|error| limits.of_query(&error))?;
    Ok((schema, rows))
}

/// What is left of a query's time, and of its reader's.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    work: Duration,
    reader: Duration,
}

impl Clocks {
    const fn of(limits: Limits) -> Self {
        Self { work: limits.time, reader: limits.time.saturating_mul(READER_FACTOR) }
    }
}

/// Sends all rows; each clock runs only while its own side is waited for.
async fn send_all(
    mut rows: SendableRecordBatchStream,
    schema: &SchemaRef,
    sender: mpsc::Sender<RecordBatch>,
    mut turn: Turn,
    mut left: Clocks,
    limits: Limits,
) -> Result<(), ServingError> {
    loop {
        let begin = Instant::now();
        let next = timeout(left.work, rows.next()).await.map_err(|_| limits.too_long())?;
        left.work = left.work.saturating_sub(begin.elapsed());
        let Some(batch) = next else { return Ok(()) };
        let batch = batch.map_err(|error| limits.of_query(&error))?;
        if batch.num_rows() == 0 {
            continue;
        }
        let batch = shaped(schema, &batch)?;
        let begin = Instant::now();
        let room = turn.wait(async {
            let room = timeout(left.reader, sender.reserve()).await;
            (room, begin.elapsed())
        });
        match room.await? {
            (Ok(Ok(room)), waited) => {
                left.reader = left.reader.saturating_sub(waited);
                room.send(batch);
            }
            // Nobody reads any further.
            (Ok(Err(_)), _) => return Ok(()),
            (Err(_), _) => return Err(unread(limits)),
        }
    }
}

/// Rows with the columns that were promised: plans may be stricter about nulls in their batches.
fn shaped(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ServingError> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

fn unread(limits: Limits) -> ServingError {
    let seconds = Clocks::of(limits).reader.as_secs_f64();
    ServingError::unavailable(format!(
        "rows waited {seconds} s in all to be read, which is the limit ({READER_FACTOR} times serving.query_time): \
         read them faster, or ask for fewer"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{ArrayRef, Int64Array};
    use datafusion::error::DataFusionError;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use tokio::sync::Semaphore;

    use super::*;

    const LIMITS: Limits = Limits { time: Duration::from_secs(1), memory: 1 << 20, rows: 1 };
    const SECOND: Duration = Duration::from_secs(1);

    fn a_turn() -> Turn {
        let turns = Arc::new(Semaphore::new(1));
        let own = Arc::clone(&turns).try_acquire_owned().unwrap();
        Turn::new(turns, Arc::new(Semaphore::new(1)), own, SECOND)
    }

    /// So many batches of one row, each made in so long a time.
    fn made(batches: i64, each: Duration) -> (SchemaRef, SendableRecordBatchStream) {
        let row = |value: i64| {
            let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
            RecordBatch::try_from_iter([("n", column)]).unwrap()
        };
        let schema = row(0).schema();
        let rows = futures::stream::iter(0..batches).then(move |value| async move {
            tokio::time::sleep(each).await;
            Ok::<_, DataFusionError>(row(value))
        });
        (Arc::clone(&schema), Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    #[tokio::test(start_paused = true)]
    async fn work_has_a_clock_that_stands_while_the_reader_is_waited_for() {
        let (schema, rows) = made(20, Duration::from_millis(10));
        let (sender, mut batches) = mpsc::channel(AHEAD);
        let reader = async {
            let mut read = 0;
            loop {
                tokio::time::sleep(SECOND / 4).await;
                if batches.recv().await.is_none() {
                    return read;
                }
                read += 1;
            }
        };
        let (ended, read) = tokio::join!(send_all(rows, &schema, sender, a_turn(), Clocks::of(LIMITS), LIMITS), reader);
        assert_eq!((ended.is_ok(), read), (true, 20), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_too_long_ends() {
        let (schema, rows) = made(200, Duration::from_millis(10));
        let (sender, mut batches) = mpsc::channel(AHEAD);
        let reader = async { while batches.recv().await.is_some() {} };
        let (ended, ()) = tokio::join!(send_all(rows, &schema, sender, a_turn(), Clocks::of(LIMITS), LIMITS), reader);
        assert!(matches!(ended, Err(ServingError::Timeout { .. })), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_is_not_waited_for_for_ever() {
        let (schema, rows) = made(20, Duration::from_millis(10));
        let (sender, _batches) = mpsc::channel(AHEAD);
        let begin = Instant::now();
        let ended = send_all(rows, &schema, sender, a_turn(), Clocks::of(LIMITS), LIMITS).await;
        assert!(matches!(ended, Err(ServingError::Unavailable { .. })), "{ended:?}");
        assert!(begin.elapsed() < SECOND * (READER_FACTOR + 1), "{:?}", begin.elapsed());
    }
}
