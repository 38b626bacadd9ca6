//! The tail across processes, over Arrow Flight: [`Tails`](reckon_data::tail::Tails) of the processes that count, for those
//! that serve.
//!
//! ```text
//! serving ─▶ Remote ─▶ lease of the partition: who counts it, and where ─▶ DoGet(ask) ─▶ server ─▶ counter
//!            Remote ◀─ position, counts as record batches or sums ◀───────────────────────┘
//! ```
//!
//! An ask is a ticket, its answer one stream: the position and what else is small in the metadata of its first message,
//! counts as record batches after it. Whoever cannot be asked is unavailable, and the answer that needed it says so (R-7).
//!
//! - [`wire`]: what is asked and answered; pure.
//! - [`server`]: answers for the tails of its process.
//! - [`remote`]: asks whoever has the lease of a partition.

pub mod remote;
pub mod server;
pub mod wire;

pub use remote::Remote;
