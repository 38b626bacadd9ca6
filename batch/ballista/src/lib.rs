//! Counting raw events on several machines: the scheduler and the executors of Ballista, and the recompute's way to them.
//!
//! ```text
//! recompute ──SQL, list of files──▶ scheduler ──stages──▶ executors ──Parquet──▶ object store
//!           ◀──────────────── rows of counts ──────────────┘
//! ```
//!
//! Nothing of it is ours but what it lacks to know our tables: [`codec`] takes a pinned list of files from one machine to
//! another, [`session`] gives the functions of the batch queries and the store.
//!
//! - [`cluster`]: queries, for whoever runs batch.
//! - [`scheduler`], [`executor`]: the two kinds of process.

pub mod cluster;
mod codec;
pub mod executor;
pub mod scheduler;
mod session;

pub use cluster::BallistaCluster;

/// Longest message between the parts: the list of a date's files is in one, and plans with the hashes that repeat are in one, as
/// many as an executor has threads.
const MESSAGE_BYTES_MAX: u32 = 1 << 30;
/// How often an executor says that it lives, seconds; and how long none is waited for that says nothing.
const HEARTBEAT_SECONDS: u64 = 3;
const EXECUTOR_DEAD_SECONDS: u64 = 15;
/// How long results of a query lie on executors, seconds: longer than it takes to sort what comes before them.
const KEPT_SECONDS: u64 = 1_200;
/// How long the scheduler remembers a query that has ended, seconds: its plan may be large.
const REMEMBERED_SECONDS: u64 = 120;
