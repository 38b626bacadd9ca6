//! What flows through Reckon and where it rests.
//!
//! Everything that the layers must agree on is defined here, once: the [`event`] and its validity,
//! its [`key`] and [`minute`], the [`metric`]s, the [`definition`] of what is counted, the
//! [`partition`] an event goes to, the [`record`] the [`log`] stores, the [`run`] of counts that
//! stream and serving exchange, the [`table`]s and their compare-and-set commit, and the settings.
//! Nothing here knows a layer above it.

pub mod clock;
pub mod columns;
pub mod config;
pub mod damage;
pub mod dead;
pub mod decimal;
pub mod definition;
pub mod event;
pub mod files;
pub mod filter;
pub mod foreign;
pub mod imports;
pub mod ingest;
pub mod invariant;
pub mod jobs;
pub mod kept;
pub mod key;
pub mod lease;
pub mod log;
pub mod logtime;
pub mod loss;
pub mod lost;
pub mod metric;
pub mod minute;
pub mod offload;
pub mod partition;
pub mod paths;
pub mod problem;
pub mod receipt;
pub mod record;
pub mod rolled;
pub mod run;
pub mod segment;
pub mod table;
pub mod tail;
