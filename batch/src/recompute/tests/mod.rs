//! The recompute against a naive count of the same events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod elsewhere;
mod laws;
mod modes;
mod oracle;
mod recounts;
mod replace;
mod rolled;
mod world;
