//! Getting messages to receivers: a bounded queue each, so that one that does not answer holds up nobody else.
//!
//! What a receiver does not take is tried again with exponential backoff and full jitter, a bounded number of times;
//! then it is logged as an error and counted.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use reckon_client::backoff::Backoff;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::receiver::Receiver;
use super::stats::AlertStats;
use super::{Message, SendError};

/// Messages that wait for one receiver.
const QUEUE_MAX: usize = 256;
/// Longest wait between two attempts when the process is about to end.
const STOPPING_WAIT_MAX: Duration = Duration::from_millis(500);

/// How often, and how far apart, a message is tried: 24 times within some 40 minutes. A receiver that is made anew
/// meanwhile is told when it is back, and not only by the reminder hours later.
#[must_use]
pub const fn backoff() -> Backoff {
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300), attempts: 24 }
}

/// The queues of all receivers.
#[derive(Debug)]
pub struct Outbox {
    queues: BTreeMap<String, mpsc::Sender<Arc<Message>>>,
    workers: Mutex<Vec<(String, JoinHandle<()>)>>,
    stopping: watch::Sender<bool>,
    stats: Arc<AlertStats>,
}

impl Outbox {
    /// Starts delivering to each receiver.
    #[must_use]
    pub fn start(receivers: &[Arc<dyn Receiver>], backoff: Backoff, stats: &Arc<AlertStats>) -> Self {
        let stopping = watch::Sender::new(false);
        let (mut queues, mut workers) = (BTreeMap::new(), Vec::new());
        for receiver in receivers {
            let (queue, messages) = mpsc::channel(QUEUE_MAX);
            let name = receiver.name().to_owned();
            queues.insert(name.clone(), queue);
            let (receiver, stats) = (Arc::clone(receiver), Arc::clone(stats));
            let worker = Worker { receiver, backoff, stats, stopping: stopping.subscribe() };
            workers.push((name, tokio::spawn(worker.work(messages))));
        }
        Self { queues, workers: Mutex::new(workers), stopping, stats: Arc::clone(stats) }
    }

    /// Puts a message into the queues of these receivers, all when none is named; never waits.
    pub fn send(&self, to: &[String], message: Message) {
        let message = Arc::new(message);
        for (name, queue) in self.queues.iter().filter(|(name, _)| to.is_empty() || to.contains(*name)) {
            let reason = match queue.try_send(Arc::clone(&message)) {
                Ok(()) => continue,
                Err(TrySendError::Full(_)) => "too many messages wait",
                Err(TrySendError::Closed(_)) => "nothing is delivered any more",
            };
            let (alert, state) = (&message.alert, message.state.name());
            tracing::error!(receiver = name, alert, state, reason, "a message is not delivered");
            self.stats.failed(name, 1);
        }
    }

    /// Takes no more messages, and tries to deliver those that wait for no longer than `most`.
    pub async fn stop(&self, most: Duration) {
        self.stopping.send_replace(true);
        let deadline = tokio::time::Instant::now() + most;
        let workers = std::mem::take(&mut *self.workers.lock());
        for (name, mut worker) in workers {
            if tokio::time::timeout_at(deadline, &mut worker).await.is_ok() {
                continue;
            }
            worker.abort();
            // Those that wait, and the one that was being tried.
            let left = self.queues.get(&name).map_or(0, |queue| queue.max_capacity() - queue.capacity()) as u64 + 1;
            tracing::error!(receiver = name, left, "the process ends, and messages are not delivered");
            self.stats.failed(&name, left);
        }
    }
}

/// Delivers to one receiver.
struct Worker {
    receiver: Arc<dyn Receiver>,
    backoff: Backoff,
    stats: Arc<AlertStats>,
    stopping: watch::Receiver<bool>,
}

impl Worker {
    /// Until the stop, and then until nothing waits.
    async fn work(mut self, mut messages: mpsc::Receiver<Arc<Message>>) {
        loop {
            let message = tokio::select! {
                biased;
                message = messages.recv() => message,
                () = stopped(&mut self.stopping) => break,
            };
            match message {
                Some(message) => self.deliver(&message).await,
                None => return,
            }
        }
        messages.close();
        while let Some(message) = messages.recv().await {
            self.deliver(&message).await;
        }
    }

    async fn deliver(&mut self, message: &Message) {
        let mut attempt = 0;
        loop {
            attempt += 1;
            // A panic would end the worker, and this receiver would be told nothing any more.
            let sent = AssertUnwindSafe(self.receiver.send(message)).catch_unwind().await;
            let panicked = |_| Err(SendError { reason: "the receiver has panicked".to_owned(), is_final: false });
            let Err(error) = sent.unwrap_or_else(panicked) else {
                self.stats.sent(self.receiver.name());
                return;
            };
            let wait = self.backoff.wait(attempt, rand::random(), None).filter(|_| !error.is_final);
            self.tell(message, attempt, &error, wait.is_none());
            match wait {
                Some(wait) => self.rest(wait).await,
                None => {
                    self.stats.failed(self.receiver.name(), 1);
                    return;
                }
            }
        }
    }

    fn tell(&self, message: &Message, attempt: u32, error: &SendError, is_last: bool) {
        let (receiver, alert, state) = (self.receiver.name(), &message.alert, message.state.name());
        if is_last {
            tracing::error!(receiver, alert, state, attempt, %error, "a message is not delivered");
        } else {
            tracing::warn!(receiver, alert, state, attempt, %error, "a message is tried again");
        }
    }

    /// Waits; shorter when the process is about to end.
    async fn rest(&mut self, wait: Duration) {
        if *self.stopping.borrow() {
            tokio::time::sleep(wait.min(STOPPING_WAIT_MAX)).await;
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut self.stopping) => {}
        }
    }
}

/// Waits for the stop; a sender that is gone is one, too.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::alert::testing::Inbox;

    fn outbox(inbox: &Arc<Inbox>) -> (Outbox, Arc<AlertStats>) {
        let stats = Arc::new(AlertStats::default());
        let receivers: Vec<Arc<dyn Receiver>> = vec![Arc::clone(inbox) as _];
        (Outbox::start(&receivers, backoff(), &stats), stats)
    }

    fn message(n: u128) -> Message {
        Message::test(Uuid::from_u128(n), 0)
    }

    fn counts(stats: &AlertStats) -> (u64, u64) {
        let messages = stats.messages().get("inbox").copied().unwrap_or_default();
        (messages.sent, messages.failed)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_is_tried_again_under_the_same_key() {
        let inbox = Arc::new(Inbox::failing(2));
        let (outbox, stats) = outbox(&inbox);
        outbox.send(&[], message(1));
        inbox.wait_for(1).await;
        assert_eq!(inbox.keys_tried().len(), 3);
        assert!(inbox.keys_tried().iter().all(|key| *key == message(1).key));
        outbox.stop(Duration::from_secs(1)).await;
        assert_eq!(counts(&stats), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_an_attempt_that_failed() {
        let inbox = Arc::new(Inbox { panics: true, ..Inbox::failing(1) });
        let (outbox, stats) = outbox(&inbox);
        outbox.send(&[], message(1));
        outbox.send(&[], message(2));
        inbox.wait_for(2).await;
        assert_eq!(inbox.keys_tried(), [message(1).key, message(1).key, message(2).key]);
        outbox.stop(Duration::from_secs(1)).await;
        assert_eq!(counts(&stats), (2, 0));
        outbox.send(&[], message(3));
        assert_eq!(counts(&stats), (2, 1), "after the stop nobody takes any");
    }

    #[test]
    fn who_is_away_for_half_an_hour_is_told_after_that() {
        let waits = (1..backoff().attempts).filter_map(|attempt| backoff().wait(attempt, 0.5, None));
        let all: Duration = waits.sum();
        assert!((30..60).contains(&(all.as_secs() / 60)), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_tried_for_ever() {
        let inbox = Arc::new(Inbox::failing(u32::MAX));
        let (outbox, stats) = outbox(&inbox);
        outbox.send(&[], message(1));
        let all: Duration = (1..backoff().attempts).filter_map(|attempt| backoff().wait(attempt, 1.0, None)).sum();
        tokio::time::sleep(all + Duration::from_secs(1)).await;
        assert_eq!((inbox.keys_tried().len(), counts(&stats)), (backoff().attempts as usize, (0, 1)));
        outbox.stop(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_good_is_not_tried_again() {
        let inbox = Arc::new(Inbox { is_final: true, ..Inbox::failing(1) });
        let (outbox, stats) = outbox(&inbox);
        outbox.send(&[], message(1));
        outbox.send(&[], message(2));
        inbox.wait_for(1).await;
        assert_eq!(inbox.keys_tried(), [message(1).key, message(2).key]);
        outbox.stop(Duration::from_secs(1)).await;
        assert_eq!(counts(&stats), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn only_those_who_are_named_are_told() {
        let inbox = Arc::new(Inbox::failing(0));
        let (outbox, stats) = outbox(&inbox);
        outbox.send(&["somebody".to_owned()], message(1));
        outbox.send(&["inbox".to_owned()], message(2));
        outbox.stop(Duration::from_secs(1)).await;
        assert_eq!((inbox.keys_tried(), counts(&stats)), (vec![message(2).key], (1, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_nobody_wait_and_is_counted() {
        let inbox = Arc::new(Inbox::failing(u32::MAX));
        let (outbox, stats) = outbox(&inbox);
        for n in 0..QUEUE_MAX as u128 + 3 {
            outbox.send(&[], message(n));
        }
        assert_eq!(counts(&stats), (0, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_at_the_stop_is_delivered_if_that_is_quickly_done() {
        let inbox = Arc::new(Inbox::failing(3));
        let (outbox, stats) = outbox(&inbox);
        (0..5).for_each(|n| outbox.send(&[], message(n)));
        outbox.stop(Duration::from_secs(5)).await;
        assert_eq!(counts(&stats), (5, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_stop_does_not_wait_for_who_never_answers() {
        let inbox = Arc::new(Inbox { hangs: true, ..Inbox::failing(0) });
        let (outbox, stats) = outbox(&inbox);
        (0..5).for_each(|n| outbox.send(&[], message(n)));
        let start = tokio::time::Instant::now();
        outbox.stop(Duration::from_secs(5)).await;
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        assert_eq!(counts(&stats), (0, 5));
    }
}
