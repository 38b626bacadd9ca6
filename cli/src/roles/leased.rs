//! Working on the partitions that a process has the leases of.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use reckon_data::lease::{Keeper, Pulse, TURN_EVERY, Turn};
use tokio::sync::watch;

use super::partitions::Partitions;

/// Work on single partitions.
#[async_trait]
pub trait Work: Send + Sync {
    /// Begins with a partition, from where the tables say that it is, unless it is being worked on. When it cannot, it says why to
    /// whoever asks how the process is.
    async fn begin(&self, partition: u32);

    /// Ends the work on a partition; does nothing if there is none.
    async fn end(&self, partition: u32);

    /// Partitions whose work has ended by itself.
    fn ended(&self) -> BTreeSet<u32>;
}

/// Keeps leases and works on what they give, until it is told to stop; then lets go of everything.
pub async fn work(mut keeper: Keeper, work: Arc<dyn Work>, mut stop: watch::Receiver<bool>) {
    let living = tokio::spawn(live(keeper.pulse()));
    while !*stop.borrow_and_update() {
        turn(&mut keeper, &*work).await;
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            () = tokio::time::sleep(TURN_EVERY) => {}
        }
    }
    end_all(keeper.held().clone().into_keys(), &*work).await;
    living.abort();
    if let Err(error) = keeper.leave().await {
        tracing::warn!(%error, "others will find out that this process is gone");
    }
}

async fn turn(keeper: &mut Keeper, work: &dyn Work) {
    match keeper.turn().await {
        Ok(turn) => follow(turn, keeper, work).await,
        // It goes on meanwhile: what is another's by then, its commits will tell.
        Err(error) => tracing::warn!(%error, "leases are looked at again"),
    }
}

/// Says that the process lives, however long it takes to begin or to end work.
async fn live(pulse: Pulse) {
    loop {
        if let Err(error) = pulse.beat().await {
            tracing::warn!(%error, "others may take this process for dead");
        }
        tokio::time::sleep(TURN_EVERY).await;
    }
}

/// Works on partitions whoever has their leases, until it is told to stop. What ends by itself is not begun again.
pub async fn work_anyway(partitions: Partitions, work: Arc<dyn Work>, mut stop: watch::Receiver<bool>) {
    join_all(partitions.numbers().map(|partition| work.begin(partition))).await;
    while !*stop.borrow_and_update() {
        end_all(work.ended(), &*work).await;
        tokio::select! {
            _ = stop.changed() => {}
            () = tokio::time::sleep(TURN_EVERY) => {}
        }
    }
    end_all(partitions.numbers(), &*work).await;
}

async fn follow(turn: Turn, keeper: &mut Keeper, work: &dyn Work) {
    if !turn.lost.is_empty() {
        tracing::warn!(partitions = ?turn.lost, "another process has these partitions now");
    }
    end_all(turn.lost, work).await;
    let given_up: BTreeSet<u32> = turn.give_up.union(&work.ended()).copied().collect();
    end_all(given_up.iter().copied(), work).await;
    release(given_up, keeper).await;
    // What it holds and does not work on it begins, and tries again every turn: others would hardly fare better.
    join_all(keeper.held().keys().map(|partition| work.begin(*partition))).await;
}

async fn end_all(partitions: impl IntoIterator<Item = u32>, work: &dyn Work) {
    join_all(partitions.into_iter().map(|partition| work.end(partition))).await;
}

async fn release(partitions: BTreeSet<u32>, keeper: &mut Keeper) {
    for partition in partitions {
        if let Err(error) = keeper.release(partition).await {
            tracing::warn!(partition, %error, "the lease is let go of next time");
        }
    }
}
