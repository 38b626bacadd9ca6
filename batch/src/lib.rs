//! The batch layer: archiver, recompute, compaction and retention.

pub mod archive;
pub mod lock;
pub mod maintain;
pub mod recompute;
pub mod runs;
pub mod schedule;
