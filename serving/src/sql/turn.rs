//! The turn of a query whose rows somebody reads: lent to others while the reader lets it wait, so that a few cursors that
//! nobody fetches from do not keep everybody else from asking.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::ServingError;

/// So long a reader may take before the turn is lent.
const LEND_AFTER: Duration = Duration::from_millis(500);

/// A turn that can be lent.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Semaphore>,
    /// Queries that may wait for their readers without a turn: each keeps its memory meanwhile.
    idle: Arc<Semaphore>,
    own: Option<OwnedSemaphorePermit>,
    /// How long it may take to get it back.
    patience: Duration,
}

impl Turn {
    /// A turn of `turns`, which `own` is one of.
    #[must_use]
    pub const fn new(
        turns: Arc<Semaphore>,
        idle: Arc<Semaphore>,
        own: OwnedSemaphorePermit,
        patience: Duration,
    ) -> Self {
        Self { turns, idle, own: Some(own), patience }
    }

    /// Waits for the reader. When that takes long the turn is lent, as soon as there is room, and waited for again afterwards.
    ///
    /// # Errors
    /// [`ServingError::Unavailable`] when it cannot be had again in time.
    pub async fn wait<T>(&mut self, reader: impl Future<Output = T>) -> Result<T, ServingError> {
        let mut reader = pin!(reader);
        if let Ok(read) = timeout(LEND_AFTER, reader.as_mut()).await {
            return Ok(read);
        }
        let _room = tokio::select! {
            biased;
            read = reader.as_mut() => return Ok(read),
            room = Arc::clone(&self.idle).acquire_owned() => room.map_err(ServingError::internal)?,
        };
        self.own = None;
        let read = reader.await;
        let again = timeout(self.patience, Arc::clone(&self.turns).acquire_owned()).await;
        let busy = || ServingError::unavailable("too many queries are running to go on with this one");
        self.own = Some(again.map_err(|_| busy())?.map_err(ServingError::internal)?);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_lent_while_its_reader_is_waited_for() {
        let (turns, idle) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let own = Arc::clone(&turns).try_acquire_owned().unwrap();
        let mut turn = Turn::new(Arc::clone(&turns), Arc::clone(&idle), own, Duration::from_secs(60));
        assert_eq!(turn.wait(async { 7 }).await.unwrap(), 7);
        assert_eq!(turns.available_permits(), 0, "a quick reader gets nothing lent");
        let slow = turn.wait(tokio::time::sleep(Duration::from_secs(10)));
        let other = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let lent = turns.acquire().await.unwrap();
            assert_eq!(idle.available_permits(), 0, "as long as it is lent, its place among the idle is taken");
            tokio::time::sleep(Duration::from_secs(30)).await;
            drop(lent);
        };
        let begin = tokio::time::Instant::now();
        let (read, ()) = tokio::join!(slow, other);
        read.unwrap();
        assert_eq!((begin.elapsed().as_secs(), turns.available_permits(), idle.available_permits()), (31, 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_stays_where_too_many_wait_already() {
        let (turns, idle) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(0)));
        let own = Arc::clone(&turns).try_acquire_owned().unwrap();
        let mut turn = Turn::new(Arc::clone(&turns), idle, own, Duration::from_secs(60));
        let held = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            turns.available_permits()
        };
        let (read, free) = tokio::join!(turn.wait(tokio::time::sleep(Duration::from_secs(10))), held);
        read.unwrap();
        assert_eq!(free, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_lent_as_soon_as_fewer_wait() {
        let (turns, idle) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(0)));
        let own = Arc::clone(&turns).try_acquire_owned().unwrap();
        let mut turn = Turn::new(Arc::clone(&turns), Arc::clone(&idle), own, Duration::from_secs(60));
        let others = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            idle.add_permits(1);
            tokio::time::sleep(Duration::from_secs(1)).await;
            turns.available_permits()
        };
        let (read, free) = tokio::join!(turn.wait(tokio::time::sleep(Duration::from_secs(10))), others);
        read.unwrap();
        assert_eq!((free, turns.available_permits(), idle.available_permits()), (1, 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_back_is_an_error() {
        let (turns, idle) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let own = Arc::clone(&turns).try_acquire_owned().unwrap();
        let mut turn = Turn::new(Arc::clone(&turns), idle, own, Duration::from_secs(60));
        let slow = turn.wait(tokio::time::sleep(Duration::from_secs(10)));
        let greedy = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            turns.acquire().await.unwrap().forget();
        };
        let (read, ()) = tokio::join!(slow, greedy);
        assert!(matches!(read, Err(ServingError::Unavailable { .. })), "{read:?}");
    }
}
