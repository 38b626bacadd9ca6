//! How events are gathered and kept.

use std::path::PathBuf;
use std::time::Duration;

/// How events are gathered and kept.
#[derive(Debug, Clone)]
pub struct SenderOptions {
    /// A batch is sent when it has so many bytes; an event that is longer is a batch of its own. Not more than a
    /// quarter of the buffer.
    pub batch_bytes: usize,
    /// A batch that could be sent is, when its first event has waited so long.
    pub linger: Duration,
    /// Batches on their way at once.
    pub in_flight: usize,
    /// Bytes of events in memory that are not acknowledged yet, on their way or waiting. With a spill, a quarter of
    /// it is for what is read back. At most 1 GiB.
    pub buffer_bytes: usize,
    /// Longest time of asking one server once to take a batch, unless the client's is shorter.
    pub timeout: Duration,
    /// Where the events are from: it stands in the dead letters of those that are refused.
    pub source: Option<String>,
    /// Where to put what memory has no room for, or no server takes.
    pub spill: Option<SpillOptions>,
}

impl Default for SenderOptions {
    fn default() -> Self {
        Self {
            batch_bytes: 256 * 1_024,
            linger: Duration::from_millis(50),
            in_flight: 4,
            buffer_bytes: 8 * 1_024 * 1_024,
            timeout: Duration::from_secs(30),
            source: None,
            spill: None,
        }
    }
}

/// A folder for batches.
#[derive(Debug, Clone)]
pub struct SpillOptions {
    /// The folder. It is made if it does not exist; one sender at a time works with it.
    pub dir: PathBuf,
    /// Bytes of batches in it.
    pub bytes_max: u64,
}

/// The largest buffer: its bytes are counted in 32 bits.
const BUFFER_BYTES_MAX: usize = 1 << 30;

/// The bounds that follow from the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes of events in memory, without those that are read back.
    pub(super) room: usize,
    /// Bytes of files that are read back and on their way at once.
    pub(super) read_back: u64,
    /// Bytes of a batch.
    pub(super) batch: usize,
    /// How long a batch waits for more.
    pub(super) linger: Duration,
    /// Batches on their way at once.
    pub(super) in_flight: usize,
    /// Bytes of files; none without a spill.
    pub(super) spill: Option<u64>,
}

impl Limits {
    pub(super) fn of(options: &SenderOptions) -> Self {
        let buffer = options.buffer_bytes.min(BUFFER_BYTES_MAX);
        let read_back = if options.spill.is_some() { buffer / 4 } else { 0 };
        Self {
            room: buffer - read_back,
            read_back: read_back as u64,
            batch: options.batch_bytes.min(buffer / 4).max(1),
            linger: options.linger,
            in_flight: options.in_flight.max(1),
            spill: options.spill.as_ref().map(|spill| spill.bytes_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_there_is_a_way_on() {
        let spill = || Some(SpillOptions { dir: PathBuf::new(), bytes_max: 7 });
        let limits = Limits::of(&SenderOptions { spill: spill(), ..SenderOptions::default() });
        assert_eq!((limits.room, limits.read_back, limits.spill), (6 << 20, 2 << 20, Some(7)));
        let limits = Limits::of(&SenderOptions { in_flight: 0, batch_bytes: 0, ..SenderOptions::default() });
        assert_eq!((limits.room, limits.in_flight, limits.batch), (8 << 20, 1, 1));
        let large = SenderOptions { batch_bytes: usize::MAX, buffer_bytes: usize::MAX, ..SenderOptions::default() };
        assert_eq!((Limits::of(&large).room, Limits::of(&large).batch), (1 << 30, 1 << 28));
    }
}
