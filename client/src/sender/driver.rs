//! The task behind a sender: it begins what is to be done, and notes what came of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backlog::Step;
use super::deliver;
use super::shared::Shared;
use super::state::Done;

/// The longest pause after no server took a batch, in spite of all the client's attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The task behind a sender.
pub(super) struct Driver {
    shared: Arc<Shared>,
    begun: JoinSet<Done>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, begun: JoinSet::new() }
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
        while self.begun.join_next().await.is_some() {}
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
        match (step, &self.shared.spill) {
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
