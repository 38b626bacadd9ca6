//! The ledger: the raw events counted a third time, and held against the log, the stream, batch and answers.
//!
//! ```text
//! log ──────────┐ by place                       heldlog.rs, logcheck.rs, rawcheck.rs
//! raw events ───┼─▶ each key once, weighed ──┐   raw.rs, held.rs, reduce.rs, weigh.rs
//! batch counts ─┼─▶ weighed ─────────────────┴─▶ cells that differ ─▶ rows that differ ─▶ causes
//! segments ─────┘                                datecheck.rs     compare.rs      explain.rs, conclude.rs
//! ```
//!
//! Everything is first compared by weighed sums ([`weigh`]), which takes one pass and little memory; only where these
//! differ, and of a sample, rows are compared one by one, in Polars. Nothing here counts as stream or batch do: they share the event,
//! its key and its minute.

mod columns;
mod compare;
mod conclude;
mod counts;
mod datecheck;
mod explain;
mod gathered;
mod held;
mod heldlog;
mod horizon;
mod judged;
mod load;
mod logcheck;
mod pin;
mod place;
mod raw;
mod rawcheck;
mod reduce;
mod rows;
mod run;
mod scan;
mod segmentcheck;
mod segments;
mod served;
mod streamcheck;
mod subset;
#[cfg(test)]
mod testing;
mod told;
mod weigh;
mod window;

pub use run::{Ledger, LedgerOptions, LedgerParts, OnProgress, Progress};
pub use served::{Answer, Answers, Question};
