//! Keeping leases: a turn every now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use object_store::ObjectStore;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::plan::{Plan, Wanted, plan};
use super::store::{LeaseError, Objects};
use super::{DEAD_AFTER, Member};

/// Partitions taken in one turn: it must not last.
const TAKEN_MAX: usize = 16;

/// What has changed with a turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// Partitions that are this process's now.
    pub taken: BTreeSet<u32>,
    /// Partitions that another should have: end their work, then [`Keeper::release`] them.
    pub give_up: BTreeSet<u32>,
    /// Partitions that are another's: end their work.
    pub lost: BTreeSet<u32>,
}

/// The leases of one process in one role.
#[derive(Debug)]
pub struct Keeper {
    objects: Objects,
    me: Member,
    wanted: Wanted,
    held: BTreeMap<u32, u64>,
    /// What its caller knows of: a turn that failed halfway is told of with the next.
    told: BTreeSet<u32>,
    heard: Arc<Mutex<Heard>>,
}

/// What is known of a process's own signs of life.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    last: Option<Instant>,
    /// Since when they have come without a gap in which others may have taken it for dead.
    since: Option<Instant>,
}

/// Says that a process lives, whatever else it does meanwhile.
#[derive(Debug, Clone)]
pub struct Pulse {
    objects: Arc<Objects>,
    me: Member,
    only: Option<BTreeSet<u32>>,
    heard: Arc<Mutex<Heard>>,
}

impl Pulse {
    /// Says it once.
    ///
    /// # Errors
    /// [`LeaseError`]. When that goes on for [`DEAD_AFTER`], others take it for dead.
    pub async fn beat(&self) -> Result<(), LeaseError> {
        let begun = Instant::now();
        let said = timeout(DEAD_AFTER / 2, self.objects.live(&self.me, self.only.as_ref())).await;
        said.map_err(|_| LeaseError::Slow)??;
        let mut heard = self.heard.lock();
        // Others go by when the store has written them: the first as soon as it was said, the second not before it was taken.
        if heard.last.is_none_or(|last| last.elapsed() > DEAD_AFTER) {
            heard.since = Some(begun);
        }
        heard.last = Some(begun);
        Ok(())
    }
}

impl Keeper {
    /// A process that shares all partitions of a log with others.
    #[must_use]
    pub fn shared(store: Arc<dyn ObjectStore>, role: &str, me: Member, partitions: u32) -> Self {
        Self::new(store, role, me, Wanted::Shared(partitions))
    }

    /// A process that was told which partitions to take.
    #[must_use]
    pub fn fixed(store: Arc<dyn ObjectStore>, role: &str, me: Member, partitions: BTreeSet<u32>) -> Self {
        Self::new(store, role, me, Wanted::Fixed(partitions))
    }

    fn new(store: Arc<dyn ObjectStore>, role: &str, me: Member, wanted: Wanted) -> Self {
        Self {
            objects: Objects::new(store, role),
            me,
            wanted,
            held: BTreeMap::new(),
            told: BTreeSet::new(),
            heard: Arc::default(),
        }
    }

    /// The partitions that it has, with their epochs.
    #[must_use]
    pub const fn held(&self) -> &BTreeMap<u32, u64> {
        &self.held
    }

    /// What says that the process lives, every [`TURN_EVERY`](super::TURN_EVERY), beside everything else.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        let only = self.wanted.only().cloned();
        Pulse { objects: Arc::new(self.objects.clone()), me: self.me.clone(), only, heard: Arc::clone(&self.heard) }
    }

    /// Looks around, and takes what it should have and is free. What it has to give up is told again until it is released.
    /// Its [`Pulse`] has to beat meanwhile.
    ///
    /// # Errors
    /// [`LeaseError`]: what has changed all the same, the next turn says.
    pub async fn turn(&mut self) -> Result<Turn, LeaseError> {
        let give_up = timeout(DEAD_AFTER / 2, self.look_round()).await.map_err(|_| LeaseError::Slow)??;
        let held: BTreeSet<u32> = self.held.keys().copied().collect();
        let turn = Turn { taken: &held - &self.told, give_up, lost: &self.told - &held };
        self.told = held;
        Ok(turn)
    }

    /// The partitions to be given up.
    async fn look_round(&mut self) -> Result<BTreeSet<u32>, LeaseError> {
        if self.heard.lock().last.is_none() {
            self.pulse().beat().await?;
        }
        let mut seen = self.objects.see(Some(self.me.id)).await?;
        // After the store was away, whoever comes back first finds that nobody else has said anything for long.
        let since = self.heard.lock().since;
        seen.dead_known = since.is_some_and(|since| since.elapsed() > DEAD_AFTER);
        let Plan { take, give_up, lost } = plan(self.me.id, &self.wanted, &self.held, &seen);
        self.held.retain(|partition, _| !lost.contains(partition));
        for (partition, epoch) in take.into_iter().take(TAKEN_MAX) {
            if self.objects.take(partition, epoch, &self.me).await? {
                self.held.insert(partition, epoch);
                if let Err(error) = self.objects.forget(partition, epoch).await {
                    tracing::debug!(partition, %error, "old leases stay for now");
                }
            }
        }
        Ok(give_up)
    }

    /// Lets go of a partition whose work has ended.
    ///
    /// # Errors
    /// [`LeaseError`]: it still has it.
    pub async fn release(&mut self, partition: u32) -> Result<(), LeaseError> {
        if let Some(epoch) = self.held.get(&partition) {
            self.objects.release(partition, *epoch).await?;
            self.held.remove(&partition);
            self.told.remove(&partition);
        }
        Ok(())
    }

    /// Lets go of everything; the process ends.
    ///
    /// # Errors
    /// [`LeaseError`]: others have to find out by themselves.
    pub async fn leave(&mut self) -> Result<(), LeaseError> {
        for partition in self.held.clone().into_keys() {
            self.release(partition).await?;
        }
        self.objects.leave(self.me.id, self.wanted.only()).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use object_store::memory::InMemory;
    use uuid::Uuid;

    use super::super::Lookout;
    use super::*;

    const PARTITIONS: u32 = 8;

    fn member(number: u128) -> Member {
        Member { id: Uuid::from_u128(number), address: format!("host-{number}:1") }
    }

    #[tokio::test]
    async fn partitions_are_shared_and_handed_over() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut one = Keeper::shared(Arc::clone(&store), "stream", member(1), PARTITIONS);
        assert_eq!(one.turn().await.unwrap().taken.len(), PARTITIONS as usize);
        let mut two = Keeper::shared(Arc::clone(&store), "stream", member(2), PARTITIONS);
        assert_eq!(two.turn().await.unwrap(), Turn::default(), "all are taken");
        let turn = one.turn().await.unwrap();
        assert!(!turn.give_up.is_empty() && turn.lost.is_empty() && turn.taken.is_empty(), "{turn:?}");
        assert_eq!(one.turn().await.unwrap().give_up, turn.give_up, "until they are released");
        for partition in &turn.give_up {
            one.release(*partition).await.unwrap();
        }
        assert_eq!(two.turn().await.unwrap().taken, turn.give_up);
        let holders = Lookout::new(Arc::clone(&store), "stream", PARTITIONS).look().await.unwrap();
        for (partition, holder) in (0..).zip(holders) {
            let expected = if turn.give_up.contains(&partition) { member(2) } else { member(1) };
            assert_eq!(holder.unwrap().member, expected);
        }
        one.leave().await.unwrap();
        assert_eq!(two.turn().await.unwrap().taken.len() + turn.give_up.len(), PARTITIONS as usize);
        assert_eq!(two.held().len(), PARTITIONS as usize);
        assert!(
            Lookout::new(store, "archive", PARTITIONS).look().await.unwrap().iter().all(Option::is_none),
            "roles are apart"
        );
    }

    #[tokio::test]
    async fn of_two_who_take_the_same_one_has_it() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let own = BTreeSet::from([3]);
        let mut one = Keeper::fixed(Arc::clone(&store), "stream", member(1), own.clone());
        let mut two = Keeper::fixed(Arc::clone(&store), "stream", member(2), own.clone());
        let (one, two) = (one.turn().await.unwrap(), two.turn().await.unwrap());
        assert_eq!((one.taken, two.taken), (own, BTreeSet::new()));
    }
}
