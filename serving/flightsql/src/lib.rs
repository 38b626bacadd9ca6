//! Arrow Flight SQL over the serving layer: what ADBC, JDBC and other clients of Flight SQL ask of a serving node.
//!
//! ```text
//! GetFlightInfo(query) ─▶ planned, not run ─▶ ticket: query, as_of, parameters, id
//! DoGet(ticket)        ─▶ Serving::sql_stream ─▶ rows as they are made; provenance in the metadata of their schema
//! ```
//!
//! Tickets and handles of prepared statements hold all that is needed to answer ([`handle`]), so nothing of them is kept
//! here and any serving node can answer them. Reading only: updates, ingestion and transactions are refused.
//!
//! - [`service`]: statements, prepared statements, metadata, cancel; [`gate`]: the rest of the Flight protocol; [`door`]: serving it.
//! - [`rows`]: an answer on its way; [`running`]: what can be cancelled; [`parameters`]: values of `$1`, `$2`, ….
//! - [`catalogue`]: schemas and tables; [`info`]: what the server can, types, keys; [`status`]: errors; [`metrics`].

mod catalogue;
mod door;
mod gate;
mod handle;
mod info;
mod metrics;
mod parameters;
mod rows;
mod running;
mod service;
mod status;

pub use door::Door;

/// The header of a request that asks for an older version of batch.
pub const AS_OF_HEADER: &str = "reckon-as-of";
/// The header of a request that, when `true`, wants a whole answer or none.
pub const COMPLETE_ONLY_HEADER: &str = "reckon-complete-only";
/// The header of an answer, and the key in the metadata of its schema, that say whether it is whole: `true` or `false`.
pub const COMPLETE_HEADER: &str = "reckon-complete";
/// The key in the metadata of an answer's schema with its provenance, as JSON.
pub const PROVENANCE_KEY: &str = "reckon-provenance";
