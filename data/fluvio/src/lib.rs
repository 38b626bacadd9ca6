//! The log as a topic of a Fluvio cluster: [`Log`](reckon_data::log::Log) on the crates of its client.
//!
//! ```text
//! append ─▶ one batch ─▶ leader of the partition ─▶ committed ─▶ base offset
//! read   ─▶ fetch from an offset ─▶ whole records of the batches that came, from the offset asked for
//! ends   ─▶ first and last offsets of all partitions, asked for again and again while somebody watches
//! ```
//!
//! Records are fetched, each time from the offset that is wanted next, and not streamed: the client's streaming
//! consumer goes on at the next batch where an answer ends within one, and so skips records (docs/adr/0009).
//! Here an answer that ends within a batch is only a short one; the next fetch begins where it ended. Every answer
//! is checked: offsets follow each other from the one asked for, or reading fails.
//!
//! - [`address`]: which topic, of which cluster.
//! - `cluster`: leaders and connections.
//! - `codec`: batches to records and back; pure.
//! - `behind`: brokers that were killed.
//! - `birth`: the log's identity, and how a topic that was made anew is told from the one before.
//! - `ends`: the partitions' ends as they move.
//! - `requests`: appending and fetching.
//! - `log`: the trait.

pub mod address;
mod behind;
mod birth;
mod cluster;
mod codec;
mod ends;
mod log;
mod requests;

pub use address::Address;
pub use log::{FluvioLog, Options};
