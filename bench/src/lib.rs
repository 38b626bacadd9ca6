//! Traffic for the demo, and load scenarios for the benchmarks.
//!
//! [`zipf`] chooses entities as people do, [`plausible`] makes traffic to look at, [`lines`] makes lines
//! as quickly as a load test needs them. [`ingest`] measures how many events a second a server takes,
//! [`query`] how long questions take meanwhile, [`mixed`] questions of all kinds (what both share is in `load`), [`recount`] loads what a batch run recounts, [`log`] asks a log alone; all others through [`send`], on a
//! server that [`server`] watches.

pub mod ingest;
pub mod lines;
mod load;
pub mod log;
pub mod mixed;
pub mod plausible;
pub mod query;
pub mod recount;
pub mod send;
pub mod server;
pub mod zipf;
