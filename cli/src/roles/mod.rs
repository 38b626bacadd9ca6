//! Roles as processes of their own, over a log and tables that lie elsewhere.
//!
//! ```text
//! gateway   takes events             ─▶ log
//! stream    counts its partitions    log ─▶ stream_counts, tail over Arrow Flight
//! archive   archives its partitions  log ─▶ events, dead_letters; one of them maintains the tables
//! serve     answers questions        tables + tails of all who count; batch runs
//! ```
//!
//! Who works on which partition is a matter of leases (`reckon_data::lease`), unless it is told with `--partitions`.

mod archive;
mod gateway;
mod leased;
mod partitions;
mod process;
mod recount;
mod running;
mod serve;
mod stream;

pub use archive::Archive;
pub use gateway::Gateway;
pub use recount::{audit, recount};
pub use serve::Serve;
pub use stream::Stream;
