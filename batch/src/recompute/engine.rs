//! Where a run computes: threads, memory and temporary files of its own.
//!
//! Counting keeps every core busy for minutes, so it has threads apart from those that answer requests.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, PeakRecordingPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use reckon_data::offload::{give_way, offload, offload_future};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::error::BatchError;

/// How far its threads give way: a run takes what events and questions leave, and not next to nothing.
const NICE: i32 = 10;
/// Memory that a row takes while a chunk is grouped and sorted, about.
const BYTES_PER_ROW: usize = 600;
/// Memory that a run has at least, whatever the settings say.
const MEMORY_MIN: usize = 64 * 1024 * 1024;
/// What a sort keeps back for merging what it has spilled.
const SORT_RESERVE: usize = 8 * 1024 * 1024;
/// Rows of a chunk: enough to be worth a file, and few enough that a sort key takes no more than 128 bits even if
/// every text is another in every row. That is 19 bits each for entity, type, three dimensions and the row itself,
/// and 11 for the minute of a date: 125.
pub(super) const CHUNK_ROWS: std::ops::RangeInclusive<usize> = 16 * 1024..=1 << 19;

/// Threads to compute on. Dropped without waiting for them.
#[derive(Debug)]
pub struct Threads {
    /// None: whoever runs it has but one thread, and it computes on that (see [`reckon_data::offload`]).
    runtime: Option<Runtime>,
    /// How many there are.
    pub count: usize,
}

impl Threads {
    /// `count` threads.
    ///
    /// # Errors
    /// When the system has none left.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        runtime.worker_threads(count).thread_name("batch").on_thread_start(|| give_way(NICE)).enable_all();
        let runtime = runtime.build()?;
        Ok(Self { runtime: Some(runtime), count })
    }

    /// None of its own.
    #[must_use]
    pub const fn none() -> Self {
        Self { runtime: None, count: 1 }
    }

    fn handle(&self) -> Handle {
        self.runtime.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for threads is forbidden where this may be dropped.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The means of one run.
#[derive(Debug, Clone)]
pub struct Engine {
    env: Arc<RuntimeEnv>,
    pool: Arc<PeakRecordingPool>,
    /// Where tasks run.
    pub handle: Handle,
    /// How many run at once.
    pub parallel: usize,
    /// Rows that one task groups and sorts in memory.
    pub chunk_rows: usize,
    /// Key hashes that are looked at together.
    pub hashes_max: usize,
    sort_reserve: usize,
    /// Held by a query that sorts: each takes all threads and what memory there is.
    pub sorting: Arc<Semaphore>,
}

impl Engine {
    /// An engine that keeps to about `memory` bytes and spills into `spill_dir`.
    ///
    /// # Errors
    /// When the runtime cannot be made.
    pub fn new(threads: &Threads, memory: usize, spill_dir: PathBuf) -> Result<Self, BatchError> {
        let memory = memory.max(MEMORY_MIN);
        // The other half is for what DataFusion does not account for: decoding, sorting, encoding.
        let pool = Arc::new(PeakRecordingPool::new(Arc::new(FairSpillPool::new(memory / 2))));
        let env = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(&pool) as Arc<dyn MemoryPool>)
            .with_temp_file_path(spill_dir)
            .build_arc()?;
        let chunk_rows = memory / (threads.count * BYTES_PER_ROW);
        Ok(Self {
            env,
            pool,
            handle: threads.handle(),
            parallel: threads.count,
            chunk_rows: chunk_rows.clamp(*CHUNK_ROWS.start(), *CHUNK_ROWS.end()),
            hashes_max: (memory / 4 / size_of::<u64>()).max(*CHUNK_ROWS.start()),
            sort_reserve: SORT_RESERVE.min(memory / 16 / threads.count),
            sorting: Arc::new(Semaphore::new(1)),
        })
    }

    /// A session whose plans run on `partitions` threads. With `late`, columns are decoded only for the rows
    /// that filters leave.
    #[must_use]
    pub fn session(&self, partitions: usize, late: bool) -> SessionContext {
        let mut config = SessionConfig::new().with_target_partitions(partitions);
        let execution = &mut config.options_mut().execution;
        execution.parquet.pushdown_filters = late;
        execution.sort_spill_reservation_bytes = self.sort_reserve;
        SessionContext::new_with_config_rt(config, Arc::clone(&self.env))
    }

    /// Runs a task on the engine's threads; it is stopped when the result is dropped.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, BatchError>> + Send + 'static,
    ) -> Task<T> {
        Task(self.handle.spawn(task))
    }

    /// Runs a closure that blocks.
    pub fn spawn_blocking<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> Result<T, BatchError> + Send + 'static,
    ) -> Task<T> {
        self.spawn(async move { offload(task).await.map_err(|error| BatchError::Stopped(error.to_string()))? })
    }

    /// Runs a task that keeps a processor busy.
    pub fn spawn_busy<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, BatchError>> + Send + 'static,
    ) -> Task<T> {
        self.spawn(async move { offload_future(task).await.map_err(|error| BatchError::Stopped(error.to_string()))? })
    }

    /// Most memory that DataFusion has reserved, bytes.
    #[must_use]
    pub fn memory_peak(&self) -> u64 {
        self.pool.max_reserved() as u64
    }
}

/// A task of the engine.
#[derive(Debug)]
pub struct Task<T>(JoinHandle<Result<T, BatchError>>);

impl<T> Future for Task<T> {
    type Output = Result<T, BatchError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|joined| joined.unwrap_or_else(|error| Err(BatchError::Stopped(error.to_string()))))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
