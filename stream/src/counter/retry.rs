//! Trying again what a store refused, with growing pauses.

use std::time::Duration;

use super::shared::Shared;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses between tries.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// Waits, each time twice as long, up to ten seconds; no longer than until the counter stops.
    pub(super) async fn wait(&mut self, shared: &Shared) {
        tokio::select! {
            biased;
            () = tokio::time::sleep(self.next) => {}
            () = shared.stopped() => {}
        }
        self.next = (self.next * 2).min(LONGEST);
    }
}
