//! A client for Reckon's REST interface.
//!
//! ```text
//!  an application ──event──▶ Sender ──batch──┐            ┌──▶ http://a:7700
//!                              │ ▲           ▼            │
//!                   no room,   │ │ oldest  Client ──turn──┼──▶ http://b:7700
//!                   no server  ▼ │ first     ▲            │     (health, rest)
//!                             files          │            └──▶ http://c:7700
//!  an importer ─────────lines, questions─────┘
//! ```
//!
//! [`Client`] makes requests of one server or several: with a timeout, again with [`backoff`] and jitter, and leaves a
//! server alone that keeps failing ([`breaker`]). Events go to the servers in turn, and to the next at once when one
//! fails; everything else stays with one server for as long as that can be reached.
//! [`Sender`] is for applications: it takes one event after another, gathers them into batches, keeps several of them
//! on their way, and what no server takes for now it keeps, in bounded memory and in files. [`batch::Batch`] gathers
//! events into bodies of a useful size for those who keep track themselves.
//!
//! All of it may send a request again, and no event counts twice for that: a POST has an `Idempotency-Key`, the same
//! whenever it is repeated, and an event without an id is named after it. A repeat that comes after the stream's dedup
//! window, as one from a file may, is dropped by the next batch run. The key does nothing for dead letters
//! ([`Client::bury`]): when that request is repeated, they may be kept twice.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use reckon_client::{Client, Options, Sender, SenderOptions};
//!
//! let client = Client::new("http://a:7700,http://b:7700", Options::default())?;
//! let sender = Sender::start(client, SenderOptions::default())?;
//! sender.send(br#"{"event_type": "view", "entity_id": "video-1", "event_time": 1700000000000}"#).await?;
//! sender.close().await?;
//! # Ok(())
//! # }
//! ```

pub mod backoff;
pub mod batch;
pub mod breaker;
mod client;
mod compress;
mod error;
mod exchange;
mod options;
mod round;
mod sender;
mod server;
mod servers;
#[cfg(test)]
mod testing;
mod url;

pub use client::Client;
pub use error::ClientError;
pub use options::{Compression, Options};
pub use sender::{Refusal, SendError, Sender, SenderOptions, SpillError, SpillOptions, Stats};
pub use url::encode;
