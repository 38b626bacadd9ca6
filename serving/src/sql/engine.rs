//! Runs queries on threads of their own, each within its limits.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{FunctionRegistry as _, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use reckon_data::config::Serving as Settings;
use reckon_data::damage::Damaged;
use reckon_data::offload::is_single_threaded;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::collapse::CollapseGroups;
use super::functions::Functions;
use super::functions::bounded::Pipes;
use super::held::CountHeld;
use super::split::SplitGroups;
use super::turn::Turn;
use super::types::Types;
use super::unspilled::KeepInMemory;
use crate::ServingError;

/// A query may spill so many times its memory.
const SPILL_FACTOR: u64 = 32;
/// Memory for footers and page indexes of Parquet files, shared by all queries.
const FOOTERS_BYTES: usize = 64 << 20;
/// An answer as it is sent may take this part of a query's memory.
const ANSWER_PART: u64 = 4;
/// Functions that make much out of a few numbers, all at once and not counted by any limit of memory. As tables,
/// `range` and `generate_series` are made row by row and stay.
const UNBOUNDED: [&str; 9] = [
    "range",
    "generate_series",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "repeat",
    "lpad",
    "rpad",
];
/// Stack of a query thread. Expressions are planned and run by functions that call themselves for each level; with two
/// MiB a sum of some 1,500 numbers ended the process. [`super::size`] bounds the levels, this gives them room.
const STACK_BYTES: usize = 16 << 20;
/// Most bytes of texts that a function may make at once, however much memory a query may take.
const TEXT_BYTES_MAX: usize = 1 << 30;
/// What is said of a regular expression that cannot be made.
const PATTERN_FAILED: [&str; 3] =
    ["regex parse error", "Regular expression did not compile", "Compiled regex exceeds size limit"];
/// Most characters of such a message: it quotes the pattern.
const MESSAGE_CHARS: usize = 300;
/// So many queries may wait for their turn, for each that may run.
const WAITING_FACTOR: usize = 16;

/// What a query may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest time.
    pub time: Duration,
    /// Most memory, bytes; and most bytes of an answer.
    pub memory: u64,
    /// Most rows of an answer.
    pub rows: usize,
}

/// Runs queries.
#[derive(Debug)]
pub struct Engine {
    /// Queries have threads of their own, so that they cannot hold up point counts. None where all runs on one
    /// thread, see [`reckon_data::offload`].
    runtime: Option<Runtime>,
    /// How many of them.
    threads: usize,
    shared: Arc<RuntimeEnv>,
    limits: Limits,
    turns: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Queries that wait for their readers without a turn, as many as have one.
    idle: Arc<Semaphore>,
    /// Queries that are planned and not run: they need no turn, for one may be held by who wants to plan.
    planning: Arc<Semaphore>,
    functions: Functions,
}

impl Engine {
    /// An engine within the settings' limits.
    ///
    /// # Errors
    /// When its threads cannot be started.
    pub fn new(settings: &Settings) -> Result<Self, ServingError> {
        let threads = if is_single_threaded() { 1 } else { cores() };
        let own = || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("reckon-sql")
                .thread_stack_size(STACK_BYTES)
                .enable_all()
                .build()
        };
        let runtime = (!is_single_threaded()).then(own).transpose().map_err(ServingError::internal)?;
        let limits =
            Limits { time: settings.query_time, memory: settings.query_memory.as_u64(), rows: settings.rows_max };
        let queries = settings.queries.max(1);
        Ok(Self {
            runtime,
            threads,
            shared: RuntimeEnvBuilder::new().with_metadata_cache_limit(FOOTERS_BYTES).build_arc()?,
            limits,
            turns: Arc::new(Semaphore::new(queries)),
            waiting: Arc::new(Semaphore::new(queries.saturating_mul(WAITING_FACTOR))),
            idle: Arc::new(Semaphore::new(queries)),
            planning: Arc::new(Semaphore::new(queries)),
            functions: Functions::new(limits.text_bytes()),
        })
    }

    /// The limits of a query.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Waits for a query's turn, as long as a query may take.
    ///
    /// # Errors
    /// [`ServingError::Unavailable`] when too many run or wait.
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, ServingError> {
        let busy = || ServingError::unavailable("too many queries are running");
        let _waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| busy())?;
        let turn = tokio::time::timeout(self.limits.time, Arc::clone(&self.turns).acquire_owned()).await;
        turn.map_err(|_| busy())?.map_err(ServingError::internal)
    }

    /// The turn of a query whose rows somebody reads.
    #[must_use]
    pub fn lendable(&self, turn: OwnedSemaphorePermit) -> Turn {
        Turn::new(Arc::clone(&self.turns), Arc::clone(&self.idle), turn, self.limits.time)
    }

    /// Waits until a query may be planned that is not run.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    pub async fn planning_turn(&self) -> Result<OwnedSemaphorePermit, ServingError> {
        let busy = || ServingError::unavailable("too many queries are being planned");
        let _waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| busy())?;
        let turn = tokio::time::timeout(self.limits.time, Arc::clone(&self.planning).acquire_owned()).await;
        turn.map_err(|_| busy())?.map_err(ServingError::internal)
    }

    /// A context for one query, with memory of its own.
    ///
    /// # Errors
    /// When the folder for spilling cannot be made.
    pub fn context(&self) -> Result<SessionContext, ServingError> {
        let memory = usize::try_from(self.limits.memory).unwrap_or(usize::MAX);
        let spill =
            DiskManagerBuilder::default().with_max_temp_directory_size(self.limits.memory.saturating_mul(SPILL_FACTOR));
        let runtime = RuntimeEnvBuilder::from_runtime_env(&self.shared)
            .with_disk_manager_builder(spill)
            .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
            .build_arc()?;
        let mut config = SessionConfig::new().with_information_schema(true).with_target_partitions(self.threads);
        // It takes the order from a query within a query, and with it the meaning of a LIMIT around that.
        config.options_mut().sql_parser.enable_subquery_sort_elimination = false;
        let parquet = &mut config.options_mut().execution.parquet;
        parquet.pushdown_filters = true;
        parquet.reorder_filters = true;
        let mut state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_type_planner(Arc::new(Types::default()))
            .with_physical_optimizer_rule(Arc::new(CountHeld))
            .with_physical_optimizer_rule(Arc::new(KeepInMemory))
            .build();
        state.register_expr_planner(Arc::new(Pipes::new(self.limits.text_bytes())))?;
        let context = SessionContext::new_with_state(state);
        self.functions.register(&context);
        UNBOUNDED.iter().for_each(|name| context.deregister_udf(name));
        context.add_optimizer_rule(Arc::new(CollapseGroups));
        context.add_optimizer_rule(Arc::new(SplitGroups));
        Ok(context)
    }

    /// Runs a query's work on the query threads, within the time limit.
    ///
    /// # Errors
    /// [`ServingError::Timeout`], and those of the work.
    pub async fn run<T: Send + 'static>(
        &self,
        turn: OwnedSemaphorePermit,
        work: impl Future<Output = Result<T, ServingError>> + Send + 'static,
    ) -> Result<T, ServingError> {
        let mut work = self.start(async move {
            let _turn = turn;
            work.await
        });
        tokio::time::timeout(self.limits.time, work.end()).await.map_err(|_| self.limits.too_long())?
    }

    /// Starts a query's work on the query threads. Its turn and its time are its own affair.
    pub fn start<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ServingError>> + Send + 'static,
    ) -> Work<T> {
        Work(match &self.runtime {
            Some(runtime) => runtime.spawn(work),
            None => tokio::spawn(work),
        })
    }
}

/// Work of a query under way. Dropping it ends the work: nobody waits for it any more.
#[derive(Debug)]
pub struct Work<T>(JoinHandle<Result<T, ServingError>>);

impl<T> Work<T> {
    /// Waits for its end; once it has ended it must not be asked again.
    ///
    /// # Errors
    /// Those of the work, and [`ServingError::Internal`] when it panicked.
    pub async fn end(&mut self) -> Result<T, ServingError> {
        (&mut self.0).await.map_err(ServingError::internal)?
    }
}

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropping a runtime inside another one would panic.
            runtime.shutdown_background();
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

impl Limits {
    /// Most bytes of an answer as it is sent.
    #[must_use]
    pub fn answer_bytes(&self) -> usize {
        usize::try_from(self.memory / ANSWER_PART).unwrap_or(usize::MAX)
    }

    /// Most bytes of texts that a function may make at once; lengths of texts are 32 bits.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        usize::try_from(self.memory).unwrap_or(usize::MAX).min(TEXT_BYTES_MAX)
    }

    /// What a query is told that took too long.
    #[must_use]
    pub const fn too_long(&self) -> ServingError {
        ServingError::Timeout { limit: self.time }
    }

    /// What DataFusion says of a query that somebody else wrote.
    #[must_use]
    pub fn of_query(&self, error: &DataFusionError) -> ServingError {
        let root = error.find_root();
        // Anything can stand in the texts of other errors: they quote the query.
        if is_of_store(root)
            && let Some(damaged) = Damaged::cause(error)
        {
            return ServingError::Damaged { damaged };
        }
        // The files are all right, and what was asked of their rows is not.
        if let Some(message) = of_pattern(root) {
            return ServingError::bad("query", message);
        }
        match root {
            DataFusionError::ResourcesExhausted(message) => {
                ServingError::MemoryLimit { limit_bytes: self.memory, message: first_line(message) }
            }
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ParquetError(_) => {
                ServingError::unavailable(root)
            }
            DataFusionError::Internal(_)
            | DataFusionError::ExecutionJoin(_)
            | DataFusionError::External(_)
            | DataFusionError::Configuration(_) => ServingError::internal(root),
            DataFusionError::ArrowError(error, _) if is_of_disk(error) => {
                let message =
                    format!("what it keeps on disk meanwhile has grown too large: {}", first_line(&error.to_string()));
                ServingError::MemoryLimit { limit_bytes: self.memory, message }
            }
            // Around it may stand which step of planning found it.
            _ => ServingError::bad("query", first_line(&root.strip_backtrace())),
        }
    }
}

/// Whether an error comes from reading files.
const fn is_of_store(root: &DataFusionError) -> bool {
    match root {
        DataFusionError::ObjectStore(_)
        | DataFusionError::IoError(_)
        | DataFusionError::ParquetError(_)
        | DataFusionError::External(_) => true,
        DataFusionError::ArrowError(error, _) => {
            matches!(**error, ArrowError::ExternalError(_) | ArrowError::IoError(..) | ArrowError::ParquetError(_))
        }
        _ => false,
    }
}

/// What is said of a pattern that is none, or too large, if that is what failed: libraries say it in many ways.
fn of_pattern(root: &DataFusionError) -> Option<String> {
    let may_be =
        matches!(root, DataFusionError::ParquetError(_) | DataFusionError::External(_) | DataFusionError::Internal(_));
    let message = may_be.then(|| root.to_string())?;
    PATTERN_FAILED.iter().any(|what| message.contains(what)).then(|| {
        let words: Vec<&str> = message.split_whitespace().collect();
        words.join(" ").chars().take(MESSAGE_CHARS).collect()
    })
}

/// Whether a query has spilled more than it may. Texts of this kind of error are not the query's.
fn is_of_disk(error: &ArrowError) -> bool {
    matches!(error, ArrowError::IoError(message, _) if message.contains("max_temp_directory_size"))
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().to_owned()
}

/// The rows of a query, no more than its limits allow, and whether there were more.
///
/// # Errors
/// Those of the query.
pub async fn collect(frame: DataFrame, limits: Limits) -> Result<(SchemaRef, Vec<RecordBatch>, bool), ServingError> {
    let schema = Arc::new(Schema::clone(frame.schema().as_arrow()));
    let mut stream = frame.execute_stream().await.map_err(|error| limits.of_query(&error))?;
    let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0_u64);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|error| limits.of_query(&error))?;
        if batch.num_rows() == 0 {
            continue;
        }
        let left = limits.rows.saturating_sub(rows);
        bytes = bytes.saturating_add(batch.get_array_memory_size() as u64);
        if batch.num_rows() > left || (bytes > limits.memory && !batches.is_empty()) {
            batches.push(batch.slice(0, left.min(batch.num_rows())));
            return Ok((schema, batches, true));
        }
        rows += batch.num_rows();
        batches.push(batch);
    }
    Ok((schema, batches, false))
}
