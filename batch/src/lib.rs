//! The batch layer: archiver, recompute, compaction and retention.

pub mod archive;
mod commit;
pub mod lock;
pub mod maintain;
pub mod mend;
pub mod recompute;
pub mod runs;
pub mod schedule;
#[cfg(test)]
mod scratched;
pub mod tables;
