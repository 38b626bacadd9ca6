//! What runs and can be cancelled.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

/// The answers that are on their way; no more than there may be streams.
#[derive(Debug, Default)]
pub struct Running {
    answers: Mutex<HashMap<Uuid, Answers>>,
}

/// The answers to one ticket: it may be asked with more than once.
#[derive(Debug)]
struct Answers {
    number: usize,
    cancel: watch::Sender<bool>,
}

impl Running {
    /// Notes an answer, until what is returned is dropped. One without an id can only be dropped.
    pub fn begin(self: &Arc<Self>, id: Option<Uuid>) -> Run {
        let mut answers = self.answers.lock();
        let cancelled = id.map(|id| {
            let entry = answers.entry(id).or_insert_with(|| Answers { number: 0, cancel: watch::Sender::new(false) });
            entry.number += 1;
            entry.cancel.subscribe()
        });
        Run { running: Arc::clone(self), id, cancelled }
    }

    /// Ends everything.
    pub fn cancel_all(&self) {
        self.answers.lock().values().for_each(|answers| {
            answers.cancel.send_replace(true);
        });
    }

    /// Ends all answers to a ticket; whether there were any.
    pub fn cancel(&self, id: Uuid) -> bool {
        self.answers.lock().get(&id).is_some_and(|answers| {
            answers.cancel.send_replace(true);
            true
        })
    }
}

/// An answer that is on its way.
#[derive(Debug)]
pub struct Run {
    running: Arc<Running>,
    id: Option<Uuid>,
    cancelled: Option<watch::Receiver<bool>>,
}

impl Run {
    /// Waits until somebody cancels it.
    pub async fn cancelled(&mut self) {
        let is_cancelled = match &mut self.cancelled {
            Some(cancelled) => cancelled.wait_for(|cancelled| *cancelled).await.is_ok(),
            None => false,
        };
        if !is_cancelled {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        if let Entry::Occupied(mut entry) = self.running.answers.lock().entry(id) {
            entry.get_mut().number -= 1;
            if entry.get().number == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_runs_is_cancelled_and_nothing_else() {
        let running = Arc::new(Running::default());
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(!running.cancel(one), "it does not run yet");
        let (mut first, mut again) = (running.begin(Some(one)), running.begin(Some(one)));
        let mut untouched = running.begin(Some(other));
        assert!(running.cancel(one));
        first.cancelled().await;
        again.cancelled().await;
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), untouched.cancelled()).await;
        assert!(waited.is_err());
        drop(first);
        assert!(running.cancel(one), "one of the two is left");
        drop(again);
        assert!(!running.cancel(one));
        drop(untouched);
        assert!(running.answers.lock().is_empty());
        drop(running.begin(None));
    }
}
