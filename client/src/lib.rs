//! A client for Reckon's REST interface.
//!
//! [`Client`] sends requests with a timeout, tries again with [`backoff`] and jitter where that is
//! harmless, and stops asking a server that keeps failing ([`breaker`]). [`batch::Batch`] gathers
//! events into bodies of a useful size.

pub mod backoff;
pub mod batch;
pub mod breaker;
mod client;
mod error;
mod url;

pub use client::{Client, Options};
pub use error::ClientError;
pub use url::encode;
