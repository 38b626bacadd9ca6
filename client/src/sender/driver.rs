//! The task behind a sender: it begins what is to be done, and notes what came of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backlog::Step;
use super::deliver;
use super::shared::Shared;
use super::spill::Spill;
use super::state::Done;

/// The longest pause after no server took a batch, in spite of all the client's attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The task behind a sender.
pub(super) struct Driver {
    shared: Arc<Shared>,
    /// Its lock is free when the driver has ended.
    spill: Option<Arc<Spill>>,
    begun: JoinSet<Done>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, spill: Option<Arc<Spill>>) -> Self {
        Self { shared, spill, begun: JoinSet::new() }
    }

    /// Runs until the sender stops. Files are written to their end, requests are given up then.
    pub(super) async fn run(mut self) {
        while !self.shared.is_stopping() {
            let wake_at = self.begin_all();
            tokio::select! {
                () = self.shared.work.notified() => {}
                () = sleep_until(wake_at) => {}
                Some(done) = self.begun.join_next() => match done {
                    Ok(done) => self.finish(done),
                    // It panicked, and nobody knows what became of its batch: whoever waits for that is told.
                    Err(_) => return,
                },
            }
        }
        while let Some(done) = self.begun.join_next().await {
            // What panicked leaves nothing to note.
            if let Ok(done) = done {
                self.finish(done);
            }
        }
    }

    /// Begins all that is to be done; returns when to look again though nothing happens.
    fn begin_all(&mut self) -> Option<Instant> {
        loop {
            let (now, pressure) = (Instant::now(), self.shared.pressure());
            let mut state = self.shared.state.lock();
            let Some(step) = state.backlog.next(now, pressure) else { return state.backlog.wake_at(now) };
            drop(state);
            self.begin(step);
        }
    }

    fn begin(&mut self, step: Step) {
        let shared = Arc::clone(&self.shared);
        match (step, &self.spill) {
            (Step::Send(id, sealed), _) => {
                self.begun.spawn(deliver::send(shared, id, sealed));
            }
            (Step::SendBack(id), Some(spill)) => {
                self.begun.spawn(deliver::send_back(shared, Arc::clone(spill), id));
            }
            (Step::Spill(id, sealed), Some(spill)) => {
                self.begun.spawn(deliver::set_down(Arc::clone(spill), id, sealed));
            }
            // Without a spill there is no such step.
            (Step::SendBack(_) | Step::Spill(..), None) => {}
        }
    }

    fn finish(&self, done: Done) {
        let longest = self.shared.client.options().backoff.longest.min(PAUSE_MAX);
        // Senders that failed at the same moment come back at different ones, and none at once.
        let pause = longest.mul_f64(0.5 + rand::random::<f64>() / 2.0).max(Duration::from_millis(1));
        let freed = self.shared.state.lock().finish(done, Instant::now(), pause);
        self.shared.room.add_permits(freed);
        self.shared.settled.notify_waiters();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.state.lock().end();
        self.shared.room.close();
        self.shared.settled.notify_waiters();
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use reckon_data::clock::RandomNames;
    use uuid::Uuid;

    use super::*;
    use crate::client::Client;
    use crate::options::Options;
    use crate::sender::backlog::Backlog;
    use crate::sender::error::SendError;
    use crate::sender::options::{Limits, SenderOptions};
    use crate::sender::state::{Answer, State};
    use crate::testing::NOBODY;

    #[tokio::test]
    async fn what_ends_after_the_stop_counts() {
        let client = Arc::new(Client::new(NOBODY, Options::default()).unwrap());
        let limits = Limits::of(&SenderOptions::default());
        let state = State::new(Backlog::new(limits, Arc::new(RandomNames), BTreeMap::new()));
        let shared = Arc::new(Shared::new(client, None, Duration::from_secs(1), state, limits.room));
        let mut driver = Driver::new(Arc::clone(&shared), None);
        let outcome = Ok(Answer::Refused("no".to_owned()));
        let done = Done::SentBack { id: Uuid::nil(), events: 3, outcome, trouble: None };
        driver.begun.spawn(std::future::ready(done));
        shared.stop();
        driver.run().await;
        let mut state = shared.state.lock();
        assert_eq!(state.stats().refused, 3);
        assert!(matches!(state.backlog.take_lost(), Some(SendError::Refused { events: 3, .. })));
    }
}
