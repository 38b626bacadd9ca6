//! The serving layer: one answer out of batch counts and stream counts.
//!
//! ```text
//! question ─▶ query ─▶ view (batch below coverage ⊎ tails from there on) ─▶ answer + provenance
//!                       │            │
//!                     index        Tails (a function call, or remote)
//! ```
//!
//! [`accept`] is where clients come in; [`entities`] are what is known of entities beside their counts; [`view`] decides, purely, what an answer is made of and whether it is whole (R-2, R-7, R-9);
//! [`index`] holds batch counts for point counts and top lists; [`query`] is the API that REST, SQL and
//! the command line share; [`replay`] replays dead letters; [`rolled`] says what is finer than is still counted; [`sql`] is DataFusion over the same pieces; [`metrics`] counts the questions.

pub mod accept;
pub mod entities;
pub mod error;
pub mod index;
pub mod metrics;
pub mod query;
pub mod replay;
pub mod rest;
pub mod rolled;
pub mod sql;
mod times;
pub mod view;

#[cfg(test)]
mod testing;

pub use error::ServingError;
pub use query::{Serving, ServingParts};
