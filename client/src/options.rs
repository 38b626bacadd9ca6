//! How requests are made.

use std::time::Duration;

use crate::backoff::Backoff;

/// How requests are made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Longest time until a connection stands.
    pub connect_timeout: Duration,
    /// Longest time of asking one server once, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// When to try again.
    pub backoff: Backoff,
    /// Failures in a row after which a server is left alone.
    pub failures_max: u32,
    /// For how long.
    pub rest: Duration,
    /// When events are compressed.
    pub compression: Compression,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(120),
            backoff: Backoff::default(),
            failures_max: 8,
            rest: Duration::from_secs(2),
            compression: Compression::default(),
        }
    }
}

/// When bodies of events are compressed, with zstd. Those of up to a KiB never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Never.
    Never,
    /// Whatever the address.
    Always,
    /// Unless all servers are on this machine, where compressing takes longer than it saves.
    #[default]
    Remote,
}
