//! End to end: the real binary, over its real interfaces, one test binary for all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod alerts;
mod audit;
mod canary;
mod client;
mod commands;
mod damage;
mod datasets;
mod flight_sql;
mod fluvio;
mod frozen;
mod harness;
mod import;
mod kill;
mod postgres;
mod replay;
mod rest;
mod roles;
mod slow;
mod slt;
mod sql;
