//! All layers under one seeded scheduler, with faults, held to an oracle that counts for itself.
//!
//! ```text
//! seed ─▶ steps: traffic, batch, maintenance, replays, crashes, stopped processes, clock jumps, storms of faults
//!              │
//!        gateway, counter, archiver, recompute, serving: the real ones, on one thread and in virtual time
//!              │ every I/O asks first: fine? error? unknown outcome? slow? does the process die?
//!        models of log, tables and object store
//!              │
//!        oracle: reads all that was ever appended, and counts naively; every answer is held to it
//! ```
//!
//! A seed replays exactly. Invariants: R-1 to R-4 and R-7 to R-9 (see [`answers`] and [`tables`]).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

pub mod answers;
pub mod audit;
mod client;
pub mod clock;
pub mod faults;
pub mod io;
pub mod node;
pub mod oracle;
pub mod plan;
pub mod run;
pub mod shelf;
pub mod tables;
pub mod traffic;

#[cfg(test)]
mod tests;

pub use plan::{Kind, Outcome, Plan};
pub use run::run;
