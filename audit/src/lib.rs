//! The audit: proves the counts.
//!
//! The ledger recounts the raw events along a path of its own, in Polars; the canary sends known events through the
//! front door. Both know the event model, the key and the minute function, and nothing that counts.

pub mod alert;
pub mod auditor;
pub mod canary;
pub mod error;
pub mod finding;
pub mod ledger;
mod memory;
pub mod repair;
pub mod report;
pub mod runs;
pub mod store;

pub use error::AuditError;
