//! What can go wrong with sending events.

/// What can go wrong with sending events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no room for the event now.
    #[error("the buffer is full: the servers take events more slowly than they come")]
    Full,
    /// It is not one event on one line.
    #[error("an event is JSON on one line: {reason}")]
    BadEvent {
        /// Why not.
        reason: &'static str,
    },
    /// The event is larger than the buffer.
    #[error("the event has {bytes} bytes, and the buffer holds {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most there is room for.
        bytes_max: usize,
    },
    /// No server takes events. What was sent is kept, and sent again.
    #[error("no server takes the events, which are kept and sent again: {reason}")]
    Failing {
        /// What the last one said, or why the spill could not take them.
        reason: String,
    },
    /// Whole batches were refused without a word about their events, which are in no dead letter. Those from the spill are
    /// kept there, as `….refused`, the others are not.
    #[error("{events} events were refused as a whole: {reason}")]
    Refused {
        /// How many since that was last said.
        events: u64,
        /// What the server said of the first of them.
        reason: String,
    },
    /// The sender was closed, or came to an end.
    #[error("the sender is closed")]
    Closed,
}
